"""Points with menus, and intervals: what is drawn at first, what the menus offer, and what is refused."""

import json
import re

import pandas as pd
import pytest
import vl_convert

from lee import charts
from lee.charts.landscape import X_HIGH, X_LOW
from lee.charts.parts import HIGH, LOW
from lee.errors import InputError

WORDS = {"caption": "What to see.", "alt": "What is drawn."}


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        {"model": f"{family}-{k}", "family": family, "generator": generator, "kernel": kernel, "error": 0.1 * k + 0.05,
         "se": 0.01, "lee": scale * (k + 1), "lee_se": 0.1 * scale, "parameters": 10**k}
        for family in ("cnn", "vit") for k in (1, 2, 3)
        for generator, scale in (("rotation", 1.0), ("scale", 7.0)) for kernel in ("fourier", "central")
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def notes() -> pd.DataFrame:
    return pd.DataFrame(
        [{"generator": g, "kernel": k, "note": f"note on {g} by {k}"} for g in ("rotation", "scale")
         for k in ("fourier", "central")]
    )  # fmt: skip


def drawn(frame: pd.DataFrame, log: bool = False, **options: object) -> dict:
    settings = {"by": "family", "menus": ["generator", "kernel"], **options}
    x, y = charts.Axis("error", error="se", log=log), charts.Axis("lee", error="lee_se", log=log)
    return charts.landscape(frame, x, y, **settings, **WORDS).to_dict()


def symbols(svg: str) -> int:
    """Points in the plot; the legend's own are in another group."""
    return svg.count('aria-roledescription="point"')


def test_only_the_rows_of_the_choice_are_drawn(frame: pd.DataFrame, notes: pd.DataFrame) -> None:
    svg = vl_convert.vegalite_to_svg(drawn(frame, notes=notes, start={"generator": "scale"}))
    assert symbols(svg) == 6
    assert re.findall("note on [a-z ]*", svg)[0] == "note on scale by fourier"
    assert "note on rotation" not in svg
    tops = [float(v) for v in re.findall(r"lee: ([\d.]+)", svg)]
    assert min(tops) >= 7 - 0.7  # the axis follows the choice


def test_errors_are_halves_of_intervals_or_their_ends(frame: pd.DataFrame) -> None:
    ends = frame.assign(
        low=frame["lee"] / 2, high=3 * frame["lee"], left=frame["error"] - 0.02, right=frame["error"] + 0.1
    )
    x, y = charts.Axis("error", error=("left", "right")), charts.Axis("lee", error=("low", "high"), log=True)
    rows = charts.landscape(ends, x, y, by="family", **WORDS).to_dict()
    found = pd.DataFrame(next(iter(rows["datasets"].values())))
    for drawn_at, given in ((LOW, "low"), (HIGH, "high"), (X_LOW, "left"), (X_HIGH, "right")):
        assert found[drawn_at].tolist() == pytest.approx(found[given].tolist(), rel=1e-3)


def test_menus_offer_what_the_frame_holds(frame: pd.DataFrame) -> None:
    found = {p["bind"]["name"].strip(): (p["bind"]["options"], p["value"]) for p in drawn(frame)["params"]}
    assert found == {
        "generator": (["rotation", "scale"], "rotation"),
        "kernel": (["fourier", "central"], "fourier"),
    }


def test_without_menus_all_rows_are_drawn(frame: pd.DataFrame) -> None:
    spec = drawn(frame, menus=[])
    assert "params" not in spec
    assert symbols(vl_convert.vegalite_to_svg(spec)) == len(frame)


def test_the_pointer_shows_the_card(frame: pd.DataFrame) -> None:
    (points,) = [m for m in drawn(frame, facts=["model"], size="parameters")["layer"] if m["mark"]["type"] == "point"]
    assert [t["field"] for t in points["encoding"]["tooltip"]] == [
        "model", "family", "error", "se", "lee", "lee_se", "parameters",
    ]  # fmt: skip
    assert points["encoding"]["size"]["scale"]["type"] == "log"


def test_words_stand_beside_the_points_of_the_choice(frame: pd.DataFrame) -> None:
    svg = vl_convert.vegalite_to_svg(drawn(frame, label="model"))
    assert sorted(re.findall(">((?:cnn|vit)-[0-9])<", svg)) == sorted(frame["model"].unique())


def test_error_bars_run_both_ways(frame: pd.DataFrame) -> None:
    frame = frame[(frame["generator"] == "scale") & (frame["kernel"] == "fourier")]
    rows = next(iter(drawn(frame, log=True)["datasets"].values()))
    assert [round(rows[0][c], 3) for c in ("_low", "_high", "_x_low", "_x_high")] == [13.3, 14.7, 0.14, 0.16]
    svg = vl_convert.vegalite_to_svg(drawn(frame, log=True))
    assert svg.count('aria-roledescription="rule mark"') >= 2


