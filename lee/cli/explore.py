"""`lee explore`: the explorer as a page on this machine."""

from pathlib import Path
from typing import Annotated

import typer


def explore(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="One or two models to begin with, of `lee models list` or timm's."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of 127.0.0.1.")] = 8866,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
    images: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="A folder of images to offer, too; repeat for several."),
    ] = None,
) -> None:
    """Serve the explorer: images, generators and models under sliders, live. Ctrl-C stops it.

    The address ends in a token; whoever has it can use the page, nobody else.
    """
    from lee.explorer.serve import serve

    def ready(address: str) -> None:
        typer.echo(f"{address}  (Ctrl-C stops it)")

    serve(port, ready, browser=browser, images=images or (), models=models or ())
