"""Many comparisons read together."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lee.errors import InputError, check_count
from lee.statistics.numbers import numbers
from lee.statistics.quantiles import check_settings


def holm(p: Sequence[float] | npt.ArrayLike) -> npt.NDArray[np.float64]:
    r"""Adjusted p-values of comparisons that are read together: below `α`, a comparison stands in the company of all.

    With the p-values in ascending order, the `i`-th of `m` becomes :math:`\max_{j \le i} \min(1, (m - j + 1)\,p_{(j)})`.
    The probability that any true null hypothesis is rejected is then at most `α`, however the comparisons depend on each other.

    Source: S. Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 6, 1979.

    Args:
        p: (m,) p-values in [0, 1].

    Returns:
        (m,) adjusted p-values in the order given.

    Raises:
        InputError: If the p-values are not a flat list of numbers in [0, 1].

    Examples:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    values = numbers(p, "p")
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise InputError(f"Holm's correction needs a flat list of p-values in [0, 1]; got {values.tolist()!r}.")
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1.0, values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps) if len(values) else steps
    return adjusted


def simultaneous(cases: int, level: float = 0.95) -> float:
    """The level that each of several intervals needs, for all of them to hold together (Bonferroni).

    Args:
        cases: their number, 0 or more.
        level: probability that all hold, in (0, 1).

    Raises:
        InputError: If that is no number of cases, or no such probability.

    Examples:
        >>> round(simultaneous(5), 6)
        0.99
    """
    check_count("cases", cases, 0)
    check_settings(level)
    return 1 - (1 - level) / max(1, cases)