def test_colours_and_areas_keep_their_meaning(frame: pd.DataFrame) -> None:
    frame = frame.iloc[::-1].query("not (family == 'cnn' and generator == 'rotation')")
    (points,) = [m for m in drawn(frame, size="parameters")["layer"] if m["mark"]["type"] == "point"]
    assert points["encoding"]["color"]["scale"]["domain"] == ["cnn", "vit"]
    assert points["encoding"]["size"]["scale"]["domain"] == [10, 1000]
    with pytest.raises(InputError, match="'parameters' isn't positive"):
        drawn(frame.assign(parameters=0), size="parameters")


def test_one_legend_and_the_same_bytes(frame: pd.DataFrame, notes: pd.DataFrame) -> None:
    charts.enable()
    spec = drawn(frame, notes=notes, size="parameters")
    assert len(vl_convert.vegalite_to_vega(spec)["legends"]) == 1
    assert not any(word in json.dumps(spec["config"]) for word in ("background", "labelColor", "titleColor"))
    noisy = frame.assign(lee=frame["lee"] * (1 + 1e-9))
    first, second = (
        charts.landscape(f, charts.Axis("error"), charts.Axis("lee"), by="family", **WORDS) for f in (frame, noisy)
    )
    assert first.to_json() == second.to_json()


def test_landscapes_that_cannot_be_drawn(frame: pd.DataFrame, notes: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"no column 'famly'\. Did you mean 'family'"):
        drawn(frame, by="famly")
    with pytest.raises(InputError, match=r"can't start with 'rotatoin'\. Did you mean 'rotation'"):
        drawn(frame, start={"generator": "rotatoin"})
    with pytest.raises(InputError, match="notes have no column 'kernel'"):
        drawn(frame, notes=notes[["generator", "note"]])
    with pytest.raises(InputError, match="isn't positive"):
        drawn(frame.assign(lee=0.0), log=True)


@pytest.fixture
def ratios() -> pd.DataFrame:
    rows = [["a", 0.5, 0.4, 0.7, 0.2, 0.9, "x"], ["b", 1.2, 1.1, 1.25, 0.8, 1.6, "y"]]
    return pd.DataFrame(rows, columns=["pair", "ratio", "low", "high", "from", "to", "study"])


def test_intervals_are_drawn_inside_each_other(ratios: pd.DataFrame) -> None:
    chart = charts.intervals(
        ratios, "ratio", "low", "high", "pair", outer=("from", "to"), by="study", log=True, name="fig-x", **WORDS
    )
    spec = chart.to_dict()
    svg = vl_convert.vegalite_to_svg(spec)
    assert symbols(svg) == 2
    widths = [layer["mark"].get("strokeWidth") for layer in spec["layer"] if layer["mark"]["type"] == "rule"]
    assert widths == [None, 5, 1.5]  # the reference, the inner and the outer interval
    ends = [(m["encoding"]["x"]["field"], m["encoding"]["x2"]["field"]) for m in spec["layer"][1:3]]
    assert ends == [("low", "high"), ("from", "to")]
    assert len(vl_convert.vegalite_to_vega(spec)["legends"]) == 1
    assert spec["usermeta"] == {"caption": WORDS["caption"], "name": "fig-x"}


def test_rows_of_one_label_stand_beside_each_other(ratios: pd.DataFrame) -> None:
    apart = charts.intervals(ratios, "ratio", "low", "high", "pair", by="study", **WORDS).to_dict()
    assert "yOffset" not in apart["layer"][-1]["encoding"]
    same = charts.intervals(ratios.assign(pair="a"), "ratio", "low", "high", "pair", by="study", **WORDS).to_dict()
    assert same["layer"][-1]["encoding"]["yOffset"]["field"] == "study"
    assert symbols(vl_convert.vegalite_to_svg(same)) == 2


def test_the_axis_holds_the_whole_of_all_intervals(ratios: pd.DataFrame) -> None:
    spec = charts.intervals(ratios, "ratio", "low", "high", "pair", outer=("from", "to"), **WORDS).to_dict()
    svg = vl_convert.vegalite_to_svg(spec)
    ticks = [float(v) for v in re.findall(r">(\d\.\d)</text>", svg)]
    assert min(ticks) <= 0.4
    assert max(ticks) >= 1.4


def test_an_interval_must_hold_its_number(ratios: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="must hold the number in 'ratio'"):
        charts.intervals(ratios.assign(high=0.45), "ratio", "low", "high", "pair", **WORDS)
    with pytest.raises(InputError, match="isn't positive"):
        charts.intervals(ratios.assign(low=-1.0), "ratio", "low", "high", "pair", log=True, **WORDS)
    with pytest.raises(InputError, match="Did you mean 'low'"):
        charts.intervals(ratios, "ratio", "lo", "high", "pair", **WORDS)
