"""Two models on the same images: the difference and the ratio of their means, with intervals."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lee.errors import InputError, nearest

Numbers = Tensor | Sequence[float] | npt.NDArray[Any]

RESAMPLES = 2000
METHODS = ("BCa", "percentile")
_BATCH = 2_000_000  # numbers resampled at a time


class Comparison(NamedTuple):
    """A difference or a ratio of two means over the same images.

    Args:
        value: First minus second, or first over second.
        low: Lower end of the interval; NaN for fewer than three images.
        high: Upper end.
        n: Number of images.
        p: p-value, two-sided, of no difference between the means: that of the paired t-test.
        quantity: `"difference"` or `"ratio"`.

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
    method: str = "BCa",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Mean of `first` minus mean of `second`, both over the same images, with a bootstrap interval over images.

    Source of the interval: B. Efron, *Better bootstrap confidence intervals*, JASA 82, 1987, as in `scipy.stats.bootstrap`.

    Args:
        first: (n,) numbers, one for each image.
        second: (n,) numbers for the same images in the same order.
        level: Coverage of the interval.
        method: `"BCa"` (bias-corrected and accelerated) or `"percentile"`.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: If the lists differ in length, hold fewer than two images or numbers that are not finite, or a setting is
            out of range.

    Examples:
        >>> round(paired_difference([1.0, 2.0, 4.0, 3.0], [1.5, 2.0, 5.0, 4.0]).value, 3)
        -0.625
    """
    a, b = _checked(first, second, level, method, resamples)
    low, high = _bootstrap(_gap, (a - b,), level, method, resamples, seed)
    return Comparison(float((a - b).mean()), low, high, len(a), _p(a - b))


def paired_ratio(
    first: Numbers,
    second: Numbers,
    level: float = 0.95,
    *,
    method: str = "BCa",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Mean of `first` over mean of `second`, both over the same images, with a bootstrap interval over images.

    Args:
        first: (n,) numbers, one for each image.
        second: (n,) numbers for the same images in the same order, none negative and not all zero.
        level: Coverage of the interval.
        method: `"BCa"` or `"percentile"`, as for :func:`paired_difference`.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: As for :func:`paired_difference`, and if a number of `second` is negative or all are zero.

    Examples:
        >>> paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])[:3]
        (0.5, 0.5, 0.5)
    """
    a, b = _checked(first, second, level, method, resamples)
    if not (b >= 0).all() or not b.any():
        raise InputError("A ratio of means needs a second list of numbers ≥ 0 that are not all zero.")
    low, high = _bootstrap(_over, (a, b), level, method, resamples, seed)
    return Comparison(float(a.mean() / b.mean()), low, high, len(a), _p(a - b), "ratio")


def _gap(gap: Any, axis: int = -1) -> Any:
    return np.mean(gap, axis=axis)


def _over(a: Any, b: Any, axis: int = -1) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of zeros only
        return np.mean(a, axis=axis) / np.mean(b, axis=axis)


def _checked(
    first: Numbers, second: Numbers, level: float, method: str, resamples: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a, b = (np.asarray(v, dtype=float).ravel() for v in (first, second))
    if len(a) != len(b) or len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(
            "A paired comparison needs one finite number per image from both, for two images or more; "
            f"got {len(a)} and {len(b)}."
        )
    check_settings(level, resamples)
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}.{nearest(method, METHODS)}")
    return a, b


def check_settings(level: float, resamples: int) -> None:
    """Refuse what no interval can be made of.

    Raises:
        InputError: If the level is not between 0 and 1, or there are fewer than 100 resamples.
    """
    if not 0 < level < 1:
        raise InputError(f"`level` must be between 0 and 1, not {level!r}.")
    if resamples < 100:
        raise InputError(f"`resamples` must be 100 or more, not {resamples!r}.")


def _p(gap: npt.NDArray[np.float64]) -> float:
    """Two-sided p-value of a mean of zero; equal numbers leave no doubt."""
    if np.ptp(gap) <= 1e-12 * np.abs(gap).max():
        return 0.0 if gap.any() else 1.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(gap, 0.0).pvalue)


def _bootstrap(
    statistic: Any, data: tuple[Any, ...], level: float, method: str, resamples: int, seed: int
) -> tuple[float, float]:
    """Ends of the interval; the statistic itself where the resamples don't differ, NaN for fewer than three images."""
    from scipy.stats import bootstrap

    n, whole = len(data[0]), float(statistic(*data))
    if n < 3:
        return math.nan, math.nan
    parts = data[0] / data[1] if len(data) == 2 and data[1].all() else data[0]
    if np.ptp(parts) <= 1e-12 * np.abs(parts).max():
        return whole, whole
    found = bootstrap(
        data, statistic, paired=True, vectorized=True, confidence_level=level, method=method, n_resamples=resamples,
        batch=max(1, _BATCH // n), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
