"""Sets of images that depart from a training set: their distances, and every model's answers to motions and foreign changes.

The table beside that of a sweep: what :mod:`lee.sweep` does not measure, of the same models on the same sets of images.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from lee import datasets, models, provenance
from lee.errors import InputError, nearest
from lee.models.recipes import has_recipe
from lee.paths import atomic_path
from lee.studies.distances import features, frechet_distance
from lee.studies.yardsticks import yardsticks
from lee.sweep import Measurement, SweepSpec
from lee.sweep.results import folder

NUMBERS = ("own", "foreign", "speed", "square", "distance", "distance_limit")
COLUMNS = (
    "model",
    "measurement",
    "image",
    *NUMBERS,
    "weights_sha256",
    "data_sha256",
    "reference",
    "lee_version",
    "commit",
)


def measure(
    spec: SweepSpec, *, reference: str, n: int = 200, device: str = "cpu", progress: bool = True
) -> pd.DataFrame:
    """Measure all models of a sweep on all its sets: translation, foreign changes of the same size, and distances.

    Args:
        spec: of its measurements only the data are used. The first one is the training set: distances are taken from
            other images of that, drawn by the next seed.
        reference: the model in whose features distances are taken.
        n: images of each set; equally many, as the bias of a distance depends on their number.
        device: where the models run.
        progress: show a bar.

    Returns:
        A row per model, measurement and image: `own`, `foreign`, `speed` and `square` of :func:`lee.studies.yardsticks.yardsticks`,
        the set's `distance` and `distance_limit` (see :func:`lee.studies.distances.frechet_distance`), and what was measured with.

    Raises:
        InputError: a model or a set can't be had, or has too few images.
    """
    sets = {way.name: way for way in spec.measurements}
    size = models.input_size(models.load(spec.models[0]))
    images, digests, home = {}, {}, next(iter(sets.values()))
    for name, way in sets.items():
        images[name], digests[name] = _images(way, n, size)
    distances = _distances(reference, images, _images(home, n, size, shift=1)[0], device)
    origin = {
        "reference": reference,
        "lee_version": provenance.versions()["lee_version"],
        "commit": provenance.commit(),
    }
    parts = []
    for model_name in tqdm(spec.models, unit="model", disable=not progress, leave=False):
        model = models.load(model_name, pretrained=_pretrained(model_name), device=device)
        about = {"model": model_name, "weights_sha256": provenance.weights_sha256(model), **origin}
        for name, x in images.items():
            part = yardsticks(model, x.to(device), seed=sets[name].seed)
            value, limit = distances[name]
            found: dict[str, Any] = {
                "measurement": name,
                "image": np.arange(len(x)),
                "distance": value,
                "distance_limit": limit,
            }
            parts.append(part.assign(**found, **about, data_sha256=digests[name]))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _pretrained(name: str) -> bool:
    """timm's models come with timm's weights."""
    return not has_recipe(name) and ":" not in name


def _images(way: Measurement, n: int, size: int | None, shift: int = 0) -> tuple[Tensor, str]:
    """The first images of a measurement, as a sweep draws them, and the digest of their files."""
    data = datasets.load(way.dataset, split=way.split, n=n, seed=way.seed + shift, size=way.size or size)
    return data.images, data.sha256


def _distances(reference: str, images: dict[str, Tensor], home: Tensor, device: str) -> dict[str, tuple[float, float]]:
    """Squared Fréchet distance of each set from other images of the training set, and its limit."""
    model = models.load(reference, pretrained=_pretrained(reference), device=device)
    origin = features(model, home.to(device))
    found = {name: frechet_distance(features(model, x.to(device)), origin) for name, x in images.items()}
    return {name: (distance.value, distance.limit) for name, distance in found.items()}


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write what :func:`measure` returned as Parquet; numbers keep seven digits.

    Args:
        frame: the table.
        path: the file.
    """
    small = frame.astype(dict.fromkeys(NUMBERS, "float32") | {"image": "int32"})
    with atomic_path(path) as temporary:
        small.to_parquet(temporary, index=False, compression="zstd")


def load(name: str | Path = "ood_yardsticks") -> pd.DataFrame:
    """Read a table that :func:`write` has written, by its name in `data/results` or its path.

    Args:
        name: a name or a path.

    Raises:
        InputError: there is no such table, or the file is another one.
    """
    path = Path(name)
    if path.suffix != ".parquet":
        path = folder() / f"{name}.parquet"
    if not path.is_file():
        known = [found.stem for found in path.parent.glob("*.parquet")] if path.parent.is_dir() else []
        raise InputError(
            f"There is no table {path.name!r} in {path.parent}.{nearest(path.stem, known)} Make it: make bench BENCH=ood"
        )
    frame = pd.read_parquet(path)
    if missing := [column for column in COLUMNS if column not in frame.columns]:
        raise InputError(f"{path} is no table of departures: it lacks {', '.join(missing)}.")
    return frame
