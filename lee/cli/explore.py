"""`lee explore`: the explorer as a page on this machine."""

from typing import Annotated

import typer


def explore(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of 127.0.0.1.")] = 8866,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
) -> None:
    """Serve the explorer: images, generators and models under sliders, live. Ctrl-C stops it."""
    from lee.explorer.serve import ADDRESS, serve

    typer.echo(f"http://{ADDRESS}:{port}/  (ready in some seconds; Ctrl-C stops it)")
    status = serve(port, browser=browser)
    if status:
        raise typer.Exit(status)
