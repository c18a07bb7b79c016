"""Estimates and Gram matrices: known truths, simulation, and bad input."""

import dataclasses
import math

import pytest
import scipy.stats
import torch

import lee
from lee.statistics import Estimate, concatenate, rank_correlation


def gram(n: int = 6, seed: int = 0, kernel: str = "fourier") -> lee.EquivarianceGram:
    parts = torch.randn(n, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    generators = (lee.TRANSLATION_X, lee.SHEAR_X, lee.SHEAR_Y)
    return lee.EquivarianceGram(parts @ parts.mT / 5, generators, kernel)


def test_estimate_of_known_samples() -> None:
    estimate = Estimate.of(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert estimate.value == 3.0
    assert estimate.stderr == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert estimate.n == 4
    alone = Estimate.of(torch.tensor([1.0]))
    assert math.isnan(alone.stderr)
    assert str(alone) == "1 (n = 1)"
    with pytest.raises(lee.InputError, match="no images"):
        Estimate.of(torch.empty(0))


def test_the_mean_of_equal_numbers_is_one_of_them_and_scales_cancel() -> None:
    found = Estimate.of([0.1] * 3)
    assert (found.value, found.stderr, str(found)) == (0.1, 0.0, "0.1 ± 0 (n = 3)")
    for scale in (1e-200, 1e200):
        ends = Estimate.of([scale, 2 * scale, 4 * scale]).interval()
        assert [end / scale for end in ends] == pytest.approx(Estimate.of([1.0, 2.0, 4.0]).interval())


def test_standard_error_covers_the_truth() -> None:
    """Of 2000 simulated means of 40 squared normals, about 95 % lie within 1.96 standard errors of the truth."""
    samples = torch.randn(2000, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).square()
    estimates = [Estimate.of(row) for row in samples]
    covered = sum(abs(e.value - 1) < 1.96 * e.stderr for e in estimates) / len(estimates)
    assert 0.89 < covered < 0.96  # a little below 0.95: squares are skewed


@pytest.mark.parametrize(
    ("value", "stderr", "expected"),
    [(1e-30, 3.0, "0.0 ± 3.0"), (0.0, 1e-9, "(0.0 ± 1.0)e-09"), (3e-5, 4e-7, "(3.000 ± 0.040)e-05"), (0.1, 1e-17, "0.1 ± 1e-17"),
     (math.nan, 1.0, "nan ± 1"),
     (0.0123456, 0.00123, "0.0123 ± 0.0012"), (1.2e-7, 3.4e-9, "(1.200 ± 0.034)e-07"), (3.0, math.nan, "3 ± nan"),
     (0.0, 0.0, "0 ± 0"), (0.0, 0.5, "0.00 ± 0.50"), (123456.0, 1000.0, "(1.235 ± 0.010)e+05")],
)  # fmt: skip
def test_printing(value: float, stderr: float, expected: str) -> None:
    assert str(Estimate(value, stderr, 7)) == f"{expected} (n = 7)"


def test_lee_is_a_quadratic_form() -> None:
    g = gram()
    mixture = 0.3 * lee.ROTATION - lee.TRANSLATION_X
    c = torch.tensor([-1.0, 0.3, -0.3], dtype=torch.float64)
    torch.testing.assert_close(g.lee_per_image(mixture), torch.stack([c @ m @ c for m in g.per_image]))
    assert g.lee(mixture).value == pytest.approx(float(c @ g.matrix @ c))
    assert g.lee("rotation").value == pytest.approx(g.lee(lee.ROTATION).value)
    with pytest.raises(lee.InputError, match="not a combination"):
        g.lee("scale")
    with pytest.raises(lee.InputError, match="not among"):
        g.lee(lambda x, t: x)


def test_paired_difference_is_sharper() -> None:
    first, noise = gram(400), gram(400, seed=1)
    second = lee.EquivarianceGram(first.per_image + 0.01 * noise.per_image, first.generators, "fourier")
    gap = second.minus(first, "translation_x")
    assert gap.value == pytest.approx(second.lee("translation_x").value - first.lee("translation_x").value)
    assert gap.stderr < 0.1 * math.hypot(first.lee("translation_x").stderr, second.lee("translation_x").stderr)
    with pytest.raises(lee.InputError, match="same kernel"):
        first.minus(gram(400, kernel="central"), "translation_x")
    with pytest.raises(lee.InputError, match="same n"):
        first.minus(gram(3), "translation_x")


def test_a_name_of_two_generators_is_no_pair() -> None:
    """Every lambda has the same name."""
    (first, second), g = ([lee.geometry.get(lambda x, t, k=k: x + k * t)] for k in (1, 2)), gram()
    one, other = (dataclasses.replace(g.only("rotation"), generators=tuple(known)) for known in (first, second))
    assert one.basis == other.basis
    with pytest.raises(lee.InputError, match="not among the measured generators"):
        one.minus(other, one.basis[0])
    turn, twice = (
        dataclasses.replace(g.only(k * lee.ROTATION), generators=((k * lee.ROTATION).renamed("turn"),)) for k in (1, 2)
    )
    assert turn.minus(twice, "turn").value == pytest.approx(0)  # the other's, in the units of the first


def test_a_number_made_of_two_is_verified_as_the_one_that_is_known_less_well() -> None:
    close, far, wrong = (
        lee.statistics.Verification("forward", deviation, 0.0, "float64", deviation < 0.1)
        for deviation in (1e-9, 1e-3, 0.4)
    )
    g = gram()
    for mine, its, known in ((close, far, far), (far, close, far), (wrong, close, wrong), (None, close, None)):
        first, second = (dataclasses.replace(g, verification=v) for v in (mine, its))
        assert first.minus(second, "rotation").verification == known
        assert concatenate([first, second]).verification == known


def test_joining() -> None:
    first, second = gram(2), gram(3, seed=1)
    joined = concatenate([first, second])
    assert joined.n == 5
    assert torch.equal(joined.per_image[2:], second.per_image)
    assert "translation_x" in str(joined)
    with pytest.raises(lee.InputError, match="no Gram"):
        concatenate([])
    with pytest.raises(lee.InputError, match="same"):
        concatenate([first, gram(2, kernel="central")])


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_spearmans(ties: bool) -> None:
    a, b = torch.randn(2, 12)
    b = 0.7 * a + b
    if ties:
        a, b = (a * 2).round(), (b * 2).round()
    found = rank_correlation(a, b)
    assert found.value == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-9)
    reach = scipy.stats.norm.ppf(0.975) * math.sqrt(1.06 / 9)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.value) - reach))
    assert found.high == pytest.approx(math.tanh(math.atanh(found.value) + reach))
    half = math.tanh(math.atanh(1 - 6 / (12**3 - 12)) - reach)  # between perfect and one exchange
    assert rank_correlation(a, a.exp())[:3] == (1.0, pytest.approx(half), 1.0)
    assert rank_correlation(a, -a)[:3] == (-1.0, -1.0, pytest.approx(-half))


