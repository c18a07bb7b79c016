"""The explorer without a browser: its numbers are those of lee's own functions, and its widgets do as they say."""

import asyncio
import datetime
import html
import io
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor
from tornado.web import HTTPError

import lee
from lee import charts, datasets, models
from lee.errors import InputError
from lee.explorer import Measures, State, controls, drawing, motion, pictures, plots, serve, still, tabs
from lee.explorer.app import Explorer
from lee.explorer.measures import token_side
from lee.explorer.recipe import recipe
from lee.explorer.server import MOST_KERNELS, Kernels
from lee.explorer.state import PRESETS, REACH, SLIDERS, mixture_of
from lee.explorer.tabs import TABS, Tab
from lee.geometry.generators import NAMED
from lee.geometry.sampling import Sampler

pytestmark = pytest.mark.xdist_group("measures")  # its fixtures are made once

MODEL = "zoo/resnet-xs"
WHEN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
MIXED = (0.3, 0.0, 0.7, 0.0, -0.2, 0.0, 0.0, 0.0, 0.0)
COLOURED = (0.2, 0.0, 0.5, 0.0, 0.0, 0.1, 0.3, 0.4, -0.5)
"""Of spatial and photometric generators: its path has no closed form."""


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
        ({"patch": 3}, "patch = 3 is not among 0, 1, 2"),
        ({"reach": 2.0}, "reach = 2 is not among 0.5"),
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
    drawn = drawing.layers(frame, model=MODEL, name="rotation")
    shares = [int(p.replace("−", "-")) for p in re.findall(r"<td>(−?\d+) %</td>", drawn)]
    assert sum(shares) == pytest.approx(100, abs=len(shares))  # each is rounded
    # Vermilion adds and blue cancels, as in the error map of the tab beside it.
    colours = [charts.DIVERGING[-1] if share >= 0 else charts.DIVERGING[0] for share in shares]
    assert re.findall(r'<rect [^>]*fill="(#\w+)"', drawn) == colours
    assert len(set(colours)) == 2


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
        images = pictures.load(name, 24)[0]
        assert images.shape[1:] == (3, 24, 24)
        assert 8 <= len(images) <= pictures.MOST_IMAGES


@pytest.mark.parametrize(("name", "side"), [("digits", 24), ("patches", 224)])
def test_titles_are_those_of_the_images(name: str, side: int) -> None:
    """They are in the order of the pictures, which for some sets depends on the size and on how many are asked for."""
    images, titles = pictures.load(name, side)
    every = datasets.load(name, size=side)
    assert every.labels is not None
    for image, title in zip(images, titles, strict=True):
        same = [i for i, other in enumerate(every.images) if torch.equal(other.expand(3, -1, -1), image)]
        words = {every.class_names[every.labels[i]] if every.class_names else str(int(every.labels[i])) for i in same}
        assert title in words


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
    return re.findall(r"<td>([^<]*)</td>", app.shown["Curves"].value)


def test_the_app_shows_the_numbers_of_its_state(app: Explorer, measures: Measures) -> None:
    touch, curve = measures.touch(app.state), measures.curve(app.state)
    k = curve.top[0]
    assert numbers(app)[:2] == [f"{float(touch.value[k]):.3f}", drawing.number(float(touch.slope[k]))]
    assert str(app.measures.error(app.state).n) in app.shown["errors"].value
    assert "alert" not in app.shown["status"].value
    for part in ("frames", "Curves"):
        assert re.search(r'(alt|aria-label)="[^"]+', app.shown[part].value)


def test_moving_t_moves_the_picture_and_the_tangents_and_leaves_the_curves(app: Explorer) -> None:
    frames, curves, error = (app.shown[p].value for p in ("frames", "Curves", "errors"))
    app.control["t"].value = 0.25
    assert app.state.t == 0.25
    assert app.shown["frames"].value != frames
    lines = [re.findall(r"<polyline[^>]*>", html) for html in (curves, app.shown["Curves"].value)]
    assert lines[0] == lines[1]
    tangents = [re.findall(r'<line class="tangent"[^>]*>', html) for html in (curves, app.shown["Curves"].value)]
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
        ("images", "fotos", "images", "no data set"),
        ("model1", "a:b", "models", "lee models list"),
        ("model0", " ", "models", "lee models list"),
        ("images", "", "images", "no data set"),
        ("images", "imagefolder:/no/such/folder", "images", "/no/such/folder"),
    ],
)
def test_wrong_names_are_told_beside_their_control_and_lose_nothing(
    app: Explorer, control: str, value: str, slot: str, words: str
) -> None:
    frames, good = app.shown["frames"].value, app.control[control].value
    app.control[control].value = value
    assert 'role="alert"' in app.shown[slot].value
    assert words in app.shown[slot].value
    assert app.control[f"list_{control}"].value == controls.OTHER
    assert app.control[control].layout.display is None
    assert app.shown["frames"].value == frames
    app.control[control].value = good
    assert "alert" not in "".join(app.shown[part].value for part in ("status", "images", "models"))
    assert app.control[control].layout.display == "none"


