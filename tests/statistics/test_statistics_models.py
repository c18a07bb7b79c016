"""Rank correlations, spreads over seeds and Holm's correction: worked examples, other implementations, known truths."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lee.errors import InputError
from lee.statistics import Case, holm, judge, rank_correlation, seed_spread, simultaneous

RNG = np.random.Generator


@pytest.fixture
def rng() -> RNG:
    return np.random.default_rng(0)


def between(hits: int, runs: int, rate: float, chance: float = 1e-4) -> bool:
    """Whether `hits` of `runs` are what a rate allows; a right implementation fails by `chance`."""
    low, high = scipy.stats.binom.interval(1 - chance, runs, rate)
    return bool(low <= hits <= high)


def normals(rng: RNG, rho: float, n: int) -> np.ndarray:
    """(2, n) from a normal distribution with correlation `rho`: Spearman's is 6/π·asin(ρ/2)."""
    return np.asarray(rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n).T)


def test_the_p_value_is_scipys(rng: RNG) -> None:
    a, b = normals(rng, 0.4, 20)
    assert rank_correlation(a, b).p == pytest.approx(scipy.stats.spearmanr(a, b).pvalue)
    assert rank_correlation(a, np.exp(a)).p < 1e-15
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]).p == scipy.stats.kendalltau([1, 2, 3, 4], [1, 2, 3, 4]).pvalue


def test_resamples_by_weights_are_resamples(rng: RNG) -> None:
    """Counting how often each pair is drawn gives the quantiles that scipy gets by drawing the pairs, with ties too."""
    a, b = (np.round(4 * v) for v in normals(rng, 0.5, 25))
    found = rank_correlation(a, b, resamples=4000)
    expected = scipy.stats.bootstrap(
        (a, b), lambda x, y: scipy.stats.spearmanr(x, y).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=1000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.05)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_bootstrap_intervals_cover_the_correlation(rng: RNG, rho: float) -> None:
    truth = 6 / np.pi * np.arcsin(rho / 2)
    covered, runs = 0, 200
    for seed in range(runs):
        found = rank_correlation(*normals(rng, rho, 40), resamples=300, seed=seed)
        covered += found.low <= truth <= found.high
    assert between(covered, runs, 0.935)  # a percentile interval of 40 pairs is a little short


@pytest.mark.parametrize("resamples", [0, 100])
def test_a_perfect_agreement_of_few_is_no_proof_of_one(resamples: int) -> None:
    alike = {n: rank_correlation(range(n), range(n), resamples=resamples) for n in (4, 5, 20)}
    assert math.isnan(alike[4].low)  # 2 of 24 orders
    assert math.isnan(rank_correlation(range(5), range(5), 0.99, resamples=resamples).low)  # 2 of 120
    assert 0 < alike[5].low < 0.5 < 0.99 < alike[20].low < alike[20].high == 1
    three = {name: np.random.default_rng(k).standard_normal(6) for k, name in enumerate("xyz")}
    assert math.isnan(rank_correlation(range(6), range(6), given=three, resamples=resamples).low)
    turned = rank_correlation(range(5), range(0, -5, -1), resamples=resamples)
    assert turned[:3] == (-1, -1, -alike[5].low)


@pytest.mark.parametrize(("n", "rho"), [(5, 0.8), (5, 0.95), (8, 0.9)])
def test_intervals_of_few_cover_strong_correlations(rng: RNG, n: int, rho: float) -> None:
    truth, runs = 6 / np.pi * np.arcsin(rho / 2), 400
    found = [rank_correlation(*normals(rng, rho, n)) for _ in range(runs)]
    covered = sum(one.low <= truth <= one.high for one in found)
    assert covered >= scipy.stats.binom.ppf(1e-4, runs, 0.94)


@pytest.mark.parametrize(("n", "count"), [(4, 5), (5, 1), (5, 5), (6, 5)])
def test_claims_of_correlations_of_few_are_seldom_wrong(rng: RNG, n: int, count: int) -> None:
    """Existential claims about independent lists: at most 5 % are called reproduced (a perfect agreement used to be enough)."""
    level, runs, wrong = simultaneous(count), 200, 0
    for _ in range(runs):
        found = [rank_correlation(*rng.standard_normal((2, n)), level) for _ in range(count)]
        drawn = [
            Case(name="", effect=f.value, low=f.low, high=f.high, level=level, predicted="above", scale="correlation")
            for f in found
        ]
        wrong += judge(drawn, "existential").word == "reproduced"
    assert wrong <= scipy.stats.binom.ppf(1 - 1e-4, runs, 0.05)


def test_seeds_of_one_recipe_are_drawn_together(rng: RNG) -> None:
    """Twelve recipes with six nearly equal seeds each are twelve things, not seventy-two."""
    runs, missed = 150, {True: 0, False: 0}
    clusters = np.repeat(np.arange(12), 6)
    for seed in range(runs):
        pair = normals(rng, 0.0, 12)[:, clusters] + 0.01 * rng.standard_normal((2, 72))
        for together in missed:
            found = rank_correlation(*pair, clusters=clusters if together else None, resamples=200, seed=seed)
            missed[together] += not found.low <= 0 <= found.high
    assert between(missed[True], runs, 0.09)  # twelve things: the interval is a little short
    assert missed[False] > 0.2 * runs


