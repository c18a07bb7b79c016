"""Estimates with standard errors, Gram matrices, and what can be said about differences between models.

Two kinds of chance enter a comparison. The *images* are a sample: :func:`paired_difference` and :func:`paired_ratio`
take the same ones for both models; :func:`set_ratio` compares two sets of images. The *models* are a sample too:
:func:`rank_correlation` resamples models, and :class:`Spread` says how far two trainings of one recipe lie apart. Where
many comparisons are read together, :func:`holm` keeps the probability of even one false alarm small, and :func:`judge` says what
they mean for a claim, by the one rule of the book.

The standard error of a mean is the standard deviation over the root of the number of images:

>>> import math, torch
>>> from lee.statistics import Estimate
>>> found = Estimate.of(torch.tensor([1.0, 2.0, 3.0]).double())
>>> found.value, math.isclose(found.stderr, 1 / math.sqrt(3))
(2.0, True)
"""

from lee.statistics.cases import Case
from lee.statistics.correlation import RankCorrelation, rank_correlation
from lee.statistics.estimates import Estimate
from lee.statistics.gram import EquivarianceGram, concatenate, unit_of
from lee.statistics.multiple import holm, simultaneous
from lee.statistics.pairs import Comparison, paired_difference, paired_ratio
from lee.statistics.seeds import Spread, seed_spread
from lee.statistics.unpaired import SetRatio, set_ratio
from lee.statistics.verdicts import Judged, Verdict, judge
from lee.statistics.verification import Verification

__all__ = [
    # over images
    "Estimate", "Verification", "EquivarianceGram", "concatenate", "unit_of", "Comparison", "paired_difference", "paired_ratio",
    "SetRatio", "set_ratio",
    # over models
    "RankCorrelation", "rank_correlation", "Spread", "seed_spread",
    # over comparisons
    "holm", "Case", "Judged", "Verdict", "judge", "simultaneous",
]  # fmt: skip
