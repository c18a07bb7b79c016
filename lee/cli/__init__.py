"""The command `lee`: parsing and printing only. Each command imports what it needs when it runs."""

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import lee
from lee.cli import advice
from lee.cli.book import book
from lee.cli.explore import explore
from lee.cli.layers import layers
from lee.cli.lists import data, models
from lee.cli.maps import error_map
from lee.cli.measure import measure
from lee.cli.output import degrade
from lee.cli.report import report
from lee.cli.sweep import sweep
from lee.cli.train import train
from lee.errors import LeeError, reason

__all__ = ["app"]

#: Exit codes: wrong input, as for a wrong option; and a stop by Ctrl-C, as shells report it.
WRONG_INPUT, INTERRUPTED = 2, 130
#: What nobody has foreseen.
FAILED = 1
DEBUG = "--debug"


class _Commands(TyperGroup):
    """Says in a sentence, without a traceback, what was wrong with the input."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **kwargs: Any) -> Any:
        degrade()
        given = list(sys.argv[1:] if args is None else args)
        if DEBUG in given:  # wherever it stands
            given = [DEBUG, *(one for one in given if one != DEBUG)]
        try:
            return super().main(given, *others, **kwargs)
        except OSError as error:  # of --version and --help, which print before anything is invoked
            typer.echo(f"Error: {_said(error)}", err=True)
            sys.exit(FAILED)

    def invoke(self, ctx: Any) -> Any:
        advice.running.set(ctx)
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):  # without a reader of standard output typer ends quietly
            raise
        except KeyboardInterrupt as error:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except (Exception, SystemExit) as error:
            if hasattr(error, "format_message"):  # typer's own, about an option
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            typer.echo(f"Error: {_said(error)}", err=True)
            raise typer.Exit(WRONG_INPUT if isinstance(error, LeeError) else FAILED) from error


def _said(error: BaseException) -> str:
    """An error in a sentence or two."""
    if isinstance(error, LeeError):
        return advice.said(error)
    from lee import memory

    if memory.is_shortage(error):
        return f"There is not enough memory ({reason(error)}). Use fewer or smaller images, or a smaller --chunk."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'Standard output or a file'} can't be used: {error.strerror}."
    return f"{reason(error)}. That was not expected; the option {DEBUG} shows where it happened."


app = typer.Typer(
    cls=_Commands,
    name="lee",
    help="Measure how equivariant a model is: Lie derivatives and the local equivariance error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(measure)
app.command()(layers)
app.command("map")(error_map)
app.command()(report)
app.command()(train)
app.command()(sweep)
app.command()(book)
app.command()(explore)
app.add_typer(data, name="data")
app.add_typer(models, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lee {lee.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error, too.")] = False,
) -> None:
    # A factory such as `mine:build` lives where the user is; `python -m` would find it there too.
    if "" not in sys.path:
        sys.path.append("")
