"""How far two trainings of one recipe lie apart: the yardstick for differences between single models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lee.errors import InputError
from lee.statistics.numbers import Numbers, numbers
from lee.statistics.quantiles import p_value, quantile


@dataclass(frozen=True)
class Spread:
    r"""One-way random effects: a number for each of several trainings of each of several recipes.

    :math:`y_{ij} = \mu + a_i + e_{ij}` with a recipe's own :math:`a_i` and, for each seed, an :math:`e_{ij}` of variance
    :math:`\sigma_e^2`, the same for all recipes. Take logarithms first where a spread is in proportion to the value, as that
    of a local equivariance error is.

    Args:
        within: :math:`\sigma_e`, the standard deviation between seeds of one recipe, pooled over recipes.
        within_low: Lower end of its 95 % interval (chi-square).
        within_high: Upper end.
        between: :math:`\sigma_a`, the standard deviation between recipes, 0 where seeds alone explain all.
        icc: Intraclass correlation :math:`\sigma_a^2 / (\sigma_a^2 + \sigma_e^2)`: the share of the variance that is the
            recipe's. Negative estimates mean that nothing is.
        icc_low: Lower end of its 95 % interval (F; exact if all recipes have as many seeds).
        icc_high: Upper end.
        df: Degrees of freedom of `within`.
        groups: Number of recipes.
        n: Number of models.
    """

    within: float
    within_low: float
    within_high: float
    between: float
    icc: float
    icc_low: float
    icc_high: float
    df: int
    groups: int
    n: int

    def stderr(self, trainings: tuple[int, ...] = (1, 1), over_images: float = 0.0) -> float:
        r"""Standard error of the difference of two recipes with :math:`m_1` and :math:`m_2` known trainings, or of one recipe.

        :math:`\sqrt{\sigma_e^2 (1 / m_1 + 1 / m_2) + s^2}`, with the standard error `s` over images.

        Args:
            trainings: How many trainings of each of the two recipes are known, 1 or more.
            over_images: Standard error of the difference over images, in the unit of the numbers.

        Raises:
            InputError: If one of the recipes has no training.
        """
        if not all(m >= 1 for m in trainings):
            raise InputError(f"A recipe without a known training can't be compared: trainings = {trainings!r}.")
        return math.hypot(self.within * math.sqrt(sum(1 / m for m in trainings)), over_images)

    def reach(self, level: float = 0.95, trainings: tuple[int, ...] = (1, 1), over_images: float = 0.0) -> float:
        """Half width of the interval for that difference, with the quantile of Student's t for `df`; see :meth:`stderr`.

        Args:
            level: Coverage of the interval.
            trainings: How many trainings of each of the two recipes are known.
            over_images: Standard error of the difference over images, in the unit of the numbers.
        """
        return quantile(level, self.df) * self.stderr(trainings, over_images)

    def p(self, difference: float, trainings: tuple[int, ...] = (1, 1), over_images: float = 0.0) -> float:
        """Two-sided p-value of no difference between two recipes; see :meth:`reach`.

        Args:
            difference: The difference of the two means.
            trainings: How many trainings of each of the two recipes are known.
            over_images: Standard error of the difference over images, in the unit of the numbers.
        """
        return p_value(difference, self.stderr(trainings, over_images), self.df)

    def __str__(self) -> str:
        return (
            f"within {self.within:.3g} [{self.within_low:.3g}, {self.within_high:.3g}], between {self.between:.3g}, "
            f"ICC {self.icc:.2f} [{self.icc_low:.2f}, {self.icc_high:.2f}] (n = {self.n} in {self.groups} groups)"
        )


def seed_spread(values: Numbers, groups: Sequence[Any]) -> Spread:
    """Standard deviation between seeds of one recipe and between recipes, and the intraclass correlation.

    Source: P. E. Shrout & J. L. Fleiss, *Intraclass correlations: uses in assessing rater reliability*, Psychological
    Bulletin 86, 1979 (case 1); for unequal groups with the mean group size of S. R. Searle, *Linear Models*, 1971.

    Args:
        values: (n,) numbers, one for each trained model.
        groups: (n,) names; models of one name differ in their seeds only.

    Raises:
        InputError: If the lists differ in length, a number is not finite, all numbers are equal, there are fewer than two
            groups, or no group has two members.

    Examples:
        >>> print(seed_spread([1.0, 1.2, 5.0, 5.2, 9.0, 9.2], list("aabbcc")))
        within 0.141 [0.0801, 0.527], between 4, ICC 1.00 [0.98, 1.00] (n = 6 in 3 groups)
    """
    y = numbers(values, "values")
    labels, member = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    k, n = len(labels), len(y)
    if len(member) != n or not np.isfinite(y).all():
        raise InputError(f"A spread needs one finite number and one group per model; got {n} and {len(member)}.")
    if k < 2 or n == k or np.ptp(y) == 0:
        raise InputError(
            "A spread needs numbers that differ, two groups or more, and in one of them two models or more."
        )
    sizes = np.bincount(member)
    means = np.bincount(member, y) / sizes
    df = n - k
    ms_within = float(((y - means[member]) ** 2).sum() / df)
    ms_between = float((sizes * (means - y.mean()) ** 2).sum() / (k - 1))
    n0 = float((n - (sizes**2).sum() / n) / (k - 1))
    return _spread(ms_within, ms_between, n0, df, k, n)


def _spread(ms_within: float, ms_between: float, n0: float, df: int, k: int, n: int) -> Spread:
    """Variance components and their intervals from the two mean squares of an analysis of variance."""
    from scipy.stats import chi2, f

    within_low, within_high = (math.sqrt(df * ms_within / float(chi2.ppf(q, df))) for q in (0.975, 0.025))
    ratio = ms_between / ms_within if ms_within > 0 else math.inf
    low = ratio / float(f.ppf(0.975, k - 1, df))
    high = ratio * float(f.ppf(0.975, df, k - 1))
    icc, icc_low, icc_high = (1.0 if math.isinf(r) else (r - 1) / (r + n0 - 1) for r in (ratio, low, high))
    between = math.sqrt(max(0.0, (ms_between - ms_within) / n0))
    return Spread(math.sqrt(ms_within), within_low, within_high, between, icc, icc_low, icc_high, df, k, n)
