"""The sliders over mixtures: what the browser computes is what the Gram matrix says; and the tangent chart."""

import io
import math
import re

import altair
import numpy as np
import pandas as pd
import pytest
import torch
import vl_convert

import lee
from lee import charts
from lee.charts.fields import grid_of_arrows
from lee.errors import InputError
from lee.geometry.generators import AFFINE, ROTATION, SCALE, SHEAR_X, TRANSLATION_X
from lee.measure.spectrum import ORTHOGONAL, unit_sized
from lee.statistics import EquivarianceGram

WORDS = {"caption": "What to see.", "alt": "What is drawn."}
NAMES = ["translation_x", "rotation", "scale"]


@pytest.fixture
def gram() -> EquivarianceGram:
    derivatives = torch.randn(20, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    per_image = derivatives @ derivatives.mT / 5
    return EquivarianceGram(per_image, (TRANSLATION_X, ROTATION, SCALE), "fourier")


def drawn(spec: dict, field: str, c: tuple[float, ...]) -> float:
    """What the chart's own formula gives for its first row; Vega's expressions of this kind are Python's too."""
    row = pd.read_csv(io.StringIO(spec["datasets"][spec["data"]["name"]])).iloc[0].to_dict()
    formula = next(t["calculate"] for t in spec["transform"] if t["as"] == field)
    formula = re.sub(r"datum\.(\w+)", lambda m: repr(row[m[1]]), formula)
    names = {f"c{i}": value for i, value in enumerate(c)}
    return float(eval(formula, {"max": max, "sqrt": math.sqrt}, names))


@pytest.mark.parametrize("c", [(1.0, 0.0, 0.0), (0.3, -0.7, 0.55), (-1.0, 1.0, 1.0)])
def test_sliders_show_the_error_of_the_mixture(gram: EquivarianceGram, c: tuple[float, ...]) -> None:
    spec = charts.mixer({"model": gram}, NAMES, **WORDS).to_dict()
    expected = gram.lee(c[0] * lee.TRANSLATION_X + c[1] * lee.ROTATION + c[2] * lee.SCALE)
    assert drawn(spec, "lee", c) == pytest.approx(expected.value, rel=1e-5)
    assert drawn(spec, "se", c) == pytest.approx(expected.stderr, rel=1e-4)


def written(chart: altair.LayerChart) -> list[float]:
    """The error and both ends of its interval that Vega itself writes beside the first row's dot."""
    svg = vl_convert.vegalite_to_svg(chart.to_json())
    found = re.search(r">([\d.e-]+) \[([\d.e-]+), ([\d.e-]+)\]<", svg)
    assert found, svg
    return [float(number) for number in found.groups()]


@pytest.mark.parametrize("c", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.3, -0.7, 0.55), (-1.0, 1.0, 1.0)])
@pytest.mark.parametrize("tail", [0.1, 1.5])
def test_bars_are_intervals_that_know_the_skew(c: tuple[float, ...], tail: float) -> None:
    random = torch.Generator().manual_seed(3)
    sizes = (tail * torch.randn(40, 3, dtype=torch.float64, generator=random)).exp()
    derivatives = sizes[:, :, None] * torch.randn(40, 3, 5, dtype=torch.float64, generator=random)
    gram = EquivarianceGram(derivatives @ derivatives.mT, (TRANSLATION_X, ROTATION, SCALE), "fourier")
    expected = gram.lee(c[0] * lee.TRANSLATION_X + c[1] * lee.ROTATION + c[2] * lee.SCALE)
    low, high = expected.interval()
    found = written(charts.mixer({"model": gram}, NAMES, start=c, **WORDS))
    # Written with two digits of the standard error.
    assert found == pytest.approx([expected.value, max(0, low), high], abs=0.051 * expected.stderr, rel=0)
    assert tail < 1 or high - expected.value > 1.5 * (expected.value - low)


