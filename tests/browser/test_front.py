"""The first page: two pictures that a reader turns by keyboard, by hand and by a button, and the numbers that are told then."""

import json
import math
from pathlib import Path

import pytest
from browser.visits import DESKTOP, PHONE, visit
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser

PAGE = "book/index.html"
LAPTOP = (1280, 800)
ENOUGH, MOST = 60, 2.5e6  # steps of the slider, bytes of a page


def chart(page: Page) -> Locator:
    return page.locator(".lee-chart.lee-turns")


def slider(page: Page) -> Locator:
    return chart(page).get_by_role("slider")


def frames(page: Page) -> list[str]:
    """The two pictures as they are now."""
    pictures = chart(page).locator("svg image")
    expect(pictures).to_have_count(2)
    return [picture.get_attribute("href") or "" for picture in pictures.all()]


def told(page: Page) -> list[str]:
    """The lines of words beside the pictures."""
    return chart(page).locator("svg text", has_text="points per degree").all_text_contents()


def expected(page: Page, angle: float) -> set[str]:
    """These lines, from the numbers that the chapter's cells have left in the chart."""
    spec = json.loads(chart(page).locator("script").text_content() or "")
    rows = [row for data in spec["datasets"].values() for row in data if "slope" in row and row["angle"] == angle]
    lines = ((row, f"{100 * row['slope']:+.1f}".replace("-", "−")) for row in rows)
    return {
        f"{r['model']}: {r['class']} {100 * r['probability']:.0f}%, {slope} points per degree" for r, slope in lines
    }


def inside(page: Page, size: tuple[int, int], part: Locator) -> bool:
    box = part.bounding_box()
    return (
        box is not None and box["x"] >= 0 and box["x"] + box["width"] <= size[0] and box["y"] + box["height"] <= size[1]
    )


def test_the_first_screen_shows_what_the_book_is_about(browser: Browser, address: str) -> None:
    with visit(browser, address, PAGE, size=LAPTOP) as seen:
        page = seen.page
        assert page.locator(".bd-article h1").inner_text().startswith("The Lie Derivative for Measuring")
        parts = [*chart(page).locator("svg image").all(), slider(page), page.get_by_role("button", name="Play")]
        assert all(inside(page, LAPTOP, part) for part in parts)
        above = page.locator(".bd-article h2").all_inner_texts()
        assert [text.strip("#¶\n ") for text in above[:4]][-1] == "How to read this book"
        assert seen.console == seen.failed == seen.foreign == []
    with visit(browser, address, PAGE, size=PHONE) as seen:
        assert inside(seen.page, PHONE, chart(seen.page).locator("svg image").first)


def test_pages_are_small(site: Path) -> None:
    assert {
        path.name: path.stat().st_size for path in (site / "book").glob("*.html") if path.stat().st_size > MOST
    } == {}


def test_keys_turn_the_pictures_step_by_step(browser: Browser, address: str) -> None:
    with visit(browser, address, PAGE, size=DESKTOP) as seen:
        page, handle = seen.page, slider(seen.page)
        low, high, step = (float(handle.get_attribute(name) or "") for name in ("min", "max", "step"))
        assert (high - low) / step >= ENOUGH
        before = frames(page)
        assert set(told(page)) == expected(page, 0)
        handle.focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        expect(chart(page).locator("svg image").first).not_to_have_attribute("href", before[0])
        assert float(handle.input_value()) == 5 * step
        wanted = expected(page, 5 * step)
        for _ in range(50):  # it is drawn once for each key
            if set(told(page)) == wanted:
                break
            page.wait_for_timeout(100)
        assert all(now != then for now, then in zip(frames(page), before, strict=True))
        assert set(told(page)) == wanted


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_picture_follows_the_hand(browser: Browser, address: str, size: tuple[int, int]) -> None:
    with visit(browser, address, PAGE, size=size) as seen:
        page = seen.page
        box = chart(page).locator("svg image").first.bounding_box()
        assert box
        x, y, radius = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"] * 0.4
        page.mouse.move(x + radius, y)
        page.mouse.down()
        for degrees in range(0, 21, 2):  # clockwise on the screen, where y points down
            turn = math.radians(degrees)
            page.mouse.move(x + radius * math.cos(turn), y + radius * math.sin(turn))
        page.mouse.up()
        assert float(slider(page).input_value()) == pytest.approx(20, abs=1)
        page.mouse.move(x - radius, y)  # let go of: nothing follows
        assert float(slider(page).input_value()) == pytest.approx(20, abs=1)


def test_a_button_plays_and_stops(browser: Browser, address: str) -> None:
    with visit(browser, address, PAGE) as seen:
        page, value = seen.page, "document.querySelector('.lee-turns input').value"
        page.get_by_role("button", name="Play").click()
        page.wait_for_function(f"() => Math.abs({value}) > 5")
        page.get_by_role("button", name="Pause").click()
        stopped = page.evaluate(value)
        page.wait_for_timeout(300)
        assert page.evaluate(value) == stopped
        assert seen.console == []
