"""The local equivariance error of every mixture of a few generators, under sliders that need no kernel."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Literal, Unpack

import altair
import pandas as pd
import torch

from lee.charts import parts
from lee.charts.theme import Words, finish, rounded
from lee.errors import InputError, check_known
from lee.geometry.generators import Generator
from lee.statistics import EquivarianceGram
from lee.statistics.quantiles import quantile

DIGITS = 7  # differences of these numbers are drawn: four would not do
MOST = 7  # sliders; the page holds some 1200 numbers for each model then
RANGE = 1.0  # sliders go from minus this to this
STEP = 0.05
SCALES = ("linear", "sqrt")
CROWD = 8  # models; of more the rows are narrow, and the numbers stand in a column of their own
COLUMN = 136  # pixels

Term = tuple[int, ...]


def mixer(
    grams: Mapping[str, EquivarianceGram],
    generators: Sequence[str | Generator],
    *,
    start: Sequence[float] | None = None,
    groups: Mapping[str, str] | None = None,
    scale: Literal["linear", "sqrt"] = "linear",
    title: str | None = None,
    **words: Unpack[Words],
) -> altair.LayerChart:
    r"""Dots at :math:`c^\\top G c` with 95 % intervals, one row for each model; a slider for each entry of `c`.

    The error is a polynomial of second degree in `c`, its variance over images one of fourth, and their third central moment one
    of sixth degree. So their coefficients, moments of the Gram matrix' entries, are all that the page has to hold, and no
    picture. The interval is that of :meth:`lee.statistics.Estimate.interval`.

    Args:
        grams: Gram matrices by what the chart calls their models, in the order of the rows.
        generators: Two to seven measured generators or mixtures of them, one slider each.
        start: Where the sliders stand at first; on the first generator by default.
        groups: Model → group, such as a family; groups have colours and a legend then, otherwise models have.
        scale: `"linear"`, or `"sqrt"` for an axis on which the error's root, the size of the derivative, is linear.
        title: Title of the axis, with the unit.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If there is no model, there are fewer than two images, the sliders are not two to seven, a model has no
            group, or the scale is another.
    """
    if not grams or min(gram.n for gram in grams.values()) < 2:
        raise InputError("`mixer` needs at least one model, measured on two or more images.")
    k = len(generators)
    if not 2 <= k <= MOST:
        raise InputError(f"`mixer` draws a slider for each of two to seven generators; got {k}.")
    start = (1.0,) + (0.0,) * (k - 1) if start is None else start
    if len(start) != k:
        raise InputError(f"{k} generators need as many starting values; got {len(start)}.")
    check_known("scale", scale, SCALES)
    if groups is not None and (missing := [model for model in grams if model not in groups]):
        raise InputError(f"`groups` has no group for model {missing[0]!r}.")
    frame = pd.DataFrame(
        {"model": m, "group": (groups or {}).get(m, m), **_moments(g, generators)} for m, g in grams.items()
    )
    axis = altair.Axis(tickCount=parts.PHONE_TICKS, labelOverlap=True)
    crowded = len(grams) > CROWD
    across = altair.Scale(type=scale, domain=[0, 1.1 * _farthest(grams, generators)], nice=False, clamp=True)
    if crowded:
        across.range = [0, altair.expr(f"width - {COLUMN}")]
    x = altair.X("lee:Q", scale=across, axis=axis, title=title or "local equivariance error")
    marks = _marks(frame, x, crowded=crowded, legend=groups is not None)
    csv = rounded(frame, DIGITS).to_csv(index=False)
    data = altair.InlineData(values=csv, format=altair.CsvDataFormat(type="csv"))
    figure = altair.LayerChart(layer=marks, data=data, transform=_formulas(k))
    figure = figure.properties(width="container", height=(18 if crowded else 38) * len(grams))
    return finish(figure.add_params(*_sliders(generators, start)), **words)


def _terms(k: int, degree: int) -> list[Term]:
    """The products of `degree` of the `k` coefficients, as sorted indices."""
    return list(combinations_with_replacement(range(k), degree))


def _column(term: Term) -> str:
    return "g" + "".join(map(str, term))


def _moments(gram: EquivarianceGram, generators: Sequence[str | Generator]) -> dict[str, float]:
    """Coefficients of the error, `g00, g01, …`, of its squared standard error, `g0000, …`, and of the third central moment.

    Beside them `q`, the quantile of Student's t, and the number of images.
    """
    basis = torch.stack([gram.coefficients(generator) for generator in generators])
    per_image = torch.einsum("ka,nab,lb->nkl", basis, gram.per_image, basis)
    pairs = _terms(len(generators), 2)
    entries = torch.stack([per_image[:, a, b] * (1 if a == b else 2) for a, b in pairs])  # (pairs, n)
    found = {_column(pair): float(mean) for pair, mean in zip(pairs, entries.mean(1), strict=True)}
    centred = entries - entries.mean(1, keepdim=True)
    covariance = torch.cov(entries) / gram.n
    third = torch.einsum("in,jn,ln->ijl", centred, centred, centred) / gram.n
    for moment in (covariance, third):
        summed: dict[Term, float] = defaultdict(float)
        for term, value in zip(product(pairs, repeat=moment.ndim), moment.flatten().tolist(), strict=True):
            summed[tuple(sorted(sum(term, ())))] += value
        found |= {_column(term): value for term, value in summed.items()}
    return found | {"n": gram.n, "q": quantile(0.95, gram.n - 1)}


def _formulas(k: int) -> list[altair.CalculateTransform]:
    """What the browser computes for each model when a slider moves."""
    value, squared, third = (
        " + ".join(f"datum.{_column(term)} * {' * '.join(f'c{i}' for i in term)}" for term in _terms(k, degree))
        for degree in (2, 4, 6)
    )

    def written(name: str) -> str:
        return f"format(datum.{name}, datum.style)"

    def end(sign: str) -> str:  # of the interval, see `Estimate.interval`, whose `a` is `datum.a`
        root = f"1 + datum.a * ({sign}datum.q - datum.a / 6)"
        rooted = f"(({root}) < 0 ? -1 : 1) * pow(abs({root}), 1 / 3)"
        deviations = f"(abs(datum.a) > 1e-6 ? 3 / datum.a * ({rooted} - 1) : {sign}datum.q)"
        return f"datum.lee - {deviations} * datum.se"

    steps = {
        "lee": f"max(0, {value})",
        "se": f"sqrt(max(0, {squared}))",
        "a": f"datum.se > 0 ? ({third}) / (pow(datum.se, 3) * pow(datum.n - 1, 1.5) * sqrt(datum.n)) : 0",
        "low": f"max(0, {end('')})",
        "high": end("-"),
        # Two digits of the standard error, and as many decimals of all three numbers.
        "style": "datum.se > 0 ? '.' + clamp(1 - floor(log(datum.se) / LN10), 0, 9) + 'f' : '.3~g'",
        "words": f"{written('lee')} + ' [' + {written('low')} + ', ' + {written('high')} + ']'",
    }
    return [altair.CalculateTransform(calculate=formula, **{"as": name}) for name, formula in steps.items()]


def _farthest(grams: Mapping[str, EquivarianceGram], generators: Sequence[str | Generator]) -> float:
    """The largest error that the sliders can reach: a convex function is largest in a corner."""
    basis = {m: torch.stack([g.coefficients(x) for x in generators]) for m, g in grams.items()}
    corners = torch.tensor(list(product((-RANGE, RANGE), repeat=len(generators))), dtype=torch.float64)
    values = [torch.einsum("ck,kl,cl->c", corners, b @ grams[m].matrix @ b.T, corners) for m, b in basis.items()]
    largest = float(torch.stack(values).max())
    return float(f"{largest:.2g}") if math.isfinite(largest) and largest > 0 else 1.0


def _sliders(generators: Sequence[str | Generator], start: Sequence[float]) -> list[altair.Parameter]:
    names = [(g if isinstance(g, str) else g.name).replace("_", " ") for g in generators]
    binds = [altair.binding_range(min=-RANGE, max=RANGE, step=STEP, name=f"{name} ") for name in names]
    return [
        altair.param(name=f"c{i}", value=float(value), bind=bind)
        for i, (value, bind) in enumerate(zip(start, binds, strict=True))
    ]


def _marks(frame: pd.DataFrame, x: altair.X, *, crowded: bool, legend: bool) -> list[altair.Chart]:
    """Intervals, dots, and the numbers beside them."""
    base = altair.Chart().encode(y=parts.rows(frame, "model"))
    colour = parts.legend(altair.Color, frame, "group" if legend else "model")
    coloured = base.encode(color=colour if legend else colour.legend(None))
    low = x.copy()
    low.shorthand = "low:Q"
    span = coloured.mark_rule(strokeWidth=2).encode(x=low, x2="high:Q")
    dot = coloured.mark_point(size=50 if crowded else 90).encode(x=x)
    if crowded:
        words = base.mark_text(align="right", fontSize=11).encode(x=altair.value("width"), text="words:N")
    else:
        words = base.mark_text(align="left", dx=10, dy=-10, fontSize=12).encode(x=x, text="words:N")
    return [span, dot, words]
