"""A sweep run to its end: what is missing is measured, kept task by task, and merged into one table."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tqdm.auto import tqdm

from lee.errors import InputError, nearest
from lee.sweep.execution import Executor, Lost
from lee.sweep.measuring import failed
from lee.sweep.spec import SweepSpec
from lee.sweep.table import Part, encode, read, write
from lee.sweep.tasks import Task, forget, plan

#: The file in the folder of finished tasks that one run at a time holds.
LOCK = "lock"


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        out: the table.
        measured: how many tasks were measured, failed ones included.
        kept: how many were there already.
        failures: model, measurement and error of every task in the table that failed.
        seconds: wall time.
    """

    out: Path
    measured: int
    kept: int
    failures: tuple[tuple[str, str, str], ...] = field(repr=False)
    seconds: float


def run(
    spec: SweepSpec,
    out: Path,
    executor: Executor,
    *,
    limit: str | None = None,
    retry: bool = False,
    progress: bool = True,
) -> Report:
    """Measure what the table lacks, and write the table.

    Each finished task is at once kept as a file below `OUT.tasks`, under a name that all its numbers follow from. Started
    again after whatever interruption, a sweep measures only the tasks that were in flight; rows of the table
    whose task is still wanted are never measured again.

    Args:
        spec: what to measure.
        out: the Parquet file.
        executor: where tasks run, see :mod:`lee.sweep.execution`.
        limit: only models that match this pattern are looked at; rows of others stay as they are.
        retry: measure tasks again that failed before.
        progress: show a bar with rate and remaining time.

    Raises:
        InputError: a data set can't be read, the disk is full, another run writes to the same table, or the table is of
            another schema.
    """
    began = time.perf_counter()
    models = _limited(spec.models, limit)
    with _alone(out) as folder:
        merged = read(out) if out.exists() else {}
        forget()
        wanted = list(plan(models, spec.measurements))
        done = {**merged, **_finished(folder, wanted)}
        missing = [task for task in wanted if task.key not in done or (retry and done[task.key].failed)]
        for task, part in _measured(missing, executor, folder, progress):
            done[task.key] = part
        families = {task.key: task.family for task in wanted}
        others = {key for key, part in merged.items() if part.described["model"] not in models} if limit else set()
        parts = [
            done[key].of_family(families.get(key, done[key].described["family"])) for key in done
            if key in families or key in others
        ]  # fmt: skip
        forget()
        _merge(parts, out)
        _tidy(folder, None if limit is None else {task.key for task in wanted})
    failures = [(p.described["model"], p.described["measurement"], p.described["error"]) for p in parts if p.failed]
    seconds = time.perf_counter() - began
    return Report(out, len(missing), len(wanted) - len(missing), tuple(failures), seconds)


def _limited(models: Sequence[str], limit: str | None) -> list[str]:
    """The models that match a pattern, with or without `zoo/`."""
    if limit is None:
        return list(models)
    found = [name for name in models if any(fnmatchcase(name, pattern) for pattern in (limit, f"zoo/{limit}"))]
    if not found:
        raise InputError(f"No model of the sweep matches {limit!r}.{nearest(limit, models)}")
    return found


@contextmanager
def _alone(out: Path) -> Iterator[Path]:
    """The folder of finished tasks, with the only right to write there; a crash gives the right back.

    Raises:
        InputError: another run has it, or the folder can't be made.
    """
    folder = out.with_name(f"{out.name}.tasks")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(f"{folder} can't be written to: {error.strerror}.") from error
    with lock:
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            pass
        else:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.stat(folder / LOCK)  # the other run may just have ended and removed it
            except OSError as error:
                raise InputError(
                    f"Another `lee sweep` is writing {out}. Wait for it, or choose another --out."
                ) from error
        for left in (*folder.glob(".*.tmp"), *out.parent.glob(f".{out.name}.*.tmp")):  # of a run that was killed
            left.unlink(missing_ok=True)
        yield folder


def _finished(folder: Path, wanted: Sequence[Task]) -> dict[str, Part]:
    """The wanted tasks that an interrupted run has left; a file that can't be read counts as none."""
    found: dict[str, Part] = {}
    for task in wanted:
        path = folder / f"{task.key}.parquet"
        try:
            found |= read(path) if path.is_file() else {}
        except InputError:
            path.unlink()
    return found


def _measured(tasks: Sequence[Task], executor: Executor, folder: Path, progress: bool) -> Iterator[tuple[Task, Part]]:
    """Tasks as they are finished, each kept as a file before it is given out."""
    passes = {task.key: task.images * task.measurement.passes for task in tasks}
    failures = 0
    with tqdm(total=sum(passes.values()), unit="pass", unit_scale=True, disable=not progress or not tasks) as bar:
        for task, content in executor(tasks):
            path = folder / f"{task.key}.parquet"
            write(encode([failed(task, content.message)]) if isinstance(content, Lost) else content, path)
            part = read(path)[task.key]
            failures += part.failed
            bar.set_description(f"{task.model}, {task.measurement.name}" + (f", {failures} failed" * bool(failures)))
            bar.update(passes[task.key])
            yield task, part


def _merge(parts: Sequence[Part], out: Path) -> None:
    """Write the table, unless it is there already, byte for byte."""
    content = encode(parts)
    if not out.exists() or out.read_bytes() != content:
        write(content, out)


def _tidy(folder: Path, merged: set[str] | None) -> None:
    """Remove the files of tasks that are in the table now; None for all files, as nobody wants the others any more."""
    for path in folder.glob("*.parquet"):
        if merged is None or path.stem in merged:
            path.unlink()
    (folder / LOCK).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
