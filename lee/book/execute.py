"""Run chapters through papermill, several at a time, into a copy of the book."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import nbformat

from lee.book.layout import COPY, find_root, select
from lee.book.profiles import load_profile, plan
from lee.errors import InputError, LeeError

KERNEL = "python3"  # whatever the notebook says: the kernel of this environment
CELL_TIMEOUT = 1800  # seconds
COPY_MARK = ".made-by-lee-book"

Progress = Callable[[str, Literal["started", "done", "failed"], float], None]
"""Called with the chapter, what happened to it and the seconds it has taken."""


class ChapterError(LeeError):
    """A cell of a chapter raised.

    Args:
        chapter: The chapter's name.
        cell: The cell's number in the notebook, from 1, Markdown cells included; 0 if it can't be told.
        error: Name and message of the exception.
        partial: Where the notebook with the traceback lies, if it was kept.
    """

    def __init__(self, chapter: str, cell: int, error: str, partial: Path | None = None) -> None:
        self.chapter, self.cell, self.error, self.partial = chapter, cell, error, partial
        where = f" The notebook up to there is {partial}." if partial else ""
        super().__init__(f"Chapter {chapter} stopped at cell {cell}: {error}.{where}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.chapter, self.cell, self.error, self.partial)


@dataclass(frozen=True)
class Executed:
    """A chapter that has run: its name, the notebook with its outputs, and how long it took in seconds."""

    chapter: str
    path: Path
    seconds: float


def prepare(root: Path, out: Path) -> None:
    """Make `out` a fresh copy of the book's sources; an earlier copy there is removed.

    Raises:
        InputError: If `out` holds something else than an earlier copy.
    """
    if out.resolve() in (root.resolve(), *root.resolve().parents):
        raise InputError(f"The book can't be copied over itself: choose another folder than {out}.")
    if out.exists() and any(out.iterdir()) and not (out / COPY_MARK).is_file():
        raise InputError(f"{out} holds something else than a copy of the book: choose an empty folder.")
    shutil.rmtree(out, ignore_errors=True)
    skip = shutil.ignore_patterns(".ipynb_checkpoints", "*.failed.ipynb")
    shutil.copytree(root / "book", out / "book", ignore=skip)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copyfile(root / name, out / name)
    (out / COPY_MARK).write_text("Made by `lee book`; removed and made again by its next run.\n")


def execute(
    profile: str = "quick",
    chapters: Sequence[str] | None = None,
    *,
    root: Path | None = None,
    out: Path | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> list[Executed]:
    """Execute chapters on a fresh copy of the book.

    Args:
        profile: Name of a file in `book/profiles/`, or the path of another such file.
        chapters: Names or numbers of the chapters to run, all by default; others keep their committed outputs.
        root: The repository; found from the current directory by default.
        out: The copy, `_build/book-src` below the root by default.
        workers: Chapters that run at the same time.
        progress: Told when a chapter starts and ends.

    Returns:
        The chapters that have run, in reading order.

    Raises:
        InputError: If a profile, chapter or parameter is unknown; nothing has run then.
        ChapterError: If a cell raises. No further chapter is started; those already running are finished.
    """
    root = find_root() if root is None else root
    out = root / COPY if out is None else out
    if workers < 1:
        raise InputError(f"`workers` must be at least 1; got {workers}.")
    wanted = select(root, chapters)
    parameters = plan(load_profile(profile, root), select(root, None))
    prepare(root, out)
    name = Path(profile).stem
    jobs = {path.stem: (path, out / "book" / path.name, parameters[path], name) for path in wanted}
    done = _run_all(jobs, workers, progress or (lambda *_: None))
    return [done[path.stem] for path in wanted]


def _run_all(
    jobs: Mapping[str, tuple[Path, Path, dict[str, Any], str]], workers: int, progress: Progress
) -> dict[str, Executed]:
    waiting, running, done = list(jobs), dict[Future[float], tuple[str, float]](), dict[str, Executed]()
    failure: ChapterError | None = None
    # Fresh processes: a fork of one that has imported torch may hang in its threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while running or (waiting and failure is None):
            while waiting and len(running) < workers and failure is None:
                name = waiting.pop(0)
                progress(name, "started", 0.0)
                running[pool.submit(run_chapter, *jobs[name])] = name, time.monotonic()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, start = running.pop(future)
                seconds = time.monotonic() - start
                try:
                    done[name] = Executed(name, jobs[name][1], future.result())
                except ChapterError as error:
                    failure = failure or error
                progress(name, "done" if name in done else "failed", seconds)
    if failure is not None:
        raise failure
    return done


def run_chapter(source: Path, target: Path, parameters: Mapping[str, Any], profile: str) -> float:
    """Execute one notebook; `target` appears, whole, when every cell has run. Returns the seconds it took.

    Raises:
        ChapterError: If a cell raises; the notebook so far is kept beside `target` as `NAME.failed.ipynb`.
    """
    import papermill

    start = time.monotonic()
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".running-") as folder:
        part = Path(folder) / target.name
        try:
            papermill.execute_notebook(
                str(source),
                str(part),
                parameters=dict(parameters),
                kernel_name=KERNEL,
                cwd=folder,
                progress_bar=False,
                execution_timeout=CELL_TIMEOUT,
            )
        except papermill.PapermillExecutionError as error:
            os.replace(part, failed)
            cell = _number_of_failed_cell(failed)
            raise ChapterError(source.stem, cell, f"{error.ename}: {error.evalue}", failed) from None
        except Exception as error:  # a kernel that died or a cell that took too long
            kept = _keep(part, failed)
            raise ChapterError(source.stem, 0, f"{type(error).__name__}: {error}", kept) from None
        seconds = time.monotonic() - start
        _sign(part, profile, seconds)
        os.replace(part, target)
    return seconds


def _keep(part: Path, failed: Path) -> Path | None:
    if not part.is_file():
        return None
    os.replace(part, failed)
    return failed


def _number_of_failed_cell(notebook: Path) -> int:
    """Position, from 1, of the cell with an error, not counting the cells that papermill has added."""
    cells = nbformat.read(notebook, as_version=4).cells
    own = [
        c
        for c in cells
        if not {"injected-parameters", "papermill-error-cell-tag"} & set(c.metadata.get("tags", []))
    ]
    for number, cell in enumerate(own, start=1):
        if any(o.output_type == "error" for o in cell.get("outputs", [])):
            return number
    return 0


def _sign(notebook: Path, profile: str, seconds: float) -> None:
    """Write into the notebook how it was executed; the execution status page reads it."""
    content = nbformat.read(notebook, as_version=4)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    content.metadata["lee"] = {"profile": profile, "seconds": round(seconds, 1), "executed": when}
    nbformat.write(content, notebook)
