"""The explorer without a browser: its numbers are those of lee's own functions, and its widgets do as they say."""

import asyncio
import datetime
import io
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exploring import explored
from PIL import Image
from torch import Tensor
from tornado.web import HTTPError
from typer.testing import CliRunner

import lee
from lee import datasets, models
from lee.cli import app as cli
from lee.errors import InputError
from lee.explorer import Measures, State, drawing, motion, pictures, still
from lee.explorer.app import Explorer
from lee.explorer.recipe import recipe
from lee.explorer.server import MOST_KERNELS, Kernels
from lee.explorer.state import PRESETS, REACH, SLIDERS, mixture_of
from lee.geometry.generators import NAMED
from lee.geometry.sampling import Sampler

pytestmark = pytest.mark.xdist_group("measures")  # its fixtures are made once

MODEL = "zoo/resnet-xs"
WHEN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
MIXED = (0.3, 0.0, 0.7, 0.0, -0.2, 0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def measures() -> Measures:
    return Measures()


@pytest.fixture
def state() -> State:
    return State(images="patches", index=3, models=(MODEL,), n=6)


def image_of(index: int = 3) -> Tensor:
    return datasets.load("patches", size=32).images[index : index + 1]


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    stream = io.BytesIO()
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([5 * x, 7 * y, 3 * (x + y)], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


# State


@pytest.mark.parametrize("name", list(NAMED))
def test_every_named_generator_is_a_position_of_the_sliders(name: str) -> None:
    assert State(mixture=mixture_of(NAMED[name])).generator == NAMED[name]


def test_a_mixture_is_the_sum_of_its_parts() -> None:
    generator = State(mixture=(0.1, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)).generator
    expected = 0.1 * lee.TRANSLATION_X + 0.5 * lee.ROTATION + lee.SATURATION
    assert generator.coefficients == pytest.approx(expected.coefficients, abs=1e-9)
    assert generator.name == "0.1*translation_x + 0.5*rotation + saturation"
    assert generator.unit == "t"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kernel": "fourir"}, "fourier"),
        ({"boundary": "mirror"}, "boundary"),
        ({"models": ()}, "one or two"),
        ({"models": ("os:getcwd",)}, "lee models list"),
        ({"mixture": (0.0,) * 9}, "Move one"),
        ({"mixture": (1.0,)}, "coefficients"),
        ({"t": 2.0}, "out of range"),
        ({"index": -1}, "index"),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(wrong: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        State(**wrong)


# The path and its velocity


@pytest.mark.parametrize("name", ["rotation", "translation_y", "shear_x", "brightness", "saturation"])
def test_a_path_is_the_finite_action(name: str) -> None:
    x, sampler = image_of(), Sampler().for_image(32, 32)
    expected = lee.Image().finite(NAMED[name], 0.2, x, sampler)
    assert torch.allclose(motion.act(x, NAMED[name], 0.2, sampler), expected, atol=1e-6)


@pytest.mark.parametrize("kernel", ["fourier", "central"])
@pytest.mark.parametrize(
    "mixture", [MIXED, (0.2, 0, 0.5, 0, 0, 0.1, 0.3, 0.4, -0.5), (0, 0, 0, 0, 0, 0, 1.0, 0.5, 0.5)]
)
def test_the_velocity_is_the_difference_quotient_of_the_path(kernel: str, mixture: tuple[float, ...]) -> None:
    x, sampler, h = image_of().double(), Sampler(kernel).for_image(32, 32), 1e-5
    generator = State(mixture=mixture).generator
    moved, speed = motion.velocity(x, generator, 0.15, sampler)
    near = [motion.act(x, generator, 0.15 + s * h, sampler) for s in (-1, 1)]
    assert torch.allclose(moved, motion.act(x, generator, 0.15, sampler), atol=1e-12)
    assert torch.allclose(speed, (near[1] - near[0]) / (2 * h), atol=1e-5 * float(speed.abs().max()))


def test_at_zero_the_velocity_of_a_mixture_is_its_infinitesimal_action() -> None:
    x, sampler = image_of().double(), Sampler().for_image(32, 32)
    generator = State(mixture=(0.2, 0, 0.5, 0, 0, 0.1, 0.3, 0.4, -0.5)).generator
    expected = lee.Image().infinitesimal([generator], x, sampler)[0]
    assert torch.allclose(motion.velocity(x, generator, 0.0, sampler)[1], expected, atol=1e-9)


# Numbers


def test_the_curve_is_the_model_on_warped_images(measures: Measures, state: State) -> None:
    curve, network = measures.curve(state), models.load(MODEL)
    for at in (0, 20, 33):
        with torch.no_grad():
            expected = network(lee.warp(image_of(), lee.ROTATION, curve.stops[at])).softmax(-1)[0]
        assert torch.allclose(curve.probabilities[at], expected, atol=1e-5)
    assert curve.stops[0] == -REACH
    assert curve.stops[20] == 0
    assert list(curve.top) == curve.probabilities.mean(0).argsort(descending=True)[:5].tolist()
    assert curve.names[3] == "cat"


def test_the_slope_at_zero_is_the_lie_derivative(measures: Measures, state: State) -> None:
    for name, kernel in (("rotation", "fourier"), ("scale", "central"), ("contrast", "fourier")):
        chosen = State(**{**vars(state), "mixture": mixture_of(NAMED[name]), "kernel": kernel})
        expected = lee.lie_derivative(models.load(MODEL), image_of(), name, kernel=kernel)[0]
        assert torch.allclose(measures.touch(chosen).slope, expected, atol=1e-4 * float(expected.abs().max()))


def test_the_slope_at_t_is_that_of_the_curve(measures: Measures, state: State) -> None:
    """Against central differences of the curve itself, in double precision."""
    network = models.load(MODEL).double()
    chosen, h = State(**{**vars(state), "mixture": MIXED, "t": 0.15}), 1e-5
    with torch.no_grad():
        near = [
            network(lee.warp(image_of().double(), chosen.generator, chosen.t + s * h)).softmax(-1)[0] for s in (-1, 1)
        ]
    expected = (near[1] - near[0]) / (2 * h)
    slope = measures.touch(chosen).slope.double()
    assert torch.allclose(slope, expected, atol=1e-3 * float(expected.abs().max()))
    assert float(expected.abs().max()) > 0.01


@pytest.mark.parametrize("mixture", [mixture_of(lee.ROTATION), MIXED])
def test_errors_are_those_of_lee(measures: Measures, state: State, mixture: tuple[float, ...]) -> None:
    chosen = State(**{**vars(state), "mixture": mixture})
    images = datasets.load("patches", size=32).images
    how = {"generator": chosen.generator, "progress": False}
    expected = lee.local_equivariance_error(models.load(MODEL), images[:6], **how)
    found = measures.error(chosen)
    assert found.value == pytest.approx(expected.value, rel=1e-3)
    assert found.stderr == pytest.approx(expected.stderr, rel=1e-3)
    assert (found.n, found.unit) == (6, expected.unit)
    alone = lee.local_equivariance_error(models.load(MODEL), image_of(), **how)
    assert measures.error_here(chosen).value == pytest.approx(alone.value, rel=1e-3)


def test_layers_are_those_of_lee(measures: Measures, state: State) -> None:
    frame = measures.layers(state)
    expected = lee.layerwise(models.load(MODEL), image_of(), "rotation").frame
    assert frame["path"].tolist() == expected["path"].tolist()
    assert np.allclose(frame["self_share"], expected["self_share"], atol=1e-3)
    html = drawing.layers(frame, model=MODEL, name="rotation")
    shares = [int(p) for p in re.findall(r">(-?\d+) %</text>", html)]
    assert sum(shares) == pytest.approx(100, abs=len(shares))  # each is rounded


def test_what_is_known_is_not_computed_again(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Measures()
    kept.curve(state), kept.error(state)
    network, calls = kept.model(state), []
    network.register_forward_hook(lambda *_: calls.append(1))
    moved = State(**{**vars(state), "t": 0.3})
    assert kept.curve(moved) is kept.curve(state)
    kept.error(State(**{**vars(state), "mixture": MIXED}))
    assert not calls
    kept.touch(moved)
    assert len(calls) == 1


def test_a_second_model_sees_the_same_image(measures: Measures, state: State) -> None:
    both = State(**{**vars(state), "models": (MODEL, "zoo/vit-xs")})
    assert torch.equal(measures.image(both, 1), image_of())
    with torch.no_grad():
        expected = models.load("zoo/vit-xs")(image_of()).softmax(-1)[0]
    assert torch.allclose(measures.touch(both, 1).value, expected, atol=1e-5)


# Images


def test_offered_data_sets_can_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("LEE_DATA", str(tmp_path))
    assert pictures.offered() == ("photos", "patches", "histology", "retina", "textures", "digits", "rotated-digits")
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert pictures.offered()[-2:] == ("mnist", "rotmnist")
    for name in ("photos", "digits"):
        images = pictures.load(name, 24)
        assert images.shape[1:] == (3, 24, 24)
        assert 8 <= len(images) <= pictures.MOST_IMAGES


def test_uploads_become_the_central_square() -> None:
    content = picture()
    found = pictures.decode(content)
    expected = np.asarray(Image.open(io.BytesIO(content)))[:, 5:35]
    assert torch.equal(found, torch.from_numpy(expected.copy()).permute(2, 0, 1)[None].float() / 255)
    assert pictures.decode(picture("JPEG"), 16).shape == (1, 3, 16, 16)


def test_uploads_are_turned_as_the_camera_was() -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # stored on its side
    with Image.open(io.BytesIO(picture(size=(30, 30)))) as image:
        image.save(stream, "PNG", exif=exif)
    expected = pictures.decode(picture(size=(30, 30))).rot90(-1, (2, 3))
    assert torch.equal(pictures.decode(stream.getvalue()), expected)


def bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (20000, 12000)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: b"", "can't be read"),
        (lambda: b"\x80\x04\x95 not a picture", "can't be read"),
        (lambda: picture()[: len(picture()) // 2], "can't be read"),
        (lambda: picture("PCX"), "can't be read as one of PNG"),
        (lambda: picture(size=(30, 1)), "2 × 2"),
        (lambda: bytes(pictures.MOST_BYTES + 1), "at most 10 MB"),
        (bomb, "too many pixels"),
    ],
    ids=["empty", "pickle", "truncated", "other", "thin", "large", "bomb"],
)
def test_bad_uploads_are_refused(content, words: str) -> None:
    with pytest.raises(InputError, match=words):
        pictures.decode(content())


# The app


@pytest.fixture
def app(measures: Measures, state: State) -> Explorer:
    return Explorer(state, measures)


def upload(app: Explorer, name: str, content: bytes) -> None:
    entry = {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": WHEN,
    }
    app.control["upload"].set_trait("value", (entry,))


def numbers(app: Explorer) -> list[str]:
    return re.findall(r"<td>([^<]*)</td>", app.shown["curves"].value)


def test_the_app_shows_the_numbers_of_its_state(app: Explorer, measures: Measures) -> None:
    touch, curve = measures.touch(app.state), measures.curve(app.state)
    k = curve.top[0]
    assert numbers(app)[:2] == [f"{float(touch.value[k]):.3f}", drawing.number(float(touch.slope[k]))]
    assert str(app.measures.error(app.state).n) in app.shown["errors"].value
    assert "alert" not in app.shown["status"].value
    for part in ("frames", "curves"):
        assert re.search(r'(alt|aria-label)="[^"]+', app.shown[part].value)


def test_moving_t_moves_the_picture_and_the_tangents_and_leaves_the_curves(app: Explorer) -> None:
    frames, curves, error = (app.shown[p].value for p in ("frames", "curves", "errors"))
    app.control["t"].value = 0.25
    assert app.state.t == 0.25
    assert app.shown["frames"].value != frames
    lines = [re.findall(r"<polyline[^>]*>", html) for html in (curves, app.shown["curves"].value)]
    assert lines[0] == lines[1]
    tangents = [re.findall(r'<line class="tangent"[^>]*>', html) for html in (curves, app.shown["curves"].value)]
    assert len(tangents[0]) == len(tangents[1]) == 5
    assert tangents[0] != tangents[1]
    assert app.shown["errors"].value == error


def test_the_list_and_the_sliders_of_generators_agree(app: Explorer) -> None:
    app.control["generator"].value = "shear_x"
    assert [s.value for s in app.mixture] == list(mixture_of(NAMED["shear_x"]))
    assert app.state.generator == lee.SHEAR_X
    app.mixture[0].value = 0.5
    assert app.control["generator"].value == "mixture"
    assert app.state.generator.coefficients[0] == 0.5
    for slider, c in zip(app.mixture, mixture_of(lee.SCALE), strict=True):
        slider.value = c
    assert app.control["generator"].value == "scale"
    assert len(app.mixture) == len(SLIDERS)


def test_an_upload_is_shown_and_a_broken_one_changes_nothing(app: Explorer) -> None:
    upload(app, "mine.png", picture())
    assert app.state.upload == picture()
    before = {name: part.value for name, part in app.shown.items()}
    upload(app, "<broken>.png", b"nothing")
    assert 'role="alert"' in app.shown["upload"].value
    assert "&lt;broken&gt;.png: The file can&#x27;t be read as one of PNG, JPEG" in app.shown["upload"].value
    assert {n: p.value for n, p in app.shown.items() if n != "upload"} == {
        n: v for n, v in before.items() if n != "upload"
    }
    assert app.state.upload == picture()
    app.control["index"].value = 4
    assert app.state.upload is None


@pytest.mark.parametrize(
    ("control", "value", "slot", "words"),
    [
        ("model0", "zoo/resnet-zz", "models", "Did you mean"),
        ("images", "fotos", "upload", "no data set"),
        ("model1", "a:b", "models", "lee models list"),
    ],
)
def test_wrong_names_are_told_beside_their_control_and_lose_nothing(
    app: Explorer, control: str, value: str, slot: str, words: str
) -> None:
    frames, good = app.shown["frames"].value, app.control[control].value
    app.control[control].value = value
    assert 'role="alert"' in app.shown[slot].value
    assert words in app.shown[slot].value
    assert app.control[f"list_{control}"].value == ""
    assert app.shown["frames"].value == frames
    app.control[control].value = good
    assert "alert" not in "".join(app.shown[part].value for part in ("status", "upload", "models"))


def test_lists_are_grouped_and_write_into_the_field_below(app: Explorer) -> None:
    entries = [text for text, name in app.control["list_model0"].options if name]
    groups = [text.partition(":")[0] for text in entries]
    assert len(groups) == len(models.names())
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)
    app.control["list_model0"].value = "zoo/mixer-xs"
    assert app.control["model0"].value == "zoo/mixer-xs"
    assert app.state.models == ("zoo/mixer-xs",)
    assert app.control["list_images"].value == "patches"
    assert "7: " in app.shown["formats"].value


def test_a_preset_sets_the_controls(app: Explorer) -> None:
    wanted = PRESETS["ResNet against Mixer under a shift"]
    app.control["preset"].value = wanted
    assert app.state == wanted
    assert [app.control[f"model{which}"].value for which in (0, 1)] == ["zoo/resnet-s", "zoo/mixer-s"]
    assert app.control["generator"].value == "translation_x"


@pytest.mark.parametrize("mixture", [mixture_of(lee.ROTATION), MIXED])
def test_the_code_reproduces_what_is_shown(
    measures: Measures, state: State, mixture: tuple[float, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = replace(state, mixture=mixture, kernel="central")
    exec(compile(recipe(chosen, 32), "recipe", "exec"), {})
    slope, error = map(float, re.findall(r"tensor\(([-\d.e]+)\)", capsys.readouterr().out))
    touch = measures.touch(chosen)
    assert slope == pytest.approx(float(touch.slope[touch.value.argmax()]), rel=1e-3, abs=1e-4)
    assert error == pytest.approx(measures.error_here(chosen).value, rel=1e-3)


def test_the_index_ends_with_the_data_set(app: Explorer) -> None:
    app.control["index"].value = 20
    app.control["images"].value = "photos"
    assert (app.control["index"].max, app.control["index"].value, app.state.index) == (7, 7, 7)


def test_layers_are_drawn_on_demand_and_go_when_they_no_longer_hold(app: Explorer) -> None:
    assert app.shown["layers"].value == ""
    app.control["layers"].click()
    drawn = app.shown["layers"].value
    assert "<rect" in drawn
    app.control["t"].value = 0.1
    assert app.shown["layers"].value == drawn
    app.control["generator"].value = "scale"
    assert app.shown["layers"].value == ""


def test_stale_work_is_dropped(app: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    whole = Explorer._show_curves

    def watched(self: Explorer, state: State) -> Iterator[None]:
        seen.append(state.t)
        return whole(self, state)

    monkeypatch.setattr(Explorer, "_show_curves", watched)

    async def drag() -> None:
        for step in range(1, 6):
            app.control["t"].value = 0.025 * step
        while app.shown["status"].value != drawing.working("") or app.state.t != 0.125:
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(drag(), 60))
    assert app.state.t == 0.125
    assert seen[-1] == 0.125
    assert len(seen) <= 2, "five moves of a slider within a pause are one or two pieces of work"


# The page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the explorer is served; voila would run a file where it is started."""
    folder = tmp_path_factory.mktemp("explore")
    (folder / "voila.py").write_text("raise SystemExit(7)")
    with explored(folder) as address:
        yield address


def answer(address: str, **headers: str) -> tuple[int, str]:
    """Status and text of what a server answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as response:
            return response.status, response.read().decode()
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


def test_a_few_kernels_serve_many_requests_and_the_page_says_so(served: str) -> None:
    with ThreadPoolExecutor(8) as many:
        found = list(many.map(lambda _: answer(served), range(8)))
    assert sorted(status for status, _ in found) == [200] * MOST_KERNELS + [503] * (8 - MOST_KERNELS)
    assert all(f"{MOST_KERNELS} pages of the explorer are open. Close one" in text for s, text in found if s == 503)
    assert kernels(served) == MOST_KERNELS


@pytest.mark.parametrize(
    ("seconds", "pages", "state", "room"),
    [(60, 0, "idle", True), (60, 0, "busy", False), (60, 1, "idle", False), (5, 0, "idle", False)],
)
def test_only_a_kernel_that_nobody_uses_gives_way(
    monkeypatch: pytest.MonkeyPatch, seconds: int, pages: int, state: str, room: bool
) -> None:
    ended: list[str] = []
    last = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)

    async def shutdown(self: Kernels, kernel_id: str, **_: object) -> None:
        ended.append(kernel_id)
        del self._kernels[kernel_id]

    async def start(self: Kernels, **_: object) -> str:
        return "new"

    monkeypatch.setattr(Kernels, "shutdown_kernel", shutdown)
    monkeypatch.setattr(Kernels.__mro__[1], "start_kernel", start)
    manager = Kernels()
    for name in map(str, range(MOST_KERNELS)):
        manager._kernels[name] = SimpleNamespace(last_activity=last, execution_state=state)
        manager._kernel_connections[name] = pages
    if room:
        assert asyncio.run(manager.start_kernel()) == "new"
        assert ended == ["0"]
    else:
        with pytest.raises(HTTPError, match="pages of the explorer are open"):
            asyncio.run(manager.start_kernel())
        assert ended == []


def test_a_port_that_is_taken_is_told_before_any_address(served: str) -> None:
    port = str(urllib.parse.urlparse(served).port)
    result = CliRunner().invoke(cli, ["explore", "--port", port, "--no-browser"])
    assert result.exit_code == 2
    assert f"Port {port} can't be used (Address already in use). Choose another" in result.output
    assert "http" not in result.output


@pytest.mark.parametrize(
    "name", ["imagefolder:{}", "imagefolder:", "rgb:imagefolder:{}", "IMAGEFOLDER:{}", "imagefolder:{}/"]
)
def test_only_named_folders_are_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.png").write_bytes(picture())
    app = Explorer(State(images="patches", n=2, models=(MODEL,)), folders=[str(tmp_path / "offered")])
    app.control["images"].value = name.format(tmp_path / "secret")
    assert "is not offered here" in app.shown["upload"].value
    assert app.state.images == "patches"
    app = Explorer(State(images="patches", n=2, models=(MODEL,)), folders=[str(tmp_path / "secret")])
    assert f"imagefolder:{tmp_path}/secret" in app.control["images"].options
    app.control["images"].value = f"imagefolder:{tmp_path}/secret"
    assert app.state.images == f"imagefolder:{tmp_path}/secret"


# Without a kernel


def test_the_still_version_has_exact_slopes_and_a_slider(measures: Measures, state: State) -> None:
    frame = still.curves(measures, state)
    assert len(frame) == 41 * 5
    row = frame[frame["t"] == 0.25].iloc[0]
    touch = measures.touch(State(**{**vars(state), "t": 0.25}))
    k = measures.curve(state).top[0]
    assert row["slope"] == pytest.approx(float(touch.slope[k]))
    spec = still.touching(frame, x_title="t", caption="What to see.", alt="What is drawn.").to_dict()
    (param,) = spec["params"]
    assert (param["bind"]["min"], param["bind"]["max"], param["bind"]["step"]) == (-0.5, 0.5, 0.025)
    ends = next(d for d in spec["datasets"].values() if "left" in d[0])
    first = next(r for r in ends if r["t"] == 0.25)
    rise = (first["high"] - first["low"]) / (first["right"] - first["left"])
    assert rise == pytest.approx(row["slope"], rel=1e-2, abs=1e-3)
    with pytest.raises(InputError, match="t = 0"):
        still.touching(frame[frame["t"] > 0], x_title="t", caption="c", alt="a")
