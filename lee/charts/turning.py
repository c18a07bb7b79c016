"""Pictures that the reader turns, and what models make of them on the way: curves with a tangent where the slider stands."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import altair
import pandas as pd

from lee.charts import parts
from lee.charts.pictures import PIXEL_ART, data_uri
from lee.charts.theme import NEUTRAL, Words, finish, rounded
from lee.errors import InputError

TURNED = "turned"
"""Name of the angle among the chart's parameters; `usermeta` names it too, for the site's script, which lets readers drag it."""

QUALITY = 80
REACH = 4.0  # degrees that tangents go on either side
SIDE, WIDTH = 168, 450  # pixels: of a picture, and across the curves
LINE, KEY = 18, 26  # pixels: between two lines of words, and of a line's sample before them
SLOPES = "slope"


class Scene(NamedTuple):
    """A picture and the curves beside it.

    Args:
        frames: The picture at every angle of the slider (T, C, H, W), in [0, 1].
        curves: One row for each point of a curve: `angle` in degrees, `model`, `class`, `probability`, and its derivative
            `slope` per degree. The angles of the slider are among the points; elsewhere the slope may be missing.
    """

    frames: Any
    curves: pd.DataFrame


def turning(scenes: Mapping[str, Scene], angles: Sequence[float], **words: Unpack[Words]) -> altair.ConcatChart:
    """Pictures under one slider of the angle; beside each, class probabilities with their tangents at that angle.

    Colours tell models apart, dashes classes; a line of words for each curve tells its value and its slope. The book's site adds
    a play button, and lets the reader turn the pictures themselves.

    Args:
        scenes: Titles of the pictures, and what is drawn of them.
        angles: T evenly spaced angles in degrees, 0 among them.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If a column is missing or not numeric, frames and angles are not equally many, or the angles are not
            evenly spaced about 0.
    """
    stops, step = parts.spaced(angles, "the angle")
    if not any(abs(stop) < 1e-9 for stop in stops):
        raise InputError("The slider starts at an angle of 0 degrees, which is not among the angles.")
    models = list(dict.fromkeys(name for scene in scenes.values() for name in scene.curves["model"]))
    span = altair.Scale(domain=[stops[0], stops[-1]], nice=False)
    panels: list[Any] = []
    for which, (title, scene) in enumerate(scenes.items()):
        if len(scene.frames) != len(angles):
            raise InputError(f"{len(scene.frames)} frames need as many angles; got {len(angles)}.")
        parts.check(scene.curves, ["angle", "probability", SLOPES], ["model", "class"])
        panels.append(_picture(scene.frames, angles, title, step))
        x = altair.X("angle:Q", title="turned by degrees" if which == len(scenes) - 1 else None, scale=span)
        panels.append(_curves(scene.curves, x, models, step).properties(width=WIDTH, height=SIDE))
    bind = altair.binding_range(min=stops[0], max=stops[-1], step=float(f"{step:.6g}"), name="turned by degrees ")
    figure = altair.concat(*panels, columns=2, spacing=16).add_params(altair.param(name=TURNED, value=0, bind=bind))
    figure = finish(figure, **words)
    figure.usermeta = {**figure.usermeta, "turns": TURNED}
    return figure


def _picture(frames: Any, angles: Sequence[float], title: str, step: float) -> altair.Chart:
    """The frame at the slider's angle."""
    urls = [data_uri(frame, quality=QUALITY) for frame in frames]
    rows = pd.DataFrame({"angle": [float(a) for a in angles], "url": urls})
    smooth = max(frames[0].shape[-2:]) > PIXEL_ART
    drawn = altair.Chart(rounded(rows)).transform_filter(_here(step))
    drawn = drawn.mark_image(width=SIDE, height=SIDE, smooth=smooth)
    drawn = drawn.encode(x=altair.value(SIDE / 2), y=altair.value(SIDE / 2), url="url:N")
    return drawn.properties(width=SIDE, height=SIDE, title=title)


def _here(step: float) -> str:
    return f"abs(datum.angle - {TURNED}) < {step / 100:.6g}"


def _curves(frame: pd.DataFrame, x: altair.X, models: Sequence[str], step: float) -> altair.LayerChart:
    """Curves, tangents and dots at the slider's angle, and a line of words for each curve above them."""
    colour = altair.Color("model:N", scale=altair.Scale(domain=list(models)), legend=None)
    pairs = list(dict.fromkeys(zip(frame["model"], frame["class"], strict=True)))
    classes = list(dict.fromkeys(frame["class"]))
    dash = altair.StrokeDash("rank:O", legend=None, scale=altair.Scale(
        domain=list(range(len(parts.DASHES))), range=[list(dash) for dash in parts.DASHES]))  # fmt: skip
    # The words stand in the upper part of the panel, so that picture and panel are equally high.
    y = altair.Y("probability:Q", scale=altair.Scale(domain=[0, 1], range=[SIDE, LINE * len(pairs) + LINE // 2]),
                 title="probability", axis=altair.Axis(format=".0%", values=[0, 0.5, 1]))  # fmt: skip
    frame = frame.assign(rank=[classes.index(name) % len(parts.DASHES) for name in frame["class"]])
    base = parts.chart(frame, ["angle", "model", "class", "rank", "probability", SLOPES])
    here = base.transform_filter(_here(step))
    ends = here.transform_calculate(
        left=f"datum.angle - {REACH:g}", right=f"datum.angle + {REACH:g}",
        low=f"datum.probability - {REACH:g} * datum.slope", high=f"datum.probability + {REACH:g} * datum.slope",
    )  # fmt: skip
    layers = [
        here.mark_rule(color=NEUTRAL, opacity=0.6, strokeDash=[2, 3]).encode(
            x=x, y=altair.value(LINE * len(pairs) + LINE // 2), y2=altair.value(SIDE)
        ),
        base.mark_line(strokeWidth=1.75, opacity=0.8).encode(x=x, y=y, color=colour, strokeDash=dash),
        ends.mark_rule(strokeWidth=4.5, strokeCap="round", clip=True).encode(
            x=altair.X("left:Q"), x2="right:Q", y=altair.Y("low:Q"), y2="high:Q", color=colour
        ),
        here.mark_point(size=70, opacity=1).encode(x=x, y=y, color=colour),
    ]
    told = here.transform_calculate(
        words="datum.model + ': ' + datum['class'] + ' ' + format(datum.probability, '.0%') + ', ' + "
        "replace(format(100 * datum.slope, '+.1f'), '-', '−') + ' points per degree'"
    )
    for row, (model, name) in enumerate(pairs):
        one = told.transform_filter((altair.datum.model == model) & (altair.datum["class"] == name))
        height = altair.value(LINE * row + LINE // 2)
        sample = one.mark_rule(strokeWidth=2.5).encode(x=altair.value(0), x2=altair.value(KEY), y=height)
        layers.append(sample.encode(color=colour, strokeDash=dash))
        text = one.mark_text(align="left", baseline="middle", fontSize=12.5)
        layers.append(text.encode(x=altair.value(KEY + 8), y=height, text="words:N"))
    return altair.LayerChart(layer=layers)
