"""Student's t and the normal distribution, as all intervals and p-values here use them."""

import math
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
