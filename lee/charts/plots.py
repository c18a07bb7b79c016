"""Plots of tidy frames: curves with error bands, scatter plots, dots with error bars or intervals, and bars.

Each takes the keyword arguments `caption`, `alt` and `name` of :func:`lee.charts.finish` and raises
:class:`lee.errors.InputError` if the frame is empty, a column is missing (the nearest one is suggested) or
not numeric, a logarithmic axis would show a number that isn't positive, or a slider's values are not evenly
spaced.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import altair
import numpy as np
import pandas as pd

from lee.charts import parts
from lee.charts.theme import NEUTRAL, Words
from lee.errors import InputError

INNER = 5  # pixels
FAINT = 0.55  # so that dots stand out from the bars of their own colour
LABEL_ROOM = 40  # pixels at both ends of an axis for words beside the outermost points


def lines(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    by: str | None = None,
    error: str | tuple[str, str] | None = None,
    log: str = "",
    points: bool | str = False,
    slider: str | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    height: int = 300,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """Curves of `y` over `x`, one for each value of `by`, each with a band.

    Args:
        frame: One row for each point.
        x: Column of numbers on the horizontal axis.
        y: Column of numbers on the vertical axis.
        by: Column that tells the curves apart, by colour and by dash or, if all points are marked, by shape.
        error: Column of standard errors of `y`, or the two columns with the ends of an interval; the band shows them.
        log: Axes with a logarithmic scale: `""`, `"x"`, `"y"` or `"xy"`.
        points: Mark the measured points on the curves; or, in grey, those that a column of booleans chooses.
        slider: Column of evenly spaced numbers; the reader picks one of them, and its rows are shown.
        x_title: Title of the horizontal axis, with the unit; the column's name by default.
        y_title: Title of the vertical axis, with the unit; the column's name by default.
        height: Height in pixels; the width is the page's.
        **words: Caption, alternative text and name, as for :func:`finish`.
    """
    spans = [error] if isinstance(error, str) else list(error or ())
    chosen = points if isinstance(points, str) else None
    parts.check(frame, [c for c in (x, y, *spans, slider) if c], [by, chosen])
    parts.check_log(frame, log, x, y)
    data = parts.with_span(frame, y, error, log="y" in log)
    across = parts.axis(altair.X, data, x, x_title, log="x" in log, fixed=bool(slider))
    up: dict[str, Any] = {"title": y_title, "log": "y" in log, "fixed": bool(slider)}
    base = parts.chart(data, [x, y, by, *spans, slider, chosen])
    base = base.encode(x=across, **parts.told_apart(data, by, "color"))
    marks = []
    if error:
        low = parts.axis(altair.Y, data, y, at=parts.LOW, **up)
        marks.append(base.mark_area().encode(y=low, y2=altair.Y2(field=parts.HIGH)))
    curve = base.encode(y=parts.axis(altair.Y, data, y, **up), tooltip=parts.tooltip(data, by, x, y, *spans))
    dashed = None if points is True else by
    marks.append(curve.mark_line().encode(**parts.told_apart(data, dashed, "strokeDash")))
    if chosen:
        at = curve.transform_filter(altair.datum[chosen]).encode(color=altair.value(NEUTRAL))
        marks.append(at.mark_point())
    elif points:
        marks.append(curve.mark_point().encode(**parts.told_apart(data, by, "shape")))
    figure = parts.assemble(marks, height=height, words=words)
    return parts.slide(figure, frame[slider], slider, slider) if slider else figure


def scatter(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    by: str | None = None,
    label: str | None = None,
    log: str = "",
    x_title: str | None = None,
    y_title: str | None = None,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """Points at (`x`, `y`), coloured and shaped by `by`.

    Args:
        frame: One row for each point.
        x: Column of numbers on the horizontal axis.
        y: Column of numbers on the vertical axis.
        by: Column that tells families of points apart.
        label: Column of words written beside the points.
        log: Axes with a logarithmic scale: `""`, `"x"`, `"y"` or `"xy"`.
        x_title: Title of the horizontal axis, with the unit; the column's name by default.
        y_title: Title of the vertical axis, with the unit; the column's name by default.
        **words: Caption, alternative text and name, as for :func:`finish`.
    """
    parts.check(frame, [x, y], [by, label])
    parts.check_log(frame, log, x, y)
    across = parts.axis(altair.X, frame, x, x_title, log="x" in log, padding=LABEL_ROOM if label else 8)
    up = parts.axis(altair.Y, frame, y, y_title, log="y" in log, padding=14 if label else 0)
    # Where the words beside the points tell the groups apart, they are the legend.
    apart = parts.told_apart(frame, by, "color", "shape", legends=label != by)
    points = parts.chart(frame, [x, y, by, label]).mark_point(size=80)
    marks = [points.encode(x=across, y=up, tooltip=parts.tooltip(frame, label, by, x, y), **apart)]
    if label:
        # Words keep the page's colour: small type in the colour of its family is hard to read.
        crowded = np.array(parts.crowded(frame, x, y, label, log))
        text = altair.Text(field=parts.field(label), type="nominal")
        for at, dy in ((~crowded, -7), (crowded, 9)):
            if at.any():
                words_at = parts.chart(frame[at], [x, y, label]).mark_text(align="left", dx=9, dy=dy, fontSize=12)
                marks.append(words_at.encode(x=across, y=up, text=text))
    return parts.assemble(marks, height=320, words=words)


def dots(
    frame: pd.DataFrame,
    value: str,
    label: str,
    *,
    error: str | None = None,
    by: str | None = None,
    log: bool = False,
    title: str | None = None,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """One row for each `label`, with a dot at `value` and a bar of ± `error`, in the frame's order.

    Args:
        frame: One row for each dot; a local equivariance error and its standard error, say.
        value: Column of numbers.
        label: Column of names, one row of the chart each.
        error: Column of standard errors.
        by: Column that tells several dots of one row apart.
        log: Use a logarithmic axis.
        title: Title of the axis, with the unit; the column's name by default.
        **words: Caption, alternative text and name, as for :func:`finish`.
    """
    parts.check(frame, [value, error] if error else [value], [label, by])
    parts.check_log(frame, "x" if log else "", value, value)
    data = parts.with_span(frame, value, error, log=log)
    spans = [((parts.LOW, parts.HIGH), {"strokeWidth": 2})] if error else []
    shown, beside = [value, error] if error else [value], parts.told_apart(data, by, "yOffset")
    marks = _dotted(data, shown, label, by, spans, beside, None, {"title": title, "log": log})
    step = 34 if by is None else 14 + 18 * frame[by].nunique()
    return parts.assemble(marks, height=step * frame[label].nunique(), words=words)


def intervals(
    frame: pd.DataFrame,
    value: str,
    low: str,
    high: str,
    label: str,
    *,
    outer: tuple[str, str] | None = None,
    by: str | None = None,
    reference: float | None = 1.0,
    log: bool = False,
    title: str | None = None,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """One row for each `label`, with a dot at `value` and a bar from `low` to `high`, in the frame's order.

    Args:
        frame: One row for each dot.
        value: Column of numbers.
        low: Column with the lower ends, drawn as a thick bar.
        high: Column with the upper ends.
        label: Column of names, one row of the chart each.
        outer: Columns with the ends of a wider interval, drawn as a thin line.
        by: Column that tells groups of rows apart, by colour and shape; beside each other where a label has several.
        reference: Where to draw a thin line to compare with.
        log: Use a logarithmic axis.
        title: Title of the axis, with the unit; the column's name by default.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: Also if an interval doesn't hold its value.
    """
    wide = list(outer) if outer else []
    parts.check(frame, [value, low, high, *wide], [label, by])
    if ((frame[low] > frame[value]) | (frame[high] < frame[value])).any():
        raise InputError(f"Each interval from {low!r} to {high!r} must hold the number in {value!r}.")
    for column in (value, low, high, *wide):
        parts.check_log(frame, "x" if log else "", column, column)
    beside = parts.told_apart(frame, by, "yOffset") if frame[label].duplicated().any() else {}
    spans = [((low, high), {"strokeWidth": INNER, "opacity": FAINT})]
    spans += [(outer, {"strokeWidth": 1.5, "opacity": FAINT})] if outer else []
    shown = [value, low, high, *wide]
    marks = _dotted(frame, shown, label, by, spans, beside, reference, {"title": title, "log": log})
    groups = frame[by].nunique() if by and beside else 1
    step = 12 + (18 if groups <= 6 else 11) * groups  # many lie closer, for the chart to stay in sight
    return parts.assemble(marks, height=step * frame[label].nunique(), words=words)


def _dotted(
    data: pd.DataFrame, shown: list[str], label: str, by: str | None, spans: Sequence[tuple[tuple[str, str], dict[str, Any]]],
    beside: dict[str, Any], reference: float | None, axis: dict[str, Any],
) -> list[altair.Chart]:  # fmt: skip
    """Rows with a dot at the first of the columns `shown` to a pointer, over bars from one column to another."""
    across = partial(parts.axis, altair.X, data, shown[0], **axis)
    base = parts.chart(data, [*shown, label, by])
    base = base.encode(y=parts.rows(data, label), **parts.told_apart(data, by, "color"), **beside)
    bars = [
        base.mark_rule(**look).encode(x=across(at=low), x2=altair.X2(field=parts.field(high)))
        for (low, high), look in spans
    ]
    dot = base.mark_point(size=90).encode(
        x=across(), tooltip=parts.tooltip(data, label, by, *shown), **parts.told_apart(data, by, "shape")
    )
    return [*parts.compared(reference), *bars, dot]


def bars(
    frame: pd.DataFrame,
    value: str,
    label: str,
    *,
    error: str | None = None,
    by: str | None = None,
    title: str | None = None,
    height: int | None = None,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """Horizontal bars from zero to `value`, one for each `label` (and `by`), in the frame's order.

    Args:
        frame: One row for each bar.
        value: Column of numbers.
        label: Column of names.
        error: Column of standard errors, drawn as a thin line on the bar's end.
        by: Column that tells several bars of one row apart.
        title: Title of the axis, with the unit; the column's name by default.
        height: Height in pixels; by default it grows with the rows.
        **words: Caption, alternative text and name, as for :func:`finish`.
    """
    parts.check(frame, [value, error] if error else [value], [label, by])
    data = parts.with_span(frame, value, error, log=False)
    base = parts.chart(data, [value, label, by, error])
    base = base.encode(y=parts.rows(data, label), **parts.told_apart(data, by, "yOffset"))
    ticks = altair.Axis(tickCount=parts.PHONE_TICKS, labelOverlap=True)
    length = altair.X(field=parts.field(value), type="quantitative", title=title or value, axis=ticks)
    shown = parts.tooltip(data, label, by, value, error)
    bar = base.mark_bar(opacity=0.85).encode(x=length, tooltip=shown, **parts.told_apart(data, by, "color"))
    marks = [bar]
    if error:
        low = altair.X(field=parts.LOW, type="quantitative", title=title or value)
        marks.append(base.mark_rule().encode(x=low, x2=altair.X2(field=parts.HIGH)))
    step = 30 if by is None else 10 + 20 * frame[by].nunique()
    return parts.assemble(marks, height=height or step * frame[label].nunique(), words=words)
