"""Every page of the rendered book in headless Chromium: light, dark, on a phone and on paper."""

import os
import re
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Literal

import pytest
from browser.visits import COLOURS, DESKTOP, PATIENCE, PHONE, TOO_WIDE, barriers, opened, pages, reader, visit
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "_build" / "screenshots"
CHAPTER = "book/03_aliasing.html"
SLIDER = re.compile(r'"input":\s*"range"')
# What axe-core is asked in the light and in the dark: everything once, and what else is the colours' alone.
RULES: dict[Literal["light", "dark"], tuple[str, ...]] = {"light": (), "dark": COLOURS}
SETTLED = """scheme => document.documentElement.dataset.theme === scheme
    && !document.getAnimations().some(one => one instanceof CSSTransition)"""

FIGURES_WITHOUT_WORDS = """() => [...document.querySelectorAll('.bd-article figure')]
    .filter(f => !f.querySelector('figcaption')?.textContent.replace(/Figure \\d+/, '').trim())
    .map(f => f.outerHTML.slice(0, 200))"""
IMAGES_WITHOUT_WORDS = """() => [...document.querySelectorAll('.bd-article img')]
    .filter(i => !i.alt.trim() || !i.complete || i.naturalWidth === 0).map(i => i.outerHTML.slice(0, 200))"""
CHARTS = """() => [...document.querySelectorAll('.lee-chart')].map(c => ({
    state: c.dataset.state,
    marks: c.querySelectorAll('svg .mark-group path, svg path, svg image').length,
    words: c.querySelector('[role=graphics-document]')?.getAttribute('aria-label') || '',
    width: c.querySelector('svg')?.getBoundingClientRect().width || 0,
    room: c.getBoundingClientRect().width}))"""
CUT_WORDS = """() => [...document.querySelectorAll('.lee-chart svg')].flatMap(svg => {
    const room = svg.getBoundingClientRect();
    const out = box => box.width > 0 && (box.left < room.left - 1 || box.right > room.right + 1);
    const words = [...svg.querySelectorAll('.role-axis text, .role-legend text, .role-mark text')];
    return words.filter(word => out(word.getBoundingClientRect())).map(word => word.textContent); })"""
UNSET_MATH = """() => [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container'))
    .map(m => m.textContent)"""

MARKED_AT_THE_END = """async () => {
    const links = [...document.querySelectorAll('nav.page-toc a')];
    window.scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' });
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    const marked = links.filter(link => link.classList.contains('active'));
    const right = links.length === 0 || marked.length === 1 && marked[0] === links.at(-1);
    return right ? [] : [marked.map(link => link.textContent).join(' and ')]; }"""


def complaints(page: Page) -> list[str]:
    """What is wrong with the content of an open page."""
    told = [f"a figure has no caption: {html}" for html in page.evaluate(FIGURES_WITHOUT_WORDS)]
    told += [f"an image has no alternative text or no pixels: {html}" for html in page.evaluate(IMAGES_WITHOUT_WORDS)]
    told += [f"a formula is not typeset: {text}" for text in page.evaluate(UNSET_MATH)]
    told += [f"words of a chart are cut: {words}" for words in page.evaluate(CUT_WORDS)]
    for number, chart in enumerate(page.evaluate(CHARTS), start=1):
        if chart["state"] != "drawn" or chart["marks"] == 0:
            told.append(f"chart {number} is not drawn")
        if not chart["words"]:
            told.append(f"chart {number} has no alternative text")
        if chart["width"] > chart["room"] + 1:
            told.append(f"chart {number} is {chart['width']} pixels wide in a room of {chart['room']}")
    told += [f"at the end {text} is marked as the section on this page" for text in page.evaluate(MARKED_AT_THE_END)]
    if (excess := page.evaluate(TOO_WIDE)) > 0:
        told.append(f"the page is {excess} pixels wider than the window")
    return told


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("size", "part"), [(DESKTOP, 0), (DESKTOP, 1), (PHONE, 0)], ids=["desktop", "desktop, others", "phone"]
)
def test_every_page_is_whole_and_quiet(
    browser: Browser, site: Path, address: str, size: tuple[int, int], part: int
) -> None:
    """On a desktop axe-core looks at it too, in the light and in the dark: a phone shows the same colours and words.

    Desktops have two tests with every second page each, which can run side by side.
    """
    found: dict[str, list[str]] = {}
    every = pages(site)
    alike = [path for path in every if path.startswith("book/api/")][1:]
    context = reader(browser, size=size)
    for path in every[part::2] if size == DESKTOP else sorted({*every} - {*alike}):
        with opened(context, address, path) as seen:
            told = complaints(seen.page)
            photograph(seen.page, f"{path}-{size[0]}")
            for scheme, rules in RULES.items() if size == DESKTOP else ():
                if scheme == "light" or path not in alike:
                    seen.page.emulate_media(color_scheme=scheme)
                    seen.page.wait_for_function(SETTLED, arg=scheme, timeout=PATIENCE)
                    photograph(seen.page, f"{path}-{scheme}")
                    told += [f"{scheme}: {barrier}" for barrier in barriers(seen.page, *rules, code=path == CHAPTER)]
            told += [f"console: {text}" for text in seen.console]
            told += [f"failed request: {url}" for url in seen.failed]
            told += [f"request to another host: {url}" for url in seen.foreign]
            assert seen.page.title()
        if told:
            found[path] = told
    context.close()
    assert not found