@pytest.mark.parametrize("numbers", [[1.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
def test_bars_without_skew_are_student_s(numbers: list[float]) -> None:
    per_image = torch.tensor(numbers).double()[:, None, None] * torch.eye(3).double()
    gram = EquivarianceGram(per_image, (TRANSLATION_X, ROTATION, SCALE), "fourier")
    low, high = gram.lee("rotation").interval()
    found = written(charts.mixer({"model": gram}, NAMES, start=(0, 1, 0), **WORDS))
    assert found == pytest.approx([2.0, max(0, low), high], abs=0.03)


def test_each_slider_has_a_name_and_a_start(gram: EquivarianceGram) -> None:
    params = charts.mixer({"model": gram}, NAMES, start=(0.5, 0, -1), **WORDS).to_dict()["params"]
    assert [(p["bind"]["name"], p["value"]) for p in params] == [
        ("translation x ", 0.5),
        ("rotation ", 0),
        ("scale ", -1),
    ]


def test_the_axis_holds_every_mixture(gram: EquivarianceGram) -> None:
    spec = charts.mixer({"model": gram}, NAMES, **WORDS).to_dict()
    top = spec["layer"][0]["encoding"]["x"]["scale"]["domain"][1]
    assert top > max(drawn(spec, "lee", (a, b, 1.0)) for a in (-1.0, 1.0) for b in (-1.0, 1.0))


def test_mixer_refuses_what_it_cannot_draw(gram: EquivarianceGram) -> None:
    with pytest.raises(InputError, match="two to seven generators; got 1"):
        charts.mixer({"model": gram}, NAMES[:1], **WORDS)
    with pytest.raises(InputError, match="as many starting values; got 2"):
        charts.mixer({"model": gram}, NAMES, start=(1, 0), **WORDS)
    with pytest.raises(InputError, match="at least one model"):
        charts.mixer({}, NAMES, **WORDS)
    with pytest.raises(InputError, match=r"Unknown scale 'sqr'\. Did you mean 'sqrt'"):
        charts.mixer({"model": gram}, NAMES, scale="sqr", **WORDS)
    with pytest.raises(InputError, match="no group for model 'b'"):
        charts.mixer({"a": gram, "b": gram}, NAMES, groups={"a": "vit"}, **WORDS)


def whole() -> EquivarianceGram:
    """Gram matrices over the six basis fields, of 30 images."""
    derivatives = torch.randn(30, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return EquivarianceGram(derivatives @ derivatives.mT / 4, AFFINE, "fourier")


@pytest.mark.parametrize("k", [6, 7])
def test_all_affine_generators_fit_under_sliders(k: int) -> None:
    gram = whole()
    generators = [unit_sized(g) for g in (*ORTHOGONAL, SHEAR_X)[:k]]
    spec = charts.mixer({"model": gram}, generators, scale="sqrt", **WORDS).to_dict()
    c = tuple(round(0.9 - 0.35 * i, 2) for i in range(k))
    mixed = sum((c[i] * g for i, g in enumerate(generators[1:], start=1)), c[0] * generators[0])
    expected = gram.lee(mixed)
    assert drawn(spec, "lee", c) == pytest.approx(expected.value, rel=1e-5)
    assert drawn(spec, "se", c) == pytest.approx(expected.stderr, rel=1e-4)
    assert spec["layer"][0]["encoding"]["x"]["scale"]["type"] == "sqrt"
    assert [p["bind"]["name"] for p in spec["params"]][:3] == ["translation x ", "translation y ", "rotation "]


def test_many_models_have_narrow_rows_and_the_colours_of_their_groups() -> None:
    gram = whole()
    groups = {f"model {i}": "vit" if i % 2 else "resnet" for i in range(12)}
    spec = charts.mixer(dict.fromkeys(groups, gram), ["rotation", "scale"], groups=groups, **WORDS).to_dict()
    few = charts.mixer({"a": gram}, ["rotation", "scale"], **WORDS).to_dict()
    assert spec["height"] / 12 < few["height"]
    colour = spec["layer"][1]["encoding"]["color"]
    assert colour["field"] == "group"
    assert colour["scale"]["domain"] == ["resnet", "vit"]
    assert few["layer"][1]["encoding"]["color"]["legend"] is None


def test_fans_hold_the_fields_that_arrows_draw() -> None:
    """Ends that Vega's formulas give for the first field are those of `charts.arrows`; the others keep its scale."""
    field, other = ROTATION + 0.3 * TRANSLATION_X, 2.0 * ROTATION
    spec = charts.fans(
        {"one": {"left": [field, other]}, "two": {"left": [SCALE]}},
        menu="network",
        notes={"one": {"left": "told"}},
        **WORDS,
    ).to_dict()
    layer = spec["concat"][0]["layer"][0]
    rows = spec["datasets"][layer["data"]["name"]]
    assert [(r["choice"], r["rank"]) for r in rows] == [("one", 0), ("one", 1), ("two", 0)]
    steps = [t for t in layer["transform"] if "calculate" in t]
    grid = grid_of_arrows(field, 6)
    for place in (0, 13, 35):
        seen = dict(rows[0], place=place)
        for step in steps[1:]:
            formula = re.sub(r"datum\.(\w+)", lambda m, seen=seen: f"({seen[m[1]]!r})", step["calculate"])
            seen[step["as"]] = eval(formula, {"floor": math.floor, "atan2": math.atan2, "PI": math.pi})
        near = grid[((grid["x"] - seen["x"]).abs() < 1e-3) & ((grid["y"] - seen["y"]).abs() < 1e-3)].iloc[0]
        assert (seen["x2"], seen["y2"]) == pytest.approx((near["x2"], near["y2"]), abs=2e-3)
        assert seen["angle"] == pytest.approx(near["angle"], abs=0.5)
    assert rows[1]["b"] == pytest.approx(2 * rows[0]["b"], rel=1e-2)
    assert [p["value"] for p in spec["params"]] == ["one"]
    assert "told" in str(spec["datasets"])


def test_fans_refuse_what_they_cannot_draw() -> None:
    with pytest.raises(InputError, match="the same panels"):
        charts.fans({"one": {"left": [ROTATION]}, "two": {"right": [ROTATION]}}, menu="network", **WORDS)
    with pytest.raises(InputError, match="moves no pixel"):
        charts.fans({"one": {"left": [0 * ROTATION]}}, menu="network", **WORDS)


def test_tangents_touch_their_curves() -> None:
    t = np.linspace(-2, 2, 5)
    parts = [pd.DataFrame({"t": t, "p": k * t + 3 * k, "rise": float(k), "kind": f"kind {k}"}) for k in (1, 2)]
    frame = pd.concat(parts)
    spec = charts.tangents(frame, "t", "p", "rise", by="kind", reach=1, **WORDS).to_dict()
    rows = spec["datasets"][spec["layer"][0]["data"]["name"]]
    ends = frame[frame.t.abs() == 2]
    assert [(r["kind"], r["t"], r["p"]) for r in rows] == list(zip(ends.kind, ends.t, ends.p, strict=True))
    with pytest.raises(InputError, match="'kind 1' needs a point at t = 0"):
        charts.tangents(frame[frame.t != 0], "t", "p", "rise", by="kind", **WORDS)


def test_tinted_numbers_have_the_colour_of_their_sign() -> None:
    values = torch.tensor([[[-1.0, 0.0, 1.0]]])
    red, _, blue = charts.tinted(values, share=1.0)
    assert blue[0, 0] > red[0, 0]
    assert red[0, 2] > blue[0, 2]
    assert abs(red[0, 1] - blue[0, 1]) < 0.01
    assert np.allclose(charts.tinted(torch.zeros(1, 2, 2)), charts.tinted(values)[0, 0, 1])