def test_errors_of_measurement_weaken_the_association(rng: RNG) -> None:
    """Where the errors are as large as the differences, a perfect agreement drops to a Pearson correlation of 1/2."""
    a = rng.standard_normal(300)
    ones, zeros = np.ones(300), np.zeros(300)
    found = rank_correlation(a, a, errors=(ones, ones), resamples=200)
    assert 0.5 * (found.low + found.high) == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.06)
    assert found.value == 1
    b = a + rng.standard_normal(300)
    assert rank_correlation(a, b, errors=(zeros, zeros), resamples=200) == rank_correlation(a, b, resamples=200)


def residual_oracle(a: np.ndarray, b: np.ndarray, columns: list[np.ndarray]) -> float:
    """Partial Spearman correlation through the inverse of the correlation matrix of the ranks."""
    rows = [scipy.stats.rankdata(v) for v in (a, b)] + columns
    inverse = np.linalg.inv(np.corrcoef(rows))
    return float(-inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1]))


def test_partial_correlation_is_that_of_the_inverse_matrix(rng: RNG) -> None:
    family = rng.permutation(list("rrrrvvvvmmmm"))
    size = rng.lognormal(size=12)
    a, b = normals(rng, 0.3, 12) + 0.5 * np.log(size)
    indicators = [(family == word).astype(float) for word in "rv"]
    found = rank_correlation(a, b, given={"parameters": size, "family": family})
    assert found.value == pytest.approx(residual_oracle(a, b, [scipy.stats.rankdata(size), *indicators]))
    assert found.given == ("parameters", "family")
    frame = pd.DataFrame({"parameters": np.log(size), "family": family})
    assert rank_correlation(a, b, given=frame).value == pytest.approx(found.value)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.value) - 1.959964 * math.sqrt(1.06 / 6)), abs=1e-6)


def test_a_covariate_that_says_nothing_changes_nothing(rng: RNG) -> None:
    a, b = normals(rng, 0.5, 15)
    plain = rank_correlation(a, b, resamples=200)
    same = rank_correlation(a, b, resamples=200, given={"constant": np.zeros(15), "word": ["x"] * 15})
    assert same[:5] == pytest.approx(plain[:5])


def test_partial_intervals_cover_and_the_test_has_its_size(rng: RNG) -> None:
    """Both depend on the covariate only. Of ranks the partial correlation is then not exactly 0: its truth is computed."""
    spearman = [6 / np.pi * np.arcsin(r / 2) for r in (0.5, math.sqrt(0.5))]
    truth = (spearman[0] - spearman[1] ** 2) / (1 - spearman[1] ** 2)
    runs, covered, rejected, naive = 200, 0, 0, 0
    for seed in range(runs):
        common = rng.standard_normal(40)
        pair = common + rng.standard_normal((2, 40))
        found = rank_correlation(*pair, given={"common": common}, resamples=200, seed=seed)
        covered += found.low <= truth <= found.high
        rejected += found.p < 0.05
        naive += rank_correlation(*pair).p < 0.05
    assert between(covered, runs, 0.935)
    assert between(rejected, runs, 0.05)
    assert naive > 0.8 * runs


def test_families_that_differ_are_held_fixed(rng: RNG) -> None:
    """Two measures that only tell the families apart agree strongly, and within families not at all."""
    family = np.repeat(list("abc"), 12)
    runs, rejected = 150, 0
    for _ in range(runs):
        pair = np.repeat([0.0, 4.0, 8.0], 12) + rng.standard_normal((2, 36))
        assert rank_correlation(*pair).value > 0.7
        rejected += rank_correlation(*pair, given={"family": family}).p < 0.05
    assert between(rejected, runs, 0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"clusters": "aabb"}, "give `resamples`"),
     ({"errors": ([0.1] * 4, [0.1] * 4)}, "give `resamples`"), ({"resamples": 7}, "whole number from 100"),
     ({"given": {"family": list("aab")}}, "'family' needs 4 entries"), ({"clusters": "aab", "resamples": 100}, "needs 4"),
     ({"given": {"x": [1.0, math.nan, 2.0, 3.0]}}, "not finite"), ({"given": {"x": list("abcd")}}, "nothing of the one"),
     ({"errors": ([0.1] * 3, [0.1] * 4), "resamples": 100}, "standard errors"),
     ({"errors": ([-0.1] * 4, [0.1] * 4), "resamples": 100}, "standard errors")],
)  # fmt: skip
def test_what_cannot_be_correlated_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], **options)


def test_three_clusters_have_no_interval() -> None:
    found = rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], clusters=list("aabc"), resamples=100)
    assert math.isnan(found.low)
    assert found.p == pytest.approx(max(1 / 3, 2 * scipy.stats.t.sf(0.8 / 0.6, 1)))


