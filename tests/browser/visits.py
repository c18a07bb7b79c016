"""Open a page of the book and note everything a reader should never meet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page

PHONE, DESKTOP = (390, 844), (1280, 900)

# Every chart has been drawn (or has failed), and every formula has been set.
READY = """() => {
    const drawn = [...document.querySelectorAll('.lee-chart')].every(c => c.dataset.state);
    if (!document.querySelector('script[src*="mathjax"]')) return drawn;
    const typeset = window.MathJax?.startup?.promise;
    if (!typeset) return false;
    typeset.then(() => { window.leeMathReady = true; });
    return drawn && window.leeMathReady === true;
}"""

TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Visit:
    """An open page, and what went wrong on it."""

    page: Page
    console: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


@contextmanager
def visit(
    browser: Browser, address: str, path: str, *, size: tuple[int, int] = DESKTOP, dark: bool = False
) -> Iterator[Visit]:
    """Open one page, wait until its charts and formulas are there, and close it afterwards."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    seen = Visit(page)
    page.on("console", lambda m: seen.console.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("requestfailed", lambda request: seen.failed.append(request.url))
    page.on("response", lambda r: seen.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    home = (address, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(home) else seen.foreign.append(r.url))
    page.goto(f"{address}/{path}", wait_until="load")
    page.wait_for_function(READY, timeout=60_000)
    yield seen
    context.close()


def pages(site: Path) -> list[str]:
    """Paths of all pages of the site below its root, without the one that only leads to the front page."""
    every = (p.relative_to(site).as_posix() for p in site.rglob("*.html") if "_static" not in p.parts)
    return sorted(path for path in every if path != "index.html")
