"""The explorer's own page: voila on loopback, driven in headless Chromium."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from browser.visits import DESKTOP, PATIENCE, PHONE, TOO_WIDE, Visit
from exploring import explored
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from lee.explorer import Measures
from lee.explorer.state import START, mixture_of
from lee.geometry.generators import SCALE

# One server for all of them, in whichever process they run.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.xdist_group("explorer")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the explorer is served."""
    with explored(tmp_path_factory.mktemp("explorer")) as address:
        yield address


@pytest.fixture(scope="module")
def seen(browser: Browser, served: str) -> Iterator[Visit]:
    """The explorer's page with its first curves drawn: one for all tests, as each page starts a kernel."""
    context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    seen = Visit(page)
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("console", lambda m: seen.console.append(m.text) if m.type == "error" else None)
    page.on("requestfailed", lambda request: seen.failed.append(request.url))
    page.on("response", lambda r: seen.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    own = served.partition("/?")[0]
    home = (own, own.replace("http:", "ws:"), "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(home) else seen.foreign.append(r.url))
    page.on("websocket", lambda w: None if w.url.startswith(home) else seen.foreign.append(w.url))
    page.goto(served, wait_until="load")
    expect(chart(page)).to_be_visible()
    yield seen
    context.close()


def chart(page: Page) -> Locator:
    """The curves of the first model."""
    return page.locator('svg[aria-label^="Class probabilities"]').first


def handle(page: Page, name: str) -> Locator:
    """What a slider is dragged by."""
    slider = page.locator(".widget-slider", has=page.get_by_text(name, exact=True))
    return slider.locator(".noUi-handle")


def transformed(page: Page) -> str:
    """The picture in the middle."""
    return page.locator('img[alt^="The image transformed"]').get_attribute("src") or ""


def choose_file(page: Page, name: str, content: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="image file").click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def png() -> bytes:
    stream, ramp = io.BytesIO(), np.linspace(0, 255, 48).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (48, 1))] * 3, axis=2)).save(stream, "PNG")
    return stream.getvalue()


def test_the_first_result_is_above_the_fold(seen: Visit) -> None:
    page = seen.page
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    parts = [page.locator("img[alt^='The image transformed']"), chart(page), handle(page, "amount t")]
    parts.append(page.locator("table", has_text="probability at t").first)
    for part in parts:
        box = part.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 1280
        assert box["y"] + box["height"] <= 800
    controls, picture = handle(page, "amount t").bounding_box(), parts[0].bounding_box()
    assert controls
    assert picture
    assert controls["x"] < picture["x"]
    page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})


def test_a_generator_and_an_amount_show_what_python_computes(seen: Visit) -> None:
    page = seen.page
    before, curve = transformed(page), chart(page).inner_html()
    page.get_by_label("generator").select_option("scale")
    expect(chart(page)).to_have_attribute("aria-label", re.compile("scale"))
    handle(page, "amount t").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(chart(page)).to_have_attribute("aria-label", re.compile(r"t = 0\.1:"))
    assert chart(page).inner_html() != curve
    assert transformed(page) != before
    measures, state = Measures(), replace(START, mixture=mixture_of(SCALE), t=0.1)
    k = measures.curve(state).top[0]
    told = f"{measures.curve(state).names[k]} {float(measures.touch(state).value[k]):.3f}"
    expect(chart(page)).to_have_attribute("aria-label", re.compile(told))


def test_a_mixture_is_set_by_keyboard(seen: Visit) -> None:
    page = seen.page
    page.get_by_label("generator").select_option("rotation")
    expect(chart(page)).to_have_attribute("aria-label", re.compile("over the amount of rotation"))
    page.get_by_text("Mixture of motions").click()
    handle(page, "translation x").focus()
    page.keyboard.press("ArrowRight")
    expect(chart(page)).to_have_attribute("aria-label", re.compile(r"0\.05\*translation_x \+ rotation"))
    expect(page.get_by_label("generator")).to_have_value("mixture")


def test_uploads_are_shown_and_broken_ones_are_told(seen: Visit) -> None:
    page = seen.page
    original = page.locator('img[alt="Original image"]')
    before = original.get_attribute("src")
    choose_file(page, "ramp.png", png())
    expect(original).not_to_have_attribute("src", before or "")
    uploaded = original.get_attribute("src")
    choose_file(page, "broken.png", b"no picture at all")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("broken.png: The file can't be read as one of PNG, JPEG")
    assert original.get_attribute("src") == uploaded
    assert chart(page).is_visible()


def test_layers_come_on_demand(seen: Visit) -> None:
    shares = seen.page.locator('svg[aria-label^="Share of layers"]')
    assert shares.count() == 0
    seen.page.get_by_role("button", name="Layer contributions").click()
    expect(shares).to_be_visible()


def test_the_page_fits_a_phone(seen: Visit) -> None:
    seen.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    seen.page.wait_for_function(f"() => document.documentElement.clientWidth <= {PHONE[0]}")
    assert seen.page.evaluate(TOO_WIDE) <= 0


def test_no_other_host_was_asked_and_nothing_failed(seen: Visit) -> None:
    """Of all that the tests above did."""
    assert seen.foreign == seen.failed == []
