"""Models of a table compared in pairs: ratios of errors with intervals over images and over seeds, and what follows.

A *recipe* may have several trainings, which differ in their seeds only. A comparison of two recipes is read in two ways: the
interval over images says whether *these* networks differ, the one over seeds whether training them again would find it too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lee.errors import InputError
from lee.models.recipes import without_seed
from lee.statistics import Case, Spread, holm, paired_ratio, seed_spread
from lee.statistics.quantiles import exp

Pairs = Sequence[Sequence[str]]

COLUMNS = (
    "study", "first", "second", "first_trainings", "second_trainings", "n", "ratio", "low", "high", "p", "seed_low", "seed_high",
    "seed_p",
)  # fmt: skip


def spread_of(per_image: pd.DataFrame, recipes: Mapping[Any, str] | None = None) -> Spread | None:
    """Spread between seeds and between recipes of the logarithm of the mean error; None where no recipe was repeated.

    Args:
        per_image: A row for each image, a column for each model.
        recipes: Model → recipe; the name without its seed by default.
    """
    recipes = recipes or {name: without_seed(name) for name in per_image.columns}
    groups = [recipes[name] for name in per_image.columns]
    if len(set(groups)) < 2 or len(set(groups)) == len(groups):
        return None
    return seed_spread(np.log(per_image.mean().to_numpy()), groups)


def compare(
    per_image: pd.DataFrame,
    studies: Mapping[str, Pairs],
    *,
    spread: Spread | None = None,
    recipes: Mapping[str, str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Ratio of the mean errors of two recipes, for many pairs that are read together.

    Args:
        per_image: A row for each image, a column for each model, such as `Results.per_image` gives.
        studies: Pairs `(first, second)` of models under the name of the question that they answer. Other trainings of the same
            recipes are found and join in; of two trainings of one recipe, these two are compared.
        spread: Spread between seeds of the logarithms, from :func:`spread_of`; without it the columns on seeds are NaN.
        recipes: Model → recipe; the name without its seed by default.
        resamples: Resamples of the bootstrap over images.
        seed: Seed of the resamples.

    Returns:
        A row for each pair whose models are in the table: `study`, `first`, `second`, numbers of trainings `first_trainings` and
        `second_trainings`, `n` images, `ratio`, its 95 % interval over images `low` and `high` with `p` and, over all rows,
        Holm's `p_holm`; the same with the spread between seeds: `seed_low`, `seed_high`, `seed_p`, `seed_p_holm`. The attribute
        `frame.attrs["missing"]` lists the pairs that are left out, and the model that each lacks.

    Raises:
        InputError: If a pair isn't two names, or one name twice.
    """
    recipes = recipes or {name: without_seed(name) for name in per_image.columns}
    rows, missing = [], []
    for study, pairs in studies.items():
        for pair in pairs:
            if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
                raise InputError(f"Study {study!r} needs pairs of two models each, not {pair!r}.")
            lacking = [name for name in pair if name not in per_image.columns]
            if lacking:
                missing.append({"study": study, "first": pair[0], "second": pair[1], "lacking": ", ".join(lacking)})
                continue
            found = _row(per_image, pair, spread, recipes, resamples, seed)
            rows.append({"study": study, "first": pair[0], "second": pair[1], **found})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["p_holm"] = holm(frame["p"])
    frame["seed_p_holm"] = holm(frame["seed_p"]) if spread is not None else math.nan
    frame.attrs["missing"] = missing
    return frame


def _row(
    per_image: pd.DataFrame,
    pair: Sequence[str],
    spread: Spread | None,
    recipes: Mapping[str, str],
    resamples: int,
    seed: int,
) -> dict[str, float]:
    alone = recipes[pair[0]] == recipes[pair[1]]  # joined, both sides would be the same trainings
    joined = [
        [m for m in per_image.columns if m == name or (recipes[m] == recipes[name] and not alone)] for name in pair
    ]
    sides = [per_image[names].to_numpy().T for names in joined]
    found = paired_ratio(sides[0], sides[1], resamples=resamples, seed=seed)
    many = (len(sides[0]), len(sides[1]))
    row = {"first_trainings": many[0], "second_trainings": many[1], "n": found.n, "ratio": found.value}
    row |= {"low": found.low, "high": found.high, "p": found.p}
    if spread is None:
        return row | dict.fromkeys(("seed_low", "seed_high", "seed_p"), math.nan)
    half = spread.reach(trainings=many, over_images=found.stderr)
    log = math.log(found.value)
    ends = {"seed_low": exp(log - half), "seed_high": exp(log + half)}
    return row | ends | {"seed_p": spread.p(log, many, found.stderr)}


def cases(frame: pd.DataFrame, study: str | None = None, *, spread: Spread | None = None) -> list[Case]:
    """The pairs as cases for the statement that the first of each has the smaller error; for :func:`lee.statistics.judge`.

    Args:
        frame: Rows of :func:`compare`.
        study: Take the rows of this study only.
        spread: The spread that :func:`compare` was given: intervals are those over seeds then, else those over images.
    """
    rows = frame if study is None else frame[frame["study"] == study]
    low, high, df = ("low", "high", math.inf) if spread is None else ("seed_low", "seed_high", float(spread.df))
    return [
        Case(
            name=" / ".join(str(row[side]).removeprefix("zoo/") for side in ("first", "second")), effect=row["ratio"],
            low=row[low], high=row[high], df=df, predicted="below", scale="ratio", n=int(row["n"]),
        )
        for row in rows.to_dict("records")
    ]  # fmt: skip


def words(frame: pd.DataFrame, study: str | None = None, *, named: bool = True) -> str:
    """The ratios of a study in a sentence's form, with their intervals over seeds, or over images where seeds are unknown.

    Args:
        frame: Rows of :func:`compare`.
        study: Take the rows of this study only.
        named: Say which networks are compared; otherwise the numbers alone.
    """
    rows = frame if study is None else frame[frame["study"] == study]
    told = []
    for row in rows.to_dict("records"):
        low, high = (row["seed_low"], row["seed_high"]) if row["seed_low"] > 0 else (row["low"], row["high"])
        names = " / ".join(str(row[side]).removeprefix("zoo/") for side in ("first", "second"))
        told.append(f"{names} " * named + f"{row['ratio']:.2f} [{low:.2f}, {high:.2f}]")
    missing = [p["lacking"] for p in frame.attrs.get("missing", []) if study is None or p["study"] == study]
    lacking = {name.removeprefix("zoo/") for names in missing for name in names.split(", ")}
    if lacking:
        told.append("not in the table: " + ", ".join(sorted(lacking)))
    return "; ".join(told) or "no pair"
