"""Accuracy, moved shares and costs of the networks: the table behind the chapter, written and read."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lee import datasets, models, provenance
from lee.datasets import ImageSet
from lee.errors import InputError
from lee.measure.function import untouched
from lee.models import Normalized
from lee.models.cards import read_card
from lee.models.recipes import ZooSpec, load_specs
from lee.paths import atomic_path
from lee.statistics import Estimate
from lee.studies.equivariance.networks import described
from lee.training import EquivariancePenalty, evaluate, train

#: What is measured beside the generators of a recipe's penalty: the rest of the affine algebra, unseen by any penalty.
OTHER = ("scale", "hyperbolic", "squeeze")
#: Names for people, and the labelled sets behind accuracies and moved shares.
SETS = {
    "clean": "cifar10",
    **{f"{kind} {i}": f"cifar10-c/gaussian_{kind}/{i}" for kind in ("noise", "blur") for i in (1, 3, 5)},
    **{f"contrast {i}": f"cifar10-c/contrast/{i}" for i in (1, 3, 5)},
}
_COLUMNS = ("name", "row", "family", "seed", "penalty", "set", "accuracy", "images", "moved", "moved_se", "other")


def moved_share(
    model: nn.Module, images: Tensor, generators: Sequence[str], *, chunk: int = 50, kernel: str = "fourier"
) -> Estimate:
    """The penalty of `lee.training.EquivariancePenalty`, exactly, in eval mode, with its standard error over images.

    The error is that of a ratio of two means over the same images, to first order.

    Args:
        model: a classifier, (N, classes) scores.
        images: (N, C, H, W), 2 or more.
        generators: K names.
        chunk: images per pass.
        kernel: interpolation kernel.
    """
    penalty = EquivariancePenalty(generators, "exact", kernel=kernel)
    parts = [part for part in images.split(chunk) if len(part) > 1]
    with untouched(model), torch.no_grad():
        terms = [penalty.terms(model, part) for part in parts]
    scores, moved = torch.cat([t[0] for t in terms]).double(), torch.cat([t[1] for t in terms]).double()
    squares, spread = moved.square().sum(-1), (scores - scores.mean(0)).square().sum(-1)
    share = squares.mean() / spread.mean()
    rest = Estimate.of((squares - share * spread) / spread.mean(), unit="per pixel²", kernel=kernel, name="moved share")
    return rest._replace(value=float(share))


def measure(names: Sequence[str], sets: Mapping[str, str] = SETS, *, n: int = 1000, n_moved: int = 200) -> pd.DataFrame:
    """Accuracy and moved shares of trained networks on several sets of labelled images.

    Args:
        names: such as `penalty/resnet-1`.
        sets: names for people, and the data sets that `lee.datasets.load` knows.
        n: images behind an accuracy.
        n_moved: the first of these, behind a moved share.

    Returns:
        A row per network and set: `name`, `row`, `family`, `seed`, `penalty`, `set`, `accuracy`, `images`, `moved` and
        `moved_se` (generators of the recipe), `other` (:data:`OTHER`), then digests and versions.
    """
    specs, rows = load_specs(), []
    loaded = {key: datasets.load(name, n=n) for key, name in sets.items()}
    for name in names:
        spec, model = specs[name], models.load(name)
        about = {"name": name, **described(spec)}
        origin = {"weights_sha256": read_card(spec)["sha256"], **_origin()}
        for key, data in loaded.items():
            rows.append({**about, "set": key, **_measured(model, spec, data, n_moved), **origin})
    return pd.DataFrame(rows)


def _measured(model: Normalized, spec: ZooSpec, data: ImageSet, n_moved: int) -> dict[str, Any]:
    moved = moved_share(model, data.images[:n_moved], spec.recipe.penalty_generators)
    return {
        "accuracy": evaluate(model, data),
        "images": len(data),
        "moved": moved.value,
        "moved_se": moved.stderr,
        "other": moved_share(model, data.images[:n_moved], OTHER).value,
        "data_sha256": data.sha256,
    }


def _origin() -> dict[str, Any]:
    return {"commit": provenance.commit() or "", **provenance.versions()}


def step_seconds(names: Sequence[str], *, steps: int = 4, repeats: int = 3) -> pd.Series:
    """Processor seconds per training step of recipes, the least of several short trainings in turn, by name.

    Args:
        names: such as `penalty/resnet-1`; they need not be trained.
        steps: of each short training.
        repeats: how often each is timed.
    """
    specs = load_specs()
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            recipe = replace(specs[name].recipe, epochs=1, warmup_epochs=0.0, fraction=1.0)
            data = datasets.load(recipe.dataset, split="train", n=steps * recipe.batch_size)
            few = datasets.load(recipe.dataset, n=2)
            start = time.process_time()
            train(replace(specs[name], recipe=recipe), data, few, progress=False)
            found[name].append((time.process_time() - start) / steps)
    return pd.Series({name: min(values) for name, values in found.items()}, name="seconds")


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write what :func:`measure` returned as Parquet, in one step.

    Args:
        frame: the table.
        path: the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")


def read(path: Path) -> pd.DataFrame:
    """Read a table that :func:`write` wrote.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing or is no such table.
    """
    again = "Make it: make bench BENCH=equivariance"
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no table of trained networks: {str(error).splitlines()[0]}. {again}") from error
    if missing := [column for column in _COLUMNS if column not in frame.columns]:
        raise InputError(f"{path} is no table of trained networks: it lacks {', '.join(missing)}. {again}")
    return frame