def test_the_interval_of_a_rank_correlation_covers() -> None:
    """Of 400 samples of independent numbers, about 5 % have an interval that misses 0."""
    missed = 0
    for a, b in torch.randn(400, 2, 15):
        found = rank_correlation(a, b)
        missed += not found.low < 0 < found.high
    assert 5 <= missed <= 40


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([1.0], [2.0], "two lists"), ([1.0, 2.0], [1.0], "got 2 and 1"), ([1.0, math.nan], [1.0, 2.0], "finite"),
     ([1.0, 1.0], [1.0, 2.0], "constant")],
)  # fmt: skip
def test_rank_correlation_refuses(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(lee.InputError, match=message):
        rank_correlation(first, second)
    with pytest.raises(lee.InputError, match="`level`"):
        rank_correlation([1, 2], [1, 2], level=95)
    assert math.isnan(rank_correlation([1, 2, 3], [1, 3, 2]).low)


@pytest.mark.parametrize(("n", "least", "naive"), [(16, 0.85, 0.78), (64, 0.89, 0.86), (250, 0.91, 0.92)])
def test_an_interval_that_knows_heavy_tails(n: int, least: float, naive: float) -> None:
    """Lognormal numbers of which, as of LEE, 1 % hold a fifth of the sum: closer to 95 % than mean ± 2 errors, and at both ends."""
    sigma = 1.48
    samples = (sigma * torch.randn(2000, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)).exp()
    truth, estimates = math.exp(sigma**2 / 2), [Estimate.of(row) for row in samples]
    covered = sum(low <= truth <= high for low, high in (e.interval() for e in estimates)) / len(estimates)
    plain = sum(abs(e.value - truth) <= 2 * e.stderr for e in estimates) / len(estimates)
    assert least < covered <= 0.96
    assert plain < min(naive, covered - 0.015)


def test_an_interval_without_skew_is_student_s() -> None:
    samples = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    estimate = Estimate.of(samples)
    reach = scipy.stats.t.ppf(0.975, 4) * estimate.stderr
    assert estimate.interval() == pytest.approx((3 - reach, 3 + reach))
    low, high = Estimate.of(samples**4).interval()
    middle = float((samples**4).mean())
    assert high - middle > 1.2 * (middle - low)  # the long side is the one that was seen too little of
    mirrored = Estimate.of(-(samples**4)).interval()
    assert mirrored == pytest.approx((-high, -low))
    assert Estimate(3.0, 1.0, 5).interval(0.9) == pytest.approx(
        (3 - scipy.stats.t.ppf(0.95, 4), 3 + scipy.stats.t.ppf(0.95, 4))
    )
    assert all(math.isnan(end) for end in Estimate.of(torch.tensor([1.0])).interval())
    assert Estimate.of(torch.ones(4)).interval() == (1.0, 1.0)
    with pytest.raises(lee.InputError, match="level"):
        estimate.interval(1.5)