def photograph(page: Page, name: str) -> None:
    """Keep a picture of the page where LEE_SCREENSHOTS asks for it."""
    if os.environ.get("LEE_SCREENSHOTS"):
        page.screenshot(path=SCREENSHOTS / f"{name.replace('.html', '').replace('/', '-')}.png", full_page=True)


def test_the_front_page_opens_from_the_root(browser: Browser, address: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}/")
        page.wait_for_url("**/book/index.html")
        assert page.locator(".bd-article h1").count() == 1


def test_the_front_page_opens_from_a_file(browser: Browser, site: Path) -> None:
    with visit(browser, site.as_uri(), "book/index.html") as seen:
        assert seen.page.evaluate("() => document.querySelectorAll('.lee-chart svg').length") > 0
        assert seen.console == seen.failed == seen.foreign == []


def test_without_the_address_of_a_repository_no_launch_buttons_are_there(site: Path) -> None:
    assert not re.search(r"mybinder|colab\.research", (site / "book" / "03_aliasing.html").read_text())


def test_next_and_previous_lead_through_the_book(site: Path) -> None:
    """Every page of the contents is reached from the front page, and each leads back to the one before."""
    path, seen = "book/index.html", ["book/index.html"]
    while link := re.search(r'<a class="right-next"\s+href="([^"]+)"', (site / path).read_text()):
        path = normpath(join(dirname(path), link[1]))
        back = re.search(r'<a class="left-prev"\s+href="([^"]+)"', (site / path).read_text())
        assert back, path
        assert normpath(join(dirname(path), back[1])) == seen[-1]
        seen.append(path)
    assert sorted(seen) == [path for path in pages(site) if path.startswith("book/")]


FIRST = {
    "measure my own model": "book/13_your_model",
    "how do I measure my own model": "book/13_your_model",
    "rotation": "book/09_rotated_mnist",
    "aliasing": "book/03_aliasing",
    "standard error": "book/glossary#standard-error",
    "how do I install": "book/index",
    "where in the picture": "book/15_where_in_the_picture",
    "lee report": "book/index",
    "lie derivative definition": "book/01_symmetry_and_the_lie_derivative",
    "zhang 2019": "book/bibliography#zhang-2019",
    "lie_derivative": "book/api/measure#lee.measure.lie_derivative",
    "how do I": None,
    "my": None,
}
"""Queries, and where the first result leads; None where nothing is asked for."""
FOUND = (
    "query => Search._performSearch(...Search._parseQuery(query)).reverse().map(([page, , anchor]) => page + anchor)"
)
RESULTS = """() => {
    const items = [...document.querySelectorAll('#search-results li')];
    if (!document.querySelector('.search-summary')?.innerText || !items.every(li => li.children.length > 1)) return null;
    return items.map(li => ({
        to: li.querySelector('a').getAttribute('href'), excerpt: li.querySelector('.context')?.textContent ?? '',
        marked: [...li.querySelectorAll('.highlighted')].map(word => word.textContent.toLowerCase())})); }"""


def test_the_search_finds_what_is_meant(browser: Browser, address: str) -> None:
    with visit(browser, address, "search.html?q=how do I measure my own model") as seen:
        shown = seen.page.wait_for_function(RESULTS, timeout=PATIENCE).json_value()
        found = {asked: seen.page.evaluate(FOUND, asked) for asked in FIRST}
        assert seen.console == seen.failed == seen.foreign == []
    for asked, results in found.items():
        assert next(iter(results), None) == FIRST[asked], asked
        late = [bool(re.search(r"/api|/status", page)) for page in results[1:]]
        assert late == sorted(late), f"the reference stands before a chapter: {asked}"
    assert shown[0]["to"] == "book/13_your_model.html"
    words = {word for one in shown for word in one["marked"]}
    assert {"measure", "own", "model"} <= words
    assert all(re.match("measur|own$|model", word) for word in words)
    assert not any(re.search(r"\.ipynb|\.pdf|notebook\.prose|import ", one["excerpt"]) for one in shown)


def test_definitions_show_by_keyboard_and_by_finger(browser: Browser, address: str) -> None:
    size = {"width": PHONE[0], "height": PHONE[1]}
    with browser.new_context(viewport=size, has_touch=True) as context, opened(context, address, CHAPTER) as seen:
        page = seen.page
        told = page.get_by_role("tooltip")
        page.locator(".bd-article a[href*='bibliography.html#']").first.focus()
        expect(told).to_contain_text("Aharon Azulay")
        box = told.bounding_box()
        assert box
        assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE[0]
        page.keyboard.press("Tab")
        expect(told.filter(has_text="Aharon Azulay")).to_have_count(0)
        term = page.locator(".bd-article a[href*='glossary.html#aliasing']").first
        term.tap()
        expect(told.filter(has_text="sampled too coarsely")).to_be_visible()
        assert CHAPTER in page.url
        term.tap()
        page.wait_for_url("**/glossary.html#aliasing", timeout=PATIENCE)
        assert seen.console == []


