"""Charts of a decomposition: the rectangles fill the tree, the curve ends at the sum, and browsers can draw both."""

import json

import pandas as pd
import pytest
import vl_convert
from layer_frames import layer_frame

from lee import charts
from lee.charts.layers import COLOURS, rectangles, running
from lee.errors import InputError
from lee.layers.families import completion

WORDS = {"caption": "What to see.", "alt": "What is drawn."}


@pytest.fixture
def frame() -> pd.DataFrame:
    return layer_frame()


def one(data: pd.DataFrame, path: str, kind: str = "") -> pd.Series:
    chosen = data[(data["path"] == path) & (data["kind"].eq(kind) if kind else data["kind"].ne("own operations"))]
    assert len(chosen) == 1
    return chosen.iloc[0]


def width(row: pd.Series) -> float:
    return float(row["x1"] - row["x0"])


def test_widths_are_shares_of_the_sum_of_all_own_parts(frame: pd.DataFrame) -> None:
    data = rectangles(frame)
    total = frame["self_norm2"].sum()
    assert width(one(data, "the model")) == pytest.approx(1)
    assert width(one(data, "net.conv1")) == pytest.approx(0.4 / total)
    assert width(one(data, "net.block")) == pytest.approx(0.35 / total)  # the sum of what is in it
    assert width(one(data, "net", "own operations")) == pytest.approx(0.2 / total)


def test_rectangles_of_a_container_fill_it_without_overlap(frame: pd.DataFrame) -> None:
    data = rectangles(frame)
    for level, below in ((0, 1), (1, 2)):
        outer, inner = (data[data["depth"] == d].sort_values("x0") for d in (level, below))
        assert (inner["x1"] - inner["x0"]).sum() == pytest.approx((outer["x1"] - outer["x0"]).sum())
        assert inner["x0"].iloc[1:].to_numpy() == pytest.approx(inner["x1"].iloc[:-1].to_numpy())
    attention = one(data, "net.block.attn")
    relu = data[(data["path"] == "net.act (call 2)")].iloc[0]
    assert attention["x0"] == pytest.approx(relu["x0"])


def test_zeros_and_merged_calls_have_no_rectangle(frame: pd.DataFrame) -> None:
    paths = set(rectangles(frame)["path"])
    assert not {"net.block.attn.qkv", "net.block.odd"} & paths


def test_rectangles_tell_what_was_measured(frame: pd.DataFrame) -> None:
    conv = one(rectangles(frame), "net.conv1")
    assert (conv["type"], conv["kind"], conv["family"]) == ("Conv2d", "leaf", "convolution")
    assert conv["measured"] == "0.4 ± 0.04"
    assert conv["signed"] == "45 % ± 4.5 %"
    assert one(rectangles(frame), "net.block.attn", "own operations")["family"] == "attention"
    assert one(rectangles(frame.drop(columns=["norm2_se"])), "net.conv1")["measured"] == "0.4"


def test_a_family_column_is_used_if_there_is_one(frame: pd.DataFrame) -> None:
    data = rectangles(frame.assign(family="linear"))
    assert set(data["family"]) == {"linear", "container"}


def test_the_icicle_is_a_chart_that_browsers_can_draw(frame: pd.DataFrame) -> None:
    chart = charts.icicle(frame, name="fig-tree", **WORDS)
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    assert all(f">{label}" in svg for label in ("net", "conv1", "block"))
    assert COLOURS["convolution"].lower() in svg.lower()
    assert chart.to_dict()["usermeta"] == {"caption": WORDS["caption"], "name": "fig-tree"}
    assert len(vl_convert.vegalite_to_vega(chart.to_dict())["legends"]) == 1


def test_names_that_do_not_fit_are_left_out(frame: pd.DataFrame) -> None:
    narrow = frame.copy()
    narrow.loc[narrow["path"] == "net.head", "self_norm2"] = 0.01
    for data, seen in ((frame, True), (narrow, False)):
        spec = charts.icicle(data, **WORDS).properties(width=500).to_dict()
        assert (">head<" in vl_convert.vegalite_to_svg(spec)) is seen


def test_layer_charts_keep_their_bytes_and_follow_the_page(frame: pd.DataFrame) -> None:
    charts.enable()
    noisy = frame.assign(self_norm2=frame["self_norm2"] * (1 + 1e-9))
    for draw in (charts.icicle, charts.cumulative):
        assert draw(frame, **WORDS).to_json() == draw(noisy, **WORDS).to_json()
        text = json.dumps(draw(frame, **WORDS).to_dict()["config"])
        assert not any(word in text for word in ("background", "labelColor", "titleColor"))


def test_the_curve_is_the_running_sum_in_order_of_completion(frame: pd.DataFrame) -> None:
    data, total = running(frame), frame["self_norm2"].sum()
    order = completion(frame["parent"].tolist())
    assert data["sum"].tolist() == pytest.approx([0, *frame["cumulative"][order] / total])
    assert data["done"].tolist() == pytest.approx(range(0, 101, 10))
    assert data["sum"].iloc[-1] == pytest.approx(1)


def test_each_network_has_its_own_curve_and_band(frame: pd.DataFrame) -> None:
    both = pd.concat([frame.assign(model="a", error=0.1), frame.assign(model="b", error=0.1).iloc[:4]])
    data = running(both, by="model", error="error")
    assert data.groupby("model")["sum"].last().tolist() == pytest.approx([1, 1])
    assert data["se"].iloc[:2].tolist() == [0, 0.1]
    chart = charts.cumulative(both, by="model", error="error", **WORDS)
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    assert "share of the sum so far" in svg
    assert len(vl_convert.vegalite_to_vega(chart.to_dict())["legends"]) == 1


def test_steps_of_nothing_need_no_points(frame: pd.DataFrame) -> None:
    (rows,) = charts.cumulative(frame, **WORDS).to_dict()["datasets"].values()
    assert [row["path"] for row in rows] == [
        "", "net.conv1", "net.act", "net.act", "net.block.attn", "net.head", "net", "the model"
    ]  # fmt: skip


def test_what_cannot_be_drawn_is_refused(frame: pd.DataFrame) -> None:
    zero = frame.assign(self_norm2=0.0, norm2=0.0)
    for draw in (charts.icicle, charts.cumulative):
        with pytest.raises(InputError, match="zero"):
            draw(zero, **WORDS)
        with pytest.raises(InputError, match="no column 'self_norm2'"):
            draw(frame.drop(columns="self_norm2"), **WORDS)
        with pytest.raises(InputError, match="caption"):
            draw(frame, caption="", alt="x")
