"""Student's t and the normal distribution, as all intervals and p-values here use them, and the scales of the intervals."""

import math
from collections.abc import Callable
from statistics import NormalDist

from lee.errors import check_count, check_number


def check_settings(level: float, resamples: int = 100) -> None:
    """Refuse a level that is not between 0 and 1, and fewer than 100 resamples."""
    check_number("level", level, 0, 1)
    check_count("resamples", resamples, 100)


def p_value(value: float, stderr: float, df: float) -> float:
    """Two-sided p-value of no effect, by Student's t; without an error there is no doubt, however small the effect."""
    from scipy.stats import t

    if stderr == 0:
        return float(value == 0)
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


Map = Callable[[float], float]


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan if math.isnan(value) else -math.inf


def _fisher(value: float) -> float:
    return math.atanh(math.copysign(min(abs(value), 1 - 1e-12), value)) if math.isfinite(value) else math.nan


#: How intervals are widened: for differences, for ratios by their logarithm, for correlations by Fisher's z, for shares (numbers
#: between 0 and 1) by their logit.
SCALES: dict[str, tuple[Map, Map]] = {
    "difference": (float, float),
    "ratio": (_log, exp),
    "correlation": (_fisher, math.tanh),
    "share": (lambda share: 2 * _fisher(2 * share - 1), lambda z: (1 + math.tanh(z / 2)) / 2),
}

#: Between which numbers these kinds lie, both included, in words too.
RANGES = {
    "difference": (-math.inf, math.inf, "any number"),
    "ratio": (math.ulp(0.0), math.inf, "above 0 for a ratio"),
    "correlation": (-1.0, 1.0, "from -1 to 1 for a correlation"),
    "share": (0.0, 1.0, "from 0 to 1 for a share (not per cent)"),
}
