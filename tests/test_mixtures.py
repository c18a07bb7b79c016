"""The sliders over mixtures: what the browser computes is what the Gram matrix says; and the tangent chart."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

import lee
from lee import charts
from lee.errors import InputError
from lee.generators import ROTATION, SCALE, TRANSLATION_X
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
    layer = spec["layer"][0]
    row = next(iter(spec["datasets"].values()))[0]
    formula = next(t["calculate"] for t in layer["transform"] if t["as"] == field)
    formula = re.sub(r"datum\.(\w+)", lambda m: repr(row[m[1]]), formula)
    names = {f"c{i}": value for i, value in enumerate(c)}
    return float(eval(formula, {"max": max, "sqrt": math.sqrt}, names))


@pytest.mark.parametrize("c", [(1.0, 0.0, 0.0), (0.3, -0.7, 0.55), (-1.0, 1.0, 1.0)])
def test_sliders_show_the_error_of_the_mixture(gram: EquivarianceGram, c: tuple[float, ...]) -> None:
    spec = charts.mixer({"model": gram}, NAMES, **WORDS).to_dict()
    expected = gram.lee(c[0] * lee.TRANSLATION_X + c[1] * lee.ROTATION + c[2] * lee.SCALE)
    assert drawn(spec, "lee", c) == pytest.approx(expected.value, rel=1e-5)
    assert drawn(spec, "se", c) == pytest.approx(expected.stderr, rel=1e-4)


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
    with pytest.raises(InputError, match="two to four generators; got 1"):
        charts.mixer({"model": gram}, NAMES[:1], **WORDS)
    with pytest.raises(InputError, match="as many starting values; got 2"):
        charts.mixer({"model": gram}, NAMES, start=(1, 0), **WORDS)
    with pytest.raises(InputError, match="at least one model"):
        charts.mixer({}, NAMES, **WORDS)


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
