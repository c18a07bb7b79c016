"""The explorer without a kernel: the curves over precomputed `t`, with a slider that moves their tangents."""

from dataclasses import replace
from typing import Unpack

import altair
import pandas as pd

from lee.charts import Words, parts
from lee.errors import InputError
from lee.explorer.measures import Measures
from lee.explorer.state import State

REACH = 0.08
"""How far the tangents go on either side, in units of `t`."""


def curves(measures: Measures, state: State, which: int = 0) -> pd.DataFrame:
    """The curves of the top classes with the exact slope at every stop.

    Args:
        measures: Where numbers are kept that were computed before.
        state: What is shown.
        which: Which of its models, from 0.

    Returns:
        Columns `t`, `class`, `probability` and `slope`, one row for each stop and class.
    """
    curve, rows = measures.curve(state, which), []
    for stop in curve.stops:
        touch = measures.touch(replace(state, t=stop), which)
        for k in curve.top:
            value, slope = float(touch.value[k]), float(touch.slope[k])
            rows.append({"t": stop, "class": curve.names[k], "probability": value, "slope": slope})
    return pd.DataFrame(rows)


def touching(frame: pd.DataFrame, *, x_title: str, **words: Unpack[Words]) -> altair.LayerChart:
    """Curves of probabilities over `t`, and their tangents at the `t` that a slider picks.

    Args:
        frame: As of :func:`curves`; `t` evenly spaced, 0 among its values.
        x_title: Title of the horizontal axis, with the unit.
        **words: Caption, alternative text and name, as for :func:`lee.charts.finish`.

    Raises:
        InputError: If a column is missing, or `t` is not evenly spaced.
    """
    parts.check(frame, ["t", "probability", "slope"], ["class"])
    stops, step = parts.spaced(frame["t"], "'t'")
    if not any(abs(stop) < 1e-9 for stop in stops):
        raise InputError("The slider starts at t = 0, which is not among the frame's values.")
    ends = frame.assign(
        left=frame["t"] - REACH,
        right=frame["t"] + REACH,
        low=frame["probability"] - REACH * frame["slope"],
        high=frame["probability"] + REACH * frame["slope"],
    )
    span, unit = altair.Scale(domain=[stops[0], stops[-1]], nice=False), altair.Scale(domain=[0, 1])
    across = {field: altair.X(f"{field}:Q", scale=span, title=x_title) for field in ("t", "left")}
    up = {field: altair.Y(f"{field}:Q", scale=unit, title="probability") for field in ("probability", "low")}
    told = parts.told_apart(frame, "class", "color")
    curve = parts.chart(frame, ["t", "class", "probability"]).mark_line(clip=True)
    curve = curve.encode(x=across["t"], y=up["probability"], **parts.told_apart(frame, "class", "color", "strokeDash"))
    bind = altair.binding_range(min=stops[0], max=stops[-1], step=float(f"{step:.6g}"), name="t ")
    picked = altair.param(name="picked", value=0, bind=bind)
    columns = ["t", "class", "probability", "left", "right", "low", "high"]
    base = parts.chart(ends, columns).transform_filter(f"abs(datum.t - picked) < {step / 2:.6g}")
    line = base.mark_rule(strokeWidth=5, opacity=0.55, clip=True)
    line = line.encode(x=across["left"], x2="right:Q", y=up["low"], y2="high:Q", **told)
    dot = base.mark_point(size=90).encode(x=across["t"], y=up["probability"], **told)
    return parts.assemble([curve, line, dot], height=300, words=words).add_params(picked)
