"""Open a page of the book and note everything a reader should never meet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

PHONE, DESKTOP = (390, 844), (1280, 900)
PATIENCE = 120_000  # milliseconds; only a failure waits that long

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

GRAVE = ("serious", "critical")
COLOURS = (
    "color-contrast",
    "link-in-text-block",
)  # the rules of axe-core that a dark page can break and a light one keep
CODE = ".cell_input pre"
# What axe-core leaves out. Charts and formulas have words of their own: what they are drawn of is not looked at piece by
# piece. Of what is made alike, outputs of cells and the entries of the reference and of an index, the first in each row count.
ALIKE = (".cell ~ .cell pre", "dl.py ~ dl.py", "dl.py dl.py", ".genindextable li ~ li")
LEFT_OUT = (".lee-chart svg > *", "mjx-container > *", *ALIKE)


@dataclass
class Visit:
    """An open page, and what went wrong on it."""

    page: Page
    console: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def reader(browser: Browser, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> BrowserContext:
    """A reader with a window of this size, whose scripts are fetched and compiled once for all pages."""
    scheme = "dark" if dark else "light"
    return browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)


@contextmanager
def visit(
    browser: Browser, address: str, path: str, *, size: tuple[int, int] = DESKTOP, dark: bool = False
) -> Iterator[Visit]:
    """Open one page as a new reader, wait until its charts and formulas are there, and close it afterwards."""
    with reader(browser, size=size, dark=dark) as context, opened(context, address, path) as seen:
        yield seen


@contextmanager
def opened(context: BrowserContext, address: str, path: str) -> Iterator[Visit]:
    """Open one page, wait until its charts and formulas are there, and close it afterwards."""
    page = context.new_page()
    seen = Visit(page)
    page.on("console", lambda m: seen.console.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("requestfailed", lambda request: seen.failed.append(request.url))
    page.on("response", lambda r: seen.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    home = (address, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(home) else seen.foreign.append(r.url))
    page.goto(f"{address}/{path}", wait_until="load", timeout=PATIENCE)
    page.wait_for_function(READY, timeout=PATIENCE)
    yield seen
    page.close()


def pages(site: Path) -> list[str]:
    """Paths of all pages of the site below its root, without the one that leads to the front page, and downloads."""
    every = (
        p.relative_to(site).as_posix() for p in site.rglob("*.html") if not {"_static", "_downloads"} & set(p.parts)
    )
    return sorted(path for path in every if path != "index.html")


def barriers(page: Page, *rules: str, code: bool = True) -> list[str]:
    """What axe-core finds on an open page that would keep somebody from reading it: one line for each rule broken.

    Args:
        page: The page; the script comes from the installed package, not from a network.
        rules: Names of axe-core's rules; all of them by default.
        code: Whether the code of cells is looked at: half of a chapter's words, in the same colours in all of them.
    """
    # Without `preload` axe-core asks for no style sheet a second time.
    options: dict[str, object] = {"resultTypes": ["violations"], "preload": False}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    left_out = {"exclude": [[selector] for selector in (*LEFT_OUT, *([] if code else [CODE]))]}
    found = Axe().run(page, context=left_out, options=options).response["violations"]
    return [
        f"{one['id']} ({one['impact']}, {len(one['nodes'])} times): {one['help']}, such as {one['nodes'][0]['target']} "
        f"{one['nodes'][0]['html'][:160]}"
        for one in found
        if one["impact"] in GRAVE
    ]
