"""A sweep run to its end: what is missing is measured, kept task by task, and merged into one table."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from lee.errors import DamageWarning, InputError, nearest
from lee.sweep.execution import Executor
from lee.sweep.spec import Measurement, SweepSpec
from lee.sweep.table import DamagedTable, Part, encode, read, salvaged, write
from lee.sweep.tasks import Task, forget, images_of, of_data, plan

#: The file in the folder of finished tasks that one run at a time holds.
LOCK = "lock"


@dataclass(frozen=True)
class Report:
    """What a run did.

    Args:
        out: the table.
        measured: how many tasks were measured, failed ones included.
        kept: how many were there already.
        failures: model, measurement and error of every task in the table that failed.
        seconds: wall time.
        unloaded: models that can't be loaded here and were measured before, with the weights; their rows are kept.
    """

    out: Path
    measured: int
    kept: int
    failures: tuple[tuple[str, str, str], ...] = field(repr=False)
    seconds: float
    unloaded: tuple[str, ...] = ()


def run(
    spec: SweepSpec,
    out: Path,
    executor: Executor,
    *,
    limit: str | None = None,
    retry: bool = False,
    prune: bool = False,
    progress: bool = True,
) -> Report:
    """Measure what the table lacks, and write the table.

    Models are loaded, and fetched where need be, one after the other, each when its turn has come. Each finished task is
    at once kept as a file below `OUT.tasks`, under a name that all its numbers follow from. Started again after whatever
    interruption, a sweep measures only the tasks that were in flight; rows of the table whose task is still wanted are
    never measured again.

    Args:
        spec: what to measure.
        out: the Parquet file.
        executor: where tasks run, see :func:`executor`.
        limit: only models that match this pattern are looked at; rows of others stay as they are.
        retry: measure tasks again that failed before.
        prune: remove rows that the specification doesn't ask for.
        progress: show a bar with rate and remaining time.

    Raises:
        InputError: a data set can't be read, the disk is full, another run writes to the same table, or the table is of
            another schema, or has rows of models or measurements that the specification doesn't name.
    """
    began = time.perf_counter()
    models = _limited(spec.models, limit)
    with _alone(out) as folder:
        merged = _merged(out)
        if not prune:
            _refuse_others(merged, spec, out)
        forget()
        work = _Work(models, spec.measurements, merged, folder, retry)
        measured = _carried_out(work, executor, folder, progress)
        forget()
        others = {key: part for key, part in merged.items() if limit and part.described["model"] not in models}
        parts = [*others.values(), *(part.of_family(work.families[key]) for key, part in work.done.items())]
        content = encode(parts)
        if not out.exists() or out.read_bytes() != content:
            write(content, out)
        _tidy(folder, None if limit is None else set(work.families))
    failures = [(p.described["model"], p.described["measurement"], p.described["error"]) for p in parts if p.failed]
    seconds = time.perf_counter() - began
    return Report(out, measured, len(work.families) - measured, tuple(failures), seconds, tuple(work.unloaded))


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
    """The folder of finished tasks, with the only right to write there, if no other run has it; a crash gives the right back."""
    folder = out.with_name(f"{out.name}.tasks")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK).acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"Another `lee sweep` is writing {out}. Wait for it, or choose another --out.") from error
    except OSError as error:
        raise InputError(f"{folder} can't be written to: {error.strerror}.") from error
    with held:
        for left in (*folder.glob(".*.tmp"), *out.parent.glob(f".{out.name}.*.tmp")):  # of a run that was killed
            left.unlink(missing_ok=True)
        yield folder


def _merged(out: Path) -> dict[str, Part]:
    """What is in the table already; where it is damaged, the tasks that are not."""
    if not out.exists():
        return {}
    try:
        return read(out)
    except DamagedTable:
        found = salvaged(out)
        warnings.warn(
            f"{out} is damaged: {len(found)} of its tasks are still as they were, the others are measured again.",
            DamageWarning,
            stacklevel=2,
        )
        return found


def _refuse_others(merged: dict[str, Part], spec: SweepSpec, out: Path) -> None:
    """Refuse a table with rows that would be lost, as of another specification."""
    wanted = {(model, way.name) for model in spec.models for way in spec.measurements}
    found = [(part.described["model"], part.described["measurement"]) for part in merged.values()]
    if others := [row for row in found if row not in wanted]:
        raise InputError(
            f"{out} has {len(others)} of {len(found)} tasks that the specification doesn't name, such as {others[0][1]!r} of "
            f"{others[0][0]}. Choose another --out, or remove them with --prune."
        )


class _Work:
    """The tasks of a run, planned model by model as they are asked for; those that are done already are passed over."""

    def __init__(
        self, models: Sequence[str], ways: Sequence[Measurement], merged: dict[str, Part], folder: Path, retry: bool
    ) -> None:
        self.models, self.ways, self.merged, self.folder, self.retry = models, ways, merged, folder, retry
        self.families: dict[str, str] = {}  # of the tasks so far, by their keys
        self.done: dict[str, Part] = {}  # the finished ones among them
        self.unloaded: dict[str, None] = {}  # models of the table, with weights, that can't be loaded here, in order

    @property
    def passes(self) -> int:
        """How much there is to do if nothing is done."""
        return len(self.models) * sum(_passes(way) for way in self.ways)

    def missing(self, bar: "tqdm[Any]") -> Iterator[Task]:
        """The tasks that are still to be measured; what isn't is taken off the bar."""
        for task in plan(_told(self.models, bar), self.ways):
            before = self._of_another_machine(task)
            key = task.key if before is None else before.key
            new = key not in self.families
            self.families[key] = task.family
            part = (before or self._found(task)) if new else None
            if new and (part is None or (self.retry and part.failed)):
                yield task
                continue
            if part is not None:
                self.done[key] = part
            bar.total = (bar.total or 0) - _passes(task.measurement)
            bar.refresh()

    def _of_another_machine(self, task: Task) -> Part | None:
        """What the table has of a model that can't be loaded here: its weights lie, or its package is, somewhere else.

        Not of a user's factory, whose source is a part of the key: what the table has may be of another source.
        """
        if task.weights_sha256 or (":" in task.model and not task.model.startswith("lee.")):
            return None
        apart = ("weights_sha256", "images_sha256", "family")
        told = {name: value for name, value in task.described.items() if name not in apart}
        chosen = task.measurement.generators
        for part in self.merged.values():
            basis = chosen == () or list(chosen or ()) == part.described["basis"]
            same = not part.failed and basis and told.items() <= part.described.items()
            if same and _has_images(part, task):
                self.unloaded[f"{task.model}, {task.measurement.weights}"] = None
                return part
        return None

    def _found(self, task: Task) -> Part | None:
        """What an interrupted run has left, or the table has; a file that can't be read counts as none."""
        path, found = self.folder / f"{task.key}.parquet", None
        try:
            found = read(path).get(task.key) if path.is_file() else None
        except InputError:
            path.unlink()
        found = found or self.merged.get(task.key)
        return found if found is not None and _has_images(found, task) else None


