"""Two models on the same images: the difference and the ratio of their means, with intervals."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from lee.errors import InputError, check_count, check_number
from lee.statistics.numbers import Array, Numbers, numbers

RESAMPLES = 2000
_BATCH = 2_000_000  # numbers resampled at a time
_ROUNDING = 1e-12


class Comparison(NamedTuple):
    """A difference or a ratio of two means over the same images.

    Args:
        value: First minus second, or first over second.
        low: Lower end of the interval; NaN for fewer than three images.
        high: Upper end.
        n: Number of images.
        p: p-value, two-sided, of no difference between the means, by a paired t-test.
        quantity: `"difference"` or `"ratio"`.
        stderr: Standard error over images of the difference, or of the logarithm of the ratio.

    Examples:
        >>> print(Comparison(0.81, 0.74, 0.89, 1000, 1e-5, "ratio"))
        0.81 [0.74, 0.89] (n = 1000)
    """

    value: float
    low: float
    high: float
    n: int
    p: float
    quantity: str = "difference"
    stderr: float = math.nan

    def __str__(self) -> str:
        width = max(self.high - self.low, 1e-3 * abs(self.value)) if math.isfinite(self.high - self.low) else 0.0
        places = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 3
        if places > 5:  # very small numbers read better with an exponent
            return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n = {self.n})"
        return f"{self.value:.{places}f} [{self.low:.{places}f}, {self.high:.{places}f}] (n = {self.n})"


def paired_difference(
    first: Numbers,
    second: Numbers,
    level: float = 0.95,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Mean of `first` minus mean of `second`, both over the same images, with a bootstrap interval over images.

    Source of the interval (BCa: bias-corrected and accelerated): B. Efron, *Better bootstrap confidence intervals*, JASA 82,
    1987, as in `scipy.stats.bootstrap`.

    Args:
        first: (n,) numbers, one for each image.
        second: (n,) numbers for the same images in the same order.
        level: Coverage of the interval.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: If the lists differ in length, hold fewer than two images or numbers that are not finite, or a setting is
            out of range.

    Examples:
        >>> round(paired_difference([1.0, 2.0, 4.0, 3.0], [1.5, 2.0, 5.0, 4.0]).value, 3)
        -0.625
    """
    check_settings(level, resamples)
    a, b = _per_image(first, "first"), _per_image(second, "second")
    if len(a) > 1 or len(b) > 1:
        raise InputError("A paired difference needs one number for each image; several trainings have ratios only.")
    gap = _same_images(a, b)[0][0] - b[0]
    n, constant = len(gap), np.ptp(gap) <= _ROUNDING * np.abs(gap).max()
    low, high = _bootstrap(np.mean, [gap], constant, level, resamples, seed)
    stderr = 0.0 if constant else float(gap.std(ddof=1) / math.sqrt(n))
    return Comparison(float(gap.mean()), low, high, n, p_value(float(gap.mean()), stderr, n - 1), stderr=stderr)


def paired_ratio(
    first: Numbers,
    second: Numbers,
    level: float = 0.95,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    r"""Mean of `first` over mean of `second`, both over the same images, with a bootstrap interval over images.

    Of a recipe with several trainings the geometric mean of their means is taken. The p-value and the standard error are
    those of the logarithm :math:`\log \bar a - \log \bar b`, by the part of every image, :math:`a_i / \bar a - b_i / \bar b`.

    Args:
        first: (n,) numbers ≥ 0, one for each image, or (m, n) for `m` trainings of one recipe.
        second: Likewise for the same images in the same order, with as many trainings or others.
        level: Coverage of the interval.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: As for :func:`paired_difference`, and if a number is negative or all numbers of a training are zero.

    Examples:
        >>> paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])[:3]
        (0.5, 0.5, 0.5)
    """
    check_settings(level, resamples)
    a, b = _same_images(_per_image(first, "first"), _per_image(second, "second"))
    if any((v < 0).any() or not v.any(-1).all() for v in (a, b)):
        raise InputError("A ratio of means needs numbers ≥ 0 that are not all zero.")
    linear = (a / a.mean(-1, keepdims=True)).mean(0) - (b / b.mean(-1, keepdims=True)).mean(0)
    n, constant = len(linear), np.ptp(linear) <= _ROUNDING
    whole = partial(_ratio, m=len(a))
    low, high = _bootstrap(whole, [*a, *b], constant, level, resamples, seed)
    stderr = 0.0 if constant else float(linear.std(ddof=1) / math.sqrt(n))
    value = float(whole(*a, *b))
    return Comparison(value, low, high, n, p_value(math.log(value), stderr, n - 1), "ratio", stderr)


def _ratio(*rows: Any, m: int, axis: int = -1) -> Any:
    """Geometric mean of the means of the first `m` rows over that of the others."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of zeros only
        logs = [np.log(np.mean(row, axis=axis)) for row in rows]
        return np.exp(sum(logs[:m]) / m - sum(logs[m:]) / (len(rows) - m))


def _per_image(given: Numbers, name: str) -> Array:
    """Trainings × images, (m, n)."""
    values = numbers(given, name, (1, 2))
    if values.shape[-1] < 2 or not values.size or not np.isfinite(values).all():
        raise InputError(
            "A paired comparison needs one finite number per image from both, for two images or more; "
            f"got an array of shape {values.shape}."
        )
    return np.atleast_2d(values)


def _same_images(a: Array, b: Array) -> tuple[Array, Array]:
    if a.shape[1] != b.shape[1]:
        raise InputError(f"A paired comparison needs the same images from both; got {a.shape[1]} and {b.shape[1]}.")
    return a, b


def check_settings(level: float, resamples: int = 100) -> None:
    """Refuse a level that is not between 0 and 1, and fewer than 100 resamples."""
    check_number("level", level, 0, 1)
    check_count("resamples", resamples, 100)


def p_value(value: float, stderr: float, df: float) -> float:
    """Two-sided p-value of no effect, by Student's t; equal numbers leave no doubt."""
    from scipy.stats import t

    if stderr == 0:
        return 0.0 if abs(value) > _ROUNDING else 1.0
    return float(2 * t.sf(abs(value) / stderr, df))


def quantile(level: float, df: float) -> float:
    """Half the length of an interval in standard errors: by Student's t, by the normal distribution for infinite `df`."""
    if math.isinf(df):
        return NormalDist().inv_cdf((1 + level) / 2)
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, df))


def exp(power: float) -> float:
    """The exponential, infinite where a float can't hold it: the end of an interval that knows nothing."""
    return math.exp(power) if power < 709 else math.inf


def _bootstrap(
    statistic: Any, rows: Sequence[Array], constant: bool, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Ends of the interval; the statistic itself where resamples can't differ, NaN for fewer than three images."""
    from scipy.stats import bootstrap

    n = len(rows[0])
    if n < 3:
        return math.nan, math.nan
    if constant:
        return (float(statistic(*rows)),) * 2
    found = bootstrap(
        rows, statistic, paired=True, vectorized=True, confidence_level=level, method="BCa", n_resamples=resamples,
        batch=max(1, _BATCH // (n * len(rows))), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
