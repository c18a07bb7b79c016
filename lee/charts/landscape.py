"""Models as points in a plane, with menus that choose what is measured and a card under the pointer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import altair
import pandas as pd

from lee.charts import parts
from lee.charts.theme import Words, finish, rounded, typeset
from lee.errors import InputError, nearest

X_LOW, X_HIGH = "_x_low", "_x_high"
NOTE = "note"


@dataclass(frozen=True)
class Axis:
    """A quantitative axis: what is drawn along it, and how.

    Args:
        column: Column of numbers.
        title: Title with the unit; the column's name by default.
        error: Column of half an interval, or the two columns with its ends.
        log: Use a logarithmic scale.
    """

    column: str
    title: str | None = None
    error: str | tuple[str, str] | None = None
    log: bool = False

    @property
    def spans(self) -> tuple[str, ...]:
        """The columns of the error."""
        return (self.error,) if isinstance(self.error, str) else self.error or ()


def landscape(
    frame: pd.DataFrame,
    x: Axis,
    y: Axis,
    *,
    by: str,
    menus: Sequence[str] = (),
    start: Mapping[str, str] | None = None,
    notes: pd.DataFrame | None = None,
    facts: Sequence[str] = (),
    size: str | None = None,
    label: str | None = None,
    **words: Unpack[Words],
) -> altair.LayerChart:
    """Points at (`x`, `y`), coloured and shaped by `by`; the reader chooses by menus which rows are shown.

    Args:
        frame: One row for each point and each choice.
        x: The horizontal axis.
        y: The vertical axis.
        by: Column that tells families of points apart.
        menus: Columns of words; each becomes a menu under the chart.
        start: What the menus show at first, by column; the frame's first word by default.
        notes: One row for each choice, with the menus' columns and `note`: a line of words written above the points.
        facts: Further columns that the pointer shows: what the card of a model says.
        size: Column of numbers that the area of the points grows with, on a logarithmic scale.
        label: Column of words written beside the points.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: Also if a menu would start with a word that it doesn't have, or a note lacks a column.
    """
    sizes = [*y.spans, *x.spans, *([size] if size else [])]
    parts.check(frame, [x.column, y.column, *sizes], [by, *menus, *facts, label])
    for column, log in ((x.column, x.log), (y.column, y.log), (size or "", bool(size))):
        parts.check_log(frame, "x" if log else "", column, column)
    data = _with_x_span(parts.with_span(frame, y.column, y.error, log=y.log), x)
    columns = list(dict.fromkeys([x.column, y.column, by, *menus, *facts, *sizes, *([label] if label else [])]))
    columns += [c for c in (X_LOW, X_HIGH) if c in data]
    ordered = data.sort_values(by)  # whatever the order of the menus, a family has the same colour in all such charts
    base = _chosen(parts.chart(data, columns).encode(**parts.told_apart(ordered, by, "color")), menus)
    across = partial(parts.axis, altair.X, data, x.column, x.title, log=x.log, padding=40 if label else 12)
    up = partial(parts.axis, altair.Y, data, y.column, y.title, log=y.log, padding=22)
    middle = {"x": across(), "y": up()}
    marks = []
    if y.error:
        marks.append(base.mark_rule().encode(x=middle["x"], y=up(at=parts.LOW), y2=altair.Y2(field=parts.HIGH)))
    if x.error:
        marks.append(base.mark_rule().encode(y=middle["y"], x=across(at=X_LOW), x2=altair.X2(field=X_HIGH)))
    shown = parts.tooltip(data, *dict.fromkeys([*facts, by, x.column, *x.spans, y.column, *y.spans, size]))
    shapes = parts.told_apart(ordered, by, "shape")
    points = base.mark_point(size=90, opacity=0.9).encode(**middle, tooltip=shown, **shapes)
    marks.append(points.encode(size=_area(data, size)) if size else points)
    if label:
        # Words keep the page's colour: small type in the colour of its family is hard to read.
        plain = _chosen(parts.chart(data, columns), menus)
        plain = plain.mark_text(align="left", dx=9, dy=-7, fontSize=12)
        marks.append(plain.encode(**middle, text=altair.Text(field=parts.field(label), type="nominal")))
    if notes is not None:
        marks.append(_written(notes, menus))
    figure = altair.LayerChart(layer=marks).properties(width="container", height=380)
    figure = figure.add_params(*_menus(data, menus, start or {})) if menus else figure
    return finish(figure, **words)


def _with_x_span(frame: pd.DataFrame, x: Axis) -> pd.DataFrame:
    if x.error is None:
        return frame
    spanned = parts.with_span(frame[[x.column, *x.spans]], x.column, x.error, log=x.log)
    return frame.assign(**{X_LOW: spanned[parts.LOW], X_HIGH: spanned[parts.HIGH]})


def _area(frame: pd.DataFrame, size: str) -> altair.Size:
    """Areas that keep their meaning whatever the menus choose."""
    ends = [float(frame[size].min()), float(frame[size].max())]
    scale = altair.Scale(type="log", domain=ends, range=[35, 320], nice=False)
    return altair.Size(field=parts.field(size), type="quantitative", scale=scale, legend=None)


def _written(notes: pd.DataFrame, menus: Sequence[str]) -> altair.Chart:
    """The words of the current choice, at the top left."""
    for column in (*menus, NOTE):
        if column not in notes.columns:
            raise InputError(f"The notes have no column {column!r}.{nearest(column, map(str, notes.columns))}")
    written = notes[[*menus, NOTE]].assign(**{NOTE: notes[NOTE].map(typeset)})
    text = _chosen(altair.Chart(rounded(written)), menus)
    text = text.mark_text(align="left", baseline="top", fontSize=12)
    return text.encode(x=altair.value(6), y=altair.value(2), text=altair.Text(field=NOTE, type="nominal"))


def _chosen(chart: altair.Chart, menus: Sequence[str]) -> altair.Chart:
    """The rows of the current choice only. A filter of the whole figure would not reach layers with data of their own."""
    for i, column in enumerate(menus):
        chart = chart.transform_filter(f"datum['{column}'] == menu{i}")
    return chart


def _menus(frame: pd.DataFrame, menus: Sequence[str], start: Mapping[str, str]) -> list[altair.Parameter]:
    found = []
    for i, column in enumerate(menus):
        words = [str(word) for word in frame[column].drop_duplicates()]
        first = start.get(column, words[0])
        if first not in words:
            raise InputError(f"The menu {column!r} can't start with {first!r}.{nearest(first, words)}")
        bind = altair.binding_select(options=words, name=f"{column} ")
        found.append(altair.param(name=f"menu{i}", value=first, bind=bind))
    return found
