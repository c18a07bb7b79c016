"""How commands print tables and write rows, wherever standard output goes and whatever it can encode."""

import codecs
import ctypes
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from lee.errors import InputError
from lee.paths import atomic_path, check_writable

#: File name endings that :func:`write` knows.
FORMATS = (".parquet", ".csv", ".json")
#: What stands in for a character where the encoding of a terminal or a file lacks it; a question mark for others.
STAND_INS = {
    "±": "+-", "²": "^2", "‖": "|", "×": "x", "·": ".", "…": "...", "–": "-", "−": "-", "→": "->", "≤": "<=", "≥": ">=",
    "│": "|", "├": "|", "└": "`", "█": "#", "▌": "#", "▐": "#",
}  # fmt: skip


#: Columns that a table takes at least: on a narrower terminal its lines are wrapped there, where rich would leave out numbers.
NARROWEST = 40


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(STAND_INS.get(character) or _byte(character) or "?" for character in lacking), error.end


def _byte(character: str) -> str:
    """The escape of a byte of a file name that is no UTF-8, as Python passes it on; else nothing."""
    return f"\\x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else ""


codecs.register_error("lee.cli", _stand_in)


def printable(text: str) -> str:
    r"""A name that every file can hold: what is no UTF-8 in it becomes `\xff`."""
    return text.encode("utf-8", "lee.cli").decode()


def degrade() -> None:
    """Let nothing about standard output or error end a measurement: neither a character that they lack nor that they are closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="lee.cli")


def bars(quiet: bool) -> bool:
    """Whether progress bars are drawn: in a terminal, unless none are wanted."""
    return not quiet and sys.stderr.isatty()


@contextmanager
def only(wanted: bool) -> Iterator[None]:
    """Where `wanted`, send to standard error what is printed meanwhile, also by libraries that don't print through Python.

    Standard output is left to what the command itself prints afterwards.
    """
    if not wanted:
        yield
        return
    sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # a process without them
        kept = None
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            with suppress(OSError, TypeError, AttributeError):  # what C holds back; not to be had this way on Windows
                ctypes.CDLL(None).fflush(None)
            os.dup2(kept, 1)
            os.close(kept)


class Screen(Console):
    """Where tables are printed; names and errors of others are printed as they are."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False)
        self.width = max(self.width, NARROWEST)

    def on_broken_pipe(self) -> None:
        """Raise it, as all else that prints does; rich would end the program."""
        raise

    def show(self, printed: Table) -> None:
        """Print a table, or refuse where standard output can't be written."""
        with _printing():
            self.print(printed)


@contextmanager
def _printing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # who has read it has seen enough
        raise
    except OSError as error:
        raise InputError(f"Standard output can't be written: {error.strerror}.") from error


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """Print a table; a column whose heading starts with `>` is aligned to the right."""
    printed = Table(title=title, caption=note, title_justify="left", caption_justify="left")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        printed.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
    for row in rows:
        printed.add_row(*row)
    Screen().show(printed)


def print_json(content: Any) -> None:
    """Print JSON, and nothing else, on standard output; beyond ASCII only where that is UTF-8, as JSON has to be."""
    plain = codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name != "utf-8"
    with _printing():
        typer.echo(json.dumps(content, indent=2, ensure_ascii=plain, allow_nan=False))


def check_destination(option: str, path: Path | None, formats: Sequence[str] = ()) -> None:
    """Refuse, before any work is done, a file of another ending, or one that can't be written afterwards.

    `option` is what the file was named with; without a file there is nothing to refuse.
    """
    if path is None:
        return
    if formats and path.suffix not in formats:
        raise InputError(
            f"{option} {path} has no known ending; use {'one of ' * (len(formats) > 1)}{', '.join(formats)}."
        )
    if path.exists() and not path.is_file():
        raise InputError(
            f"{option} {path} is a folder; name a file in it." if path.is_dir() else f"{option} {path} is no file."
        )
    check_writable(option, path)


def check_apart(destinations: Mapping[str, Path | None]) -> None:
    """Refuse, before any work is done, files of which one would overwrite another; the keys are what they were named with."""
    taken: dict[str, str] = {}
    for option, path in destinations.items():
        if path is not None and (other := taken.setdefault(os.path.realpath(path), option)) != option:
            raise InputError(f"{other} and {option} would both be written to {path}. Name two files.")


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file that is written whole or not at all."""
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}.") from error


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows to a Parquet, CSV or JSON file (by its ending), whole or not at all."""
    import pandas as pd

    frame = pd.DataFrame(list(rows))
    with written(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        elif path.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            text = json.dumps(list(rows), indent=2, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