def test_no_motion_is_told_beside_the_sliders(app: Explorer) -> None:
    app.mixture[SLIDERS.index(lee.ROTATION)].value = 0
    assert "Move one" in app.shown["motion"].value
    app.mixture[0].value = 0.5
    assert app.shown["motion"].value == ""


def test_lists_are_grouped_and_write_into_the_field_below(app: Explorer) -> None:
    entries = [text for text, name in app.control["list_model0"].options if name != controls.OTHER]
    groups = [text.partition(":")[0] for text in entries]
    assert len(groups) == len(models.names())
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)
    app.control["list_model0"].value = "zoo/mixer-xs"
    assert app.control["model0"].value == "zoo/mixer-xs"
    assert app.state.models == ("zoo/mixer-xs",)
    assert app.control["list_images"].value == "patches"
    app.control["list_model1"].value = controls.OTHER
    assert app.control["model1"].layout.display is None


def test_a_small_picture_chooses_the_image(app: Explorer) -> None:
    thumbs = app.control["thumbs"]
    assert thumbs.value == 3
    assert [text for text, _ in thumbs.options][7] == "7: astronaut"
    assert app.shown["thumbs"].value.count("data:image/png") == len(thumbs.options) == controls.THUMBS
    thumbs.value = 5
    assert (app.state.index, app.control["index"].value) == (5, 5)
    app.control["index"].value = 13
    assert [i for _, i in thumbs.options] == list(range(12, 24))
    assert (app.state.index, thumbs.value) == (13, 13)
    upload(app, "mine.png", picture())
    assert thumbs.value is None
    thumbs.value = 14
    assert (app.state.index, app.state.upload) == (14, None)


def test_a_preset_sets_the_controls(app: Explorer) -> None:
    wanted = PRESETS["ResNet against Mixer under a shift"]
    app.control["preset"].value = wanted
    assert app.state == wanted
    assert [app.control[f"model{which}"].value for which in (0, 1)] == ["zoo/resnet-s", "zoo/mixer-s"]
    assert app.control["generator"].value == "translation_x"


@pytest.mark.parametrize(
    ("mixture", "t", "kernel"),
    [(mixture_of(lee.ROTATION), 0.0, "central"), (MIXED, 0.2, "fourier"), (COLOURED, -0.15, "central")],
)
def test_the_code_reproduces_what_is_shown(
    measures: Measures, state: State, mixture: tuple[float, ...], t: float, kernel: str, capsys: pytest.CaptureFixture
) -> None:
    chosen = replace(state, mixture=mixture, t=t, kernel=kernel, patch=8)
    lines = re.search(r"<pre[^>]*>(.*)</pre>", tabs.code(measures, chosen, 0), re.DOTALL)
    assert lines
    exec(compile(html.unescape(lines[1]), "recipe", "exec"), {})
    at_t, error, part, layer = capsys.readouterr().out.splitlines()
    value, slope, share = map(float, re.findall(r"tensor\(([-\d.e]+)\)", f"{at_t} {part}"))
    touch, here = measures.touch(chosen), measures.error_here(chosen)
    assert value == pytest.approx(float(touch.value.max()), rel=1e-3)
    assert slope == pytest.approx(float(touch.slope[touch.value.argmax()]), rel=1e-3, abs=1e-3)
    assert f"{here.value:.2g}" in error
    assert share == pytest.approx(float(measures.map(chosen).patches(8).max()), rel=1e-2)
    assert float(layer) == pytest.approx(float(measures.layers(chosen)["self_share"].max()), rel=1e-2)


