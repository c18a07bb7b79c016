"""`lee book`: execute the chapters, render the site, refresh the committed notebooks."""

from pathlib import Path
from typing import Annotated

import typer

from lee.errors import InputError, check_installed

Chapters = Annotated[
    list[str] | None, typer.Option("--chapters", "-c", help="Name or number; repeat for several (default: all)")
]


#: Of the options, those that have no effect beside another one.
IDLE = {"--refresh": ("profile", "execute", "render", "out"), "--no-execute": ("profile", "chapters", "workers")}


def book(
    ctx: typer.Context,
    profile: Annotated[str, typer.Option(help="Parameters: a name in book/profiles, or a file.")] = "quick",
    chapters: Chapters = None,
    execute: Annotated[bool, typer.Option(help="Execute on a copy; otherwise take it as committed.")] = True,
    render: Annotated[bool, typer.Option(help="Render the site, warnings as errors.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="The executed copy (default: _build/book-src)", file_okay=False)
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Instead: re-execute the committed notebooks in place.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Chapters at the same time.")] = 2,
) -> None:
    """Execute every chapter with a profile and render the book to _build/html/index.html."""
    for option in ["--refresh"] * refresh + ["--no-execute"] * (not execute):
        _check_effective(ctx, option)
    check_installed("The book", "book", "papermill", "jupyter_book")
    from lee import book as library
    from lee.book.layout import COPY, only_one

    if refresh:
        written = library.refresh(chapters, workers=workers, progress=_tell)
        typer.echo("\n".join(f"Refreshed {path}" for path in written) or "Nothing changed.")
        return
    root = library.find_root()
    copy = out or root / COPY
    with only_one(root):  # from the first chapter to the last page
        if execute:
            library.execute(profile, chapters, root=root, out=copy, workers=workers, progress=_tell)
        else:
            library.prepare(root, copy)
        if not render:
            typer.echo(f"The executed chapters are in {copy / 'book'}.")
            return
        index = library.render(root, source=copy, fresh=True)
    typer.echo(f"The book is ready: {index}\nOpen it in a browser: {index.as_uri()}\nor serve it: make serve")


def _check_effective(ctx: typer.Context, option: str) -> None:
    """Refuse what would be passed over beside an option."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in IDLE[option] and source is not None and source.name == "COMMANDLINE":
            names = "/".join((*parameter.opts, *parameter.secondary_opts))
            raise InputError(f"{names} has no effect beside {option}. Leave one of them out.")


def _tell(chapter: str, state: str, seconds: float) -> None:
    took = f" after {seconds:.0f} s" if state != "started" else ""
    typer.echo(f"{chapter}: {state}{took}", err=True)
