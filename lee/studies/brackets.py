r"""Brackets: does a model that respects `X` and `Y` respect :math:`[X, Y]`?

For an invariant output, :math:`L_{[X,Y]} f = L_Y L_X f - L_X L_Y f`. So where :math:`L_X f` and :math:`L_Y f` vanish at every
image, :math:`L_{[X,Y]} f` vanishes too. Where they are small, it is the *derivatives* of :math:`L_X f` along `Y` and of
:math:`L_Y f` along `X` that count, and these can be large. With :math:`g(t) = L_X f(e^{tY} x)` and any `T`,

.. math::
    \lVert g'(0) \rVert \le \frac1T \sup_{|t| \le T} \lVert g \rVert + \frac T2 \sup_{|t| \le T} \lVert g'' \rVert

(Taylor; at the best `T` it is Hadamard's :math:`\sqrt{2 \sup \lVert g \rVert \sup \lVert g'' \rVert}`), and the sum of both orders
bounds :math:`\lVert L_{[X,Y]} f(x) \rVert`. It goes with the *root* of the errors, asks for them along whole orbits, and needs a
bound on how fast the model bends there.

Source: J. Hadamard, *Sur le module maximum d'une fonction et de ses dérivées*, Bulletin de la SMF 42, 1914.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from lee.errors import InputError
from lee.geometry.algebra import bracket, coordinates
from lee.geometry.generators import Generator
from lee.measure.spectrum import ORTHOGONAL, unit_sized
from lee.statistics import EquivarianceGram

ZERO, INSIDE, NEW = "zero", "inside", "new"


def structure_constants(generators: Sequence[Generator] = ORTHOGONAL) -> Tensor:
    """Numbers `c[i, j, k]` with `[X_i, X_j] = Σ_k c[i, j, k] X_k`, (K, K, K), float64.

    Args:
        generators: K linearly independent spatial generators that span an algebra.

    Raises:
        InputError: a photometric generator, or a bracket that leads out of their span.

    >>> from lee.geometry.generators import ROTATION, TRANSLATION_X, TRANSLATION_Y
    >>> structure_constants([ROTATION, TRANSLATION_X, TRANSLATION_Y])[0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]
    """
    k = len(generators)
    constants = torch.zeros(k, k, k, dtype=torch.float64)
    for i, j in combinations(range(k), 2):
        found = bracket(generators[i], generators[j])
        try:
            row = coordinates(found, generators)
        except InputError as error:
            names = ", ".join(g.name for g in generators)
            raise InputError(
                f"The bracket {found.name} leads out of the span of {names}; add what is missing."
            ) from error
        constants[i, j] = row.where(row.abs() > 1e-12, 0.0).round(decimals=12)
        constants[j, i] = -constants[i, j]
    return constants + 0.0  # no negative zeros


def table(generators: Sequence[Generator] = ORTHOGONAL) -> pd.DataFrame:
    """All pairs of generators with their bracket and its kind.

    Args:
        generators: K linearly independent spatial generators that span an algebra.

    Returns:
        A row per pair: `first`, `second`, `bracket` in words, and `kind`: `"zero"`; `"inside"` the span of the two, where the
        triangle inequality bounds its error by theirs; or `"new"`.
    """
    constants = structure_constants(generators)
    rows = []
    for i, j in combinations(range(len(generators)), 2):
        c = constants[i, j]
        outside = [k for k in c.nonzero().flatten().tolist() if k not in (i, j)]
        kind = NEW if outside else INSIDE if c.any() else ZERO
        first, second = generators[i].name, generators[j].name
        rows.append({"first": first, "second": second, "bracket": _words(c, generators), "kind": kind})
    return pd.DataFrame(rows)


def _words(c: Tensor, generators: Sequence[Generator]) -> str:
    sign = {1.0: "", -1.0: "-"}
    terms = [
        f"{sign.get(value, f'{value:.4g} ')}{generator.name}"
        for value, generator in zip(c.tolist(), generators, strict=True)
        if value
    ]
    return " + ".join(terms) or "0"


def inheritance(grams: Mapping[str, EquivarianceGram]) -> pd.DataFrame:
    """Errors of `X`, `Y` and `[X, Y]` of every model, for the pairs of :func:`table` with a `"new"` bracket, at equal displacement.

    Args:
        grams: Gram matrices by model.

    Returns:
        A row per model and pair: `model`, `pair`, `bracket`; `first`, `second` and `error`, the local equivariance errors of
        `X`, `Y` and `[X, Y]`, each scaled to a mean squared displacement of one half side squared; `parents`, the geometric mean
        of the first two; `excess`, the logarithm of `error` over the larger parent, and its `stderr` over images (delta method).

    Raises:
        InputError: a generator is not in the span of what was measured.
    """
    new = table().query("kind == @NEW")
    named = {g.name: g for g in ORTHOGONAL}
    rows = []
    for model, gram in grams.items():
        for first, second, words in zip(new["first"], new["second"], new["bracket"], strict=True):
            x, y = named[first], named[second]
            three = [gram.lee_per_image(unit_sized(g, aspect=gram.aspect or 1.0)) for g in (x, y, bracket(x, y))]
            a, b, error = (float(values.mean()) for values in three)
            excess, stderr = _log_ratio(three[2], max(three[:2], key=lambda v: float(v.mean())))
            row = {"model": model, "pair": f"{first}, {second}", "bracket": words, "first": a, "second": b}
            rows.append({**row, "parents": (a * b) ** 0.5, "error": error, "excess": excess, "stderr": stderr})
    return pd.DataFrame(rows)


def _log_ratio(over: Tensor, under: Tensor) -> tuple[float, float]:
    """Logarithm of a ratio of means over the same images, and its standard error; NaN where a mean is zero."""
    if not over.any() or not under.any():
        return float("nan"), float("nan")
    influence = over / over.mean() - under / under.mean()
    return float((over.mean() / under.mean()).log()), float(influence.std(correction=1) / len(over) ** 0.5)


class Kinship(NamedTuple):
    """Whether generators are alike to models where brackets tie them.

    Args:
        value: mean correlation, over models, of what is special about a bracket with what is special about its parents.
        excess: the same minus its mean over all relabelings of the generators.
        low: value minus the 97.5 % quantile over all relabelings; above 0 only if fewer than 2.5 % of them have a value as large.
        high: value minus the 2.5 % quantile; below 0 only if fewer than 2.5 % of them have a value as small.
        p: share of all relabelings of the generators whose value is as large or larger: the p-value of no tie, one-sided.
        p_less: the same for as small or smaller.
        correlation: (K, K), the correlations of all pairs of generators.
        n: number of models.
    """

    value: float
    excess: float
    low: float
    high: float
    p: float
    p_less: float
    correlation: npt.NDArray[np.float64]
    n: int


def kinship(errors: pd.DataFrame, *, groups: Sequence[str] | None = None) -> Kinship:
    r"""Compare which generators models treat alike with which of them brackets tie together.

    What is special about a generator to a model is the logarithm of its error minus the mean of the logarithms over all six
    of :data:`lee.measure.ORTHOGONAL`, so that models that are worse at everything have no say. Over models this gives
    correlations. Their mean over all `X, Y` with a `"new"` bracket, between the bracket and either of the two, is compared
    with its value under every relabeling of the generators (a permutation test as that of Mantel, complete).

    Source: N. Mantel, *The detection of disease clustering and a generalized regression approach*, Cancer Research 27, 1967.

    Args:
        errors: a row per model and a column per generator, by name; positive, at equal displacement.
        groups: names, one per model; models of one name count as one (the mean of their logarithms).

    Raises:
        InputError: a missing column, a number that is not positive, or fewer than four (groups of) models.
    """
    names = [g.name for g in ORTHOGONAL]
    if missing := [name for name in names if name not in errors.columns]:
        raise InputError(f"The table of errors has no column {missing[0]!r}; it needs {', '.join(names)}.")
    weights = ties()
    logs = pd.DataFrame(errors[names].to_numpy(dtype=float))
    if not bool((logs > 0).to_numpy().all()):
        raise InputError("Kinship needs positive errors.")
    keys = np.arange(len(logs)) if groups is None else np.array([str(g) for g in groups])  # a list would name columns
    special = logs.apply(np.log).groupby(keys).mean().to_numpy()
    if len(special) < 4:
        raise InputError(f"Correlations over models need four (groups of) models or more; got {len(special)}.")
    correlation = np.corrcoef(special - special.mean(1, keepdims=True), rowvar=False)
    every = np.array(list(permutations(range(len(names)))))
    values = np.einsum("ij,pij->p", weights, correlation[every[:, :, None], every[:, None, :]])
    near = 1e-9  # relabelings that change nothing differ by rounding
    p, p_less = float(np.mean(values >= values[0] - near)), float(np.mean(values <= values[0] + near))
    low, high = (float(values[0] - end) for end in np.quantile(values, (0.975, 0.025)))
    # Relabelings that change nothing have the very value: a quantile among them leaves rounding, which decides nothing.
    low, high = (low if p < 0.025 else min(low, 0.0)), (high if p_less < 0.025 else max(high, 0.0))
    return Kinship(float(values[0]), float(values[0] - values.mean()), low, high, p, p_less, correlation, len(special))


def ties(generators: Sequence[Generator] = ORTHOGONAL) -> npt.NDArray[np.float64]:
    """How often each generator is part of a new bracket of each other one, (K, K), symmetric, with sum 1 (or all zero).

    Args:
        generators: as for :func:`table`.
    """
    constants = structure_constants(generators).numpy()
    k = len(generators)
    weights = np.zeros((k, k))
    for i, j in combinations(range(k), 2):
        for z in range(k):
            if constants[i, j, z] and z not in (i, j):
                weights[[i, j], z] += 1
                weights[z, [i, j]] += 1
    return weights / weights.sum() if weights.any() else weights


def rate_bound(samples: Tensor, step: float) -> Tensor:
    r"""The bound on :math:`\lVert g'(0) \rVert` above, at the best `T`, from values of `g` on a grid around 0.

    Args:
        samples: (2m + 1, N, D): `g` at `t = -m·step, …, m·step` for N images; m of 2 or more.
        step: distance of the grid, fine enough to show how `g` bends.

    Returns:
        (N,) bounds.

    Raises:
        InputError: an even number of samples, fewer than five, or a step that is not positive.
    """
    points = len(samples)
    if samples.ndim != 3 or points < 5 or points % 2 == 0 or step <= 0:
        raise InputError(
            f"A bound needs samples (2m + 1, N, D) around t = 0, m of 2 or more, and a step above 0; got shape "
            f"{tuple(samples.shape)} and step {step}."
        )
    middle, sizes = points // 2, samples.norm(dim=2)
    bend = (samples[2:] - 2 * samples[1:-1] + samples[:-2]).norm(dim=2) / step**2  # at the inner points
    bounds = []
    for reach in range(2, middle + 1):
        t = reach * step
        inner = bend[middle - reach : middle + reach - 1].amax(0)
        bounds.append(sizes[middle - reach : middle + reach + 1].amax(0) / t + t / 2 * inner)
    return torch.stack(bounds).amin(0)


def along(
    derivative: Callable[[Tensor], Tensor], move: Callable[[Tensor, float], Tensor], x: Tensor, step: float, reach: int
) -> Tensor:
    """Samples for :func:`rate_bound`: a Lie derivative at the images of an orbit.

    Args:
        derivative: images → :math:`L_X f` at them, (N, ...).
        move: images and `t` → images moved by :math:`e^{tY}`.
        x: images (N, C, H, W).
        step: distance of the grid.
        reach: m, steps to either side.

    Returns:
        (2m + 1, N, D).
    """
    return torch.stack([derivative(move(x, k * step)).flatten(1) for k in range(-reach, reach + 1)])
