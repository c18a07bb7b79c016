"""One rule for the numbers that comparisons are given: what holds real ones is read alike, and the rest is refused by name."""

import fractions
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lee.errors import InputError
from lee.statistics import (
    Estimate,
    holm,
    paired_difference,
    paired_ratio,
    rank_correlation,
    seed_spread,
    set_ratio,
)

PLAIN, OTHER = [0.5, 0.25, 1.0, 0.75], [0.75, 0.5, 0.25, 1.0]

READ: dict[str, Callable[[Any], Any]] = {
    "estimate": Estimate.of,
    "difference": lambda v: paired_difference(v, OTHER),
    "difference, second": lambda v: paired_difference(OTHER, v),
    "ratio": lambda v: paired_ratio(v, OTHER),
    "sets": lambda v: set_ratio(v, OTHER),
    "sets, second": lambda v: set_ratio(OTHER, v),
    "sets, scale": lambda v: set_ratio(OTHER, OTHER, first_scale=v, second_scale=OTHER),
    "ranks": lambda v: rank_correlation(v, OTHER),
    "ranks, second": lambda v: rank_correlation(OTHER, v),
    "errors": lambda v: rank_correlation(PLAIN, OTHER, errors=(v, OTHER), resamples=100),
    "seeds": lambda v: seed_spread(v, list("aabb")),
    "holm": lambda v: holm(v).tolist(),
}

HELD: dict[str, Callable[[list[float]], Any]] = {
    "tuple": tuple,
    "array": np.array,
    "half array": lambda v: np.array(v, dtype=np.float16),
    "other byte order": lambda v: np.array(v, dtype=">f8"),
    "reversed view": lambda v: np.array(v[::-1])[::-1],
    "column": pd.Series,
    "nullable column": lambda v: pd.Series(v, dtype="Float64"),
    "float64": lambda v: torch.tensor(v, dtype=torch.float64),
    "bfloat16": lambda v: torch.tensor(v, dtype=torch.bfloat16),
    "float8": lambda v: torch.tensor(v).to(torch.float8_e5m2),
    "with a gradient": lambda v: torch.tensor(v, requires_grad=True),
    "list of tensors": lambda v: [torch.tensor(one, requires_grad=True, dtype=torch.bfloat16) for one in v],
    "fractions": lambda v: [fractions.Fraction(one) for one in v],
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("name", READ)
def test_real_numbers_are_the_same_in_whatever_holds_them(name: str, held: str) -> None:
    exact = [0.5, 0.25, 1.0, 0.75]  # in every one of these dtypes
    assert str(READ[name](HELD[held](exact))) == str(READ[name](exact))


WRONG: dict[str, Any] = {
    "complex tensor": torch.tensor([1j, 2j, 3j, 4j]),
    "complex array": np.array([1j, 2, 3, 4]),
    "complex list": [1 + 0j, 2, 3, 4],
    "words": ["1.0", "2.0", "3.0", "4.0"],
    "numbers and words": [1.0, "2", 3.0, 4.0],
    "missing": [1.0, None, 3.0, 4.0],
    "masked": np.ma.masked_array([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 0]),
    "dates": np.array(["2020-01-01"] * 4, dtype="datetime64[D]"),
    "sparse": torch.tensor([1.0, 0.0, 3.0, 4.0]).to_sparse(),
    "without values": torch.empty(4, device="meta"),
    "lengths": [[1.0, 2.0], [3.0]],
    "three axes": [[[1.0, 2.0], [3.0, 4.0]]],
    "one number": 3.0,
    "a word": "abcd",
    "a set": {1.0, 2.0, 3.0, 4.0},
    "a dictionary": {"a": 1.0},
    "nothing": None,
    "numbers to come": (float(k) for k in range(4)),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", [name for name in READ if name != "sets, scale"])
def test_what_holds_no_real_numbers_is_refused_by_name(name: str, wrong: str) -> None:
    with pytest.raises(InputError, match=r"^`(samples|first|second|values|errors|p)` must hold real numbers"):
        READ[name](WRONG[wrong])


@pytest.mark.parametrize("name", ["estimate", "ranks", "seeds", "holm", "errors"])
def test_rows_are_not_made_one_list(name: str) -> None:
    with pytest.raises(InputError, match=r"of shape \(n,\); got shape \(2, 2\)"):
        READ[name]([PLAIN[:2], PLAIN[2:]])
    with pytest.raises(InputError, match=r"of shape \(n,\); got shape \(4, 50\)"):
        Estimate.of(torch.rand(4, 50))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_mean_of_numbers_that_are_none_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"`samples` holds (nan|inf) for image 1"):
        Estimate.of(torch.tensor([1.0, value]))


def test_scales_belong_to_their_numbers() -> None:
    with pytest.raises(InputError, match=r"`second_scale` must belong to the numbers \(1, 4\)"):
        set_ratio(PLAIN, OTHER, first_scale=PLAIN, second_scale=OTHER[:3])
    with pytest.raises(InputError, match="`first_scale` must hold real numbers"):
        set_ratio(PLAIN, OTHER, first_scale=torch.tensor([1j, 2]), second_scale=OTHER)


def test_covariates_are_real_numbers_or_words() -> None:
    known = rank_correlation(PLAIN, OTHER, given={"x": [1.0, 2.0, 4.0, 3.0]})
    tensor = torch.tensor([1.0, 2.0, 4.0, 3.0], requires_grad=True).bfloat16()
    assert rank_correlation(PLAIN, OTHER, given={"x": tensor}) == known
    with pytest.raises(InputError, match="`x` must hold real numbers"):
        rank_correlation(PLAIN, OTHER, given={"x": [1j, 2, 3, 4]})
