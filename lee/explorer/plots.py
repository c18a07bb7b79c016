"""Curves over the amount `t` as SVG text, with the numbers as a table beside them that is their legend, too."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lee.charts import PALETTE
from lee.explorer.drawing import box, number
from lee.explorer.measures import Curve, Touch
from lee.explorer.state import REACH
from lee.measure.orbits import Orbit

DASHES = ("none", "9 4", "3 3", "9 3 2 3", "2 5")
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460, 40, 10, 8, 38
MARGIN = 5
TALL, LOW = 210, 150
"""Heights in pixels of the only chart, and of one of two."""

SHOWN = 3
"""Classes that an orbit is drawn of."""


@dataclass(frozen=True)
class Plot:
    """Axes: amounts from `-reach` to `reach`, values from `low` to `high`, both in quarters."""

    reach: float
    height: int
    low: float = 0.0
    high: float = 1.0

    def x(self, t: float) -> float:
        """Place of an amount."""
        return LEFT + (t + self.reach) / (2 * self.reach) * (WIDTH - LEFT - RIGHT)

    def y(self, p: float) -> float:
        """Place of a value."""
        return TOP + (self.high - p) / (self.high - self.low) * (self.height - TOP - BOTTOM)

    def points(self, t: Iterable[float], p: Iterable[float]) -> list[tuple[str, str]]:
        """Places of points as text."""
        return [(f"{self.x(s):.1f}", f"{self.y(v):.1f}") for s, v in zip(t, p, strict=True)]

    def axes(self, title: str) -> str:
        """Lines of the grid, numbers and the title of the horizontal axis."""
        values = [k / 4 for k in range(round(4 * self.low), round(4 * self.high) + 1)]
        amounts = [self.reach * k / 2 for k in range(-2, 3)]
        grid = "".join(
            f'<line x1="{LEFT}" x2="{self.x(self.reach)}" y1="{self.y(p):.1f}" y2="{self.y(p):.1f}" opacity="0.2"/>'
            for p in values
        )
        words = [
            f'<text x="{LEFT - 6}" y="{self.y(p) + 4:.1f}" text-anchor="end">{number(p)}</text>'
            for p in values
            if p % 0.5 == 0
        ]
        words += [
            f'<text x="{self.x(t):.1f}" y="{self.height - BOTTOM + 16}" text-anchor="middle">{number(t)}</text>'
            for t in amounts
        ]
        middle = (LEFT + WIDTH - RIGHT) / 2
        words.append(f'<text x="{middle}" y="{self.height - 5}" text-anchor="middle">{escape(title)}</text>')
        return f'<g stroke="currentColor">{grid}</g>{"".join(words)}'

    def upright(self, t: float, dash: str = "none", opacity: float = 0.5) -> str:
        """A line at an amount; nothing where the plot doesn't reach it."""
        if abs(t) > self.reach:
            return ""
        ends = f'x1="{self.x(t):.1f}" x2="{self.x(t):.1f}" y1="{TOP}" y2="{self.height - BOTTOM}"'
        return f'<line {ends} stroke="currentColor" stroke-dasharray="{dash}" opacity="{opacity}"/>'

    def tangent(self, value: float, slope: float, t: float, colour: str) -> str:
        """A straight line of a curve's slope through its point at `t`, and the point."""
        # Steep lines are shortened, so that all are about equally long on paper.
        steepness = (self.y(0) - self.y(slope)) / (self.x(1) - self.x(0))
        half = 0.3 * self.reach / math.hypot(1, steepness)
        ends = " ".join(
            f'{axis}{i}="{place}"'
            for i, s in ((1, t - half), (2, t + half))
            for axis, place in zip("xy", self.points([s], [value + slope * (s - t)])[0], strict=True)
        )
        return (
            f'<line class="tangent" {ends} stroke="{colour}" stroke-width="5" opacity="0.55"/>'
            f'<circle cx="{self.x(t):.1f}" cy="{self.y(value):.1f}" r="4.5" fill="{colour}"/>'
        )

    def drawn(self, title: str, inside: str, alt: str) -> str:
        """The whole chart with words for it."""
        left, top = LEFT - MARGIN, TOP - MARGIN  # a chart of its own inside, because lines that leave it are cut there
        wide, high = WIDTH - LEFT - RIGHT + 2 * MARGIN, self.height - TOP - BOTTOM + 2 * MARGIN
        place = f'x="{left}" y="{top}" width="{wide}" height="{high}" viewBox="{left} {top} {wide} {high}"'
        whole = f'role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {self.height}"'
        return f"<svg {whole}>{self.axes(title)}<svg {place}>{inside}</svg></svg>"


def _line(points: Sequence[tuple[str, str]], stroke: str) -> str:
    return f'<polyline points="{" ".join(",".join(p) for p in points)}" {stroke}/>'


def _stroke(rank: int) -> str:
    return f'fill="none" stroke="{PALETTE[rank]}" stroke-width="2.25" stroke-dasharray="{DASHES[rank]}"'


