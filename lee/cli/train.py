"""`lee train`: train a model of the zoo by its recipe."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    name: Annotated[str, typer.Argument(help="A model of the recipe file, such as zoo/vit-s.")],
    recipes: Annotated[
        Path | None,
        typer.Option(help="A file like data/zoo/zoo.yaml (default: the zoo's own)", dir_okay=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where weights and card go (default: beside the recipes)", file_okay=False),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Train NAME by its recipe; write its weights (safetensors) and its model card.

    Started again after an interruption, it goes on from the last epoch.
    """
    from lee.zoo import train_zoo

    shown = not quiet and sys.stderr.isatty()
    card = train_zoo(name, recipes=recipes, out=out, device=device, progress=shown)
    size = f"{card['bytes'] / 1e6:.2f} MB in {card['weights_dtype']}"
    typer.echo(
        f"{card['name']}: test accuracy {100 * card['test_accuracy']:.2f} %, "
        f"{card['parameters']:,} parameters, {size}, {card['minutes']} minutes."
    )
