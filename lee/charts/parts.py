"""Axes, legends, error spans and sliders that the plots share."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import altair
import numpy as np
import pandas as pd

from lee.charts.theme import BROWN, NEUTRAL, PALETTE, RAISED, Words, finish, rounded
from lee.errors import InputError, nearest

LOW, HIGH = "_low", "_high"
LOG_AXES = ("", "x", "y", "xy")
PHONE_TICKS = 6
WORDS = (0.25, 0.06)  # width and height of the words beside a point on a phone, as shares of the axes
TINY, HUGE = 1e-5, 1e6  # beyond them an axis tells powers of ten
DASHES = ([1, 0], [9, 5], [2, 4], [9, 4, 2, 4])


def field(column: str) -> str:
    """A column's name with the characters escaped that Vega-Lite would read as a path."""
    return re.sub(r"([.\[\]\\'\"])", r"\\\1", column)


def check(frame: pd.DataFrame, numbers: Sequence[str], others: Sequence[str | None]) -> None:
    """Refuse what can't be drawn: an empty frame, a missing column, or one of `numbers` that holds something else."""
    if frame.empty:
        raise InputError("A chart needs at least one row of data; the frame is empty.")
    for column in (*numbers, *(c for c in others if c is not None)):
        if column not in frame.columns:
            raise InputError(f"The frame has no column {column!r}.{nearest(column, map(str, frame.columns))}")
    for column in numbers:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise InputError(f"Column {column!r} must hold numbers; it is of type {frame[column].dtype}.")


def check_log(frame: pd.DataFrame, log: str, x: str, y: str) -> None:
    """Refuse a word that names no axes, and numbers that a logarithmic axis can't show."""
    if log not in LOG_AXES:
        raise InputError(f"log={log!r} names no axis; expected one of {', '.join(map(repr, LOG_AXES))}.")
    for column in {"": (), "x": (x,), "y": (y,), "xy": (x, y)}[log]:
        if (frame[column] <= 0).any():
            raise InputError(f"Column {column!r} isn't positive everywhere, so it can't have a logarithmic axis.")


def with_span(frame: pd.DataFrame, value: str, error: str | tuple[str, str] | None, *, log: bool) -> pd.DataFrame:
    """Add the ends of `value` ± `error`, or of an interval, as columns; on a logarithmic axis the lower one stays positive."""
    if error is None:
        return frame
    if isinstance(error, str):
        low, high = frame[value] - frame[error], frame[value] + frame[error]
    else:
        low, high = (frame[end] for end in error)
    return frame.assign(**{LOW: low.where(low > 0, frame[value] / 100) if log else low, HIGH: high})


def chart(frame: pd.DataFrame, columns: Sequence[str | None]) -> altair.Chart:
    """An empty chart over the columns that are drawn, rounded."""
    wanted = [c for c in dict.fromkeys([*columns, LOW, HIGH]) if c in frame.columns]
    return altair.Chart(rounded(frame[wanted]))


def axis(
    channel: Any, frame: pd.DataFrame, column: str, title: str | None, *, log: bool, fixed: bool = False, at: str | None = None,
    padding: int = 0,
) -> Any:  # fmt: skip
    """A quantitative axis for `column`, drawn at column `at` of the same unit if given.

    With `fixed` the axis spans the whole frame, so that it stays put while a slider moves; `padding` pixels
    at both ends are left free.
    """
    scale: dict[str, Any] = {"type": "log", "nice": False} if log else {"zero": False}
    if fixed:
        shown = frame[[c for c in (column, LOW, HIGH) if c in frame.columns]]
        scale["domain"] = [float(f"{v:.3g}") for v in (shown.min().min(), shown.max().max())]
    if padding:
        scale["padding"] = padding
    few = pd.api.types.is_integer_dtype(frame[column]) and frame[column].max() - frame[column].min() < PHONE_TICKS
    steps: dict[str, Any] = {"tickMinStep": 1} if few and not log else {}  # no ticks between whole numbers
    ticks = altair.Axis(tickCount=PHONE_TICKS, labelOverlap=True, **steps, **_powers(frame[column] if log else ()))
    drawn = {"field": field(at or column), "type": "quantitative"}
    return channel(**drawn, scale=altair.Scale(**scale), axis=ticks, title=title or column)


def _powers(values: Iterable[float]) -> dict[str, Any]:
    """Labels of a logarithmic axis as powers of ten, 10⁻⁸ and 2×10⁻⁸, where Vega would mix 0.000001 and 1e-8."""
    smallest, largest = min(values, default=1.0), max(values, default=1.0)
    if smallest >= TINY and largest < HUGE:
        return {}
    exponents = range(math.floor(math.log10(smallest)) - 3, math.ceil(math.log10(largest)) + 4)
    told = ", ".join(f"'10{str(e).translate(RAISED)}'" if e not in (0, 1) else f"'{10**e}'" for e in exponents)
    exponent = "floor(log(datum.value) / LN10 + 1e-9)"
    lead = f"round(datum.value / pow(10, {exponent}))"
    power = f"[{told}][{exponent} - {exponents[0]}]"
    return {"labelExpr": f"!datum.label ? '' : ({lead} == 1 ? '' : {lead} + '×') + {power}"}


