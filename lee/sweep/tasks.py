"""The tasks of a sweep, and the name of each: a digest of all that its numbers follow from."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Any

import lee.models
from lee import datasets, provenance
from lee.datasets import ImageSet
from lee.errors import InputError
from lee.models import Normalized
from lee.models.recipes import has_recipe, has_weights, load_spec
from lee.sweep.spec import Measurement
from lee.sweep.subjects import epoch_of, family_of
from lee.sweep.table import SCHEMA

_DESCRIBED = ("dataset", "split", "output", "kernel", "boundary", "align_corners", "n", "seed", "size")
#: What :func:`images_of` takes: data set, split, how many, seed and size.
Place = tuple[str, str, int | None, int | None, int | None]


@dataclass(frozen=True)
class Task:
    """One model with one set of weights, measured in one way.

    Args:
        model: a name that `lee.models.load` knows.
        family: of architectures; a label, and no part of the key.
        measurement: what is measured and on which images.
        weights_sha256: digest of the weights; empty if the model can't be loaded.
        architecture_sha256: digest of its structure and normalisation, and of the source of a user's factory.
        data_sha256: digest of the data set's files.
        images_sha256: digest of all images that its numbers follow from, see :func:`digest_of_images`. No part of the key, as
            tables that were made before it are still current; a table that has it is compared with it.
    """

    model: str
    family: str
    measurement: Measurement
    weights_sha256: str
    architecture_sha256: str
    data_sha256: str
    images_sha256: str = ""

    @cached_property
    def key(self) -> str:
        """The task's name: 20 hexadecimal digits of a digest of what says so above, and of the schema.

        No version of the package is in it: what changes numbers raises `lee.sweep.table.SCHEMA`.
        """
        content = {"schema": SCHEMA, **asdict(self)}
        del content["family"], content["images_sha256"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def described(self) -> dict[str, Any]:
        """What the table says about the task, beside its numbers."""
        way = self.measurement
        return {
            "model": self.model,
            "family": self.family,
            "weights": way.weights,
            "measurement": way.name,
            **{key: getattr(way, key) for key in _DESCRIBED},
            "measures": {name: dict(options) for name, options in way.measures.items()},
            "weights_sha256": self.weights_sha256,
            "data_sha256": self.data_sha256,
            "images_sha256": self.images_sha256,
        }  # fmt: skip


@lru_cache(maxsize=2)
def model_of(name: str, weights: str, device: str) -> Normalized:
    """The model with its trained or initial weights, or those of an epoch; the last two are kept, as tasks come model by model."""
    trained = weights == "trained"
    if epoch := epoch_of(weights):
        if not has_recipe(name):
            raise InputError(f"{name} has no weights after single epochs; only networks trained by `lee train` have.")
        path = load_spec(name).snapshot(epoch)
        if not path.is_file():
            raise InputError(
                f"There is no {path}: train {name} with `lee train {name} --snapshots`, which keeps some epochs."
            )
        return lee.models.load(name, weights=path, device=device)
    if has_weights(name):
        return lee.models.load(name, trained=trained, device=device)
    if ":" in name:
        if not trained:
            raise InputError(f"{name} gives its own weights; measure it with `weights: trained`.")
        return lee.models.load(name, device=device)
    return lee.models.load(name, pretrained=trained, device=device)


@lru_cache(maxsize=3)
def images_of(dataset: str, split: str, n: int | None, seed: int | None, size: int | None) -> ImageSet:
    """The images of a task, without a seed the first ones; the last three sets are kept."""
    if seed is not None:
        return datasets.load(dataset, split=split, n=n, seed=seed, size=size)
    every = datasets.load(dataset, split=split, size=size)
    return replace(every, images=every.images[:n], labels=None if every.labels is None else every.labels[:n])


def forget() -> None:
    """Drop the models and images that are kept: files may have changed since they were read."""
    model_of.cache_clear()
    images_of.cache_clear()
    _digests_of_set.cache_clear()


def plan(names: Iterable[str], ways: Iterable[Measurement]) -> Iterator[Task]:
    """The tasks of each model in turn; a model that can't be loaded has tasks too, which will say why.

    A task is named after the weights, so each model has to be loaded, and some fetched, to tell whether it is measured
    already. That is done when its tasks are asked for and not before: the first model is measured while the others are still
    to be fetched, and no more than two are in memory.

    Args:
        names: of models.
        ways: what is measured of each.

    Raises:
        InputError: a data set can't be read; that is found out before the first model.
    """
    ways = list(ways)
    digests = [(_digests_of_set(of_data(way))[0], digest_of_images(way)) for way in ways]
    for name in names:
        family = family_of(name)
        for weights in dict.fromkeys(way.weights for way in ways):
            of_model = _digests(name, weights)
            yield from (
                Task(name, family, way, *of_model, *digest)
                for way, digest in zip(ways, digests, strict=True)
                if way.weights == weights
            )


def of_data(way: Measurement) -> Place:
    """What :func:`images_of` takes for a measurement."""
    return way.dataset, way.split, way.n, way.seed, way.size


def of_measures(way: Measurement, size: int | None) -> dict[str, Place]:
    """The same for the measures that read images of their own, by their names, in a size."""
    found: dict[str, Place] = {}
    if options := way.measures.get("accuracy"):
        found["accuracy"] = way.dataset, way.split, options["images"], way.seed, size
    if options := way.measures.get("distance"):
        found["distance"] = options["dataset"], options["split"], options["images"], options["seed"], size
    return found


def digest_of_images(way: Measurement) -> str:
    """A digest of the files, labels and names of classes of all images that a measurement reads."""
    places = (of_data(way), *of_measures(way, way.size).values())
    return hashlib.sha256("".join(_digests_of_set(place)[1] for place in places).encode()).hexdigest()


@cache
def _digests_of_set(place: Place) -> tuple[str, str]:
    """Digests of the files, and of these with labels and classes: each set is read once, however many ways there are."""
    data = images_of(*place)
    return data.sha256, data.labelled_sha256


def _digests(name: str, weights: str) -> tuple[str, str]:
    """The same of a model by its name; empty if it can't be loaded."""
    try:
        return digests_of(model_of(name, weights, "cpu"), name)
    except Exception:  # whatever a factory or a module may raise: the task meets it again, and records it
        return "", ""


def digests_of(model: Normalized, name: str) -> tuple[str, str]:
    """Digests of a model's weights, and of its structure."""
    return provenance.weights_sha256(model), provenance.structure_sha256(model, name)
