"""Charts of a decomposition into layers: where along a network, and where in its module tree, the error arises.

Both take the tidy frame of :func:`lee.layerwise`, one row per module call in order of execution: `path`, `type`,
`call`, `depth`, `parent`, `kind`, `norm2`, `share`, `self_norm2`, `self_share` and their standard errors `…_se`.

Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023 (Fig. 1 centre and Fig. 4 for what is shown).
"""

from typing import Any, Unpack

import altair
import pandas as pd

from lee.charts import parts
from lee.charts.theme import BROWN, PALETTE, Words, finish, rounded
from lee.errors import InputError
from lee.layers.families import FAMILIES, completion, families

INK, PAPER = "#1A1A1A", "#FFFFFF"  # words on rectangles, whose colours are the same on every page
CONTAINER = "#E3E3E3"
_PURPLE, _TAN = "#8A63B5", "#B59B7C"  # more than the palette has
COLOURS = dict(
    zip(FAMILIES, (PALETTE[5], PALETTE[0], _PURPLE, *PALETTE[1:5], BROWN, PALETTE[6], _TAN), strict=True),
    container=CONTAINER,
)
"""The colour of each family of layers, the same in every chart."""

LEVEL = 26  # pixels, the height of a rectangle
ROUNDING = 1e-9  # of the sum of all parts: what the terms of a container leave in the last digits
NARROWEST = 5e-4  # of the whole width: less than half a pixel on a page
MEASURED = ("norm2", "self_norm2", "share")
OWN = "own operations"


def icicle(frame: pd.DataFrame, **words: Unpack[Words]) -> altair.LayerChart:
    """The module tree of a decomposition: a rectangle for each call, below the call around it.

    The width of a rectangle is its share of the sum of all layers' own `‖v‖²`. Rectangles are coloured by the family of the layer;
    grey ones are containers, and what a container does by itself has a rectangle of its own at its right end. A click on a
    rectangle shows it over the whole width, a double click goes back.

    Args:
        frame: The frame of a decomposition; a column `family` is used if there is one.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If a column is missing, or there is nothing but zeros.
    """
    data = rectangles(frame)
    zoom = altair.selection_point(name="zoom", fields=["x0", "x1"], on="click", clear="dblclick", empty=False)
    ends = [altair.ExprRef(f"isValid(zoom.{end}) ? zoom.{end}[0] : {i}") for i, end in enumerate(("x0", "x1"))]
    across = altair.Scale(domain=ends, nice=False, zero=False, clamp=False)
    base = altair.Chart(rounded(data)).encode(
        x=altair.X("x0:Q", scale=across, axis=None), y=altair.Y("depth:Q", scale=altair.Scale(reverse=True), axis=None)
    )
    shown = [f for f in COLOURS if f in set(data["family"])]
    colour = altair.Scale(domain=shown, range=[COLOURS[f] for f in shown])
    bars = base.mark_rect(stroke=PAPER, strokeWidth=0.7, clip=True, cursor="pointer").encode(
        x2="x1:Q", y2="below:Q", tooltip=_told(data),
        color=altair.Color("family:N", scale=colour, legend=altair.Legend(title=None)),
    )  # fmt: skip
    figure = altair.LayerChart(layer=[bars.add_params(zoom), _words(base)])
    height = LEVEL * int(data["below"].max())
    return finish(figure.properties(width="container", height=height), **words)


def _words(base: altair.Chart) -> altair.Chart:
    """Names inside the rectangles, as far as they fit; none where less than three letters would."""
    left, right = "max(scale('x', datum.x0), 0)", "min(scale('x', datum.x1), width)"
    room = f"{right} - {left} - 8"
    words = base.mark_text(
        align="left", baseline="middle", fontSize=11, dx=4, clip=True, tooltip=None,
        limit=altair.ExprRef(f"max({room}, 1)"), opacity=altair.ExprRef(f"{room} < 18 ? 0 : 1"),
    )  # fmt: skip
    dark = [f for f, c in COLOURS.items() if c in (PALETTE[0], _PURPLE, BROWN)]
    ink = altair.condition(altair.FieldOneOfPredicate("family", dark), altair.value(PAPER), altair.value(INK))
    # Under a zoom the name of a rectangle that began further left stays in sight.
    return words.encode(x=altair.value(altair.ExprRef(left)), y=altair.Y("middle:Q"), text="label:N", color=ink)


