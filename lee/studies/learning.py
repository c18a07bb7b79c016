"""Equivariance while it is learned: a table of networks measured after some epochs of their training, read as curves."""

import pandas as pd
import torch

from lee.geometry.generators import AnyGenerator
from lee.models.recipes import described, load_spec
from lee.statistics import Estimate
from lee.studies.variances import relative
from lee.sweep.results import Results
from lee.sweep.subjects import epoch_of

#: What is added up for each curve: errors along both axes make that of translation.
MOTIONS: dict[str, tuple[AnyGenerator, ...]] = {
    "translation": ("translation_x", "translation_y"),
    "rotation": ("rotation",),
}
# What each row says of its network.
_ABOUT = ("model", "family", "augmentation", "seed")


def epochs(model: str, weights: str) -> int:
    """How many epochs of training weights have behind them.

    Args:
        model: name of a network with a recipe.
        weights: `initial`, `trained`, or such as `epoch 13`.

    >>> epochs("zoo/vit-s", "initial"), epochs("zoo/vit-s", "epoch 13")
    (0, 13)
    """
    return load_spec(model).recipe.epochs if weights == "trained" else epoch_of(weights)


def curves(table: Results, variances: pd.DataFrame) -> pd.DataFrame:
    """LEE of every network after every epoch that was measured.

    Args:
        table: of `lee sweep data/results/learning.yaml`.
        variances: of :func:`lee.studies.variances.read` for the same table.

    Returns:
        `model`, `family`, `augmentation`, `seed`, `epoch`, `split`, `output`, `motion`, `lee`, `low`, `high` and `n` images:
        LEE of probabilities per half side², and of features in units of their variance over the same images, along
        `translation` (both axes) and `rotation`, with the interval of :meth:`lee.statistics.Estimate.interval`.

    Raises:
        InputError: a variance is missing, or a generator isn't in the span of what was measured.
    """
    tasks, rows = table.tasks, []
    kinds = tasks.loc[tasks["basis"].map(len) > 0, ["weights", "split", "output"]].drop_duplicates()
    for weights, split, output in kinds.itertuples(index=False):
        part = table.select(weights=weights, split=split, output=output, measurement="curves")
        for motion, generators in MOTIONS.items():
            of_features = output == "features"
            found = relative(part, variances, generators) if of_features else part.per_image(list(generators))
            for model in found.columns:
                estimate = Estimate.of(torch.from_numpy(found[model].to_numpy(copy=True)))
                low, high = estimate.interval()
                row = {**described(load_spec(model), *_ABOUT), "epoch": epochs(model, weights), "split": split}
                row |= {"output": output, "motion": motion, "lee": estimate.value, "low": low, "high": high}
                rows.append({**row, "n": estimate.n})
    return pd.DataFrame(rows).sort_values(["model", "output", "motion", "split", "epoch"], ignore_index=True)


def accuracies(table: Results) -> pd.DataFrame:
    """Accuracy of every network after every epoch, on images of both splits.

    Args:
        table: as for :func:`curves`.

    Returns:
        `model`, `family`, `augmentation`, `seed`, `epoch`, `split`, `accuracy` and `images`.
    """
    found = table.figures("accuracy")
    about = pd.DataFrame([described(load_spec(model), *_ABOUT) for model in found["model"]])
    done = [epochs(model, weights) for model, weights in zip(found["model"], found["weights"], strict=True)]
    joined = pd.concat([about.assign(epoch=done), found[["split", "accuracy", "images"]]], axis=1)
    return joined.sort_values(["model", "split", "epoch"], ignore_index=True)
