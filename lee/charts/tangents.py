"""A curve and the straight line that touches it: what a Lie derivative says about a finite transformation."""

from typing import Unpack

import altair
import pandas as pd

from lee.charts import parts
from lee.charts.theme import Words, finish
from lee.errors import InputError


def tangents(
    frame: pd.DataFrame,
    x: str,
    y: str,
    slope: str,
    *,
    by: str | None = None,
    reach: float = 0.5,
    x_title: str | None = None,
    y_title: str | None = None,
    height: int = 300,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """Curves of `y` over `x`, each with a dashed tangent at `x = 0`.

    Args:
        frame: One row for each point; every curve has one at `x = 0`.
        x: Column of numbers on the horizontal axis.
        y: Column of numbers on the vertical axis.
        slope: Column with the derivative of `y` at `x = 0`, the same in all rows of a curve.
        by: Column that tells the curves apart.
        reach: How far the tangents go, as a share of the horizontal axis.
        x_title: Title of the horizontal axis, with the unit; the column's name by default.
        y_title: Title of the vertical axis, with the unit; the column's name by default.
        height: Height in pixels; the width is the page's.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If a column is missing or not numeric, or a curve has no point at `x = 0`.
    """
    parts.check(frame, [x, y, slope], [by])
    lines = _tangent_lines(frame, x, y, slope, by, reach)
    up = parts.axis(altair.Y, frame, y, y_title, log=False)
    across = parts.axis(altair.X, frame, x, x_title, log=False)
    colours = parts.told_apart(frame, by, "color")
    shown = parts.tooltip(frame, by, x, y)
    curve = parts.chart(frame, [x, y, by]).mark_line().encode(x=across, y=up, tooltip=shown, **colours)
    straight = parts.chart(lines, [x, y, by]).encode(x=across, y=up, **colours)
    touched = parts.chart(frame[frame[x] == 0], [x, y, by]).mark_point(size=80).encode(x=across, y=up, **colours)
    marks = [straight.mark_line(strokeDash=[7, 5], strokeWidth=1.75), curve, touched]
    figure = altair.LayerChart(layer=marks).properties(width="container", height=height)
    return finish(figure, **words)


def _tangent_lines(frame: pd.DataFrame, x: str, y: str, slope: str, by: str | None, reach: float) -> pd.DataFrame:
    """The two ends of every tangent."""
    half = reach * float(frame[x].max() - frame[x].min()) / 2
    rows = []
    for label, curve in [("", frame)] if by is None else frame.groupby(by, sort=False):
        at_zero = curve[curve[x] == 0]
        if at_zero.empty:
            raise InputError(f"The curve {label!r} needs a point at {x} = 0, where its tangent touches it.")
        value, rise = float(at_zero[y].iloc[0]), float(at_zero[slope].iloc[0])
        named = {} if by is None else {by: label}
        rows += [{**named, x: end, y: value + end * rise} for end in (-half, half)]
    return pd.DataFrame(rows)
