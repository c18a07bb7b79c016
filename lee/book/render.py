"""Render the executed copy of the book as a site, strictly: a warning or a dangling reference is an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lee.book.check import check_executed
from lee.book.layout import COPY, chapters, find_root, only_one
from lee.errors import LeeError
from lee.process.children import Children

COMMAND = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"


class RenderError(LeeError):
    """The site could not be built, or not without warnings."""


def render(root: Path | None = None, *, source: Path | None = None, fresh: bool = False) -> Path:
    """Build the site from the copy that :func:`lee.book.execute` has made.

    Args:
        root: The repository, found from the current directory by default. The site goes to its `_build/html`.
        source: The copy of the book, `_build/book-src` below the root by default.
        fresh: Forget earlier builds first.

    Returns:
        The path of the site's `index.html`.

    Raises:
        RenderError: If a notebook is not executed or holds an error, or the build warns; with what it said.
    """
    root = find_root() if root is None else root
    source = root / COPY if source is None else source
    if problems := [problem for path in chapters(source) for problem in check_executed(path)]:
        raise RenderError(" ".join(problems))
    site = root / "_build" / "html"
    with only_one(root):
        _build(root, source, site, fresh)
    return site / "index.html"


def _build(root: Path, source: Path, site: Path, fresh: bool) -> None:
    """Run jupyter-book, strictly: a warning is an error."""
    if fresh:
        for stale in (site, site.parent / ".doctrees"):
            shutil.rmtree(stale, ignore_errors=True)
    strict = ["-W", "-n", "--keep-going"]
    arguments = ["build", *strict, "--quiet", "--path-output", str(root), str(source)]
    plain = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, "-c", COMMAND, *arguments]
    with Children().start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=plain) as process:
        assert process.stdout is not None
        log = process.stdout.read()
    if process.returncode != 0:
        raise RenderError(f"The strict build of the site failed:\n{_last_words(log)}")


def _last_words(log: str) -> str:
    """The warnings and errors of a build's log, or its end if there are none."""
    lines = log.strip().splitlines()
    told = [line for line in lines if "WARNING" in line or "ERROR" in line or "Error" in line]
    return "\n".join(told or lines[-15:])
