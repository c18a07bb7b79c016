"""The explorer as a page of its own: voila on this machine's loopback address, and nothing asked from another host.

Voila's own templates ask for icon fonts elsewhere. The template in `share/` is derived from one of them without that.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lee.errors import check_installed
from lee.explorer.pictures import MOST_BYTES

SHARE = Path(__file__).parent / "share"
ADDRESS = "127.0.0.1"

_CELL = "from lee.explorer import Explorer\n\nExplorer()"


def notebook(folder: Path) -> Path:
    """Write the notebook that voila shows: one cell."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = folder / "explorer.ipynb"
    nbformat.write(
        new_notebook(cells=[new_code_cell(_CELL)], metadata={"kernelspec": kernel, "title": "lee explorer"}), path
    )
    return path


def command(path: Path, port: int, *, browser: bool) -> list[str]:
    """The command that serves a notebook on loopback.

    A message may be somewhat larger than the largest upload, so that one that is too large is answered in the app.
    """
    settings = {"websocket_max_message_size": 10 * MOST_BYTES}
    return [
        sys.executable, "-m", "voila", str(path), f"--Voila.ip={ADDRESS}", f"--port={port}", "--template=lee",
        f"--Voila.tornado_settings={json.dumps(settings)}", *([] if browser else ["--no-browser"]),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """This process's environment, with the derived template where voila looks for templates."""
    found = [str(SHARE), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    return {**os.environ, "JUPYTER_PATH": os.pathsep.join(found)}


def serve(port: int = 8866, *, browser: bool = False) -> int:
    """Serve the explorer until it is interrupted.

    Args:
        port: Where; voila takes the next free one if it is taken.
        browser: Whether to open a browser.

    Returns:
        Voila's exit status.

    Raises:
        InputError: If voila or ipywidgets is not installed.
    """
    check_installed("The explorer's page", "app,book", "voila", "ipywidgets", "nbformat")
    with tempfile.TemporaryDirectory() as folder:
        running = command(notebook(Path(folder)), port, browser=browser)
        return subprocess.run(running, env=environment(), check=False).returncode
