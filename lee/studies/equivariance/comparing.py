"""What a penalty or a layer changes: seeds joined, and the errors of a sweep in pairs over images."""

from collections.abc import Sequence
from statistics import NormalDist

import pandas as pd
import torch

from lee.models.recipes import load_specs, without_seed
from lee.statistics import Estimate, paired_ratio
from lee.studies.equivariance.networks import base_of, described, ordered
from lee.sweep.results import Results
from lee.training.penalty import unit_generators


def errors(table: Results, generators: Sequence[str]) -> pd.DataFrame:
    """LEE of every network of a sweep on every set, summed over generators that move pixels by one pixel.

    Args:
        table: of `lee sweep data/results/equivariance.yaml`.
        generators: names in the span of what was measured.

    Returns:
        `name`, `row`, `family`, `seed`, `penalty`, `set`, `lee` and `stderr` (over images), per pixel².
    """
    specs, rows = load_specs(), []
    for measurement in dict.fromkeys(table.tasks["measurement"]):
        values = _per_image(table.select(measurement=measurement), generators)
        for name in values.columns:
            estimate = Estimate.of(torch.from_numpy(values[name].to_numpy(copy=True)))
            about = {"name": name, **described(specs[name]), "set": measurement}
            rows.append({**about, "lee": estimate.value, "stderr": estimate.stderr})
    return pd.DataFrame(rows)


def gaps(
    table: Results, row: str, base: str, generators: Sequence[str], *, by_seed: bool = True, level: float = 0.95,
    resamples: int = 2000,
) -> pd.DataFrame:  # fmt: skip
    """What a row changes in the LEE of another, set by set, in pairs over images; see :func:`lee.statistics.paired_ratio`.

    Args:
        table: as for :func:`errors`.
        row: such as `resnet-1`.
        base: such as `resnet`.
        generators: as for :func:`errors`.
        by_seed: compare seed with seed; otherwise all seeds of the row with all of the base.
        level: of the intervals, by bootstrap over images.
        resamples: number of resamples.

    Returns:
        `row`, `base`, `seed`, `set`, and the ratio of the mean LEE less one: `change`, `low`, `high`. Seeds of which one of the
        two is not there are left out; joined seeds have the number −1.
    """
    specs, rows = load_specs(), []
    for measurement in dict.fromkeys(table.tasks["measurement"]):
        values = _per_image(table.select(measurement=measurement), generators)
        seeds = {
            of: {specs[n].recipe.seed: n for n in values.columns if without_seed(specs[n].stem) == of}
            for of in (row, base)
        }
        both = sorted(seeds[row].keys() & seeds[base].keys())
        for group in [[seed] for seed in both] if by_seed else [both] if both else []:
            first, second = (values[[seeds[of][seed] for seed in group]].to_numpy().T for of in (row, base))
            found = paired_ratio(first, second, level, resamples=resamples)
            about = {"row": row, "base": base, "seed": group[0] if by_seed else -1, "set": measurement}
            rows.append({**about, "change": found.value - 1, "low": found.low - 1, "high": found.high - 1})
    return pd.DataFrame(rows, columns=["row", "base", "seed", "set", "change", "low", "high"])


def _per_image(table: Results, generators: Sequence[str]) -> pd.DataFrame:
    """Sums over generators of squared derivatives: a row per image and a column per network, per pixel²."""
    pixel = 2 / 32
    parts = [table.per_image(pixel * generator) for generator in unit_generators(generators)]
    return sum(parts[1:], parts[0])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Join the seeds of each row and set, in the frame's order.

    Args:
        frame: of `measure`.

    Returns:
        `row`, `family`, `penalty`, `set`, `seeds`, and the means of `accuracy`, `moved` and `other`; the first two also with
        the standard deviation over seeds (`_sd`, NaN for one).
    """
    groups = frame.groupby(["row", "family", "penalty", "set"], sort=False)
    joined = groups.agg(
        seeds=("seed", "nunique"),
        accuracy=("accuracy", "mean"),
        accuracy_sd=("accuracy", "std"),
        moved=("moved", "mean"),
        moved_sd=("moved", "std"),
        other=("other", "mean"),
    )
    return joined.reset_index()


def costs(frame: pd.DataFrame, cards: pd.DataFrame, *, batch_size: int = 128) -> pd.DataFrame:
    """What each row cost to train, in the order of tables.

    Args:
        frame: of `measure`, with the processor seconds of a training step of each row in `step_seconds`.
        cards: of :func:`lee.studies.equivariance.cards`.
        batch_size: images per step.

    Returns:
        Indexed by row: `parameters`, `epochs`, `seeds`, `ms per step`, `times as long` as its base (NaN without one), and the
        `seconds per epoch` that follow.
    """
    steps = frame.groupby("row")["step_seconds"].first()
    told = cards.groupby("row").agg(
        parameters=("parameters", "first"), epochs=("epochs", "first"), seeds=("seed", "nunique")
    )
    told = told.loc[ordered(told.index)]
    told["ms per step"] = 1000 * steps
    told["times as long"] = [steps[row] / steps.get(base_of(row), float("nan")) for row in told.index]
    told["seconds per epoch"] = steps * (cards["images"].max() // batch_size)
    return told


def with_all_images(frame: pd.DataFrame, cards: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Put the cards' accuracy on all clean test images in place of that on some, and intervals over images beside it.

    Args:
        frame: of `measure`.
        cards: of :func:`lee.studies.equivariance.cards`.
        level: of the intervals, normal ones.

    Returns:
        A copy of the frame with the new `accuracy` and `images`; `accuracy_half` and `moved_half` are half the intervals' widths.
    """
    quantile, clean = NormalDist().inv_cdf((1 + level) / 2), frame["set"] == "clean"
    told = cards.set_index("name")
    joined = frame.assign(
        accuracy=frame["accuracy"].mask(clean, frame["name"].map(told["accuracy"])),
        images=frame["images"].mask(clean, frame["name"].map(told["test_images"])),
    )
    joined["accuracy_half"] = quantile * (joined["accuracy"] * (1 - joined["accuracy"]) / joined["images"]) ** 0.5
    joined["moved_half"] = quantile * joined["moved_se"]
    return joined
