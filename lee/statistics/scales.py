"""The scales on which intervals of several kinds of numbers are widened."""

import math
from collections.abc import Callable

from lee.statistics.quantiles import exp

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