def test_the_index_ends_with_the_data_set(app: Explorer) -> None:
    app.control["index"].value = 20
    app.control["images"].value = "photos"
    assert (app.control["index"].max, app.control["index"].value, app.state.index) == (7, 7, 7)


# The tabs


@pytest.mark.parametrize("mixture", [mixture_of(lee.ROTATION), COLOURED])
def test_the_map_is_that_of_lee(measures: Measures, state: State, mixture: tuple[float, ...]) -> None:
    chosen = replace(state, mixture=mixture, patch=8)
    expected = lee.error_map(models.load(MODEL), image_of(), chosen.generator).patches(8)[0]
    found = measures.map(chosen).patches(8)[0]
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))
    told = tabs.where(measures, chosen, 0)
    row, column = divmod(int(found.argmax()), 4)
    assert (
        f"The largest share, {100 * found.max():.0f} %, is in row {row + 1} from the top, column {column + 1}" in told
    )
    adding, cancelling = float(found[found > 0].sum()), -float(found[found < 0].sum())
    assert f"add {100 * adding:.0f} % to the error" in told
    assert f"cancel {100 * cancelling:.0f} % of it" in told
    assert adding - cancelling == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("model", "side"), [("zoo/vit-xs", 4), ("zoo/mixer-xs", 4), ("zoo/resnet-xs", None)])
def test_the_tokens_of_a_model_are_its_patches(measures: Measures, model: str, side: int | None) -> None:
    assert token_side(models.load(model)) == side
    assert measures.patch(State(models=(model,))) == (side or 32 // 8)
    assert measures.patch(State(models=(model,), patch=16)) == 16


def test_an_error_that_is_zero_is_told_in_its_tab(
    measures: Measures, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measures, "map", lambda *_: SimpleNamespace(share=torch.full((1, 32, 32), torch.nan)))
    monkeypatch.setattr(Measures, "layers", lambda *_: pd.DataFrame({"self_share": [1.0, math.nan]}))
    assert "nothing to share out" in tabs.where(measures, state, 0)
    assert "nothing to share out" in tabs.layers(measures, state, 0)


@pytest.mark.parametrize("mixture", [MIXED, COLOURED])
def test_the_curve_of_the_first_tab_is_the_orbit(measures: Measures, state: State, mixture: tuple[float, ...]) -> None:
    chosen = replace(state, mixture=mixture)
    orbit, curve = measures.orbit(chosen), measures.curve(chosen)
    assert orbit.t.tolist() == pytest.approx(curve.stops)
    assert torch.allclose(orbit.outputs, curve.probabilities, atol=1e-5)
    for at in (5, 20, 30):
        slope = measures.touch(replace(chosen, t=curve.stops[at])).slope
        assert torch.allclose(orbit.derivatives[at], slope, atol=1e-3 * float(slope.abs().max()))


def test_the_orbit_is_told_with_its_flips(measures: Measures) -> None:
    chosen = State(index=0, models=("zoo/vit-xs",), reach=0.2)
    found = lee.orbit(models.load("zoo/vit-xs"), image_of(0), "rotation", torch.linspace(-0.2, 0.2, 41))
    told = html.unescape(tabs.orbit(measures, chosen, 0))
    assert found.flips
    assert found.predicted_flips
    for at, guess in zip(found.flips, found.predicted_flips, strict=True):
        seen = f"flips at t = {drawing.number(at)}" if abs(at) < 1 else "does not flip up to"
        predicted = drawing.number(guess) if abs(guess) < np.inf else "no flip"
        assert re.search(rf"{re.escape(seen)}[^(]*\(the derivative at 0 predicts {predicted}\)", told)
    assert f"at most {100 * found.gap:.2g} % of the largest change" in told
    sums = re.findall(r'class="sum" cx="([-\d.]+)" cy="([-\d.]+)"', told)
    assert len(sums) == 41 * plots.SHOWN
    first = int(found.outputs[20].argmax())
    integral = (found.integrals + found.outputs[20])[:, first].tolist()
    rise = [float(sums[at][1]) - float(sums[20][1]) for at in (0, 40)]
    expected = [integral[20] - integral[at] for at in (0, 40)]  # upwards on paper is towards 0
    assert rise[0] * expected[1] == pytest.approx(rise[1] * expected[0], abs=0.2)
    assert rise[0] * expected[0] >= 0


def test_only_the_open_tab_is_computed(app: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, State]] = []

    def watched(title: str, whole: Tab) -> Tab:
        return lambda measures, state, which: asked.append((title, state)) or whole(measures, state, which)

    for title, whole in list(TABS.items()):
        monkeypatch.setitem(TABS, title, watched(title, whole))
    app.mixture[0].value = 0.2
    assert {title for title, _ in asked} == {"Curves"}
    for place, title in enumerate(TABS):
        app.tabs.selected_index = place
        assert asked[-1] == (title, app.state)
        assert [name for name in TABS if app.shown[name].value] == [title]
        assert "alert" not in app.shown[title].value
    app.tabs.selected_index = 1
    before = app.shown["Where in the picture"].value
    app.mixture[0].value = 0.3
    assert app.shown["Where in the picture"].value != before
    assert "patches of 4 × 4 pixels" in app.shown["Where in the picture"].value
    app.control["patch"].value = 1
    assert "for each of the pixels" in app.shown["Where in the picture"].value


