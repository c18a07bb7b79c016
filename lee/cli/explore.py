"""`lee explore`: the explorer as a page on this machine."""

from pathlib import Path
from typing import Annotated

import typer


def explore(
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

    serve(port, ready, browser=browser, images=images or ())
