"""The networks of rotated MNIST: trained here or read from a sweep, and seeds joined to rows (chapter 9).

Networks that differ in the seed alone (`rotmnist/p4`, `rotmnist/p4-seed1`, ...) belong together.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lee import datasets
from lee.datasets import ImageSet
from lee.geometry.generators import ROTATION
from lee.measure.derivative import equivariance_gram
from lee.metrics.turntable import DEGREES, IMAGES, TURNED, figures
from lee.models import Normalized
from lee.models.cards import read_card
from lee.models.recipes import Recipe, described, load_specs
from lee.statistics import Estimate
from lee.studies.comparisons import spread_of
from lee.sweep.results import Results
from lee.training import evaluate, train

_ABOUT = ("name", "row", "title", "family", "seed", "epochs", "augmentation")
_TURNED = ("relative", "quarter", "angle", "accuracy", "probability", "change")


def live(file: Path, names: Iterable[str] | None = None, **options: Any) -> tuple[pd.DataFrame, dict[str, Normalized]]:
    """Train networks here and now and measure each; for recipes of seconds.

    Args:
        file: a recipe file.
        names: some of its networks; all by default.
        **options: of `measure`.

    Returns:
        A row per network, with lists in `lee` and in the columns of the curves, and the networks by name.
    """
    rows, trained = [], {}
    for name, spec in load_specs(file).items():
        if names is not None and name not in names:
            continue
        sets = [datasets.load(spec.recipe.dataset, split=split) for split in ("train", "test")]
        result = train(spec, *sets, progress=False)
        trained[name] = result.model
        about = {**described(spec, *_ABOUT), "parameters": sum(p.numel() for p in result.model.parameters())}
        rows.append({**about, "minutes": result.minutes, **measure(result.model, sets[1], **options)})
    return pd.DataFrame(rows), trained


def measure(
    model: nn.Module, test_set: ImageSet, *, n: int = IMAGES, n_turned: int = TURNED, degrees: Sequence[float] = DEGREES
) -> dict[str, Any]:
    """Measure a network: `error` on the whole test set, `lee` per image of the first `n`, and `figures` of these.

    Args:
        model: takes images in [0, 1], returns scores.
        test_set: labelled images.
        n: images behind `lee`.
        n_turned: images behind the curves.
        degrees: angles of the curves; the first is 0.

    Returns:
        `error` in [0, 1], of `tested` images; `lee` (n,), of probabilities under rotation, per radian²; and what `figures` says.

    Raises:
        InputError: no labels.
    """
    images, error = test_set.images[:n], 1 - evaluate(model, test_set)
    assert test_set.labels is not None  # evaluate refuses a set without
    gram = equivariance_gram(model, images, generators=[ROTATION], progress=False)
    lee = gram.lee_per_image(ROTATION).double().tolist()
    turned = figures(model, images, test_set.labels, n_turned=n_turned, degrees=degrees)
    return {"error": error, "tested": len(test_set.images), "lee": lee, **turned}


def measured(table: Results) -> pd.DataFrame:
    """The networks of a sweep, in the order of their recipes, with what their cards say: a table as of `live`.

    Args:
        table: of `lee sweep data/results/rotmnist.yaml`.
    """
    rows = []
    scores, turns = (table.figures(name).set_index("model") for name in ("accuracy", "turntable"))
    errors = 1 - scores["accuracy"]
    lee = table.per_image(ROTATION)
    for name, spec in load_specs().items():
        if name not in lee:
            continue
        card = read_card(spec)
        trained = replace(spec, recipe=Recipe(**card["recipe"]))
        about = {**described(trained, *_ABOUT), "parameters": card["parameters"]}
        numbers = {"error": errors[name], "tested": scores["images"][name], "lee": lee[name].to_numpy()}
        rows.append({**about, "minutes": card["minutes"], **numbers, **turns.loc[name, list(_TURNED)]})
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Join the seeds of each row, in the frame's order.

    Intervals of 95 % are on the logarithmic scale. They hold the (skewed) spread over images; where some networks were trained from
    several seeds, also the spread between seeds, pooled over all rows.

    Args:
        frame: of :func:`live` or :func:`measured`.

    Returns:
        `row`, `title`, `seeds`, `error` (mean over seeds), `lee` (mean over seeds and images), each with `_low` and `_high`
        (NaN for an error of 0), `relative`, `quarter` (largest), `parameters`, `minutes` and `epochs`.
    """
    lee = frame["lee"].map(np.mean)
    rows_of = {place: str(row) for place, row in frame["row"].items()}
    spreads = [spread_of(v.to_frame().T, rows_of) if (v > 0).all() else None for v in (frame["error"], lee)]
    rows = []
    for row, group in frame.groupby("row", sort=False):
        seeds, error = len(group), float(group["error"].mean())
        found = Estimate.of(torch.tensor(np.mean(np.stack(group["lee"].map(np.asarray).tolist()), 0)))
        halves = [spread.reach(trainings=(seeds,)) if spread else 0.0 for spread in spreads]
        error_low, error_high = _interval(error, _of_share(error, group["tested"].iloc[0]), halves[0])
        lee_low, lee_high = _interval(found.value, found.interval(), halves[1])
        rows.append({
            "row": row, "title": group["title"].iloc[0], "seeds": seeds, "error": error, "lee": found.value,
            "error_low": error_low, "error_high": error_high, "lee_low": lee_low, "lee_high": lee_high,
            "relative": group["relative"].mean(), "quarter": group["quarter"].max(),
            "parameters": int(group["parameters"].iloc[0]), "minutes": group["minutes"].mean(),
            "epochs": int(group["epochs"].iloc[0]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _of_share(share: float, n: float) -> tuple[float, float]:
    """Interval of a share of `n` images, which is skewed where it is small."""
    if not 0 < share < 1 or not n > 1:
        return math.nan, math.nan
    variance = share * (1 - share)
    return Estimate(share, (variance / (n - 1)) ** 0.5, int(n), skew=(1 - 2 * share) / variance**0.5).interval()


def _interval(value: float, over_images: tuple[float, float], over_seeds: float) -> tuple[float, float]:
    """Both parts added in quadrature, on the logarithmic scale and on each side by itself."""
    low, high = over_images
    if not value > 0 or math.isnan(low):
        return math.nan, math.nan
    below = math.hypot(math.log(value / low) if low > 0 else math.inf, over_seeds)
    return value * math.exp(-below), value * math.exp(math.hypot(math.log(high / value), over_seeds))


def followed(frame: pd.DataFrame) -> pd.DataFrame:
    """The curves of all rows, averaged over seeds: `row`, `angle`, `accuracy`, `probability`, `change`.

    Args:
        frame: of :func:`live` or :func:`measured`.
    """
    parts = []
    for row in frame.index:
        columns = {column: frame.at[row, column] for column in _TURNED[2:]}
        parts.append(pd.DataFrame({"row": frame.at[row, "row"], **columns}))
    joined = pd.concat(parts)
    return joined.groupby(["row", "angle"], sort=False).mean().reset_index()
