"""The local equivariance error of every mixture of a few generators, under sliders that need no kernel."""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement, product

import altair
import pandas as pd
import torch
from torch import Tensor

from lee.charts import parts
from lee.charts.theme import finish, rounded
from lee.errors import InputError
from lee.statistics import EquivarianceGram

DIGITS = 7  # differences of these numbers are drawn: four would not do
RANGE = 1.0  # sliders go from minus this to this
STEP = 0.05


def mixer(
    grams: Mapping[str, EquivarianceGram],
    generators: Sequence[str],
    *,
    caption: str,
    alt: str,
    start: Sequence[float] | None = None,
    title: str | None = None,
    name: str | None = None,
) -> altair.LayerChart:
    r"""Dots at :math:`c^\\top G c` with standard errors, one row for each model; a slider for each entry of `c`.

    With `q` the products `c_a c_b`, error and squared standard error are a linear and a quadratic form in `q`. So
    the mean and the covariance of the Gram matrix' entries are all that the page has to hold, and no picture.

    Args:
        grams: Gram matrices by what the chart calls their models, in the order of the rows.
        generators: Two to four measured generators, one slider each.
        caption: What the reader should see.
        alt: Alternative text.
        start: Where the sliders stand at first; on the first generator by default.
        title: Title of the axis, with the unit.
        name: Label for `{numref}`.

    Raises:
        InputError: If there is no model, there are fewer than two images, or the sliders are not two to four.
    """
    if not grams or min(gram.n for gram in grams.values()) < 2:
        raise InputError("`mixer` needs at least one model, measured on two or more images.")
    k = len(generators)
    if not 2 <= k <= 4:
        raise InputError(f"`mixer` draws a slider for each of two to four generators; got {k}.")
    start = (1.0,) + (0.0,) * (k - 1) if start is None else start
    if len(start) != k:
        raise InputError(f"{k} generators need as many starting values; got {len(start)}.")
    pairs = list(combinations_with_replacement(range(k), 2))
    frame = pd.DataFrame({"model": m, **_moments(g, generators, pairs)} for m, g in grams.items())
    title = title or "local equivariance error"
    marks = _marks(rounded(frame, DIGITS), pairs, title, _farthest(grams, generators))
    figure = altair.LayerChart(layer=marks).properties(width="container", height=38 * len(grams))
    return finish(figure.add_params(*_sliders(generators, start)), caption=caption, alt=alt, name=name)


def _moments(gram: EquivarianceGram, generators: Sequence[str], pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Means `q0, q1, …` of the Gram matrix' entries over images, and the covariances `s0_0, s0_1, …` of the means."""
    basis = torch.stack([gram.coefficients(generator) for generator in generators])
    per_image = torch.einsum("ka,nab,lb->nkl", basis, gram.per_image, basis)
    entries = torch.stack([per_image[:, a, b] * (1 if a == b else 2) for a, b in pairs])  # (pairs, n)
    covariance: Tensor = torch.cov(entries) / gram.n
    return {f"q{i}": float(mean) for i, mean in enumerate(entries.mean(1))} | {
        f"s{i}_{j}": float(covariance[i, j]) * (1 if i == j else 2)
        for i, j in combinations_with_replacement(range(len(pairs)), 2)
    }


def _farthest(grams: Mapping[str, EquivarianceGram], generators: Sequence[str]) -> float:
    """The largest error that the sliders can reach: a convex function is largest in a corner."""
    basis = {m: torch.stack([g.coefficients(x) for x in generators]) for m, g in grams.items()}
    corners = torch.tensor(list(product((-RANGE, RANGE), repeat=len(generators))), dtype=torch.float64)
    values = [torch.einsum("ck,kl,cl->c", corners, b @ grams[m].matrix @ b.T, corners) for m, b in basis.items()]
    return float(f"{float(torch.stack(values).max()):.2g}")


def _sliders(generators: Sequence[str], start: Sequence[float]) -> list[altair.Parameter]:
    return [
        altair.param(
            name=f"c{i}",
            value=float(value),
            bind=altair.binding_range(min=-RANGE, max=RANGE, step=STEP, name=f"{generator.replace('_', ' ')} "),
        )
        for i, (generator, value) in enumerate(zip(generators, start, strict=True))
    ]


def _marks(frame: pd.DataFrame, pairs: Sequence[tuple[int, int]], title: str, farthest: float) -> list[altair.Chart]:
    """Bars of ± one standard error, dots, and the numbers beside them."""
    q = [f"(c{a} * c{b})" for a, b in pairs]
    value = " + ".join(f"datum.q{i} * {term}" for i, term in enumerate(q))
    squared = " + ".join(
        f"datum.s{i}_{j} * {q[i]} * {q[j]}" for i, j in combinations_with_replacement(range(len(q)), 2)
    )
    base = altair.Chart(frame).transform_calculate(lee=f"max(0, {value})", se=f"sqrt(max(0, {squared}))")
    base = base.transform_calculate(
        low="max(0, datum.lee - datum.se)",
        high="datum.lee + datum.se",
        words="format(datum.lee, '.3~g') + ' ± ' + format(datum.se, '.2~g')",
    ).encode(y=parts.rows(frame, "model"))
    coloured = base.encode(color=parts.legend(altair.Color, frame, "model").legend(None))
    scale = altair.Scale(domain=[0, 1.1 * farthest], nice=False, clamp=True)
    axis = altair.Axis(tickCount=parts.PHONE_TICKS, labelOverlap=True)
    span = coloured.mark_rule(strokeWidth=2).encode(
        x=altair.X("low:Q", scale=scale, axis=axis, title=title), x2="high:Q"
    )
    dot = coloured.mark_point(size=90).encode(x=altair.X("lee:Q", scale=scale, axis=axis, title=title))
    words = base.mark_text(align="left", dx=10, dy=-10, fontSize=12)
    words = words.encode(x=altair.X("lee:Q", scale=scale, axis=axis, title=title), text="words:N")
    return [span, dot, words]
