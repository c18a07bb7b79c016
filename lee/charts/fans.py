"""Vector fields with their uncertainty: an arrow, and around it those of resamples, at each place of a picture."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import altair
import pandas as pd

from lee.charts.fields import PLANE, VectorField, feet_of, panel
from lee.charts.pictures import data_uri
from lee.charts.theme import PALETTE, Words, finish, rounded
from lee.errors import InputError

MENU = "choice"
FAINT = 0.3
NOTE_ROOM = 17  # pixels under a panel
ARROWS, COLUMNS, SIDE = 6, 2, 220  # arrows in a row, panels in a row, and the side of a panel in pixels


def fans(
    fields: Mapping[str, Mapping[str, Sequence[VectorField]]],
    *,
    menu: str,
    notes: Mapping[str, Mapping[str, str]] | None = None,
    image: Any | None = None,
    **words: Unpack[Words],
) -> altair.ConcatChart:
    """Panels with one vector field each as arrows, and further ones as faint lines from the same feet; a menu changes all.

    Args:
        fields: For each word of the menu, for each panel (the same ones everywhere), the fields: the first is drawn as arrows,
            scaled so that they fill their places; the others, resamples of it, by the same scale.
        menu: What the menu chooses, such as `"network"`.
        notes: For each word and panel a line under the picture.
        image: A square picture (C, H, W) in [0, 1] under the arrows.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If there is nothing to draw, choices have different panels, or a first field moves nothing.
    """
    choices = list(fields)
    panels = list(fields[choices[0]]) if choices else []
    if not panels or any(list(found) != panels or not all(found.values()) for found in fields.values()):
        raise InputError("`fans` needs one field or more for each panel, and the same panels for every choice.")
    address = None if image is None else data_uri(image)
    rows = {p: _rows({c: found[p] for c, found in fields.items()}) for p in panels}
    told = {p: {c: (notes or {}).get(c, {}).get(p, "") for c in choices} for p in panels}
    drawn = [_panel(p, rows[p], told[p], address) for p in panels]
    bind = altair.binding_select(options=choices, name=f"{menu} ")
    figure = altair.concat(*drawn, columns=COLUMNS, spacing=18 + (NOTE_ROOM if notes else 0))
    figure = figure.add_params(altair.param(name=MENU, value=choices[0], bind=bind))
    return finish(figure, **words)


def _rows(fields: Mapping[str, Sequence[VectorField]]) -> pd.DataFrame:
    """Coefficients of every field, scaled so that the first of a choice fills its places; `rank` 0 is the first."""
    rows = []
    for choice, several in fields.items():
        longest = feet_of(several[0], ARROWS)[1]
        for rank, field in enumerate(several):
            numbers = (*field.matrix[0], *field.matrix[1], *field.offset)
            scaled = {key: 1.7 / ARROWS / longest * value for key, value in zip("abcduv", numbers, strict=True)}
            rows.append({MENU: choice, "rank": rank, **scaled})
    return rounded(pd.DataFrame(rows), 3)


def _panel(title: str, rows: pd.DataFrame, notes: Mapping[str, str], image: str | None) -> altair.LayerChart:
    base = _placed(altair.Chart(rows).transform_filter(f"datum['{MENU}'] == {MENU}"))
    spread = base.transform_filter("datum.rank > 0").encode(**PLANE, x2="x2:Q", y2="y2:Q")
    spread = spread.mark_rule(color=PALETTE[1], opacity=FAINT, clip=True)
    first = base.transform_filter("datum.rank == 0")
    note = []
    if any(notes.values()):
        text = altair.Chart(pd.DataFrame({MENU: list(notes), "note": list(notes.values())}))
        text = text.transform_filter(f"datum['{MENU}'] == {MENU}").mark_text(fontSize=12, baseline="top")
        note = [text.encode(x=altair.value(SIDE / 2), y=altair.value(SIDE + 4), text="note:N")]
    return panel(title, first, SIDE, image=image, opacity=0.6, below=[spread], above=note)


def _placed(chart: altair.Chart) -> altair.Chart:
    """Each field at all places of a grid: feet `x`, `y`, ends `x2`, `y2`, angles clockwise from up."""
    n = ARROWS
    chart = chart.transform_calculate(place=f"sequence({n * n})").transform_flatten(["place"])
    chart = chart.transform_calculate(
        x=f"(2 * (datum.place % {n}) + 1) / {n} - 1", y=f"(2 * floor(datum.place / {n}) + 1) / {n} - 1"
    )
    chart = chart.transform_calculate(
        dx="datum.a * datum.x + datum.b * datum.y + datum.u", dy="datum.c * datum.x + datum.d * datum.y + datum.v"
    )
    return chart.transform_calculate(
        x2="datum.x + datum.dx", y2="datum.y + datum.dy", angle="atan2(datum.dx, -datum.dy) * 180 / PI"
    )
