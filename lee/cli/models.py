"""`lee models`: which trained networks there are."""

from typing import Annotated

import typer

from lee.cli.output import print_json, table

models = typer.Typer(help="List the networks that lee brings along.", no_args_is_help=True)


@models.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
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
