"""Pairs of models: recipes found in the zoo's file, and ratios of simulated errors with known truth."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lee.errors import InputError
from lee.statistics import holm, judge, paired_ratio, simultaneous
from lee.studies.comparisons import cases, compare, spread_of, words

SEEDS = 0.2  # standard deviation of the logarithms between seeds


def errors(rng: np.random.Generator, recipes: dict[str, float], trainings: int = 3, n: int = 300) -> pd.DataFrame:
    """Per-image errors of models `recipe.k` with a mean of `recipes[recipe]` times their own deviation."""
    common = 0.7 * rng.standard_normal(n)
    columns = {}
    for name, mean in recipes.items():
        for k in range(trainings):
            own = np.exp(common + 0.3 * rng.standard_normal(n))
            columns[f"{name}.{k}"] = mean * math.exp(SEEDS * rng.standard_normal()) * own
    return pd.DataFrame(columns)


def parents(frame: pd.DataFrame) -> dict[str, str]:
    return {name: name.split(".")[0] for name in frame.columns}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_spread_is_that_between_seeds(rng: np.random.Generator) -> None:
    frame = errors(rng, {f"r{k}": 1.5**k for k in range(30)})
    spread = spread_of(frame, parents(frame))
    assert spread is not None
    assert spread.within == pytest.approx(SEEDS, rel=0.25)
    assert spread.df == 60
    alone = frame[["r0.0", "r1.0"]]
    assert spread_of(alone, parents(alone)) is None
    assert spread_of(frame[["r0.0", "r0.1"]], parents(frame)) is None


def test_a_comparison_takes_in_all_trainings(rng: np.random.Generator) -> None:
    frame = errors(rng, {"a": 0.5, "b": 1.0}).drop(columns="b.2")
    spread = spread_of(frame, parents(frame))
    found = compare(frame, {"smaller": [["a.0", "b.1"]]}, spread=spread, recipes=parents(frame)).iloc[0]
    expected = paired_ratio(frame.iloc[:, :3].to_numpy().T, frame.iloc[:, 3:].to_numpy().T)
    assert (found["ratio"], found["low"], found["high"]) == expected[:3]
    assert (found["first_trainings"], found["second_trainings"], found["n"]) == (3, 2, 300)
    assert spread is not None
    half = spread.reach(0.95, (3, 2), expected.stderr)
    assert math.log(found["seed_high"] / found["ratio"]) == pytest.approx(half)
    assert found["seed_low"] < found["low"] < found["ratio"] < found["high"] < found["seed_high"]


def test_two_trainings_of_one_recipe_are_compared_themselves(rng: np.random.Generator) -> None:
    frame = errors(rng, {"a": 0.5, "b": 1.0})
    spread = spread_of(frame, parents(frame))
    found = compare(frame, {"seeds": [["a.0", "a.1"]]}, spread=spread, recipes=parents(frame)).iloc[0]
    expected = paired_ratio(frame["a.0"].to_numpy(), frame["a.1"].to_numpy())
    assert (found["ratio"], found["low"], found["high"], found["p"]) == (*expected[:3], expected.p)
    assert (found["first_trainings"], found["second_trainings"]) == (1, 1)
    assert spread is not None
    assert found["seed_p"] == spread.p(math.log(expected.value), (1, 1), expected.stderr)
    with pytest.raises(InputError, match="two models each"):
        compare(frame, {"same": [["a.0", "a.0"]]}, recipes=parents(frame))


def test_seeds_are_what_equal_recipes_differ_by(rng: np.random.Generator) -> None:
    """Of equal recipes the test over images, which knows these networks only, often finds a difference; over seeds, seldom."""
    runs, images, seeds = 150, 0, 0
    for _ in range(runs):
        frame = errors(rng, dict.fromkeys("abcd", 1.0), n=60)
        frame = frame.drop(columns=["d.1", "d.2"])
        found = compare(frame, {"": [["a.0", "d.0"]]}, spread=spread_of(frame, parents(frame)), recipes=parents(frame),
                        resamples=100)  # fmt: skip
        images += found["p"].iloc[0] < 0.05
        seeds += found["seed_p"].iloc[0] < 0.05
    assert images > 0.3 * runs
    assert 1 <= seeds <= 0.13 * runs


def test_what_is_read_together_is_corrected_together(rng: np.random.Generator) -> None:
    frame = errors(rng, {"a": 0.8, "b": 1.0, "c": 1.1, "d": 0.2})
    studies = {"one": [["a.0", "b.0"], ["b.0", "c.0"]], "two": [["d.0", "a.0"]]}
    found = compare(frame, studies, spread=spread_of(frame, parents(frame)), recipes=parents(frame))
    assert found["study"].tolist() == ["one", "one", "two"]
    np.testing.assert_allclose(found["seed_p_holm"], holm(found["seed_p"]))
    np.testing.assert_allclose(found["p_holm"], holm(found["p"]))


def test_missing_models_are_told(rng: np.random.Generator) -> None:
    frame = errors(rng, {"a": 0.5, "b": 1.0}, trainings=1)
    studies = {"known": [["a.0", "b.0"]], "other": [["a.0", "zoo/c"], ["x", "y"]]}
    found = compare(frame, studies, recipes=parents(frame))
    assert len(found) == 1
    assert [m["lacking"] for m in found.attrs["missing"]] == ["zoo/c", "x, y"]
    assert found[["seed_low", "seed_high", "seed_p", "seed_p_holm"]].isna().all(axis=None)
    assert words(found, "other") == "not in the table: c, x, y"
    assert words(found, "nowhere") == "no pair"
    assert words(found, "known").startswith("a.0 / b.0 0.")
    none = compare(frame, {"other": studies["other"]}, recipes=parents(frame))
    assert none.empty
    assert none.columns.tolist() == found.columns.tolist()
    assert len(none.attrs["missing"]) == 2
    with pytest.raises(InputError, match="'other' needs pairs"):
        compare(frame, {"other": ["ab"]}, recipes=parents(frame))


def test_words_carry_the_interval_over_seeds() -> None:
    row = {"study": "s", "first": "zoo/a", "second": "zoo/b", "ratio": 0.5, "low": 0.45, "high": 0.55}
    frame = pd.DataFrame(
        [{**row, "seed_low": 0.3, "seed_high": 0.8}, {**row, "seed_low": math.nan, "seed_high": math.nan}]
    )
    assert words(frame) == "a / b 0.50 [0.30, 0.80]; a / b 0.50 [0.45, 0.55]"


def test_pairs_are_cases_with_the_intervals_of_the_table_widened(rng: np.random.Generator) -> None:
    frame = errors(rng, {"a": 1.0, "b": 4.0, "c": 4.0})
    spread = spread_of(frame, parents(frame))
    assert spread is not None
    studies = {"one": [("a.0", "b.0")], "other": [("b.0", "a.0"), ("a.0", "c.0")]}
    found = compare(frame, studies, spread=spread, recipes=parents(frame), resamples=100)
    assert [judge(cases(found, study, spread=spread)).word for study in studies] == ["reproduced", "mixed"]
    log, many = math.log(found["ratio"][0]), (3, 3)
    error = spread.stderr(
        many, paired_ratio(frame[["a.0", "a.1", "a.2"]].T, frame[["b.0", "b.1", "b.2"]].T, resamples=100).stderr
    )
    wide = judge(cases(found, spread=spread)).cases[0]  # in the company of three
    reach = scipy.stats.t.ppf((1 + simultaneous(3)) / 2, spread.df) * error
    assert (wide.low, wide.high) == (pytest.approx(math.exp(log - reach)), pytest.approx(math.exp(log + reach)))
    over_images = judge(cases(found, "one")).cases[0]
    assert (over_images.low, over_images.high) == pytest.approx((found["low"][0], found["high"][0]))