def _table(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column of which is a key to the lines' colours."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = []
    for rank, (label, *cells) in enumerate(rows):
        key = f'<svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path d="M0 4H30" {_stroke(rank)}/></svg>'
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        body.append(f'<tr><th scope="row">{key} {escape(label)}</th>{numbers}</tr>')
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _title(name: str, unit: str) -> str:
    return f"t of {name} ({unit})" if unit != "t" else f"t of {name}"


def curves(curve: Curve, touch: Touch, *, model: str, t: float, name: str, unit: str, height: int = TALL) -> str:
    """Probabilities of the top classes over `t`, their tangents at the current `t`, and the numbers as a table."""
    plot, lines, tangents, rows = Plot(REACH, height), [], [], []
    for rank, k in enumerate(curve.top):
        lines.append(_line(plot.points(curve.stops, curve.probabilities[:, k].tolist()), _stroke(rank)))
        value, slope = float(touch.value[k]), float(touch.slope[k])
        tangents.append(plot.tangent(value, slope, t, PALETTE[rank]))
        rows.append((curve.names[k], f"{value:.3f}", number(slope)))
    told = "; ".join(f"{label} {value}, derivative {slope}" for label, value, slope in rows)
    alt = f"Class probabilities of {model} over the amount of {name}. At t = {t:g}: {told}."
    svg = plot.drawn(_title(name, unit), plot.upright(t) + "".join(lines) + "".join(tangents), alt)
    table = _table(model, ("class", "probability", f"d/dt, per {unit}"), rows)
    return box(f'<div class="told">{svg}{table}</div>')


def orbit(found: Orbit, *, names: Sequence[str], model: str, name: str, unit: str, height: int = TALL) -> str:
    """Outputs along an orbit, the integral of their derivative, the tangents at 0, and where the class flips."""
    reach, start = float(found.t[-1]), found.start
    outputs, integrals = found.outputs.double(), found.integrals + found.outputs[start]
    first = int(outputs[start].argmax())
    seen = [first, *(k for k in outputs.argmax(1).tolist() if k != first)]
    top = list(dict.fromkeys([*seen, *outputs.mean(0).argsort(descending=True).tolist()]))[:SHOWN]
    ends = [v for values in (outputs, integrals) for v in (float(values[:, top].min()), float(values[:, top].max()))]
    plot = Plot(reach, height, min(0.0, math.floor(4 * min(ends)) / 4), max(1.0, math.ceil(4 * max(ends)) / 4))
    amounts, drawn, rows = found.t.tolist(), [], []
    for rank, k in enumerate(top):
        drawn.append(_line(plot.points(amounts, outputs[:, k].tolist()), _stroke(rank)))
        ends_at = plot.points((-reach, reach), found.tangents[[0, -1], k].tolist())
        drawn.append(_line(ends_at, f'class="predicted" stroke="{PALETTE[rank]}" opacity="0.8"'))
        drawn += [
            f'<circle class="sum" cx="{x}" cy="{y}" r="2.5" fill="none" stroke="{PALETTE[rank]}"/>'
            for x, y in plot.points(amounts, integrals[:, k].tolist())
        ]
        rows.append((names[k], *(number(float(v[-1, k] - v[0, k])) for v in (outputs, integrals))))
    flips, predicted = found.flips or (-math.inf, math.inf), found.predicted_flips or (-math.inf, math.inf)
    marks = [*map(plot.upright, flips), *(plot.upright(t, "2 4", 0.9) for t in predicted)]
    told = f"{_flips(flips, predicted, names[first], reach)} {_gap(found.gap, amounts[1] - amounts[0])}"
    alt = f"Probabilities of {model} along the orbit of {name}, and the integrals of their derivatives. {told}"
    svg = plot.drawn(_title(name, unit), "".join(marks + drawn), alt)
    table = _table(model, ("class", "change", "integral of d/dt"), rows)
    return box(f'<div class="told">{svg}{table}</div><p>{escape(told)}</p>')


def _flips(flips: tuple[float, float], predicted: tuple[float, float], first: str, reach: float) -> str:
    """Where the class changes, and what the tangents say of it."""
    parts = []
    for sign, found, guess in zip("−+", flips, predicted, strict=True):
        seen = f"flips at t = {number(found)}" if math.isfinite(found) else f"does not flip up to {sign}{reach:g}"
        told = number(guess) if math.isfinite(guess) else "no flip"
        parts.append(f"{seen} (the derivative at 0 predicts {told})")
    return f"Backwards, the class {first} {parts[0]}; forwards, it {parts[1]}."


def _gap(gap: float, step: float) -> str:
    """How well the integral is the change."""
    closer = "" if gap < 0.05 else " These amounts are too far apart for this network; choose closer ones."
    return (
        "The integral of the Lie derivatives (circles) misses the change of the probabilities (lines) by at most "
        f"{100 * gap:{'.2g' if gap < 0.99 else '.0f'}} % of the largest change, with amounts {number(step)} apart.{closer}"
    )