# Shrout & Fleiss (1979), Table 2: four judges rate six targets. ICC(1,1) is .17 (their Table 4).
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_intraclass_correlation_of_shrout_and_fleiss() -> None:
    found = seed_spread(np.ravel(RATINGS), np.repeat(list("abcdef"), 4))
    assert found.icc == pytest.approx(0.17, abs=0.005)
    assert found.within**2 == pytest.approx(6.26, abs=0.01)
    assert found.between**2 == pytest.approx((11.24 - 6.26) / 4, abs=0.01)
    assert (found.icc_low, found.icc_high) == pytest.approx((-0.13, 0.72), abs=0.005)
    assert (found.df, found.groups, found.n) == (18, 6, 24)
    assert "ICC 0.17 [-0.13, 0.72]" in str(found)


def test_the_spread_finds_the_components_and_its_intervals_cover(rng: RNG) -> None:
    groups, runs = np.repeat(np.arange(8), 3), 300
    covered = {"within": 0, "icc": 0}
    for _ in range(runs):
        y = 2 * rng.standard_normal(8)[groups] + 0.5 * rng.standard_normal(24)
        found = seed_spread(y, groups)
        covered["within"] += found.within_low <= 0.5 <= found.within_high
        covered["icc"] += found.icc_low <= 4 / 4.25 <= found.icc_high
    assert all(between(hits, runs, 0.95) for hits in covered.values()), covered


@pytest.mark.parametrize("trainings", [(1, 1), (3, 1)])
def test_the_reach_is_that_of_two_recipes(rng: RNG, trainings: tuple[int, int]) -> None:
    """Two equal recipes differ by more than the reach in 5 % of cases, however many trainings; groups may be unequal."""
    groups = np.repeat(np.arange(4), [3, 2, 3, 1])
    runs, beyond, rejected = 400, 0, 0
    for _ in range(runs):
        found = seed_spread(5 * rng.standard_normal(4)[groups] + rng.standard_normal(9), groups)
        first, second = (rng.standard_normal(m).mean() for m in trainings)
        difference = float(first - second) + 0.3 * rng.standard_normal()
        beyond += abs(difference) > found.reach(0.95, trainings, 0.3)
        rejected += found.p(difference, trainings, 0.3) < 0.05
    assert between(beyond, runs, 0.05)
    assert beyond == rejected


@pytest.mark.parametrize("trainings", [(0, 1), (1, -1)])
def test_a_recipe_without_a_training_has_no_error(trainings: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="without a known training"):
        seed_spread([1.0, 1.1, 2.0, 2.0], list("aabb")).stderr(trainings)


def test_a_spread_needs_repetitions() -> None:
    for groups, message in ((list("abc"), "two groups"), (list("aaa"), "two groups"), (list("aa"), "got 3 and 2")):
        with pytest.raises(InputError, match=message):
            seed_spread([1.0, 2.0, 3.0], groups)
    exact = seed_spread([1.0, 1.0, 3.0], list("aab"))
    assert (exact.within, exact.icc, exact.p(0.0), exact.p(0.1)) == (0, 1, 1, 0)


def test_holm_is_the_closure_of_bonferroni(rng: RNG) -> None:
    """The adjusted p-value is the largest Bonferroni p-value over all sets of comparisons that hold this one."""
    for m in (1, 2, 5, 7):
        p = np.round(rng.uniform(size=m) ** 2, 2)
        sets = [s for size in range(1, m + 1) for s in combinations(range(m), size)]
        closed = [max(min(1.0, len(s) * p[list(s)].min()) for s in sets if i in s) for i in range(m)]
        np.testing.assert_allclose(holm(p), closed)


def test_holm_of_a_worked_example() -> None:
    """The example of R's p.adjust for p = 0.01, …, 0.05."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([]).shape == (0,)


def test_holm_keeps_the_rate_of_false_alarms(rng: RNG) -> None:
    """Ten true null hypotheses beside ten false ones: any of the ten is rejected in at most 5 % of cases."""
    runs, alarms, found = 2000, 0, 0
    for _ in range(runs):
        z = rng.standard_normal(20) + np.repeat([0.0, 4.0], 10)
        adjusted = holm(2 * scipy.stats.norm.sf(np.abs(z)))
        alarms += bool((adjusted[:10] < 0.05).any())
        found += int((adjusted[10:] < 0.05).sum())
    assert alarms <= scipy.stats.binom.ppf(0.9999, runs, 0.05)
    assert found > 0.8 * 10 * runs


@pytest.mark.parametrize("p", [[0.1, 1.2], [-0.1], [math.nan], [[0.1, 0.2]], 0.3])
def test_holm_refuses_what_is_no_p_value(p: object) -> None:
    with pytest.raises(InputError, match=r"p-values in|real numbers of shape"):
        holm(p)  # type: ignore[arg-type]


@pytest.mark.parametrize(("cases", "level"), [(5, 2.0), (5, 1.0), (-1, 0.95), (2.5, 0.95)])
def test_levels_of_what_is_no_number_of_cases_are_refused(cases: float, level: float) -> None:
    with pytest.raises(InputError, match=r"`cases`|`level`"):
        simultaneous(cases, level)  # type: ignore[arg-type]