def _told(data: pd.DataFrame) -> list[altair.Tooltip]:
    titles = {
        "path": "path", "type": "type", "kind": "kind", "measured": "‖v‖²", "alone": "‖v‖² of its own part",
        "signed": "signed share",
    }  # fmt: skip
    return [altair.Tooltip(f"{field}:N", title=title) for field, title in titles.items() if field in data]


def rectangles(frame: pd.DataFrame) -> pd.DataFrame:
    """The rectangles of :func:`icicle`: `x0`, `x1` in [0, 1], `depth`, `family` and what a pointer over one shows."""
    parts.check(frame, ["depth", "parent", *MEASURED], ["path", "type", "call", "kind"])
    kinds = (frame["family"] if "family" in frame else families(frame)).tolist()
    alone = frame["self_norm2"].fillna(0.0)
    own = alone.where(alone > ROUNDING * alone.sum(), 0.0).tolist()
    calls: list[dict[Any, Any]] = frame.assign(self_norm2=own).to_dict("records")
    around = frame["parent"].tolist()
    size = _subtrees(own, around)
    if size[0] <= 0:
        raise InputError("An icicle needs a contribution that isn't zero; every layer of this model is equivariant.")
    found: list[dict[str, Any]] = []
    free: list[float] = []  # where the next part of a call begins
    width: list[float] = []
    for row, (call, parent) in enumerate(zip(calls, around, strict=True)):
        start = free[parent] if parent >= 0 else 0.0
        width.append(width[parent] * _share(size[row], size[parent]) if parent >= 0 else 1.0)
        free.append(start)
        if parent >= 0:
            free[parent] += width[row]
        found.append(_rectangle(call, start, width[row], "container" if call["kind"] == "container" else kinds[row]))
    for row, call in enumerate(calls):
        if call["kind"] == "container":  # what its children have left
            rest = width[row] * _share(own[row], size[row])
            found.append(_rectangle(call, free[row], rest, kinds[row], own=True))
    data = pd.DataFrame(found)
    return data[data["x1"] - data["x0"] >= NARROWEST].reset_index(drop=True)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _subtrees(own: list[float], parent: list[int]) -> list[float]:
    """Sum of `own` over every row and all that is below it; parents come before their children."""
    sums = list(own)
    for row in range(len(own) - 1, 0, -1):
        sums[parent[row]] += sums[row]
    return sums


def _rectangle(call: dict[str, Any], x0: float, width: float, family: str, *, own: bool = False) -> dict[str, Any]:
    path = (call["path"] or "the model") + (f" (call {call['call'] + 1})" if call["call"] else "")
    depth, prefix = int(call["depth"]) + own, "self_" if own else ""
    row = {
        "x0": x0, "x1": x0 + width, "depth": depth, "middle": depth + 0.5, "below": depth + 1, "family": family,
        "label": OWN if own else path.rpartition(".")[2],
        "path": path, "type": call["type"], "kind": OWN if own else call["kind"],
        "measured": _pm(call, f"{prefix}norm2"), "signed": _pm(call, f"{prefix}share", percent=True),
    }  # fmt: skip
    return row if own else {**row, "alone": _pm(call, "self_norm2") if call["self_norm2"] else "0"}


def _pm(call: dict[str, Any], column: str, *, percent: bool = False) -> str:
    """`value ± standard error` of a column that is there."""
    value, error = call.get(column), call.get(f"{column}_se")
    if value is None or pd.isna(value):
        return "–"

    def shown(v: float) -> str:
        return f"{100 * v:.2g} %".replace("-", "−") if percent else f"{v:.3g}"

    return shown(value) if error is None or pd.isna(error) else f"{shown(value)} ± {shown(error)}"