def test_an_error_of_a_tab_is_told_there_and_of_its_model_alone(
    measures: Measures, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Explorer(replace(state, models=(MODEL, "zoo/vit-xs")), measures)

    def broken(measures: Measures, state: State, which: int) -> str:
        if which == 0:
            raise InputError("No backward pass.")
        return "fine"

    monkeypatch.setitem(TABS, "Layers", broken)
    app.tabs.selected_index = list(TABS).index("Layers")
    assert f"{MODEL}: No backward pass." in app.shown["Layers"].value
    assert "fine" in app.shown["Layers"].value
    assert "alert" not in app.shown["status"].value
    assert "zoo/<wbr>vit-xs" in app.shown["errors"].value


def test_caches_stay_within_their_bounds(state: State) -> None:
    kept = Measures()
    for step in range(40):
        brightness = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, step / 40 + 0.1, 0.0, 0.0)
        chosen = replace(state, mixture=brightness, index=step % 8)
        kept.curve(chosen), kept.touch(chosen), kept.map(chosen)
    assert [len(cache.entries) for cache in (kept._curves, kept._frames, kept._paths, kept._maps)] == [32, 32, 8, 4]


def test_stale_work_is_dropped(app: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    whole = Explorer._show_tab

    def watched(self: Explorer, state: State) -> Iterator[None]:
        seen.append(state.t)
        return whole(self, state)

    monkeypatch.setattr(Explorer, "_show_tab", watched)

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


@pytest.mark.parametrize(
    "name", ["imagefolder:{}", "imagefolder:", "rgb:imagefolder:{}", "IMAGEFOLDER:{}", "imagefolder:{}/"]
)
def test_only_named_folders_are_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.png").write_bytes(picture())
    app = Explorer(State(images="patches", n=2, models=(MODEL,)), folders=[str(tmp_path / "offered")])
    app.control["images"].value = name.format(tmp_path / "secret")
    assert "is not offered here" in app.shown["images"].value
    assert app.state.images == "patches"
    app = Explorer(State(images="patches", n=2, models=(MODEL,)), folders=[str(tmp_path / "secret")])
    assert f"imagefolder:{tmp_path}/secret" in app.control["images"].options
    app.control["images"].value = f"imagefolder:{tmp_path}/secret"
    assert app.state.images == f"imagefolder:{tmp_path}/secret"


def test_the_page_begins_with_the_models_that_are_named(tmp_path: Path) -> None:
    path = serve.notebook(tmp_path, models=[MODEL, "zoo/vit-xs"])
    found: dict = {}
    exec(nbformat.read(path, 4).cells[0].source.replace("\nExplorer(", "\nmade = Explorer("), found)
    assert found["made"].state == State(models=(MODEL, "zoo/vit-xs"))
    with pytest.raises(InputError, match="one or two models, not 3"):
        serve.notebook(tmp_path, models=["a", "b", "c"])


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


def test_a_small_set_is_loaded_whole_by_the_code(state: State) -> None:
    few = replace(state, images='imagefolder:/a "b"')
    assert "n=64" in recipe(few, 64, 32, 32, 4, 0)
    assert "lee.datasets.load('imagefolder:/a \"b\"', size=32)" in recipe(few, 8, 32, 32, 4, 0)
