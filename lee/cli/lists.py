"""`lee data` and `lee models`: which images and trained networks there are, and whether the files here are the recorded ones."""

from fnmatch import fnmatchcase
from typing import Annotated

import typer

from lee.cli.output import print_json, table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

data = typer.Typer(help="List and verify data sets and the weights of trained networks.", no_args_is_help=True)
models = typer.Typer(help="List the networks that lee brings along.", no_args_is_help=True)


@data.command("list")
def list_sets(as_json: AsJson = False) -> None:
    """List the data sets with their licence and source."""
    from lee import datasets

    keys = ("name", "kept", "licence", "source")
    kept = dict.fromkeys(datasets.LOCAL, "LEE_DATA") | dict.fromkeys(datasets.DERIVED, "made")
    kept["imagefolder:PATH"] = "anywhere"
    rows = [(name, kept.get(name, "installed"), *datasets.describe(name)) for name in datasets.names()]
    if as_json:
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        table("Data sets", keys[:3], [row[:3] for row in rows], "The option --json adds the sources.")


@data.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Data sets, or networks such as 'zoo/*' (default: all embedded ones and all networks)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare files with their recorded digests; exit code 1 if one differs or is missing."""
    from lee import datasets
    from lee.models import cards

    networks = cards.verify()
    rows: list[tuple[str, bool, str]] = []
    for name in names or [*datasets.EMBEDDED, "*/*"]:
        rows += [row for row in networks if fnmatchcase(row[0], name)] or datasets.verify([name])
    if as_json:
        print_json([{"name": name, "ok": ok, "message": text} for name, ok, text in rows])
    else:
        shown = [(name, "ok" if ok else "WRONG", text) for name, ok, text in rows]
        table("Recorded files", ("name", "", "what was found"), shown)
    if not all(ok for _, ok, _ in rows):
        raise typer.Exit(1)


@models.command("list")
def list_networks(as_json: AsJson = False) -> None:
    """List the trained networks with family, parameters and test accuracy, as their cards have them."""
    from lee.models import card, names

    keys = ("name", "family", "parameters", "test_accuracy")
    rows = [(name, *(found[key] for key in keys[1:])) for name in names() if (found := card(name))]
    if as_json:
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    shown = [(name, family, f"{count:,}", f"{100 * accuracy:.2f} %") for name, family, count, accuracy in rows]
    note = (
        "The accuracies of imagenet/ are the published ones. "
        "timm's models go by timm's names, such as resnet50.a1_in1k; networks of your own by package.module:factory."
    )
    table("Trained networks", ("name", "family", ">parameters", ">test accuracy"), shown, note)