def cumulative(
    frame: pd.DataFrame,
    *,
    by: str | None = None,
    error: str | None = None,
    y_title: str = "share of the sum so far",
    height: int = 300,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """The running sum of the layers' own contributions `‖v‖²` along the network, one line for each of `by` (Fig. 4).

    Sums are fractions of their last value, so that networks of different size can be compared.

    Args:
        frame: The frame of a decomposition, or several joined with a column that tells them apart.
        by: Column that tells the networks apart.
        error: Column with the standard error of what is drawn (`fraction_so_far_se` of :func:`lee.layers.families.pooled`, say).
        y_title: Title of the vertical axis.
        height: Height in pixels; the width is the page's.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If a column is missing, or a network has nothing but zeros.
    """
    data = running(frame, by=by, error=error)
    ends = data["done"].isin([0.0, 100.0])
    data = data[ends | (data["own"] > ROUNDING * data["sum"].max())]  # between the steps a staircase needs no points
    data = parts.with_span(data, "sum", "se" if error else None, log=False)
    percent, ticks = altair.Scale(domain=[0, 100]), altair.Axis(tickCount=parts.PHONE_TICKS, labelOverlap=True)
    across = altair.X("done:Q", title="layers so far, % of the network", scale=percent, axis=altair.Axis(tickCount=5))
    base = altair.Chart(rounded(data)).encode(x=across, **_stroked(data, by))
    marks = []
    if error:
        low = altair.Y(field=parts.LOW, type="quantitative", title=y_title, axis=ticks)
        marks.append(base.mark_area(interpolate="step-after").encode(y=low, y2=altair.Y2(field=parts.HIGH)))
    line = base.encode(y=altair.Y("sum:Q", title=y_title, axis=ticks))
    marks.append(line.mark_line(interpolate="step-after").encode(**parts.told_apart(data, by, "strokeDash")))
    shown = parts.tooltip(data, by, "path", "type", "own", "sum")
    marks.append(line.mark_point(size=18).encode(tooltip=shown).transform_filter("datum.path != ''"))
    return parts.assemble(marks, height=height, words=words)


def _stroked(data: pd.DataFrame, by: str | None) -> dict[str, Any]:
    """Colours whose legend shows lines, not points."""
    if by is None:
        return {}
    return {"color": parts.legend(altair.Color, data, by).legend(altair.Legend(symbolType="stroke", symbolSize=300))}


def running(frame: pd.DataFrame, *, by: str | None = None, error: str | None = None) -> pd.DataFrame:
    """The points of :func:`cumulative`: a zero, then one row per call in order of completion."""
    parts.check(frame, ["parent", "self_norm2", *([error] if error else [])], ["path", "type", by])
    curves = []
    groups: list[tuple[Any, pd.DataFrame]] = [("", frame)] if by is None else list(frame.groupby(by, sort=False))
    for label, one in groups:
        rows = one.iloc[completion(one["parent"].tolist())].reset_index(drop=True)
        own = rows["self_norm2"].fillna(0.0)
        total = float(own.sum())
        if total <= 0:
            raise InputError(f"Every contribution of {label or 'this model'!s} is zero: there is no share to draw.")
        points = rows[["path", "type"]].replace({"path": {"": "the model"}})
        points = points.assign(done=100 * (rows.index + 1) / len(rows), own=own / total, sum=own.cumsum() / total)
        if error:
            points["se"] = rows[error].fillna(0.0)
        begin = {"path": "", "type": "", "done": 0.0, "own": 0.0, "sum": 0.0} | ({"se": 0.0} if error else {})
        points = pd.concat([pd.DataFrame([begin]), points], ignore_index=True)
        curves.append(points if by is None else points.assign(**{by: label}))
    return pd.concat(curves, ignore_index=True)
