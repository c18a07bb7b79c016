"""What a generator does to the plane: its vector field as arrows, and its orbit under a slider."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Unpack

import altair
import pandas as pd

from lee.charts import parts
from lee.charts.pictures import data_uri
from lee.charts.theme import PALETTE, Words, finish, rounded
from lee.errors import InputError

ARROWS, COLUMNS, SIDE = 9, 3, 210  # arrows in a row, panels in a row, and the side of a panel in pixels
#: Places on [-1, 1]², `y` down.
PLANE: dict[str, Any] = {
    "x": altair.X("x:Q", scale=altair.Scale(domain=[-1, 1], nice=False), axis=None),
    "y": altair.Y("y:Q", scale=altair.Scale(domain=[1, -1], nice=False), axis=None),
}


class VectorField(Protocol):
    """An affine vector field `ξ(p) = A p + b`: origin in the image's centre, x to the right, y down."""

    @property
    def name(self) -> str:
        """What the chart calls it."""
        ...

    @property
    def matrix(self) -> Sequence[Sequence[float]]:
        """`A`, two rows of two numbers."""
        ...

    @property
    def offset(self) -> Sequence[float]:
        """`b`, two numbers in half sides."""
        ...


def arrows(
    fields: VectorField | Sequence[VectorField], *, image: Any | None = None, **words: Unpack[Words]
) -> altair.ConcatChart:
    """Vector fields as arrows over an image, one panel for each, scaled so that no arrow meets the next.

    Args:
        fields: One or more generators that move pixels, such as `lee.ROTATION`.
        image: A square picture (C, H, W) in [0, 1] under the arrows.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If there is no field, or one that moves nothing (a photometric generator).
    """
    panels = list(fields) if isinstance(fields, Sequence) else [fields]
    if not panels:
        raise InputError("`arrows` needs at least one generator; got none.")
    address = None if image is None else data_uri(image)
    drawn = [
        panel(f.name.replace("_", " "), altair.Chart(grid_of_arrows(f, ARROWS)), SIDE, image=address, opacity=0.75)
        for f in panels
    ]
    return finish(altair.concat(*drawn, columns=COLUMNS, spacing=18), **words)


def feet_of(field: VectorField, n: int) -> tuple[list[tuple[float, float, float, float]], float]:
    """`x`, `y` and `ξ(x, y)` at an (n, n) grid of places on [-1, 1]², and the length of the longest vector."""
    (a, b), (c, d) = field.matrix
    u, v = field.offset
    ticks = [(2 * i + 1) / n - 1 for i in range(n)]
    feet = [(x, y, a * x + b * y + u, c * x + d * y + v) for y in ticks for x in ticks]
    longest = max(math.hypot(dx, dy) for *_, dx, dy in feet)
    if longest == 0:
        raise InputError(f"Generator {field.name!r} moves no pixel, so there are no arrows to draw.")
    return feet, longest


def grid_of_arrows(field: VectorField, n: int) -> pd.DataFrame:
    """Feet (`x`, `y`), heads (`x2`, `y2`) and angles of an (n, n) grid of arrows on [-1, 1]².

    The angle is in degrees, clockwise from up, for a triangle at the head.
    """
    feet, longest = feet_of(field, n)
    scale = 1.7 / n / longest
    drawn = [
        {"x": x, "y": y, "x2": x + scale * dx, "y2": y + scale * dy, "angle": math.degrees(math.atan2(dx, -dy))}
        for x, y, dx, dy in feet
        if math.hypot(dx, dy) > 0.02 * longest
    ]
    return rounded(pd.DataFrame(drawn))


def panel(
    title: str, arrow: altair.Chart, side: int, *, image: str | None, opacity: float,
    below: Sequence[altair.Chart] = (), above: Sequence[altair.Chart] = (),
) -> altair.LayerChart:  # fmt: skip
    """Arrows from (`x`, `y`) to (`x2`, `y2`), whose heads point by `angle`, between other marks and over a picture."""
    arrow = arrow.encode(**PLANE)
    shaft = arrow.mark_rule(color=PALETTE[1], strokeWidth=2, clip=True).encode(x2="x2:Q", y2="y2:Q")
    head = arrow.mark_point(shape="triangle-up", color=PALETTE[1], size=46, clip=True).encode(
        x=altair.X("x2:Q", axis=None), y=altair.Y("y2:Q", axis=None), angle=altair.Angle("angle:Q", scale=None)
    )
    layers = [*below, shaft, head, *above]
    if image is not None:
        under = altair.Chart(pd.DataFrame({"x": [0], "y": [0], "url": [image]}))
        under = under.mark_image(width=side, height=side, opacity=opacity, smooth=_smooth(image))
        layers.insert(0, under.encode(**PLANE, url="url:N"))
    return altair.LayerChart(layer=layers).properties(width=side, height=side, title=title)


def orbit(
    images: Any, values: Sequence[float], *, parameter: str, side: int = 260, **words: Unpack[Words]
) -> altair.LayerChart:
    """A picture that a slider moves along its orbit: one frame for each value of the parameter.

    Args:
        images: Frames (T, C, H, W) in [0, 1]; or a mapping from titles to such frames, side by side.
        values: T evenly spaced values of the parameter.
        parameter: What the slider moves, with the unit, such as `"angle in degrees"`.
        side: Height of the picture in pixels.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If frames and values are not equally many, or the values are not evenly spaced.
    """
    strips = images if isinstance(images, Mapping) else {"": images}
    rows = []
    for title, frames in strips.items():
        if len(frames) != len(values):
            raise InputError(f"{len(frames)} frames need as many values of {parameter!r}; got {len(values)}.")
        rows += [{"value": float(v), "panel": title, "url": data_uri(f)} for v, f in zip(values, frames, strict=True)]
    high, wide = next(iter(strips.values()))[0].shape[-2:]
    width = round(side * float(wide / high))
    titles = altair.Axis(orient="top", labelAngle=0, domain=False, ticks=False, labelFontSize=13)
    axis = titles if isinstance(images, Mapping) else None
    across = altair.X("panel:N", sort=list(strips), title=None, axis=axis, scale=altair.Scale(padding=0))
    picture = altair.Chart(rounded(pd.DataFrame(rows)))
    picture = picture.mark_image(width=width, height=side, smooth=_smooth(str(rows[0]["url"])))
    figure = altair.LayerChart(layer=[picture.encode(x=across, url="url:N", y=altair.value(side / 2))])
    figure = figure.properties(width=len(strips) * (width + 16) - 16, height=side)
    figure = parts.slide(figure, list(values), "value", parameter)
    return finish(figure, **words)


def _smooth(url: str) -> bool:
    """Whether to interpolate between pixels: not in the small pictures, which are stored as PNG."""
    return not url.startswith("data:image/png")
