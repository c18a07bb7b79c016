"""The explorer as a page of its own: voila on this machine's loopback address, and nothing asked from another host.

Voila's own templates ask for icon fonts elsewhere. The template in `share/` is derived from one of them without that.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lee.errors import InputError, check_installed
from lee.explorer.state import State
from lee.models.loading import check_name

SHARE = Path(__file__).parent / "share"
ADDRESS = "127.0.0.1"


def notebook(folder: Path, images: Sequence[Path] = (), models: Sequence[str] = ()) -> Path:
    """Write the notebook that voila shows, of one cell, with the folders of images on offer and the models that it begins with."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    first = State(models=tuple(models)) if models else None
    for name in models:
        check_name(name)
    folders = tuple(str(one.resolve()) for one in images)
    cell = f"from lee.explorer import Explorer, State\n\nExplorer({first!r}, folders={folders!r})"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = new_notebook(cells=[new_code_cell(cell)], metadata={"kernelspec": kernel, "title": "lee explorer"})
    nbformat.write(content, path := folder / "explorer.ipynb")
    return path


def serve(
    port: int, ready: Callable[[str], None], *, browser: bool, images: Sequence[Path] = (), models: Sequence[str] = ()
) -> None:
    """Serve the explorer in this process until it is interrupted or terminated.

    `ready` is called with the page's address, which ends in a token, once it can be opened. The page shows no folders but `images`.
    A port that is taken, a name that is no model of the explorer, and a missing voila or ipywidgets are refused.
    """
    check_installed("The explorer's page", "app,book", "voila", "ipywidgets", "nbformat")
    _check_free(port)
    # The template lies where voila looks for templates.
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(SHARE), *filter(None, [os.environ.get("JUPYTER_PATH")])])
    from lee.explorer.server import Server

    with tempfile.TemporaryDirectory() as folder:
        server = Server(ready=ready, browses=browser)
        server.initialize([
            str(notebook(Path(folder), images, models)), f"--Voila.ip={ADDRESS}", f"--port={port}", "--Voila.port_retries=0",
            "--template=lee", "--Voila.auto_token=True", "--Voila.log_level=WARN",
            "--VoilaConfiguration.multi_kernel_manager_class=lee.explorer.server.Kernels",
        ])  # fmt: skip
        server.start()


def _check_free(port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ADDRESS, port))
            probe.listen()
    except OSError as error:
        raise InputError(f"Port {port} can't be used ({error.strerror}). Choose another one with --port.") from error