def ink(page: Page) -> str:
    """Colour of the words in the first chart, as the browser paints them."""
    return page.evaluate("() => getComputedStyle(document.querySelector('.lee-chart svg text')).fill")


def test_charts_follow_the_reader_s_theme(browser: Browser, address: str) -> None:
    with visit(browser, address, "book/index.html") as seen:
        page = seen.page
        light = ink(page)
        page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
        assert ink(page) != light
        assert page.locator(".lee-chart[data-state=drawn]").count() > 0


def test_charts_follow_the_room_they_have(browser: Browser, address: str) -> None:
    with visit(browser, address, "book/index.html") as seen:
        seen.page.evaluate("() => { document.querySelector('.bd-article').style.width = '420px'; }")
        # Charts of one panel are drawn anew, those of several are made smaller.
        drawn = "[...document.querySelectorAll('.lee-chart svg')]"
        seen.page.wait_for_function(f"() => {drawn}.some((svg) => svg.getAttribute('width') < 420)")
        seen.page.wait_for_function(f"() => {drawn}.every((svg) => svg.getBoundingClientRect().width < 420)")
        assert not complaints(seen.page)


def test_sliders_move_charts_by_keyboard(browser: Browser, site: Path, address: str) -> None:
    moved = 0
    for path in (path for path in pages(site) if SLIDER.search((site / path).read_text())):
        with visit(browser, address, path) as seen:
            charts = seen.page.locator(".lee-chart", has=seen.page.locator("input[type=range]"))
            for chart in charts.all():
                before = chart.locator("svg").inner_html()
                chart.locator("input[type=range]").first.focus()
                seen.page.keyboard.press("ArrowLeft")
                seen.page.wait_for_timeout(300)
                assert chart.locator("svg").inner_html() != before, f"a slider of {path} moves nothing"
                moved += 1
    assert moved > 0, "no chart of the book has a slider"


ON_PAPER = """() => ({
    folded: document.querySelectorAll('.bd-article details:not([open])').length,
    buttons: [...document.querySelectorAll(
        '.bd-article :is(details.hide > summary, .vega-bindings input, .lee-play, .copybtn), .bd-sidebar')]
        .filter(part => part.checkVisibility()).length,
    boxes: [...document.querySelectorAll('.bd-article details')]
        .filter(one => one.checkVisibility() && !one.innerText.trim()).length,
    charts: [...document.querySelectorAll('.lee-chart')]
        .map(chart => [chart.querySelector('svg')?.getBoundingClientRect().width, chart.clientWidth]),
    wide: [...document.querySelectorAll('.bd-article :is(table, figure, pre)')]
        .filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1).length})"""


def test_a_page_is_whole_on_paper(browser: Browser, address: str) -> None:
    a4 = (718, 1000)  # pixels between the margins
    with visit(browser, address, "book/04_layer_by_layer.html", size=a4, dark=True) as seen:
        assert sum(map(int, re.findall(r"\d+", ink(seen.page))[:3])) > 400
        folded = seen.page.evaluate(ON_PAPER)["folded"]
        seen.page.emulate_media(media="print")
        seen.page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
        # Charts that were folded are drawn as wide as the others.
        seen.page.wait_for_function(
            "() => [...document.querySelectorAll('.lee-chart svg')].every(c => c.clientWidth > 400)"
        )
        paper = seen.page.evaluate(ON_PAPER)
        # Chromium prints no backgrounds by default, so words must be dark.
        assert sum(map(int, re.findall(r"\d+", ink(seen.page))[:3])) < 300
        assert folded > 20
        assert (paper["folded"], paper["buttons"], paper["boxes"], paper["wide"]) == (0, 0, 0, 0)
        assert all(width <= room + 1 for width, room in paper["charts"])
        seen.page.emulate_media(media="screen")
        seen.page.wait_for_function("() => document.documentElement.dataset.theme !== 'light'")
        assert seen.page.evaluate(ON_PAPER)["folded"] == folded
        assert seen.console == []


def test_a_visit_notices_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    """The checks above can fail."""
    (tmp_path / "bad.html").write_text(
        "<html><body><article class='bd-article'><img src='missing.png' alt=''><figure>x</figure>"
        "<span class='math'>x</span><div style='width:3000px'>wide</div>"
        "<div class='lee-chart' data-state='failed'>"
        "<svg width='50'><g class='role-axis'><text x='40' y='20'>a long title</text></g></svg></div></article>"
        "<p style='color:#999;background:#aaa'>pale</p><script>console.error('loud')</script></body></html>"
    )
    with visit(browser, tmp_path.as_uri(), "bad.html") as seen:
        told = " | ".join(complaints(seen.page) + barriers(seen.page))
        assert seen.failed
        assert "loud" in seen.console
    for words in (
        "no caption",
        "no alternative text",
        "not typeset",
        "not drawn",
        "are cut: a long title",
        "wider than the window",
        "color-contrast",
    ):
        assert words in told
