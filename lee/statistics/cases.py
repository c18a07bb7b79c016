"""One case in which a claim is tested, for :func:`lee.statistics.judge`."""

import math
from dataclasses import dataclass
from typing import Literal

from lee.errors import InputError, check_known
from lee.statistics.quantiles import RANGES, SCALES, check_settings, quantile


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case in which a claim is tested: an effect, how well it is known, and what the claim says of it.

    The uncertainty is an interval `low` to `high` of a `level`, or a standard error. Intervals made for the level that
    :func:`simultaneous` asks for are taken as they are; others are widened, each side by itself, by the ratio of quantiles.

    Args:
        name: What was compared.
        effect: The estimate. An interval that leaves it out, as one by resamples may, is extended to it.
        predicted: Where the claim expects it: `"above"` or `"below"` the threshold.
        threshold: The criterion; 0 by default, 1 for a ratio.
        stderr: Standard error; of the logarithm for a ratio, of Fisher's z for a correlation, of the logit for a share. 0 where
            nothing was sampled.
        df: Degrees of freedom of Student's t, above 0; infinite for the normal distribution.
        low: Lower end of an interval, in place of a standard error. A NaN at either end, or as standard error, says that none is
            known: the case stays undecided.
        high: Upper end.
        level: Level of that interval.
        scale: `"difference"`, `"ratio"`, `"correlation"` or `"share"`.
        n: Size of the sample, of images or networks; 0 if nothing was sampled.
        floor: The least value that a true effect can have, where the scale has lower ones, such as 1 for the larger of two numbers
            over the smaller; None where it has not.

    Raises:
        InputError: If effect or threshold isn't finite or on the scale, a standard error is negative, an interval ends before it
            begins, `df` isn't above 0, a word isn't known, or both or none of interval and standard error are given.
    """

    name: str
    effect: float
    predicted: Literal["above", "below"]
    threshold: float | None = None
    stderr: float | None = None
    df: float = math.inf
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    scale: Literal["difference", "ratio", "correlation", "share"] = "difference"
    n: int = 0
    floor: float | None = None

    def __post_init__(self) -> None:
        check_known("scale", self.scale, SCALES)
        check_known("side", self.predicted, ("above", "below"))
        check_settings(self.level)
        of, (least, most, told) = f"The case {self.name!r}", RANGES[self.scale]
        for what, value in (("effect", self.effect), ("threshold", self.criterion)):
            if not math.isfinite(value) or not least <= value <= most:
                raise InputError(f"{of} needs a finite {what}, {told}; got {value!r}.")
        if (self.stderr is None) == (self.low is None) or (self.low is None) != (self.high is None):
            raise InputError(f"{of} needs either a standard error or both ends of an interval.")
        if self.stderr is not None and self.stderr < 0:
            raise InputError(f"{of} needs a standard error of 0 or more; got {self.stderr!r}.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InputError(f"{of} has an interval from {self.low!r} to {self.high!r}: give its lower end first.")
        if not self.df > 0 and self._known:
            raise InputError(f"{of} needs degrees of freedom above 0; got {self.df!r}.")

    @property
    def _known(self) -> bool:
        return not any(math.isnan(v) for v in (self.stderr, self.low, self.high) if v is not None)

    @property
    def criterion(self) -> float:
        """The threshold, with its default."""
        return self.threshold if self.threshold is not None else float(self.scale == "ratio")

    def reach(self, level: float) -> tuple[float, float]:
        """Distance of the ends of an interval from the effect, both ≥ 0, on the scale.

        Args:
            level: of the interval, in (0, 1).
        """
        if not self._known:
            return math.nan, math.nan
        if self.stderr is not None:
            return (quantile(level, self.df) * self.stderr,) * 2
        to = SCALES[self.scale][0]
        low, effect, high = (to(v) for v in (self.low, self.effect, self.high) if v is not None)
        factor = quantile(level, self.df) / quantile(self.level, self.df)
        return factor * max(effect - low, 0.0), factor * max(high - effect, 0.0)
