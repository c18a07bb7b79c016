"""The sliders of chapter 10: the numbers that the page shows are those that Python computes from the table of the zoo."""

import re

import pytest
from browser.visits import DESKTOP, PHONE, visit
from playwright.sync_api import Browser, Locator, Page

from lee.measure.spectrum import ORTHOGONAL, unit_sized
from lee.statistics import EquivarianceGram
from lee.sweep import results

pytestmark = pytest.mark.browser

CHAPTER = "book/10_whole_algebra.html"
SLIDERS = [g.name.replace("_", " ") for g in ORTHOGONAL]
STEP = 0.05
NUMBERS = re.compile(r"([\d.]+) \[([\d.]+), ([\d.]+)\]")
"""An error and its interval."""


@pytest.fixture(scope="module")
def grams() -> dict[str, EquivarianceGram]:
    """Gram matrices of all trained networks at the test images, by what the chart calls them."""
    table = results.load("zoo").select(measurement="main", weights="trained", split="test")
    return {name.removeprefix("zoo/"): gram for name, gram in table.matrix_per_model().items()}


def expected(gram: EquivarianceGram, coefficients: dict[str, float]) -> tuple[float, float, float]:
    """Error of the mixture of motions of size 1, measured the plain way, and its 95 % interval."""
    units = {g.name.replace("_", " "): unit_sized(g) for g in ORTHOGONAL}
    first, *others = [c * units[name] for name, c in coefficients.items()]
    found = gram.lee(sum(others, first))
    low, high = found.interval()
    return found.value, max(0.0, low), high


def chart(page: Page) -> Locator:
    """The chart with the six sliders."""
    return page.locator(".lee-chart", has=page.locator("input[type=range]")).first


def slider(page: Page, name: str) -> Locator:
    """A slider by its label, as a screen reader finds it."""
    return chart(page).get_by_label(re.compile(f"^{name}"))


def shown(page: Page) -> dict[str, tuple[float, float, float]]:
    """Model → error and interval, as the words of the chart say; rows are told by their height in the picture."""
    words = (
        chart(page)
        .locator("svg text")
        .evaluate_all(
            "all => all.map(t => [t.textContent, t.getBoundingClientRect().top + t.getBoundingClientRect().height / 2])"
        )
    )
    numbers = [(NUMBERS.fullmatch(text), middle) for text, middle in words if NUMBERS.fullmatch(text)]
    names = [(text, middle) for text, middle in words if re.fullmatch(r"[a-z]+-[a-z0-9-]+", text)]
    nearest = {min(names, key=lambda n: abs(n[1] - middle))[0]: found for found, middle in numbers}
    assert len(nearest) == len(numbers), "two numbers stand in one row"
    return {name: tuple(map(float, found.groups())) for name, found in nearest.items()}


def check(page: Page, grams: dict[str, EquivarianceGram], coefficients: dict[str, float]) -> None:
    """All rows show what Python computes, to the digits that are shown."""
    found = shown(page)
    assert set(found) == set(grams)
    for name, numbers in found.items():
        value, low, high = expected(grams[name], coefficients)
        assert numbers == pytest.approx((value, low, high), abs=0.03 * (high - low)), name


def set_to(page: Page, name: str, value: float) -> None:
    """Move a slider as a pointer does, and wait until the picture has followed."""
    before = chart(page).locator("svg").inner_html()
    slider(page, name).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', {bubbles: true})); }",
        str(value),
    )
    page.wait_for_function(
        "([chart, before]) => chart.querySelector('svg').innerHTML !== before",
        arg=[chart(page).element_handle(), before],
    )


def test_the_page_shows_what_python_computes(
    browser: Browser, address: str, grams: dict[str, EquivarianceGram]
) -> None:
    with visit(browser, address, CHAPTER) as seen:
        check(seen.page, grams, {"translation x": 1.0})  # where the sliders stand at first
        set_to(seen.page, "rotation", 0.7)
        check(seen.page, grams, {"translation x": 1.0, "rotation": 0.7})
        set_to(seen.page, "translation x", -0.4)
        set_to(seen.page, "hyperbolic", -1.0)
        set_to(seen.page, "scale", 0.15)
        check(seen.page, grams, {"translation x": -0.4, "rotation": 0.7, "hyperbolic": -1.0, "scale": 0.15})
        assert seen.console == seen.failed == seen.foreign == []


def test_sliders_work_by_keyboard(browser: Browser, address: str, grams: dict[str, EquivarianceGram]) -> None:
    with visit(browser, address, CHAPTER) as seen:
        page = seen.page
        slider(page, "translation x").focus()
        for _ in SLIDERS[1:3]:
            page.keyboard.press("Tab")  # from slider to slider, in the order of the page
        assert slider(page, "rotation").evaluate("input => input === document.activeElement")
        before = chart(page).locator("svg").inner_html()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "([chart, before]) => chart.querySelector('svg').innerHTML !== before",
            arg=[chart(page).element_handle(), before],
        )
        page.wait_for_timeout(300)
        assert float(slider(page, "rotation").input_value()) == pytest.approx(-4 * STEP)
        check(page, grams, {"translation x": 1.0, "rotation": -4 * STEP})


def test_every_slider_has_a_name_and_fits_on_a_phone(browser: Browser, address: str) -> None:
    for size in (DESKTOP, PHONE):
        with visit(browser, address, CHAPTER, size=size) as seen:
            inputs = chart(seen.page).locator("input[type=range]")
            assert inputs.count() == len(SLIDERS)
            for name in SLIDERS:
                box = slider(seen.page, name).bounding_box()
                assert box is not None
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= size[0]
            # Numbers neither leave the picture nor meet the dots: they have a column of their own.
            words = chart(seen.page).locator("svg text", has_text="[")
            dots = chart(seen.page).locator("svg .mark-symbol path[aria-roledescription=point]")
            right = max(dot["x"] + dot["width"] for dot in (d.bounding_box() for d in dots.all()) if dot)
            left = min(word["x"] for word in (w.bounding_box() for w in words.all()) if word)
            assert right < left
