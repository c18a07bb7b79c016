"""The explorer's own page: voila on loopback, driven in headless Chromium."""

import io
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from browser.visits import COLOURS, PATIENCE, PHONE, TOO_WIDE, Visit, barriers
from exploring import explored
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect
from typer.testing import CliRunner

from lee.cli import app as cli
from lee.explorer import Measures, State
from lee.explorer.server import MOST_KERNELS
from lee.explorer.state import mixture_of
from lee.geometry.generators import SCALE

MODEL = "zoo/resnet-xs"
FOLD = (1280, 800)
# Parts that reach beyond the window's right edge, but for what scrolls inside its own box, and what is empty.
CUT_OFF = """() => [...document.querySelectorAll('.lee-explorer *')].filter(
    e => e.offsetWidth && !e.closest('pre') && e.getBoundingClientRect().right > window.innerWidth + 1
).map(e => e.outerHTML.slice(0, 120))"""

# One server for all of them, in whichever process they run.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.xdist_group("explorer")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the explorer is served with a small model; voila would run a file where it is started."""
    folder = tmp_path_factory.mktemp("explorer")
    (folder / "voila.py").write_text("raise SystemExit(7)")
    with explored(folder, MODEL) as address:
        yield address


@pytest.fixture(scope="module")
def seen(browser: Browser, served: str) -> Iterator[Visit]:
    """The explorer's page with its first curves drawn: one for all tests, as each page starts a kernel."""
    context = browser.new_context(viewport={"width": FOLD[0], "height": FOLD[1]})
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


def place(part: Locator) -> FloatRect:
    """Where a part of the page is, in pixels."""
    box = part.bounding_box()
    assert box is not None
    return box


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


