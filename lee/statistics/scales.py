"""The scales on which intervals of several kinds of numbers are widened."""

import math
from collections.abc import Callable

from lee.statistics.quantiles import exp


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan if math.isnan(value) else -math.inf


def _fisher(value: float) -> float:
    return math.atanh(math.copysign(min(abs(value), 1 - 1e-12), value)) if math.isfinite(value) else math.nan


Map = Callable[[float], float]


def _logit(value: float) -> float:
    return 2 * _fisher(2 * value - 1)


#: How intervals are widened: for differences, for ratios by their logarithm, for correlations by Fisher's z, for shares (numbers
#: between 0 and 1) by their logit.
SCALES: dict[str, tuple[Map, Map]] = {
    "difference": (float, float),
    "ratio": (_log, exp),
    "correlation": (_fisher, math.tanh),
    "share": (_logit, lambda z: (1 + math.tanh(z / 2)) / 2),
}
