"""Where the book's files lie: the repository's root, its chapters, the copy that is built."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout
from nbformat import NotebookNode

from lee.errors import InputError, nearest

COPY = Path("_build/book-src")
"""Where the executed copy of the book lies, below the root."""


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Let no other process execute or render the book of a repository meanwhile.

    A process may enter again, a crash gives the right back.
    """
    file = root.resolve() / COPY.parent / "lock"
    try:
        file.parent.mkdir(exist_ok=True)
        held = FileLock(file, is_singleton=True).acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"Another `lee book` is at work in {root}. Wait for it, or use another checkout.") from error
    except OSError as error:
        raise InputError(f"{file} can't be written: {error.strerror}.") from error
    with held:
        yield


def find_root() -> Path:
    """The folder with `_toc.yml` and `book/`: the current directory, one above it, or the one that `lee` lies in.

    Raises:
        InputError: If there is none: the book is part of the repository, not of the installed package.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "_toc.yml").is_file() and (folder / "book").is_dir():
            return folder
    raise InputError(
        f"No book (a folder with `_toc.yml` and `book/`) at or above {here}. "
        "Its sources are part of the repository: clone it and run the command there."
    )


def chapters(root: Path) -> list[Path]:
    """The book's notebooks below `root`, in reading order: the index first, then by number.

    Args:
        root: The folder with `_toc.yml` and `book/`.
    """
    found = [p for p in (root / "book").glob("*.ipynb") if not p.name.endswith(".failed.ipynb")]
    return sorted(found, key=lambda p: (p.stem != "index", p.stem))


def read(path: Path) -> NotebookNode:
    """A notebook of format 4, from its file."""
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        if notebook.get("nbformat") != 4:
            raise ValueError(f"it has format {notebook.get('nbformat')}, and format 4 is read")
        nbformat.validate(notebook)
    except Exception as error:  # of JSON, Unicode, the schema or nbformat itself, or of a list in place of a mapping
        said = error.strerror if isinstance(error, OSError) else str(error).strip().split("\n")[0][:120]
        raise InputError(
            f"The notebook {path} can't be read: {said}. Restore it from git, or open and save it in JupyterLab."
        ) from error
    return notebook


def select(root: Path, names: Sequence[str] | None) -> list[Path]:
    """The chapters with these names, in reading order; all of them without names.

    A name is a file's stem, a path to the file, or a chapter's number (`2`, `02`); `0` is the index.

    Args:
        root: The folder with `_toc.yml` and `book/`.
        names: What to choose; None for all.

    Raises:
        InputError: If there are no chapters, or one of the names is unknown (the nearest one is suggested).
    """
    every = chapters(root)
    if not every:
        raise InputError(f"There are no notebooks in {root / 'book'}.")
    if names is None:
        return every
    by_name = {p.stem: p for p in every}
    by_name |= {_number(p): p for p in every}
    wanted = set()
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        key = str(int(stem)) if stem.isdigit() else stem
        if key not in by_name:
            raise InputError(f"Unknown chapter {name!r}.{nearest(stem, [p.stem for p in every])}")
        wanted.add(by_name[key])
    return [p for p in every if p in wanted]


def _number(path: Path) -> str:
    """The chapter's number without leading zeros; a page without one is known by its stem only."""
    head = "00" if path.stem == "index" else path.stem[:2]
    return str(int(head)) if head.isdigit() else path.stem
