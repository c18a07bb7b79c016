"""Intervals around numbers that are compared with one value, such as ratios with 1."""

from typing import Unpack

import altair
import pandas as pd

from lee.charts import parts
from lee.charts.theme import Words
from lee.errors import InputError

INNER = 5  # pixels
FAINT = 0.55  # so that dots stand out from the bars of their own colour


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
    beside = parts.offset(frame, by) if frame[label].duplicated().any() else {}
    base = parts.chart(frame, [value, low, high, *wide, label, by]).encode(
        y=parts.rows(frame, label), **parts.told_apart(frame, by, "color"), **beside
    )
    marks = parts.compared(reference)
    for (start, end), width in [((low, high), INNER), *([(outer, 1.5)] if outer else [])]:
        across = parts.axis(altair.X, frame, value, title, log=log, at=start)
        marks.append(
            base.mark_rule(strokeWidth=width, opacity=FAINT).encode(x=across, x2=altair.X2(field=parts.field(end)))
        )
    dot = base.mark_point(size=90).encode(
        x=parts.axis(altair.X, frame, value, title, log=log),
        tooltip=parts.tooltip(frame, label, by, value, low, high, *wide),
        **parts.told_apart(frame, by, "shape"),
    )
    step = 12 + 18 * frame[by].nunique() if by and beside else 30
    return parts.assemble([*marks, dot], height=step * frame[label].nunique(), words=words)