def legend(channel: Any, frame: pd.DataFrame, by: str) -> Any:
    """A categorical encoding in the frame's order."""
    order = rounded(frame[[by]])[by].unique().tolist()
    # With the domain spelled out, Vega-Lite sees that colour and shape say the same and draws one legend.
    scale = altair.Scale(domain=order)
    if channel is altair.StrokeDash:
        scale = altair.Scale(domain=order, range=[DASHES[i % len(DASHES)] for i in range(len(order))])
    elif channel is altair.Color and len(order) > len(PALETTE):
        scale = altair.Scale(domain=order, range=[*PALETTE, BROWN])
    return channel(field=field(by), type="nominal", sort=order, title=None, scale=scale)


def told_apart(frame: pd.DataFrame, by: str | None, *channels: str, legends: bool = True) -> dict[str, Any]:
    """Encodings, such as `"color"` and `"shape"`, that tell the groups of `by` apart; none without `by`."""
    if by is None:
        return {}
    kinds = {c: legend(getattr(altair, c[0].upper() + c[1:]), frame, by) for c in channels}
    return kinds if legends else {c: kind.legend(None) for c, kind in kinds.items()}


def crowded(frame: pd.DataFrame, x: str, y: str, label: str, log: str) -> list[bool]:
    """Which points lie a little lower than another labelled point near them: their words go below, the other's above."""
    along, up = (np.log(frame[c]) if name in log else frame[c] for c, name in ((x, "x"), (y, "y")))
    along, up = ((v - v.min()) / max(v.max() - v.min(), 1e-9) for v in (along, up))
    named = [bool(word) for word in frame[label]]
    points = list(zip(along, up, named, strict=True))
    return [
        own and any(other and abs(u - a) < WORDS[0] and 0 < v - b < WORDS[1] for u, v, other in points)
        for a, b, own in points
    ]


def rows(frame: pd.DataFrame, label: str) -> altair.Y:
    """One row for each name, in the frame's order, without an axis line."""
    order = rounded(frame[[label]])[label].unique().tolist()
    return altair.Y(field=field(label), type="nominal", sort=order, title=None)


def tooltip(frame: pd.DataFrame, *columns: str | None) -> list[altair.Tooltip]:
    """What a pointer over a mark shows, without repetition."""
    kinds = {c: pd.api.types.is_numeric_dtype(frame[c]) for c in columns if c is not None}
    return [
        altair.Tooltip(field=field(c), title=c, type="quantitative" if number else "nominal")
        for c, number in kinds.items()
    ]


def spaced(values: Iterable[float], what: str) -> tuple[list[float], float]:
    """Sort the distinct `values` of a slider, two or more and evenly spaced, and return them with their step."""
    stops = sorted({float(v) for v in values})
    steps = [b - a for a, b in pairwise(stops)]
    if not steps or max(steps) - min(steps) > 1e-6 * max(abs(s) for s in [*stops, *steps]):
        raise InputError(f"A slider needs two or more evenly spaced values of {what}; got {stops[:8]}.")
    return stops, (stops[-1] - stops[0]) / len(steps)


def slide(figure: altair.LayerChart, values: Iterable[float], column: str, title: str) -> altair.LayerChart:
    """Let the reader pick one of the evenly spaced `values` of `column`; only its rows are shown."""
    stops, step = spaced(values, repr(column))
    low, high, step = (float(f"{v:.6g}") for v in (stops[0], stops[-1], step))
    bind = altair.binding_range(min=low, max=high, step=step, name=f"{title} ")
    start = float(f"{stops[len(stops) // 2]:.6g}")
    picked = altair.param(name="picked", value=start, bind=bind)
    near = f"abs(datum['{column}'] - picked) < {step / 2:.6g}"
    return figure.add_params(picked).transform_filter(near)


def assemble(marks: Sequence[altair.Chart], *, height: int, words: Words) -> altair.LayerChart:
    """Layer the marks over the page's width, and finish with caption and alternative text."""
    figure = altair.LayerChart(layer=list(marks)).properties(width="container", height=height)
    return finish(figure, **words)


def compared(reference: float | None) -> list[altair.Chart]:
    """A thin line at the number to compare with, if there is one."""
    if reference is None:
        return []
    line = altair.Chart(pd.DataFrame({"reference": [reference]})).mark_rule(strokeDash=[4, 4], color=NEUTRAL)
    return [line.encode(x=altair.X(field="reference", type="quantitative"))]
