"""Headless Chromium, and the rendered book served on this machine."""

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each of them."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered book: the folder in LEE_SITE, `_build/html`, or else the committed notebooks rendered now."""
    folder = Path(os.environ.get("LEE_SITE", ROOT / "_build" / "html"))
    if (folder / "index.html").is_file():
        return folder
    if "LEE_SITE" in os.environ:
        pytest.fail(f"LEE_SITE is {folder}, and there is no index.html in it.")
    from lee import book

    built = tmp_path_factory.mktemp("site")
    book.prepare(ROOT, built / "source")
    return book.render(built, source=built / "source").parent


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the book is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one the tests are skipped, but never in continuous integration."""
    names = (os.environ.get("LEE_CHROMIUM", "chromium"), "chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        message = "Chromium is not installed (Debian and Ubuntu: `apt-get install chromium`)."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield opened
        opened.close()
