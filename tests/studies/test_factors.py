"""Architecture against training: the analysis of variance on tables with known parts, and its intervals on simulated seeds."""

import numpy as np
import pandas as pd
import pytest

from lee.errors import InputError
from lee.statistics import Spread
from lee.studies.factors import shares

TABLE = {a: {r: f"{a}-{r}" for r in ("plain", "strong", "more")} for a in ("cnn", "vit")}


def known(within: float) -> Spread:
    return Spread(within, within, within, 1.0, 1.0, 1.0, 1.0, df=8, groups=4, n=12)


def numbers(logs: np.ndarray, n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Numbers per image whose means have these logarithms, the same image hard for all."""
    hard = np.random.default_rng(seed).lognormal(0, 1, n)
    flat = dict(zip([name for row in TABLE.values() for name in row.values()], np.exp(logs).ravel(), strict=True))
    return pd.DataFrame({name: mean * hard / hard.mean() for name, mean in flat.items()})


def test_shares_are_those_of_the_sums_of_squares() -> None:
    """Rows differ by 2, columns by (-1, 0, 1), and one cell has an interaction of its own."""
    logs = np.array([[-1.0], [1.0]]) + np.array([-1.0, 0.0, 1.0]) + np.array([[0.5, -1.0, 0.5], [-0.5, 1.0, -0.5]])
    found = shares(numbers(logs), TABLE, known(1e-6), resamples=100)
    squares = np.array([6.0, 4.0, 3.0])
    assert found["share"].to_numpy() == pytest.approx([*squares / squares.sum(), (4 / 6) ** 0.5])
    assert found["low"].to_numpy() == pytest.approx(found["high"].to_numpy(), abs=1e-4)  # images are hard for all alike
    assert (found["n"] == 400).all()


def test_intervals_know_of_seeds() -> None:
    """Where both make the same difference, the interval of their ratio holds 1, and it is far from a point."""
    truth, rng, held = (
        np.array([[-(2**0.5)], [2**0.5]]) + 3**0.5 * np.array([-1.0, 0.0, 1.0]),
        np.random.default_rng(0),
        0,
    )
    for trial in range(50):
        logs = truth + 0.5 * rng.standard_normal(truth.shape)
        (row,) = (
            shares(numbers(logs, 50, trial), TABLE, known(0.5), resamples=100, seed=trial).iloc[3:].to_dict("records")
        )
        held += row["low"] < 1 < row["high"]
        assert row["high"] > 1.3 * row["low"]
    assert held >= 42


def test_a_higher_level_has_wider_intervals() -> None:
    """As verdicts of several tables need, whose intervals hold together."""
    frame = numbers(np.array([[0.0], [1.0]]) + np.array([-1.0, 0.0, 1.0]))
    narrow, wide = (shares(frame, TABLE, known(0.5), level=level, resamples=100) for level in (0.8, 0.95))
    assert (wide["low"] < narrow["low"]).all()
    assert (narrow["high"] < wide["high"]).all()


def test_other_seeds_of_a_model_join_in() -> None:
    logs = np.array([[0.0], [1.0]]) + np.array([-1.0, 0.0, 1.0])
    frame = numbers(logs)
    frame["cnn-plain-seed1"] = frame["cnn-plain"] * np.exp(2.0)
    found = shares(frame, TABLE, known(1e-6), resamples=100)["share"]
    logs[0, 0] += 1.0  # the mean of the logarithms of both
    assert found.to_numpy() == pytest.approx(
        shares(numbers(logs), TABLE, known(1e-6), resamples=100)["share"].to_numpy()
    )


def test_bad_tables_are_refused() -> None:
    frame = numbers(np.zeros((2, 3)))
    with pytest.raises(InputError, match="two architectures or more"):
        shares(frame, {"cnn": TABLE["cnn"]}, known(0.1))
    with pytest.raises(InputError, match="each with the same"):
        shares(frame, {"cnn": TABLE["cnn"], "vit": {"plain": "vit-plain"}}, known(0.1))
    with pytest.raises(InputError, match="lack vit-more"):
        shares(frame.drop(columns="vit-more"), TABLE, known(0.1))