def _has_images(part: Part, task: Task) -> bool:
    """Whether a part is of the images that there are now, with their labels; its key is of the pixels of some alone.

    Tables from before this was recorded have the labels.
    """
    if "images_sha256" in part.described:
        return bool(part.described["images_sha256"] == task.images_sha256)
    if part.failed or len(part.rows) == 0:
        return True
    labels = images_of(*of_data(task.measurement)).labels
    column = part.rows["label"] if "label" in part.rows.column_names else None
    if column is None or column.null_count == len(column):
        return labels is None
    return labels is not None and column.to_pylist() == labels.tolist()


def _passes(way: Measurement) -> int:
    """What a measurement of one model costs; 1000 images where all are taken, for want of a count."""
    return (way.n or 1000) * way.passes


def _told(models: Sequence[str], bar: "tqdm[Any]") -> Iterator[str]:
    """The models in turn, each named on the bar while it is loaded or fetched."""
    for name in models:
        bar.set_description(f"{name}, weights")
        yield name


def _carried_out(work: _Work, executor: Executor, folder: Path, progress: bool) -> int:
    """Measure what is missing, and keep each task as a file as soon as it is finished; how many there were."""
    measured = failures = 0
    with tqdm(total=work.passes, unit="pass", unit_scale=True, disable=not progress, leave=False) as bar:
        for task, content in executor(work.missing(bar)):
            path = folder / f"{task.key}.parquet"
            write(content, path)
            work.done[task.key] = part = read(path)[task.key]
            measured += 1
            failures += part.failed
            bar.set_description(f"{task.model}, {task.measurement.name}" + (f", {failures} failed" * bool(failures)))
            bar.update(_passes(task.measurement))
            bar.leave = True
    return measured


def _tidy(folder: Path, merged: set[str] | None) -> None:
    """Remove the files of tasks that are in the table now; None for all files, as nobody wants the others any more."""
    for path in folder.glob("*.parquet"):
        if merged is None or path.stem in merged:
            path.unlink()
    (folder / LOCK).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