def answer(address: str, **headers: str) -> tuple[int, str]:
    """Status of what a server answers, and the text where it refuses; of a page nothing is read, as it computes first."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def kernels(address: str) -> int:
    """How many processes wait behind a server."""
    port = urllib.parse.urlparse(address).port
    lines = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (server,) = (line.split()[0] for line in lines if f"lee explore --port {port} " in line)
    return sum(line.split()[1] == server and "ipykernel" in line for line in lines)


def settled(page: Page) -> None:
    """Wait until nothing is computed any more."""
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^\s*$"))


def open_tab(page: Page, title: str) -> Locator:
    """Open a tab; where it shows its results."""
    page.get_by_role("tab", name=title).click()
    expect(page.get_by_role("tab", name=title)).to_have_attribute("aria-selected", "true")
    settled(page)
    return page.locator(".lee-tabs .widget-tab-contents")


def test_the_page_is_for_who_has_the_token_on_this_machine_s_own_addresses(served: str) -> None:
    bare, foreign = served.partition("?")[0], "http://elsewhere.example"
    refused = [
        answer(bare),
        answer(bare + "?token=" + "0" * 48),
        answer(served, Host="elsewhere.example"),
        answer(served, Origin=foreign),
        answer(bare, **{"Sec-Fetch-Site": "cross-site"}),
        answer(bare + "voila/files/explorer.ipynb"),
    ]
    assert [status for status, _ in refused] == [403] * 6
    assert "the address that `lee explore` printed" in refused[0][1]
    channel = f"{bare}api/kernels/{uuid.uuid4()}/channels?{served.partition('?')[2]}"
    for headers in (
        {"Host": "elsewhere.example"},
        {"Origin": foreign},
        {"Sec-Fetch-Site": "cross-site", "Origin": foreign},
    ):
        assert answer(channel, **headers)[0] == 403
    assert answer(channel)[0] not in (200, 403)  # there is no such kernel
    assert kernels(served) == 0


def test_a_port_that_is_taken_is_told_before_any_address(served: str) -> None:
    port = str(urllib.parse.urlparse(served).port)
    result = CliRunner().invoke(cli, ["explore", "--port", port, "--no-browser"])
    assert result.exit_code == 2
    assert f"Port {port} can't be used (Address already in use). Choose another" in result.output
    assert "http" not in result.output


def test_the_first_result_is_above_the_fold(seen: Visit) -> None:
    page = seen.page
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    settled(page)
    picture, table = page.locator("img[alt^='The image transformed']"), page.locator("table", has_text="d/dt, per")
    amount, errors = handle(page, "amount t"), page.locator("table", has_text="Local equivariance error")
    boxes = [place(one) for one in (picture, chart(page), amount, table, errors, page.get_by_label("second model"))]
    for box in boxes:
        assert box["x"] + box["width"] <= FOLD[0]
        assert box["y"] + box["height"] <= FOLD[1]
    assert boxes[2]["x"] < boxes[0]["x"], "controls stand on the left"
    assert boxes[0]["x"] < boxes[4]["x"], "pictures stand before numbers"
    assert abs(boxes[1]["y"] - boxes[3]["y"]) < boxes[1]["height"] / 2, "the legend stands beside the curves"
    assert boxes[1]["x"] < boxes[3]["x"]


def test_two_models_of_a_preset_are_above_the_fold(seen: Visit) -> None:
    page = seen.page
    page.get_by_label("begin with").select_option("ResNet against ViT under rotation")
    second = page.locator('svg[aria-label^="Class probabilities of zoo/vit-s"]')
    expect(second).to_be_visible()
    settled(page)
    expect(page.get_by_label("model", exact=True)).to_have_value(re.compile("zoo/resnet-s"))
    box = place(second)
    assert box["y"] + box["height"] <= FOLD[1]
    page.get_by_label("second model").select_option("none")
    expect(second).to_have_count(0)
    settled(page)


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
    measures, state = Measures(), State(index=3, models=("zoo/resnet-s",), mixture=mixture_of(SCALE), t=0.1)
    k = measures.curve(state).top[0]
    told = f"{measures.curve(state).names[k]} {float(measures.touch(state).value[k]):.3f}"
    expect(chart(page)).to_have_attribute("aria-label", re.compile(told))


def test_a_small_picture_is_chosen_by_mouse_and_by_keyboard(seen: Visit) -> None:
    page = seen.page
    original, first = page.locator('img[alt="Original image"]'), page.get_by_role("button", name="0: astronaut")
    expect(page.get_by_role("button", name="3: rocket")).to_have_class(re.compile("mod-active"))
    before = original.get_attribute("src")
    first.click()
    expect(original).not_to_have_attribute("src", before or "")
    expect(first).to_have_class(re.compile("mod-active"))
    page.keyboard.press("Tab")
    second = page.get_by_role("button", name="1: chelsea")
    expect(second).to_be_focused()
    assert second.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    assert "data:image/png" in second.evaluate("one => getComputedStyle(one).backgroundImage")
    before = original.get_attribute("src")
    page.keyboard.press("Enter")
    expect(second).to_have_class(re.compile("mod-active"))
    expect(original).not_to_have_attribute("src", before or "")


def test_a_mixture_is_set_by_keyboard(seen: Visit) -> None:
    page = seen.page
    page.get_by_label("generator").select_option("rotation")
    expect(chart(page)).to_have_attribute("aria-label", re.compile("over the amount of rotation"))
    page.get_by_text("Mixture of motions").click()
    handle(page, "translation x").focus()
    page.keyboard.press("ArrowRight")
    expect(chart(page)).to_have_attribute("aria-label", re.compile(r"0\.05\*translation_x \+ rotation"))
    expect(page.get_by_label("generator")).to_have_value("mixture")
    page.get_by_text("Mixture of motions").click()


def test_the_error_map_follows_the_mixture(seen: Visit) -> None:
    page = seen.page
    shown = open_tab(page, "Where in the picture")
    found = shown.locator("img[alt^='Map of the error of zoo/resnet-s']")
    expect(found).to_be_visible()
    expect(shown.locator(".lee-scale")).to_contain_text("−")
    before = found.get_attribute("alt")
    page.get_by_label("generator").select_option("scale")
    expect(found).to_have_attribute("alt", re.compile("under scale"))
    state = State(index=1, models=("zoo/resnet-s",), mixture=mixture_of(SCALE))
    share = Measures().map(state).patches(8)
    page.get_by_label("shares of").select_option("8 × 8 pixels")
    expect(found).to_have_attribute("alt", re.compile(f"The largest share, {100 * float(share.max()):.0f} %"))
    assert found.get_attribute("alt") != before


def test_the_orbit_and_the_layers_come_on_demand(seen: Visit) -> None:
    page = seen.page
    shown = open_tab(page, "Along the orbit")
    expect(shown.locator('svg[aria-label*="along the orbit of scale"]')).to_be_visible()
    expect(shown).to_contain_text(re.compile("forwards, it (flips at|does not flip up to)"))
    page.get_by_label("amounts", exact=True).select_option("from −0.05 to 0.05")
    expect(shown).to_contain_text("amounts 0.0025 apart")
    shown = open_tab(page, "Layers")
    expect(shown.locator("table.bars")).to_contain_text("(Conv2d)")
    shown = open_tab(page, "Code")
    expect(shown.locator("pre")).to_contain_text('lee.models.load("zoo/resnet-s")')
    expect(shown.locator("table.bars")).to_have_count(0)
    page.get_by_role("tab", name="Code").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Curves")).to_have_attribute("aria-selected", "true")
    settled(page)


def test_uploads_are_shown_and_broken_ones_are_told(seen: Visit) -> None:
    page = seen.page
    page.get_by_text("A picture of your own").click()
    expect(page.get_by_text("its alpha channel")).to_be_visible()
    original = page.locator('img[alt="Original image"]')
    before = original.get_attribute("src")
    choose_file(page, "ramp.png", png())
    expect(original).not_to_have_attribute("src", before or "")
    uploaded = original.get_attribute("src")
    choose_file(page, "broken.png", b"no picture at all")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("broken.png: The file can't be read as one of PNG, JPEG")
    assert place(alert)["x"] < FOLD[0] / 3, "beside the control, on the left"
    assert original.get_attribute("src") == uploaded
    assert chart(page).is_visible()
    page.get_by_text("A picture of your own").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_a_reader_out(seen: Visit, scheme: str) -> None:
    page = seen.page
    page.emulate_media(color_scheme=scheme)
    background = page.evaluate("() => getComputedStyle(document.querySelector('#rendered_cells')).backgroundColor")
    lightness = np.mean([int(part) for part in re.findall(r"\d+", background)[:3]])
    assert (lightness < 80) == (scheme == "dark")
    found = []
    for title in ("Curves", "Where in the picture", "Along the orbit", "Layers", "Code"):
        open_tab(page, title)
        found += [f"{title}: {barrier}" for barrier in barriers(page, *(COLOURS if scheme == "dark" else ()))]
    assert found == []
    open_tab(page, "Curves")


def test_a_phone_shows_pictures_then_controls_then_curves_then_numbers(seen: Visit) -> None:
    page = seen.page
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.wait_for_function(f"() => document.documentElement.clientWidth <= {PHONE[0]}")
    parts = [page.get_by_role("heading", level=1), page.get_by_label("begin with")]
    parts += [page.locator("img[alt^='The image transformed']"), handle(page, "amount t")]
    parts += [page.get_by_role("button", name="1: chelsea"), chart(page)]
    parts.append(page.locator("table", has_text="Local equivariance error"))
    tops = [place(part)["y"] for part in parts]
    assert tops == sorted(tops)
    assert tops[3] < PHONE[1]
    for title in ("Where in the picture", "Along the orbit", "Layers", "Code", "Curves"):
        open_tab(page, title)
        assert page.evaluate(TOO_WIDE) <= 0
        assert page.evaluate(CUT_OFF) == []
    page.set_viewport_size({"width": FOLD[0], "height": FOLD[1]})


def test_no_other_host_was_asked_and_nothing_failed(seen: Visit) -> None:
    """Of all that the tests above did."""
    assert seen.foreign == seen.failed == []


def test_a_page_that_is_left_ends_its_kernel(seen: Visit, served: str) -> None:
    assert kernels(served) == 1
    seen.page.goto("about:blank")
    end = time.monotonic() + 60
    while kernels(served) and time.monotonic() < end:
        time.sleep(0.2)
    assert kernels(served) == 0


def test_a_few_kernels_serve_many_requests_and_the_page_says_so(served: str) -> None:
    with ThreadPoolExecutor(8) as many:
        found = list(many.map(lambda _: answer(served), range(8)))
    assert sorted(status for status, _ in found) == [200] * MOST_KERNELS + [503] * (8 - MOST_KERNELS)
    assert all(f"{MOST_KERNELS} pages of the explorer are open. Close one" in text for s, text in found if s == 503)
    assert kernels(served) == MOST_KERNELS
