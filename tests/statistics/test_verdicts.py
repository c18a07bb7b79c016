"""The one verdict rule: cases worked out by hand, its symmetry, its errors, and how often it is wrong under the null."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import norm

from lee.errors import InputError
from lee.statistics import Case, judge, simultaneous

PLUS, MINUS, NONE = 1.0, -1.0, 0.1  # with a standard error of 0.2 and up to six cases: above, below, undecided


def cases(*effects: float, stderr: float = 0.2, predicted: str = "above") -> list[Case]:
    return [Case(name=str(i), effect=e, stderr=stderr, predicted=predicted) for i, e in enumerate(effects)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("effects", "universal", "existential"),
    [
        ((), "not testable here", "not testable here"),
        ((PLUS,), "reproduced", "reproduced"),
        ((MINUS,), "contradicted", "contradicted"),
        ((NONE,), "underpowered", "underpowered"),
        ((PLUS, PLUS), "reproduced", "reproduced"),
        ((MINUS, MINUS), "contradicted", "contradicted"),
        ((PLUS, MINUS), "mixed", "reproduced"),
        ((PLUS, MINUS, NONE), "mixed", "reproduced"),
        ((PLUS, PLUS, NONE), "underpowered", "reproduced"),
        ((MINUS, MINUS, NONE), "underpowered", "underpowered"),
        ((NONE, NONE), "underpowered", "underpowered"),
        ((PLUS, MINUS, MINUS, MINUS, MINUS, MINUS), "mixed", "reproduced"),
    ],
)
def test_the_table_of_the_rule(effects: tuple[float, ...], universal: str, existential: str) -> None:
    assert judge(cases(*effects)).word == universal
    assert judge(cases(*effects), "existential").word == existential


def test_turning_all_signs_turns_the_verdict() -> None:
    opposite = {"reproduced": "contradicted", "contradicted": "reproduced"}
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        drawn = cases(*rng.choice([PLUS, MINUS, NONE], size=rng.integers(1, 5)))
        turned = [dataclasses.replace(c, effect=-c.effect) for c in drawn]
        word = judge(drawn).word
        assert judge(turned).word == opposite.get(word, word)
        # Expecting the other side is the same as turning the signs.
        assert judge([dataclasses.replace(c, predicted="below") for c in drawn]).word == judge(turned).word
        seen.add(word)
    assert seen == {"reproduced", "contradicted", "mixed", "underpowered"}


def test_intervals_are_as_wide_as_bonferroni_has_them() -> None:
    """0.5 ± 0.2 excludes 0 alone (1.96 × 0.2 = 0.39) and not in the company of nine (2.81 × 0.2 = 0.56)."""
    assert judge(cases(0.5)).word == "reproduced"
    ten = judge(cases(*[0.5] * 10))
    assert ten.word == "underpowered"
    assert ten.cases[0].low == pytest.approx(0.5 - norm.ppf(1 - 0.05 / 20) * 0.2)
    assert simultaneous(10) == pytest.approx(0.995)
    exact = Case(name="", effect=1.0, stderr=0.0, predicted="above")  # can be no false alarm
    assert judge([*cases(0.5), exact]).cases[0].low == judge(cases(0.5)).cases[0].low


def test_an_interval_and_a_standard_error_say_the_same() -> None:
    z = norm.ppf(0.975)
    by_error = judge(cases(0.5, 0.7))
    both = [Case(name="", effect=e, low=e - 0.2 * z, high=e + 0.2 * z, predicted="above") for e in (0.5, 0.7)]
    for one, other in zip(by_error.cases, judge(both).cases, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
    made = [dataclasses.replace(c, level=simultaneous(2)) for c in both]  # for this level already: not widened again
    assert judge(made).cases[0].low == pytest.approx(0.5 - 0.2 * z)


def test_a_ratio_is_widened_by_its_logarithm_and_each_side_by_itself() -> None:
    halved = Case(name="", effect=0.5, low=0.25, high=0.8, predicted="below", scale="ratio")
    (one,) = judge([halved]).cases
    assert (one.low, one.high, one.stand) == (pytest.approx(0.25), pytest.approx(0.8), "supports")
    first, _ = judge([halved, halved]).cases
    factor = norm.ppf(1 - 0.05 / 4) / norm.ppf(0.975)
    assert (first.low, first.high) == (pytest.approx(0.5 * 0.5**factor), pytest.approx(0.5 * 1.6**factor))


def test_a_correlation_stays_within_its_bounds() -> None:
    (one,) = judge([Case(name="", effect=0.95, low=0.8, high=0.99, predicted="above", scale="correlation")]).cases
    many = judge([one.case] * 8).cases[0]
    assert -1 < many.low < one.low < one.high < many.high < 1


def test_the_criterion_may_be_another_threshold() -> None:
    quarter = Case(name="", effect=0.13, stderr=0.02, predicted="above", threshold=0.25)
    assert judge([quarter]).word == "contradicted"
    assert judge([dataclasses.replace(quarter, threshold=0.13)]).word == "underpowered"
    exact = Case(name="", effect=1e-13, stderr=0.0, predicted="below", threshold=1e-9)
    assert judge([exact]).word == "reproduced"
    assert judge([dataclasses.replace(exact, effect=1e-9)]).word == "underpowered"  # neither side of itself


def test_a_value_that_no_effect_can_have_is_not_offered_as_recognisable() -> None:
    larger_over_smaller = Case(name="", effect=1.8, low=1.1, high=3.0, predicted="below", threshold=2, scale="ratio")
    free, bound = (judge([dataclasses.replace(larger_over_smaller, floor=floor)]) for floor in (None, 1.0))
    assert free.detectable < 1
    assert "if its true value were" in free.sentence
    assert math.isnan(bound.detectable)
    assert "if its true value were" not in bound.sentence
    assert (bound.word, bound.cases[0].high) == (free.word, free.cases[0].high)
    sharp = dataclasses.replace(larger_over_smaller, low=1.7, high=2.1, floor=1.0)
    assert 1 < judge([sharp]).detectable < 2


def test_student_needs_more_than_the_normal_distribution() -> None:
    known = Case(name="", effect=0.5, stderr=0.2, predicted="above")
    assert judge([known]).word == "reproduced"
    assert judge([dataclasses.replace(known, df=3)]).word == "underpowered"  # 3.18 × 0.2 = 0.64


def test_an_unknown_error_leaves_a_case_undecided() -> None:
    two = Case(name="two networks", effect=1.0, low=math.nan, high=math.nan, predicted="above", scale="correlation")
    verdict = judge([two])
    assert verdict.word == "underpowered"
    assert math.isnan(verdict.detectable)
    for unknown in ({"low": 0.5, "high": math.nan}, {"low": math.nan, "high": 2.0}, {"stderr": math.nan, "df": 0}):
        (one,) = judge([Case(name="", effect=1.0, predicted="above", **unknown)]).cases  # type: ignore[arg-type]
        assert one.stand == "undecided"
        assert math.isnan(one.low)
        assert math.isnan(one.high)


@pytest.mark.parametrize(("effect", "count"), [(0.5, 1), (0.5, 4), (0.1, 4)])
def test_an_interval_that_leaves_its_effect_out_is_extended_to_it(effect: float, count: int) -> None:
    """Widened or not, it holds the interval that was given and the effect."""
    case = Case(name="", effect=effect, low=0.2, high=0.3, predicted="above", threshold=0.15)
    for one in judge([case] * count).cases:
        assert one.low <= min(0.2, effect)
        assert one.high >= max(0.3, effect)


def test_the_smallest_effect_that_would_have_been_seen() -> None:
    """1.96 + 0.84 standard errors for one case; of several the worst if all must show it, the best if one is enough."""
    alone = judge(cases(0.1))
    needed = (norm.ppf(0.975) + norm.ppf(0.8)) * 0.2
    assert alone.detectable == pytest.approx(needed)
    told = "the undecided case would support the claim with a probability of 80 % or more only if its true value were"
    assert alone.sentence.endswith(f" 1 undecided. With samples like these, {told} {needed:.2g} or more.")
    drawn = np.random.default_rng(0).normal(needed, 0.2, 4000)
    assert np.mean([judge(cases(e)).word == "reproduced" for e in drawn]) == pytest.approx(0.8, abs=0.02)
    uneven = cases(0.1) + cases(0.1, stderr=0.4)
    best, worst = judge(uneven, "existential").detectable, judge(uneven).detectable
    assert worst == pytest.approx(2 * best)
    assert math.isnan(judge(cases(PLUS)).detectable)
    other = dataclasses.replace(uneven[1], name="the other", predicted="below")
    assert " the hardest of the undecided cases, “the other”, would" in judge([uneven[0], other]).sentence
    assert judge([uneven[0], other]).sentence.endswith(" or less.")
    assert "“" not in judge(uneven).sentence
    assert " the hardest of the undecided cases would" in judge(uneven).sentence
    assert " the easiest of the undecided cases would" in judge(uneven, "existential").sentence


@pytest.mark.parametrize("kind", ["universal", "existential"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_without_an_effect_few_claims_are_decided(kind: str, count: int) -> None:
    """4000 claims about nothing: at most 5 % (and what 4000 draws may add) are reproduced or contradicted."""
    drawn = np.random.default_rng(count).normal(0, 0.2, (4000, count))
    words = [judge(cases(*row), kind).word for row in drawn]  # type: ignore[arg-type]
    assert np.mean([w in ("reproduced", "contradicted") for w in words]) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert np.mean([w != "underpowered" for w in words]) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_words_and_numbers() -> None:
    verdict = judge(cases(PLUS, MINUS, NONE))
    assert verdict.sentence.startswith("1 of 3 cases supports the claim, 1 opposes it, 1 undecided. With samples ")
    one = judge(cases(PLUS), "existential").sentence
    assert one == "1 of 1 case supports the claim, 0 oppose it, 0 undecided, one is enough."
    assert verdict.number == "-1.00 [-1.48, -0.52] to 1.00 [0.52, 1.48]"
    assert verdict.details.startswith("0 1.00 [0.52, 1.48] supports; 1 -1.00")
    exact = Case(name="", effect=1e-13, stderr=0.0, predicted="below", threshold=1e-9)
    assert judge([exact]).number == "1e-13"
    assert judge([exact, *cases(PLUS)]).number == "1.00 [0.61, 1.39]"
    nothing = judge([], reason="No network of this size comes with the book.")
    assert (nothing.sentence, nothing.number) == ("No network of this size comes with the book.", "–")
    sampled = [dataclasses.replace(c, n=n) for c, n in zip(cases(PLUS, PLUS, PLUS), (0, 32, 1000), strict=True)]
    assert judge(sampled).n == 32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"effect": math.nan}, "finite effect"),
        ({"scale": "ratio", "effect": -1.0}, "above 0 for a ratio"),
        ({"predicted": "up"}, "Unknown side 'up'"),
        ({"stderr": None}, "either a standard error or both ends"),
        ({"low": 0.0, "high": 1.0}, "either a standard error or both ends"),
        ({"level": 1.0}, "level"),
        ({"stderr": -0.1}, "The case '0' needs a standard error of 0 or more; got -0.1"),
        ({"scale": "share", "effect": 97.0}, "'0' needs a finite effect, from 0 to 1 for a share"),
        ({"scale": "share", "effect": 0.97, "threshold": 50.0}, "'0' needs a finite threshold, from 0 to 1"),
        ({"scale": "correlation", "effect": 1.5}, "from -1 to 1"),
        ({"threshold": math.nan}, "finite threshold"),
        ({"scale": "ratio", "threshold": 0.0}, "finite threshold, above 0 for a ratio"),
        ({"stderr": None, "low": 1.5, "high": -1.0}, "from 1.5 to -1.0: give its lower end first"),
        ({"df": 0.0}, "'0' needs degrees of freedom above 0"),
        ({"df": math.nan}, "degrees of freedom"),
    ],
)
def test_bad_cases_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(cases(PLUS)[0], **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Unknown kind"):
        judge([], "all")  # type: ignore[arg-type]


def test_an_interval_that_knows_nothing_is_infinite() -> None:
    """Two trainings, and twenty cases at once: the quantile is so large that no float holds the end."""
    many = [Case(name=str(i), effect=1.5, stderr=3.0, scale="ratio", predicted="above", df=1) for i in range(20)]
    found = judge(many)
    assert found.word == "underpowered"
    assert all(math.isinf(one.high) and one.low == 0 for one in found.cases)


def test_a_share_keeps_its_interval_between_0_and_1_and_so_does_what_could_be_recognised() -> None:
    share = Case(name="a layer", effect=0.82, low=0.58, high=0.94, predicted="below", threshold=0.5, scale="share")
    judged = judge([share, *cases(NONE, NONE, NONE)]).cases[0]
    assert 0 < judged.low < 0.58
    assert 0.94 < judged.high < 1
    assert 0 < judged.detectable < 0.5
    assert judged.stand == "undecided"
    assert judge([share]).cases[0].high == pytest.approx(0.94)  # alone, it is the interval as it was given


def test_ratios_have_significant_digits_and_cases_of_several_kinds_no_common_range() -> None:
    wide = Case(name="wide", effect=1738000.0, low=56746.0, high=2e7, predicted="above", scale="ratio")
    assert judge([wide]).number == "1.7e+06 [5.7e+04, 2e+07]"
    near = Case(name="near", effect=1.02, low=0.964, high=1.071, predicted="above", scale="ratio")
    assert judge([near]).number == "1.020 [0.964, 1.071]"
    assert judge([wide, *cases(PLUS)]).number == "2 of 2 cases"
