"""Chapters in JupyterLab: charts are drawn and the tab stays awake, as opened and after all cells have run."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page

from lee import book

ROOT = Path(__file__).parents[2]
# One server for all of them, in whichever process they run.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.xdist_group("lab")]
START, OPENING, RUNNING = 60, 60_000, 400_000  # seconds; milliseconds
# Seconds that a page is watched, how many of them it may work at rest, and how often it is tried.
WINDOW, BUSY, WINDOWS = 2.0, 0.5, 40
# The first page, those with the most charts and the largest, and those with pictures and sliders; all with LEE_ALL_CHAPTERS=1.
USUAL = ("index", "01_symmetry_and_the_lie_derivative", "08_out_of_distribution", "10_whole_algebra", "13_your_model")
CHAPTERS = [p.stem for p in book.chapters(ROOT) if p.stem != "errata"] if os.environ.get("LEE_ALL_CHAPTERS") else USUAL
SMALL = "07_case_studies"
KNOWN = ("vega", "Vega", "MathJax", "favicon")  # notes of the libraries that are no faults of a chapter

CHARTS = ".jp-RenderedVegaCommon5 canvas, .jp-RenderedVegaCommon5 svg"
NOTEBOOK = "window.jupyterapp.shell.currentWidget"
IDLE = f"""() => {{
    const {{ content, sessionContext }} = {NOTEBOOK};
    const code = content.model.toJSON().cells.filter((cell) => cell.cell_type === "code");
    const failed = code.some((cell) => cell.outputs.some((output) => output.output_type === "error"));  // the rest is not run
    const done = failed || code.every((cell) => cell.execution_count !== null);
    return sessionContext.session?.kernel?.status === "idle" && done;
}}"""
ERRORS = f"""() => {NOTEBOOK}.content.model.toJSON().cells
    .flatMap((cell) => cell.outputs ?? []).filter((output) => output.output_type === "error")"""
CLEAR = "() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')"
RUN = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab over a copy of the committed notebooks, without settings of this machine's user."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "book", folder / "book")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", f"--ServerApp.port={port}"]
    options += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--LabApp.extension_manager=readonly"]
    places = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "RUNTIME", "DATA")}
    own = {**os.environ, **places, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=own, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(START):
            try:
                urlopen(f"{address}/api", timeout=5).close()
                break
            except URLError:
                time.sleep(1)
        else:
            pytest.fail(f"JupyterLab did not start: {(folder / 'log').read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def opened(browser: Browser, lab: str, name: str) -> Iterator[tuple[Page, list[str]]]:
    """A chapter in JupyterLab, and what its console complains of."""
    told: list[str] = []
    with browser.new_context(viewport={"width": 1400, "height": 1000}) as context:
        page = context.new_page()
        page.on("console", lambda m: told.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(f"{lab}/lab/tree/book/{name}.ipynb?reset", timeout=OPENING)
        page.wait_for_function(
            f"() => window.jupyterapp && {NOTEBOOK}?.content?.model?.cells?.length > 0", timeout=OPENING
        )
        page.wait_for_selector(CHARTS, timeout=OPENING, state="attached")
        yield page, told


def rests(page: Page) -> bool:
    """Whether a page comes to rest: two windows of time one after the other in which it hardly works."""
    client: Any = page.context.new_cdp_session(page)
    client.send("Performance.enable")

    def spent() -> float:
        found = client.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    quiet, before = 0, spent()
    for _ in range(WINDOWS):
        page.wait_for_timeout(1000 * WINDOW)
        now = spent()
        quiet, before = (quiet + 1 if now - before < BUSY else 0), now
        if quiet == 2:
            return True
    return False


def faults(told: list[str]) -> list[str]:
    """Errors of the console that are a chapter's own."""
    return [text for text in told if not any(word in text for word in KNOWN)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_with_its_charts_and_rests(browser: Browser, lab: str, name: str) -> None:
    with opened(browser, lab, name) as (page, told):
        assert rests(page)
        assert not faults(told)


@pytest.mark.slow
def test_a_chapter_runs_from_top_to_bottom(browser: Browser, lab: str) -> None:
    with opened(browser, lab, SMALL) as (page, told):
        page.evaluate(CLEAR)
        page.wait_for_function(f"() => !document.querySelector('{CHARTS.split(',')[0]}')")
        page.evaluate(RUN)
        page.wait_for_function(IDLE, timeout=RUNNING)
        assert page.evaluate(ERRORS) == []
        assert page.locator(CHARTS).count() > 0
        assert rests(page)
        assert not faults(told)
