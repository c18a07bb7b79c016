"""A sweep's specification: which models, with which weights, on which images, and what to measure, read from YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from lee import datasets
from lee.errors import InputError, nearest
from lee.geometry.generators import AFFINE, NAMED, PHOTOMETRIC
from lee.geometry.interpolation import BOUNDARIES, KERNELS, WARP_KERNELS
from lee.measure.checks import OUTPUTS as NAMED_OUTPUTS
from lee.sweep.subjects import epoch_of, expand, family_of

#: Weights that a model is measured with: as trained, or as first drawn; those after an epoch are `epoch 1`, `epoch 2`, ...
WEIGHTS = ("trained", "initial")
#: What is differentiated.
OUTPUTS = (*NAMED_OUTPUTS, "features")
#: The discrete measures, which move images by the measurement's own kernel.
DISCRETE = ("consistency", "eq_t", "eq_t_frac", "eq_r")
#: What is measured beside the Gram matrix, with options and defaults: see `lee.sweep.quantities`. `draws` and `shifts` are
#: forward passes per image, `images` says how many of the first images (None for the whole data set).
MEASURES: dict[str, dict[str, Any]] = {
    "consistency": {"shifts": 4, "max_shift": 4, "boundary": "reflect", "reference": "image"},
    "eq_t": {"draws": 4, "max_shift": 0.125},
    "eq_t_frac": {"draws": 4, "max_shift": 0.125},
    "eq_r": {"draws": 4, "max_angle": 180.0},
    "yardsticks": {"images": 200},
    "distance": {"images": 200, "dataset": None, "split": "train", "seed": 1},
    "accuracy": {"images": None},
    "moved": {
        "generators": ["translation_x", "translation_y", "rotation"],
        "other": ["scale", "hyperbolic", "squeeze"],
    },
    "turntable": {"images": 200, "step": 5},
}
#: Measures of the scores themselves: a measurement of several outputs takes them with `logits` alone.
OF_SCORES = ("yardsticks", "distance")
_GROUPS = {"affine": AFFINE, "photometric": PHOTOMETRIC, "all": AFFINE + PHOTOMETRIC}
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
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The sweep {path} can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The sweep {path} is not valid YAML: {' '.join(str(error).split())}") from error
    return parse(content, Path(path).name)


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
    content = _mapping(content, where, ("models", "families", "defaults", "measurements"))
    for key in ("models", "measurements"):
        if not content.get(key):
            raise InputError(f"{where}: `{key}:` is missing or empty.")
    known = [item.name for item in fields(Measurement) if item.name != "name"]
    defaults = _mapping(content.get("defaults") or {}, f"{where}, defaults", known)
    entries = content["measurements"]
    if not isinstance(entries, Mapping):
        raise InputError(f"{where}: `measurements:` must map names to what is measured.")
    ways: list[Measurement] = []
    for name, entry in entries.items():
        place = f"{where}, measurement {name!r}"
        for one in entry if isinstance(entry, list) else [entry or {}]:
            ways += _measurements(str(name), {**defaults, **_mapping(one, place, known)}, place)
    chosen = expand(_listed(content["models"]), where)
    return SweepSpec(_of_families(chosen, content.get("families"), where), tuple(ways))


def _of_families(names: tuple[str, ...], wanted: Any, where: str) -> tuple[str, ...]:
    """Those of the models that belong to the wanted families; all if none are named."""
    if wanted is None:
        return names
    families = {name: family_of(name) for name in names}
    for family in _listed(wanted):
        if family not in families.values():
            raise InputError(
                f"{where}: no model is of family {family!r}.{nearest(str(family), set(families.values()))}"
            )
    return tuple(name for name in names if families[name] in _listed(wanted))


def _measurements(name: str, entry: dict[str, Any], where: str) -> list[Measurement]:
    """One entry of the file: the product over the fields that hold lists."""
    if "dataset" not in entry:
        raise InputError(f"{where}: which images? Give `dataset:`, one of {', '.join(datasets.names())}.")
    shared = {key: value for key, value in entry.items() if key not in _PRODUCT}
    shared["generators"] = _generators(entry.get("generators"), where)
    shared["measures"] = _measures(entry.get("measures") or {}, where)
    single = Measurement(name, "", **shared)
    lists = [_listed(entry.get(key, getattr(single, key))) for key in _PRODUCT]
    found = [replace(single, **dict(zip(_PRODUCT, values, strict=True))) for values in product(*lists)]
    for measurement in found:
        _check(measurement, where)
    return [way if way.output == "logits" or len(lists[3]) == 1 else _without_scores(way) for way in found]


def _without_scores(way: Measurement) -> Measurement:
    return replace(way, measures={name: how for name, how in way.measures.items() if name not in OF_SCORES})


def _check(way: Measurement, where: str) -> None:
    choices = {
        "weights": WEIGHTS,
        "split": ("train", "test"),
        "output": OUTPUTS,
        "kernel": KERNELS,
        "boundary": BOUNDARIES,
    }
    for key, allowed in choices.items():
        value = getattr(way, key)
        if value not in allowed and not (key == "weights" and epoch_of(str(value))):
            raise InputError(f"{where}: unknown {key} {value!r}.{nearest(str(value), allowed)}")
    for key, least in (("n", 1), ("size", 1), ("seed", 0)):
        value = getattr(way, key)
        if value is not None and (not isinstance(value, int) or value < least):
            raise InputError(f"{where}: `{key}` must be a whole number from {least}, not {value!r}.")
    if not isinstance(way.dataset, str):
        raise InputError(f"{where}: there is no data set {way.dataset!r}.")
    if way.align_corners not in (True, False):
        raise InputError(f"{where}: `align_corners` must be true or false, not {way.align_corners!r}.")
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


def _generators(given: Any, where: str) -> tuple[str, ...] | None:
    """Names of a basis: a group's, or the listed ones; None for `none`."""
    if given is None:
        return ()
    if given == "none":
        return None
    if isinstance(given, str) and given in _GROUPS:
        return tuple(g.name for g in _GROUPS[given])
    names = tuple(map(str, _listed(given)))
    for name in names:
        if name not in NAMED:
            raise InputError(f"{where}: unknown generator {name!r}.{nearest(name, [*NAMED, *_GROUPS])}")
    return names


def _measures(given: Any, where: str) -> dict[str, dict[str, Any]]:
    """The measures with all options filled in; a list of names takes the defaults."""
    entries = {name: {} for name in _listed(given)} if not isinstance(given, Mapping) else given
    found = {}
    for name in sorted(_mapping(entries, f"{where}, measures", MEASURES)):
        options = _mapping(entries[name] or {}, f"{where}, measures, {name}", MEASURES[name])
        found[name] = {**MEASURES[name], **options}
    return found


def _mapping(given: Any, where: str, known: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """A mapping all of whose keys are known."""
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: expected a mapping with {', '.join(known)}, not {type(given).__name__}.")
    for key in given:
        if key not in known:
            raise InputError(f"{where}: unknown field {key!r}.{nearest(str(key), known)}")
    return given


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]
