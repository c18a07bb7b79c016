"""The networks that were trained for equivariance: by name for a sweep, what was measured of them, and costs (chapter 11).

Each network of `data/equivariance/equivariance.yaml` is an attribute of this module that loads it, so that a sweep can name
it: `lee.equivariance:resnet-1`. Networks that differ in the seed alone (`resnet-1`, `resnet-1-seed1`) form a row.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lee import datasets, provenance, rotmnist
from lee.cards import read_front_matter
from lee.datasets import ImageSet
from lee.errors import InputError
from lee.measuring import untouched
from lee.models import Normalized
from lee.paths import atomic_path, zoo_dir
from lee.recipes import ZooSpec, load_specs
from lee.results import Results
from lee.statistics import Estimate
from lee.training import EquivariancePenalty, evaluate, train
from lee.training.penalty import unit_generators

#: What is measured beside the generators of a recipe's penalty: the rest of the affine algebra, unseen by any penalty.
OTHER = ("scale", "hyperbolic", "squeeze")
#: Names for people, and the labelled sets behind accuracies and moved shares.
SETS = {
    "clean": "cifar10",
    **{f"{kind} {i}": f"cifar10-c/gaussian_{kind}/{i}" for kind in ("noise", "blur") for i in (1, 3, 5)},
    **{f"contrast {i}": f"cifar10-c/contrast/{i}" for i in (1, 3, 5)},
}
_PREFIX = f"{__name__}:"
_COLUMNS = ("name", "row", "family", "seed", "penalty", "set", "accuracy", "images", "moved", "moved_se", "other")


def recipes() -> Path:
    """Return the file with the networks; their weights and cards lie beside it.

    Raises:
        InputError: there is no such file, because lee was installed without it.
    """
    file = zoo_dir().parent / "equivariance" / "equivariance.yaml"
    if not file.is_file():
        raise InputError(f"There is no {file}. Clone the repository: the installed package leaves these networks out.")
    return file


def load(name: str, file: Path | None = None) -> Normalized:
    """Load a trained network of a recipe file, in eval mode; its `class_names` say what its outputs stand for.

    Raises:
        InputError: an unknown name, or weights that are missing or not those of the card.
    """
    file = file or recipes()
    model = rotmnist.load(name, file)
    model.class_names = datasets.load(load_specs(file)[name].recipe.dataset, n=1).class_names  # type: ignore[assignment]
    return model


def __getattr__(name: str) -> Callable[[], Normalized]:
    """The network of this name, for `lee.models.load("lee.equivariance:NAME")`."""
    if not name.startswith("_") and name in load_specs(recipes()):
        return partial(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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


def measure(
    names: Sequence[str], sets: Mapping[str, str] = SETS, *, n: int = 1000, n_moved: int = 200, file: Path | None = None
) -> pd.DataFrame:
    """Accuracy and moved shares of trained networks on several sets of labelled images.

    Args:
        names: networks of the recipe file.
        sets: names for people, and the data sets that `lee.datasets.load` knows.
        n: images behind an accuracy.
        n_moved: the first of these, behind a moved share.
        file: a recipe file; the chapter's own by default.

    Returns:
        A row per network and set: `name`, `row`, `family`, `seed`, `penalty`, `set`, `accuracy`, `images`, `moved` and
        `moved_se` (generators of the recipe), `other` (:data:`OTHER`), then digests and versions.
    """
    file, rows = file or recipes(), []
    loaded = {key: datasets.load(name, n=n) for key, name in sets.items()}
    for name in names:
        spec, model = load_specs(file)[name], load(name, file)
        about = {"name": name, **_described(spec)}
        origin = {"weights_sha256": read_front_matter(name, file.parent)["sha256"], **_origin()}
        for key, data in loaded.items():
            rows.append({**about, "set": key, **_measured(model, spec, data, n_moved), **origin})
    return pd.DataFrame(rows)


def _described(spec: ZooSpec) -> dict[str, Any]:
    row = rotmnist.row_of(spec.name)
    return {"row": row, "family": spec.family, "seed": spec.recipe.seed, "penalty": spec.recipe.penalty}


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


def step_seconds(names: Sequence[str], *, steps: int = 4, repeats: int = 3, file: Path | None = None) -> pd.Series:
    """Processor seconds per training step of recipes, the least of several short trainings in turn, by name.

    Args:
        names: networks of the recipe file; they need not be trained.
        steps: of each short training.
        repeats: how often each is timed.
        file: a recipe file; the chapter's own by default.
    """
    specs = load_specs(file or recipes())
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


def trained(file: Path | None = None) -> list[str]:
    """Return the networks whose weights lie beside the recipe file and are those of their cards."""
    return rotmnist.trained(file or recipes())


def cards(names: Sequence[str], file: Path | None = None) -> pd.DataFrame:
    """What the cards of networks say: a row each.

    Returns:
        `name`, `row`, `family`, `seed`, `penalty`, `title`, `accuracy` (all test images), `epochs`, `seconds_per_epoch` (of wall
        time), `parameters` and `images` (to train on).
    """
    file, rows = file or recipes(), []
    specs = load_specs(file)
    for name in names:
        card, spec = read_front_matter(name, file.parent), specs[name]
        rows.append(
            {
                "name": name,
                **_described(spec),
                "title": spec.title,
                "accuracy": card["test_accuracy"],
                "epochs": card["recipe"]["epochs"],
                "seconds_per_epoch": 60 * card["minutes"] / card["recipe"]["epochs"],
                "parameters": card["parameters"],
                "images": card["data"]["train_images"],
            }
        )
    return pd.DataFrame(rows)


def errors(table: Results, generators: Sequence[str]) -> pd.DataFrame:
    """LEE of every network of a sweep on every set, summed over generators that move pixels by one pixel.

    Args:
        table: of `lee sweep data/results/equivariance.yaml`.
        generators: names in the span of what was measured.

    Returns:
        `name`, `row`, `family`, `seed`, `penalty`, `set`, `lee` and `stderr` (over images), per pixel².
    """
    specs, rows = load_specs(recipes()), []
    for measurement in dict.fromkeys(table.tasks["measurement"]):
        values = _per_image(table.select(measurement=measurement), generators)
        for name in values.columns:
            estimate = Estimate.of(torch.from_numpy(values[name].to_numpy(copy=True)))
            about = {"name": name, **_described(specs[name]), "set": measurement}
            rows.append({**about, "lee": estimate.value, "stderr": estimate.stderr})
    return pd.DataFrame(rows)


def gaps(table: Results, row: str, base: str, generators: Sequence[str], *, level: float = 0.95) -> pd.DataFrame:
    """What a row changes in the LEE of another, seed by seed and set by set, in pairs over images.

    Args:
        table: as for :func:`errors`.
        row: such as `resnet-1`.
        base: such as `resnet`.
        generators: as for :func:`errors`.
        level: of the intervals, normal ones for a mean difference over images.

    Returns:
        `row`, `base`, `seed`, `set`, and the mean difference of LEE as a share of the base's: `change`, `low`, `high`. Seeds of
        which one of the two is not there are left out.
    """
    quantile, rows = NormalDist().inv_cdf((1 + level) / 2), []
    specs = load_specs(recipes())
    for measurement in dict.fromkeys(table.tasks["measurement"]):
        values = _per_image(table.select(measurement=measurement), generators)
        for name in values.columns:
            other = name.replace(row, base, 1)
            if rotmnist.row_of(name) != row or other not in values:
                continue
            gap = Estimate.of(torch.from_numpy((values[name] - values[other]).to_numpy(copy=True)))
            size = values[other].mean()
            change, half = gap.value / size, quantile * gap.stderr / size
            about = {"row": row, "base": base, "seed": specs[name].recipe.seed, "set": measurement}
            rows.append({**about, "change": change, "low": change - half, "high": change + half})
    return pd.DataFrame(rows, columns=["row", "base", "seed", "set", "change", "low", "high"])


def _per_image(table: Results, generators: Sequence[str]) -> pd.DataFrame:
    """Sums over generators of squared derivatives: a row per image and a column per network, per pixel²."""
    pixel = 2 / 32
    parts = [table.per_image(pixel * generator) for generator in unit_generators(generators)]
    return sum(parts[1:], parts[0]).rename(columns=lambda name: name.removeprefix(_PREFIX))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Join the seeds of each row and set, in the frame's order.

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


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write what :func:`measure` returned as Parquet, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")


def read(path: Path) -> pd.DataFrame:
    """Read a table that :func:`write` wrote.

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
