"""Square matrices of numbers around zero, such as correlations, as coloured cells that carry their numbers."""

from collections.abc import Sequence
from itertools import chain, product
from typing import Any, Unpack

import altair
import pandas as pd

from lee.charts.theme import DIVERGING, Words, finish, rounded
from lee.errors import InputError

CELL = 46  # pixels
INK, PAPER = "#1A1A1A", "#FFFFFF"  # on the palette's light and strong colours, which are the same on every page


def heatmap(
    matrix: Any, labels: Sequence[str], *, limit: float | None = None, title: str = "value", **words: Unpack[Words]
) -> altair.LayerChart:
    """A matrix as coloured cells, blue for negative, near white for zero, vermilion for positive.

    Args:
        matrix: Tensor or array (K, K) of finite numbers.
        labels: K names, of the rows and of the columns.
        limit: The number drawn in the strongest colour; by default the largest absolute value.
        title: What the numbers are, for the pointer's tooltip.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If the matrix is not (K, K) with K labels, all different, or holds NaN or infinity.
    """
    data = _cells(matrix, list(labels))
    largest = float(data["value"].abs().max()) or 1.0
    top = float(f"{largest if limit is None else limit:.3g}")
    colour = altair.Scale(domain=[-top, top], range=list(DIVERGING), interpolate="rgb", clamp=True)
    base = altair.Chart(data).encode(
        x=altair.X("column:N", sort=list(labels), title=None, axis=altair.Axis(orient="top", labelAngle=-40)),
        y=altair.Y("row:N", sort=list(labels), title=None),
    )
    shown = [altair.Tooltip("row:N"), altair.Tooltip("column:N"), altair.Tooltip("value:Q", title=title)]
    squares = base.mark_rect(stroke="#8C8C8C", strokeWidth=0.5).encode(
        color=altair.Color("value:Q", scale=colour, legend=None), tooltip=shown
    )
    strong = altair.expr.abs(altair.datum.value) > 0.8 * top
    fitting = altair.expr(f"min(12, width / {3.1 * len(labels):.4g})")  # on a phone they would overlap
    numbers = base.mark_text(fontSize=fitting).encode(
        text=altair.Text("value:Q", format=".2f"),
        color=altair.condition(strong, altair.value(PAPER), altair.value(INK)),
    )
    figure = altair.LayerChart(layer=[squares, numbers])
    figure = figure.properties(width="container", height=CELL * len(labels))
    return finish(figure, **words)


def _cells(matrix: Any, labels: list[str]) -> pd.DataFrame:
    rows = matrix.tolist() if hasattr(matrix, "tolist") else [list(row) for row in matrix]
    size = len(labels)
    if not size or len(set(labels)) != size or len(rows) != size or any(len(row) != size for row in rows):
        raise InputError(
            f"A heat map needs a (K, K) matrix and K different labels; got {len(rows)} rows, {size} labels."
        )
    cells = zip(product(labels, labels), chain.from_iterable(rows), strict=True)
    data = pd.DataFrame({"row": row, "column": column, "value": float(value)} for (row, column), value in cells)
    if not data["value"].abs().lt(float("inf")).all():
        raise InputError("A heat map's numbers must be finite; this matrix has NaN or infinity.")
    return rounded(data)
