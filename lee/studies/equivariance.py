"""The networks that were trained for equivariance, `penalty/…`: what was measured of them, and costs (chapter 11).

Networks that differ in the seed alone (`penalty/resnet-1`, `penalty/resnet-1-seed1`) form a row, `resnet-1`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from lee.models.cards import read_card
from lee.models.recipes import described, load_specs, without_seed
from lee.statistics import paired_ratio
from lee.statistics.quantiles import quantile
from lee.sweep.results import Results
from lee.training.penalty import unit_generators

__all__ = ["cards", "VARIANTS", "label", "ordered", "base_of", "scores", "gaps", "summary", "costs"]

#: What the end of a row's name says of its network, in the order of tables.
VARIANTS = {
    "": "as it is", "0.1": "penalty 0.1", "1": "penalty 1", "10": "penalty 10", "blur": "blurred strides",
    "filtered": "filtered ReLUs", "blur-1": "blurred strides and penalty 1", "filtered-1": "filtered ReLUs and penalty 1",
}  # fmt: skip
#: What the rows of tables say of their networks.
ABOUT = ("row", "family", "seed", "penalty")


def cards(names: Sequence[str]) -> pd.DataFrame:
    """What the cards of networks say: a row each.

    Args:
        names: of networks.

    Returns:
        `name`, `row`, `family`, `seed`, `penalty`, `epochs`, `parameters` and `images` (to train on).
    """
    specs, rows = load_specs(), []
    for name in names:
        card, spec = read_card(specs[name]), specs[name]
        numbers = {"epochs": card["recipe"]["epochs"], "parameters": card["parameters"]}
        rows.append({"name": name, **described(spec, *ABOUT), **numbers, "images": card["data"]["train_images"]})
    return pd.DataFrame(rows)


def base_of(row: str) -> str:
    """The row of the same architecture without penalty and anti-aliasing: `resnet-1` is to be compared with `resnet`.

    Args:
        row: its name.
    """
    return row.partition("-")[0]


def label(row: str) -> str:
    """A row's name for people, such as `ResNet, penalty 1`.

    Args:
        row: its name.
    """
    base, _, variant = row.partition("-")
    return f"{'ResNet' if base == 'resnet' else 'ViT'}, {VARIANTS.get(variant, variant)}"


def ordered(rows: Iterable[str]) -> list[str]:
    """Rows, each once, in the order of tables: by architecture, then as in :data:`VARIANTS`.

    Args:
        rows: names of rows.
    """
    place = {variant: i for i, variant in enumerate(VARIANTS)}
    return sorted(set(rows), key=lambda row: (base_of(row), place.get(row.partition("-")[2], len(place)), row))


def scores(table: Results) -> pd.DataFrame:
    """Accuracy and moved shares of every network of a sweep on every set.

    Args:
        table: of `lee sweep data/results/equivariance.yaml`.

    Returns:
        `name`, `row`, `family`, `seed`, `penalty`, `set`, `accuracy`, `images` (behind it), and per pixel² `moved` (generators of
        the penalty) and `other` (generators that no penalty has seen); `accuracy_half` and `moved_half` are half the
        widths of normal 95 % intervals over images. In the order of the recipes, clean first.
    """
    specs = load_specs()
    keys = ["model", "measurement"]
    frame = table.figures("accuracy").merge(table.figures("moved")[[*keys, "moved", "moved_se", "other"]], on=keys)
    about = pd.DataFrame([{"name": name, **described(specs[name], *ABOUT)} for name in frame["model"]])
    normal = quantile(0.95, math.inf)
    frame["accuracy_half"] = normal * (frame["accuracy"] * (1 - frame["accuracy"]) / frame["images"]) ** 0.5
    frame["moved_half"] = normal * frame["moved_se"]
    columns = ["accuracy", "images", "moved", "other", "accuracy_half", "moved_half"]
    joined = pd.concat([about, frame["measurement"].rename("set"), frame[columns]], axis=1)
    order = list(specs)
    return joined.sort_values(
        ["name", "set"], key=lambda c: c.map(order.index) if c.name == "name" else c != "clean", ignore_index=True
    )


def gaps(table: Results, row: str, base: str, generators: Sequence[str], *, by_seed: bool = True) -> pd.DataFrame:
    """What a row changes in the LEE of another, set by set, in pairs over images; see :func:`lee.statistics.paired_ratio`.

    Args:
        table: of `lee sweep data/results/equivariance.yaml`.
        row: such as `resnet-1`.
        base: such as `resnet`.
        generators: names in the span of what was measured; their errors are added.
        by_seed: compare seed with seed; otherwise all seeds of the row with all of the base.

    Returns:
        `row`, `base`, `seed`, `set`, and the ratio of the mean LEE less one: `change` with its 95 % interval `low` to `high`.
        Seeds of which one of the two is not there are left out; joined seeds have the number −1.
    """
    specs, rows = load_specs(), []
    for measurement, values in _by_set(table, generators):
        seeds = {
            of: {specs[n].recipe.seed: n for n in values.columns if without_seed(specs[n].stem) == of}
            for of in (row, base)
        }
        both = sorted(seeds[row].keys() & seeds[base].keys())
        for group in [[seed] for seed in both] if by_seed else [both] if both else []:
            first, second = (values[[seeds[of][seed] for seed in group]].to_numpy().T for of in (row, base))
            found = paired_ratio(first, second)
            about = {"row": row, "base": base, "seed": group[0] if by_seed else -1, "set": measurement}
            rows.append({**about, "change": found.value - 1, "low": found.low - 1, "high": found.high - 1})
    return pd.DataFrame(rows, columns=["row", "base", "seed", "set", "change", "low", "high"])


def _by_set(table: Results, generators: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Squared derivatives of probabilities on every set, summed over generators, per pixel²: images by networks."""
    pixel, chosen = 2 / 32, table.select(output="probabilities")
    for name in dict.fromkeys(chosen.tasks["measurement"]):
        part = chosen.select(measurement=name)
        yield name, part.per_image([pixel * generator for generator in unit_generators(generators)])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Join the seeds of each row and set, in the frame's order.

    Args:
        frame: of :func:`scores`.

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


def costs(steps: "pd.Series[float]", cards: pd.DataFrame) -> pd.DataFrame:
    """What each row cost to train, in the order of tables.

    Args:
        steps: processor seconds of a training step of each row.
        cards: of :func:`lee.studies.equivariance.cards`.

    Returns:
        Indexed by row: `parameters`, `epochs`, `seeds`, `ms per step`, `times as long` as its base (NaN without one), and the
        `seconds per epoch` that follow for batches of 128 images.
    """
    told = cards.groupby("row").agg(
        parameters=("parameters", "first"), epochs=("epochs", "first"), seeds=("seed", "nunique")
    )
    told = told.loc[ordered(told.index)]
    told["ms per step"] = 1000 * steps
    told["times as long"] = [steps[row] / steps.get(base_of(row), float("nan")) for row in told.index]
    told["seconds per epoch"] = steps * (cards["images"].max() // 128)
    return told
