"""A sweep's specification: which models, with which weights, on which images, and what to measure, read from YAML."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from lee import datasets
from lee.configuration import read_yaml, validated
from lee.errors import InputError, nearest
from lee.geometry.generators import AFFINE, PHOTOMETRIC
from lee.geometry.interpolation import WARP_KERNELS
from lee.sweep.entries import File, Measures
from lee.sweep.subjects import expand, family_of

#: The discrete measures, which move images by the measurement's own kernel.
DISCRETE = ("consistency", "eq_t", "eq_t_frac", "eq_r")
#: What is measured beside the Gram matrix, with options and defaults: see `lee.sweep.quantities`. `draws` and `shifts` are
#: forward passes per image, `images` says how many of the first images (None for the whole data set).
MEASURES: dict[str, dict[str, Any]] = Measures().model_dump()
#: Measurements that one entry of a file may stand for.
MOST_WAYS = 10_000
#: Measures of the scores themselves: a measurement of several outputs takes them with `logits` alone.
OF_SCORES = ("yardsticks", "distance")
_PRODUCT = ("dataset", "weights", "split", "output", "kernel", "boundary")


@dataclass(frozen=True)
class Measurement:
    """What is measured, on which images: one task for every model.

    Args:
        name: what the rows are called by.
        dataset: as for `lee.datasets.load`, and so are the next four.
        split: `train` or `test`.
        n: how many images; None for all.
        seed: which images, None for the first ones; it also draws the finite motions.
        size: side in pixels; None for the model's own.
        weights: `trained`, `initial`, or such as `epoch 13`: those that `lee train --snapshots` kept.
        generators: names of the basis of the Gram matrix; `()` for those that `equivariance_gram` chooses, None for no
            Gram matrix and no rows, only what measures say of the whole set.
        output: `probabilities`, `logits`, or `features`: what the model's own classifier reads.
        kernel: as for :func:`lee.equivariance_gram`, and so are the next two.
        boundary: what lies beyond the border.
        align_corners: pixel convention.
        measures: further measures of :data:`MEASURES` with all their options.
    """

    name: str
    dataset: str
    split: str = "test"
    n: int | None = None
    seed: int | None = 0
    size: int | None = None
    weights: str = "trained"
    generators: tuple[str, ...] | None = ()
    output: str = "probabilities"
    kernel: str = "fourier"
    boundary: str = "reflect"
    align_corners: bool = False
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def passes(self) -> int:
        """Forward passes per image, about: what progress is counted in."""
        extra = sum(options.get("draws", options.get("shifts", 0)) + 1 for options in self.measures.values())
        return 2 + (0 if self.generators is None else len(self.generators) or len(AFFINE + PHOTOMETRIC)) + extra


@dataclass(frozen=True)
class SweepSpec:
    """A sweep: every model is measured in every way.

    Args:
        models: names that `lee.models.load` knows, without patterns, in order.
        measurements: one entry for each combination of dataset, weights, split, output, kernel and boundary.
    """

    models: tuple[str, ...]
    measurements: tuple[Measurement, ...]


def load(path: Path) -> SweepSpec:
    """Read a specification.

    Args:
        path: a YAML file.

    Raises:
        InputError: the file can't be read, or names a field, model, family, data set or measure that there isn't.
    """
    return parse(read_yaml(Path(path), "sweep"), Path(path).name)


def parse(content: Any, where: str = "the sweep") -> SweepSpec:
    """Turn the content of a YAML file into a specification.

    Args:
        content: a mapping with `models` (names and patterns over trained networks), `measurements` (names to the fields of
            :class:`Measurement` or lists of such), optionally `families` (only models of these) and `defaults` (fields
            that all measurements share). Where dataset, weights, split, output, kernel or boundary is a list, each is
            measured.
        where: what error messages call it.

    Raises:
        InputError: as for :func:`load`.
    """
    for key in ("models", "measurements"):
        if isinstance(content, Mapping) and not content.get(key):
            raise InputError(f"{where}: `{key}:` is missing or empty.")
    file = validated(File, content, where)
    ways: list[Measurement] = []
    for name, entries in file.measurements.items():
        for entry in entries:
            ways += _measurements(name, file.defaults.given | entry.given, f"{where}, measurements, {name}")
    return SweepSpec(_of_families(expand(file.models, where), file.families, where), tuple(ways))


def _of_families(names: tuple[str, ...], wanted: list[str] | None, where: str) -> tuple[str, ...]:
    """Those of the models that belong to the wanted families; all if none are named."""
    if wanted is None:
        return names
    families = {name: family_of(name) for name in names}
    for family in wanted:
        if family not in families.values():
            raise InputError(f"{where}: no model is of family {family!r}.{nearest(family, set(families.values()))}")
    return tuple(name for name in names if families[name] in wanted)


def _measurements(name: str, entry: dict[str, Any], where: str) -> list[Measurement]:
    """One entry of the file: the product over the fields that hold lists."""
    if "dataset" not in entry:
        raise InputError(f"{where}: which images? Give `dataset:`, one of {', '.join(datasets.names())}.")
    single = Measurement(name, "", **{key: value for key, value in entry.items() if key not in _PRODUCT})
    lists = [entry.get(key, [getattr(single, key)]) for key in _PRODUCT]
    if prod(map(len, lists)) > MOST_WAYS:
        raise InputError(
            f"{where}: these lists make {prod(map(len, lists))} measurements; {MOST_WAYS} at most are made."
        )
    found = [replace(single, **dict(zip(_PRODUCT, values, strict=True))) for values in product(*lists)]
    for measurement in found:
        _check(measurement, where)
    others = {name: how for name, how in single.measures.items() if name not in OF_SCORES}
    return [way if way.output == "logits" or len(lists[3]) == 1 else replace(way, measures=others) for way in found]


def _check(way: Measurement, where: str) -> None:
    if way.kernel == "authors" and not (way.align_corners and way.boundary == "reflect"):
        raise InputError(f"{where}: kernel 'authors' needs `align_corners: true` and `boundary: reflect`.")
    if "distance" in way.measures and way.measures["distance"]["dataset"] is None:
        raise InputError(f"{where}: a distance from which images? Give `distance: {{dataset: ...}}`.")
    discrete = any(name in way.measures for name in DISCRETE)
    if discrete and way.align_corners:
        raise InputError(
            f"{where}: the discrete measures know no `align_corners`. Give them a measurement of their own."
        )
    if discrete and way.kernel not in WARP_KERNELS:
        raise InputError(
            f"{where}: the discrete measures move images by {', '.join(WARP_KERNELS)}, not by kernel {way.kernel!r}. "
            "Put them into a measurement of their own."
        )
