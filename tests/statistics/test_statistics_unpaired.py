"""Ratios between sets of images: closed cases, a bootstrap written apart, and how often the interval covers the truth."""

import math

import numpy as np
import pytest
import scipy.stats

from lee.errors import InputError
from lee.statistics import SetRatio, set_ratio


def _world(seed: int, models: int, n: int, truth: float, *, shared: float, own: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers ≥ 0: images that are hard for all models (`shared`), models whose own ratio varies (`own`), and chance."""
    random = np.random.default_rng(seed)
    sets = []
    for k in (0, 1):
        image = np.exp(shared * random.standard_normal(n) - shared**2 / 2)
        noise = random.exponential(size=(models, n))
        sets.append(image * noise * (truth if k == 0 else 1))
    return sets[0] * np.exp(own * random.standard_normal((models, 1))), sets[1]


def test_one_model_is_the_ratio_of_means_with_the_delta_methods_error() -> None:
    a, b = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 1.0, 4.0])
    found = set_ratio(a, b)
    assert found.value == pytest.approx(3 / 2)
    relative = a.std(ddof=1) / math.sqrt(4) / 3, b.std(ddof=1) / math.sqrt(3) / 2
    assert found.stderr == pytest.approx(math.hypot(*relative))
    assert (found.models, found.n) == (1, 3)


def test_over_models_it_is_the_geometric_mean() -> None:
    a = np.array([[2.0, 2.0], [8.0, 8.0]])
    found = set_ratio(a, np.ones((2, 5)))
    assert found.value == pytest.approx(4)
    assert found.stderr == pytest.approx(np.log([2, 8]).std(ddof=1) / math.sqrt(2))


def test_the_other_way_round_it_is_the_inverse() -> None:
    a, b = _world(1, 4, 30, 2.0, shared=0.5, own=0.2)
    there, back = set_ratio(a, b), set_ratio(b, a)
    assert there.value == pytest.approx(1 / back.value)
    assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low))


def test_a_scale_divides() -> None:
    a, b = _world(2, 3, 40, 2.0, shared=0.5, own=0.2)
    assert set_ratio(a, b, first_scale=np.full(40, 5.0), second_scale=np.full(40, 2.5)).value == pytest.approx(
        set_ratio(a, b).value / 2
    )
    same = set_ratio(a, b, first_scale=3 * a, second_scale=b)  # numbers in proportion to their scale vary no more
    assert same.value == pytest.approx(1 / 3)
    assert same.stderr == pytest.approx(0, abs=1e-12)


def test_the_error_over_images_agrees_with_a_bootstrap() -> None:
    """Resampling images of both sets, the same ones for all models, with the models fixed."""
    a, b = _world(3, 6, 200, 1.5, shared=0.7, own=0.0)
    random = np.random.default_rng(0)
    logs = []
    for _ in range(2000):
        i, j = random.integers(0, 200, 200), random.integers(0, 200, 200)
        logs.append(np.mean(np.log(a[:, i].mean(1) / b[:, j].mean(1))))
    r = np.log(a.mean(1) / b.mean(1))
    over_images = math.sqrt(set_ratio(a, b).stderr ** 2 - r.var(ddof=1) / 6)
    assert over_images == pytest.approx(np.std(logs), rel=0.08)


def test_two_versions_of_the_same_images_are_compared_in_pairs() -> None:
    a, b = _world(6, 5, 100, 1.0, shared=0.8, own=0.1)
    assert set_ratio(2 * a, a, same_images=True).stderr == pytest.approx(0, abs=1e-12)
    noisy = a * np.random.default_rng(1).uniform(0.9, 1.1, a.shape)
    assert set_ratio(noisy, a, same_images=True).stderr < 0.2 * set_ratio(noisy, a).stderr
    unrelated = set_ratio(a, b, same_images=True).stderr / set_ratio(a, b).stderr
    assert unrelated == pytest.approx(1, abs=0.15)
    with pytest.raises(InputError, match="equally many; got 100 and 99"):
        set_ratio(a, b[:, 1:], same_images=True)


@pytest.mark.parametrize(("shared", "own"), [(0.7, 0.0), (0.0, 0.3), (0.5, 0.2)])
def test_intervals_cover_the_truth_as_often_as_they_say_or_more(shared: float, own: float) -> None:
    rounds = 300
    found = [set_ratio(*_world(seed, 8, 100, 1.5, shared=shared, own=own)) for seed in range(rounds)]
    covered = np.mean([f.low <= 1.5 <= f.high for f in found])
    assert covered > 0.95 - 3 * math.sqrt(0.95 * 0.05 / rounds)


@pytest.mark.parametrize(("n", "together", "least"), [(64, 0.5, 0.9), (250, 0.5, 0.9), (64, 0.99, 0.95)])
def test_an_interval_over_the_same_images_knows_both_tails(n: int, together: float, least: float) -> None:
    """Two lognormal versions: the first order alone, symmetric in the logarithm's tails, holds the truth less often."""
    random, sigma, rounds = np.random.default_rng(n), 1.48, 1000
    covered, first_order = [], []
    for _ in range(rounds):
        z = random.standard_normal((2, n))
        z[1] = together * z[0] + math.sqrt(1 - together**2) * z[1]
        a, b = np.exp(sigma * z - sigma**2 / 2)
        found = set_ratio(a, b, same_images=True)
        assert 0 < found.low <= found.value <= found.high
        covered.append(found.low <= 1 <= found.high)
        first_order.append(abs(math.log(found.value)) <= scipy.stats.t.ppf(0.975, n - 1) * found.stderr)
    assert np.mean(covered) > least
    assert np.mean(covered) > np.mean(first_order) - 0.01


def test_pairing_over_images_would_be_wrong_here() -> None:
    """The same images for all models are hard or easy together: averaging over models does not average that away."""
    a, b = _world(4, 50, 60, 1.0, shared=1.0, own=0.0)
    naive = np.log(a.mean(1) / b.mean(1)).std(ddof=1) / math.sqrt(50)
    assert set_ratio(a, b).stderr > 3 * naive


@pytest.mark.parametrize(("n", "least", "naive"), [(16, 0.85, 0.83), (64, 0.90, 0.88)])
def test_an_interval_of_one_model_knows_heavy_tails(n: int, least: float, naive: float) -> None:
    """Lognormal numbers with the tails of LEE against even ones: it covers more than a symmetric interval."""
    random, sigma, rounds = np.random.default_rng(n), 1.48, 1500
    found = []
    for _ in range(rounds):
        heavy = np.exp(sigma * random.standard_normal(n) - sigma**2 / 2)
        found.append(set_ratio(heavy, random.uniform(0.5, 1.5, n)))
    reach = scipy.stats.t.ppf(0.975, n - 1)
    covered = np.mean([f.low <= 1 <= f.high for f in found])
    plain = np.mean([abs(math.log(f.value)) <= reach * f.stderr for f in found])
    assert plain < naive < least < covered <= 0.96


def test_without_skew_and_with_little_spread_it_is_student_s() -> None:
    a = np.array([99.0, 100.0, 101.0] * 5)
    found = set_ratio(a, np.full(15, 100.0))
    reach = scipy.stats.t.ppf(0.975, 14) * found.stderr
    assert (found.low, found.high) == pytest.approx((math.exp(-reach), math.exp(reach)), abs=1e-4)


def test_it_prints() -> None:
    assert str(SetRatio(1.25, 1.0, 1.5, 1, 30, 0.1)) == "1.25 [1, 1.5] (n = 30)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: set_ratio(np.ones((2, 3)), np.ones((3, 3))), "same models; got 2 and 3"),
        (lambda: set_ratio([1.0], [1.0, 2.0]), "two images or more"),
        (lambda: set_ratio([1.0, -1.0], [1.0, 2.0]), "numbers ≥ 0"),
        (lambda: set_ratio([1.0, math.nan], [1.0, 2.0]), "finite"),
        (lambda: set_ratio([0.0, 0.0], [1.0, 2.0]), "not zero"),
        (lambda: set_ratio([1.0, 2.0], [1.0, 2.0], first_scale=[1.0, 1.0]), "both sets"),
        (lambda: set_ratio([1.0, 2.0], [1.0, 2.0], level=95), "between 0 and 1"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        call()
