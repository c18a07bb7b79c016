"""How commands print tables and write rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from lee.errors import InputError
from lee.paths import atomic_path

#: File name endings that :func:`write` knows.
FORMATS = (".parquet", ".csv", ".json")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """Print a table; a column whose heading starts with `>` is aligned to the right."""
    printed = Table(title=title, caption=note, title_justify="left", caption_justify="left")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        printed.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
    for row in rows:
        printed.add_row(*row)
    Console().print(printed)


def print_json(content: Any) -> None:
    """Print JSON, and nothing else, on standard output."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def check_destination(path: Path | None) -> None:
    """Refuse, before any work is done, a file name whose ending :func:`write` doesn't know.

    Raises:
        InputError: naming the endings that are known.
    """
    if path is not None and path.suffix not in FORMATS:
        raise InputError(f"--out {path} has no known ending; use one of {', '.join(FORMATS)}.")
    if path is not None and path.is_dir():
        raise InputError(f"--out {path} is a folder; name a file in it.")


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows to a Parquet, CSV or JSON file (by its ending), whole or not at all.

    Raises:
        InputError: the ending isn't known, or the file can't be written.
    """
    import pandas as pd

    check_destination(path)
    frame = pd.DataFrame(list(rows))
    try:
        with atomic_path(path) as temporary:
            if path.suffix == ".parquet":
                frame.to_parquet(temporary, index=False)
            elif path.suffix == ".csv":
                frame.to_csv(temporary, index=False)
            else:
                text = json.dumps(list(rows), indent=2, ensure_ascii=False, allow_nan=False)
                temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}.") from error
