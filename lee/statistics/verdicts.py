"""The one rule by which this book says whether a claim holds: cases with intervals in, one word out.

**The rule.** A claim is tested in cases, such as pairs of networks or motions; of each one says beforehand on which side of which
threshold the claim expects the effect. With `m` uncertain cases the intervals are widened to the level `1 - α / m` (Bonferroni),
so that all of them hold together with probability `1 - α`. A case *supports* the claim if its whole interval lies on the expected
side of the threshold, *opposes* it if it lies on the other, and is *undecided* otherwise. Then

============================  =======================================  ==============================
verdict                       universal claim ("X does …")             existential claim ("X can …")
============================  =======================================  ==============================
reproduced                    all cases support                        one case or more supports
contradicted                  all cases oppose                         all cases oppose
mixed                         some support and some oppose             (cannot be)
underpowered                  otherwise                                otherwise
not testable here             there is no case                         there is no case
============================  =======================================  ==============================

**Why so.** What is said of support is said of opposition: with all effects and thresholds negated, the verdict on a universal claim
turns into its opposite, so the rule can't lean towards a paper. A universal claim of a paper is one about a tendency: an
example doesn't prove it, and neither does an exception refute it, while the other cases can't be told from the threshold; both are
*underpowered*, and the count of cases tells them apart. That one supports and another opposes is a finding of its own, *mixed*. The
opposite of an existential claim is about all cases, hence the second column. Bonferroni's intervals are a little wider
than Holm's procedure needs, but what is shown is then what decides. "Underpowered" comes with the true value at which a case
would support the claim with a probability of 80 %: without it, nobody can tell an absence of evidence from evidence of absence.

If all effects are at their thresholds, a claim is called reproduced or contradicted with a probability of at most `α`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from lee.errors import check_known
from lee.statistics.cases import Case
from lee.statistics.multiple import simultaneous
from lee.statistics.quantiles import SCALES, quantile

Word = Literal["reproduced", "mixed", "contradicted", "underpowered", "not testable here"]
Stand = Literal["supports", "opposes", "undecided"]

POWER = 0.8


@dataclass(frozen=True)
class Judged:
    """A case after judgement.

    Args:
        case: The case.
        low: Lower end of its simultaneous interval.
        high: Upper end.
        stand: `"supports"`, `"opposes"` or `"undecided"`.
        detectable: The true value, on the expected side, at which a sample like this one supports the claim with a probability
            of 80 %; NaN if there is none, below the case's floor.
    """

    case: Case
    low: float
    high: float
    stand: Stand
    detectable: float

    def __str__(self) -> str:
        return f"{self.case.name} {self.number} {self.stand}"

    @property
    def number(self) -> str:
        """The effect with its simultaneous interval."""
        return _digits(self.case.effect, self.low, self.high, self.case.scale)


@dataclass(frozen=True)
class Verdict:
    """What the cases say of a claim.

    Args:
        word: The verdict.
        cases: The cases, judged, in the order given.
        kind: `"universal"` or `"existential"`.
        reason: Why a claim is not testable here.
    """

    word: Word
    cases: tuple[Judged, ...]
    kind: Literal["universal", "existential"]
    reason: str = ""

    def count(self, stand: Stand) -> int:
        """Number of cases with one stand.

        Args:
            stand: `"supports"`, `"opposes"` or `"undecided"`.
        """
        return sum(one.stand == stand for one in self.cases)

    @property
    def n(self) -> int:
        """Size of the smallest sample; 0 if nothing was sampled."""
        return min((one.case.n for one in self.cases if one.case.n), default=0)

    @property
    def detectable(self) -> float:
        """The true value that an undecided case needed: the easiest if the claim is existential, else the hardest; or NaN."""
        return math.nan if self._open is None else self._open.detectable

    @property
    def _open(self) -> Judged | None:
        open_ = [one for one in self.cases if one.stand == "undecided" and math.isfinite(one.detectable)]
        return (min if self.kind == "existential" else max)(open_, key=_margin, default=None)

    @property
    def sentence(self) -> str:
        """How the cases are divided, in one sentence; in a second one, what it would have taken to decide an undecided case."""
        m = len(self.cases)
        if not m:
            return self.reason or "No case could be tested."
        supports, opposes = self.count("supports"), self.count("opposes")
        told = [f"{supports} of {m} case{'s' * (m != 1)} support{'s' * (supports == 1 or m == 1)} the claim"]
        told += [f"{opposes} oppose{'s' * (opposes == 1)} it", f"{self.count('undecided')} undecided"]
        if self.kind == "existential":
            told.append("one is enough")
        return f"{', '.join(told)}.{self._needed}"

    @property
    def _needed(self) -> str:
        """What it would have taken to decide the undecided case that :attr:`detectable` is about; empty if there is none."""
        if self._open is None:
            return ""
        which = "the undecided case"
        if self.count("undecided") > 1:
            which = f"the {'easiest' if self.kind == 'existential' else 'hardest'} of the undecided cases"
        name = "" if _alike(self.cases) else f", “{self._open.case.name}”,"
        side = "more" if self._open.case.predicted == "above" else "less"
        return (
            f" With samples like these, {which}{name} would support the claim with a probability of {100 * POWER:.0f} % or more "
            f"only if its true value were {self.detectable:.2g} or {side}."
        )

    @property
    def number(self) -> str:
        """The effect with its interval; of several uncertain ones the least and the largest, or a count if they differ in kind."""
        shown = [one for one in self.cases if one.case.stderr != 0] or self.cases
        if not _alike(shown):
            return f"{self.count('supports')} of {len(self.cases)} cases"
        ends = [f(shown, key=lambda one: one.case.effect) for f in (min, max) if shown]
        return " to ".join(dict.fromkeys(one.number for one in ends)) or "–"

    @property
    def details(self) -> str:
        """Every case with its simultaneous interval and its stand."""
        return "; ".join(map(str, self.cases))


def judge(
    cases: Sequence[Case], kind: Literal["universal", "existential"] = "universal", *, reason: str = ""
) -> Verdict:
    """Apply the rule of this module, with `α` = 5 %.

    Args:
        cases: What was tested.
        kind: `"universal"` for a claim about all cases or a tendency, `"existential"` for one that a single case meets.
        reason: Why there is no case, if there is none.

    Raises:
        InputError: If the kind is not known.

    Examples:
        >>> cases = [Case(name=f"pair {i}", effect=e, stderr=0.1, predicted="above") for i, e in enumerate((0.5, 0.4, -0.6))]
        >>> judge(cases).word, judge(cases[:2]).word, judge(cases, "existential").word
        ('mixed', 'reproduced', 'reproduced')
        >>> print(judge(cases[:1]).number, judge([]).word, sep="; ")
        0.50 [0.30, 0.70]; not testable here
    """
    check_known("kind", kind, ("universal", "existential"))
    wide = simultaneous(len([case for case in cases if case.stderr != 0]))
    judged = tuple(_judged(case, wide) for case in cases)
    stands = {one.stand for one in judged}
    if not judged:
        word: Word = "not testable here"
    elif stands == {"supports"} or (kind == "existential" and "supports" in stands):
        word = "reproduced"
    elif stands == {"opposes"}:
        word = "contradicted"
    else:
        word = "mixed" if {"supports", "opposes"} <= stands else "underpowered"
    return Verdict(word, judged, kind, reason)


def _judged(case: Case, level: float) -> Judged:
    to, back = SCALES[case.scale]
    below, above = case.reach(level)
    low, high, line = to(case.effect) - below, to(case.effect) + above, to(case.criterion)
    over, under = low > line, high < line  # False where an end is NaN
    stand: Stand = "undecided"
    if over or under:
        stand = "supports" if over == (case.predicted == "above") else "opposes"
    # An estimate clears the threshold with this probability if the effect lies this much beyond the reach of its interval.
    half = (below + above) / 2
    far = half * (1 + NormalDist().inv_cdf(POWER) / quantile(level, case.df))
    needed = back(line + far if case.predicted == "above" else line - far)
    possible = case.floor is None or not needed < case.floor
    return Judged(case, back(low), back(high), stand, needed if possible else math.nan)


def _alike(cases: Sequence[Judged]) -> bool:
    return len({(one.case.scale, one.case.predicted, one.case.criterion) for one in cases}) <= 1


def _margin(one: Judged) -> float:
    to = SCALES[one.case.scale][0]
    return abs(to(one.detectable) - to(one.case.criterion))


def _digits(value: float, low: float, high: float, scale: str) -> str:
    if low == high:
        return f"{value:.2g}"
    half = (high - low) / 2
    if not math.isfinite(half) or (scale == "ratio" and not high < 2 * low):  # its ends lie on different scales
        return f"{value:.2g} [{low:.2g}, {high:.2g}]"
    places = max(0, 1 - math.floor(math.log10(half)))
    if places > 5:  # very small numbers read better with an exponent
        return f"{value:.2g} [{low:.2g}, {high:.2g}]"
    return f"{value:.{places}f} [{low:.{places}f}, {high:.{places}f}]"
