"""Run chapters through papermill, several at a time, into a copy of the book."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import nbformat
import yaml

from lee.book.layout import COPY, find_root, only_one, read, select
from lee.book.layout import chapters as every_chapter
from lee.book.profiles import load_profile, plan
from lee.errors import InputError, LeeError
from lee.process.children import Children, Stopped

KERNEL = "python3"  # whatever the notebook says: the kernel of this environment
CELL_TIMEOUT = 1800  # seconds
COPY_MARK = ".made-by-lee-book"

Job = tuple[Path, Path, dict[str, Any], str]  # source, target, parameters, the profile's name

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


@dataclass(frozen=True)
class Executed:
    """A chapter that has run.

    Args:
        chapter: Its file's stem.
        path: The notebook with its outputs.
        seconds: Wall time.
    """

    chapter: str
    path: Path
    seconds: float


def prepare(root: Path, out: Path) -> None:
    """Make `out` a fresh copy of the book's sources; an earlier copy there is removed.

    Args:
        root: The folder with `_toc.yml` and `book/`.
        out: Where the copy goes.

    Raises:
        InputError: If `out` holds something else than an earlier copy or can't be written to, or a notebook is broken.
    """
    for notebook in every_chapter(root):
        read(notebook)
    out = out.resolve()  # what is removed is an earlier copy, not a link to it
    if out in (root.resolve(), *root.resolve().parents) or out.is_relative_to((root / "book").resolve()):
        raise InputError(f"The book can't be copied over or into itself: choose another folder than {out}.")
    if out.exists() and any(out.iterdir()) and not (out / COPY_MARK).is_file():
        raise InputError(f"{out} holds something else than a copy of the book: choose an empty folder.")
    shutil.rmtree(out, ignore_errors=True)
    skip = shutil.ignore_patterns(".ipynb_checkpoints", "*.failed.ipynb")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / COPY_MARK).write_text("Made by `lee book`; removed and made again by its next run.\n")
        shutil.copytree(root / "book", out / "book", ignore=skip)
        for name in ("_config.yml", "_toc.yml"):
            shutil.copyfile(root / name, out / name)
    except OSError as error:  # of shutil's own the text is a list of what could not be copied
        raise InputError(f"The copy of the book can't be written to {out}: {error.strerror or error}.") from error


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
        chapters: Names or numbers of the chapters to run, all by default. Others stay as committed.
        root: The repository; found from the current directory by default.
        out: The copy, `_build/book-src` below the root by default.
        workers: Chapters that run at the same time.
        progress: Told when a chapter starts and ends.

    Returns:
        The chapters that have run, in reading order.

    Raises:
        InputError: If a profile, chapter or parameter is unknown, or another process is at it; nothing has run then.
        ChapterError: If a cell raises. No further chapter is started; those already running are finished.
    """
    root = find_root() if root is None else root
    out = root / COPY if out is None else out
    if workers < 1:
        raise InputError(f"`workers` must be at least 1; got {workers}.")
    wanted = select(root, chapters)
    parameters = plan(load_profile(profile, root), select(root, None))
    name = Path(profile).stem
    jobs = {path.stem: (path, out / "book" / path.name, parameters[path], name) for path in wanted}
    with only_one(root):
        prepare(root, out)
        done = _run_all(jobs, workers, progress or (lambda *_: None))
    return [done[path.stem] for path in wanted]


def _run_all(jobs: Mapping[str, Job], workers: int, progress: Progress) -> dict[str, Executed]:
    done: dict[str, Executed] = {}
    failures: list[ChapterError] = []
    children = Children()

    def run(name: str) -> None:
        if failures:
            return
        progress(name, "started", 0.0)
        start = time.monotonic()
        try:
            run_chapter(*jobs[name], children)
        except Stopped:
            return
        except ChapterError as error:
            failures.append(error)
            progress(name, "failed", time.monotonic() - start)
        else:
            done[name] = Executed(name, jobs[name][1], time.monotonic() - start)
            progress(name, "done", done[name].seconds)

    # A thread only waits: each chapter has a process for papermill and one for its kernel.
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(run, jobs))
        except BaseException:  # an interruption
            children.stop()
            raise
    if failures:
        raise failures[0]
    return done


def run_chapter(source: Path, target: Path, parameters: Mapping[str, Any], profile: str, children: Children) -> None:
    """Execute one notebook; `target` appears, whole, when every cell has run.

    If a cell raises, the notebook so far is kept beside it as `NAME.failed.ipynb`.
    """
    start = time.monotonic()
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".running-") as folder:
        part = Path(folder) / target.name
        # In a process of its own: papermill changes the directory of the whole process while it runs.
        command = [sys.executable, "-m", "papermill", str(source), str(part), "--kernel", KERNEL, "--cwd", folder]
        command += ["--no-progress-bar", "--no-log-output", "--execution-timeout", str(CELL_TIMEOUT)]
        command += ["--parameters_yaml", yaml.safe_dump(dict(parameters))] if parameters else []
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with children.start(command, **streams) as process:
            assert process.stderr is not None
            log = process.stderr.read()
        if process.returncode != 0:
            cell, error = _what_failed(part, log)
            if part.is_file():
                os.replace(part, failed)
            raise ChapterError(source.stem, cell, error, failed if failed.is_file() else None)
        _sign(part, profile, time.monotonic() - start)
        os.replace(part, target)


def _what_failed(notebook: Path, log: str) -> tuple[int, str]:
    """Number, from 1, of the cell that raised, not counting what papermill has added, and its error.

    A kernel that died or a cell that took too long leaves no error in the notebook: then cell 0 and the log's end.
    """
    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = read(notebook).cells if notebook.is_file() else []
    own = [c for c in cells if added.isdisjoint(c.metadata.get("tags", []))]
    for number, cell in enumerate(own, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return number, f"{output.ename}: {output.evalue}"
    return 0, log.strip().splitlines()[-1] if log.strip() else "papermill stopped without a word"


def _sign(notebook: Path, profile: str, seconds: float) -> None:
    """Write into the notebook how it was executed; the execution status page reads it."""
    content = read(notebook)
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    content.metadata["lee"] = {"profile": profile, "seconds": round(seconds, 1), "executed": when}
    nbformat.write(content, notebook)
