"""Recipes: everything that determines a training, read from YAML; and the names of the networks trained by them."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from lee.errors import InputError, nearest
from lee.paths import package_data

#: What the names of trained networks begin with, and their recipe files below `data`; weights and cards lie beside these.
FILES = {
    "zoo": "zoo/zoo.yaml",
    "rotmnist": "rotmnist/rotmnist.yaml",
    "penalty": "penalty/penalty.yaml",
}
#: Allowed values of the fields that are names.
CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "augmentation": ("none", "flip-crop", "strong", "rotate"),
    "precision": ("float32", "bfloat16"),
    "penalty_estimator": ("random", "exact"),
}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Equal recipes give equal weights on the same machine and versions.

    Args:
        dataset: a name for `lee.datasets.load`; its `train` split is used, its `test` split scored.
        epochs: passes over the training images.
        batch_size: images per step; the last, smaller batch of an epoch is dropped.
        optimizer: `adamw`, or `sgd` with Nesterov momentum 0.9.
        lr: peak learning rate: a linear warm-up, then half a cosine down to zero.
        weight_decay: applied to weights of two or more dimensions, not to biases and norms.
        warmup_epochs: length of the warm-up.
        label_smoothing: in [0, 1).
        clip_norm: largest norm of the gradient; 0 turns clipping off.
        augmentation: `none`; `flip-crop` (mirror half of the images, shift by up to 4 pixels); `strong`
            (the same, then RandAugment, and mixup or CutMix on half of the batches); or `rotate` (by any
            angle).
        fraction: part of the training images that is used, in (0, 1], drawn by the seed.
        pseudo_labels: weight, in the loss, of as many of the images that `fraction` leaves out, under the labels that the
            network gives them itself (D.-H. Lee, Pseudo-Label, ICML workshop 2013); 0 leaves them out.
        pseudo_threshold: the probability, in [0, 1], that the network must give such a label for it to count.
        seed: initial weights, order of the data and augmentation.
        precision: `float32`, or `bfloat16` autocast (weights stay in float32).
        channels_last: memory format; changes speed and rounding, not the mathematics.
        fused_attention: whether attention runs as one fused kernel; likewise.
        score_every: epochs between two scorings of the test set; the last epoch is always scored.
        pretrain_epochs: passes over all training images as a masked autoencoder before; 0 for none.
        pretrain_lr: peak learning rate of these.
        mask_ratio: share of the patches hidden from the masked autoencoder, in (0, 1).
        penalty: weight of `lee.training.EquivariancePenalty` in the loss; 0 for none.
        penalty_generators: names of the generators that it covers.
        penalty_images: how many images of each batch it moves; 0 for all.
        penalty_estimator: `random` (one direction per image) or `exact` (all generators).
    """

    dataset: str
    epochs: int
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    augmentation: str = "none"
    fraction: float = 1.0
    pseudo_labels: float = 0.0
    pseudo_threshold: float = 0.95
    seed: int = 0
    precision: str = "float32"
    channels_last: bool = False
    fused_attention: bool = True
    score_every: int = 1
    pretrain_epochs: int = 0
    pretrain_lr: float = 1e-3
    mask_ratio: float = 0.75
    penalty: float = 0.0
    penalty_generators: tuple = ("translation_x", "translation_y", "rotation")  # type: ignore[type-arg]  # of names
    penalty_images: int = 0
    penalty_estimator: str = "random"

    def __post_init__(self) -> None:
        if isinstance(self.penalty_generators, list):  # as YAML has it
            object.__setattr__(self, "penalty_generators", tuple(self.penalty_generators))
        for item in fields(self):
            value = getattr(self, item.name)
            numeric = item.type in (int, float)
            fits = isinstance(value, (int, float) if item.type is float else item.type)  # type: ignore[arg-type]
            if not fits or (numeric and isinstance(value, bool)):
                kind = getattr(item.type, "__name__", item.type)
                raise InputError(f"Recipe field {item.name} is {value!r}; expected {kind}.")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"Recipe field {name} is {value!r}.{nearest(value, allowed)}")
        ranges = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": self.lr > 0,
            "fraction": 0 < self.fraction <= 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "warmup_epochs": 0 <= self.warmup_epochs < self.epochs,
            "weight_decay": self.weight_decay >= 0,
            "clip_norm": self.clip_norm >= 0,
            "score_every": self.score_every >= 1,
            "pretrain_epochs": self.pretrain_epochs >= 0,
            "pretrain_lr": self.pretrain_lr > 0,
            "mask_ratio": 0 < self.mask_ratio < 1,
            "pseudo_labels": self.pseudo_labels == 0 or (self.pseudo_labels > 0 and self.fraction < 1),
            "pseudo_threshold": 0 <= self.pseudo_threshold <= 1,
            "penalty": self.penalty >= 0,
            "penalty_generators": len(self.penalty_generators) > 0,
            "penalty_images": self.penalty_images == 0 or 2 <= self.penalty_images <= self.batch_size,
        }
        for name, valid in ranges.items():
            if not valid:
                raise InputError(f"Recipe field {name} is {getattr(self, name)!r}, which is out of range.")


@dataclass(frozen=True)
class ZooSpec:
    """One entry of a recipe file: an architecture, its normalisation, and the recipe that trains it.

    Args:
        name: as `lee.models.load` takes it, such as `zoo/vit-s`; without a prefix in a recipe file of one's own.
        factory: `package.module:callable` that builds the bare network.
        arguments: keyword arguments of the factory.
        recipe: how it is trained.
        title: one line for people.
        family: which family of architectures it belongs to: a name under the file's `families:`.
        input_size: (C, H, W) of the images.
        mean: of the normalisation of images in [0, 1], one number per channel.
        std: likewise.
        folder: the recipe file's, where weights and card lie too.
    """

    name: str
    factory: str
    recipe: Recipe
    arguments: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    family: str = ""
    input_size: tuple[int, int, int] = (3, 32, 32)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    folder: Path = Path()

    @property
    def stem(self) -> str:
        """The name of its files, without an ending."""
        return self.name.rpartition("/")[2]

    def digest(self) -> str:
        """Return a SHA-256 digest of all that determines the training; a checkpoint carries it."""
        content = asdict(self) | {"name": self.stem}
        for described in ("title", "family", "folder"):
            content.pop(described)
        for term, start in (("penalty", "penalty"), ("pseudo_labels", "pseudo_")):
            if not content["recipe"][term]:  # what a term of weight 0 would be like determines nothing
                content["recipe"] = {k: v for k, v in content["recipe"].items() if not k.startswith(start)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def has_recipe(name: str) -> bool:
    """Whether a name is `PREFIX/NAME` with a prefix of :data:`FILES`: that of a trained network, if there is such a one.

    >>> has_recipe("rotmnist/p4"), has_recipe("resnet18")
    (True, False)
    """
    prefix, slash, _ = name.partition("/")
    return bool(slash) and prefix in FILES


def without_seed(name: str) -> str:
    """A network's name without its seed, which is what all trainings of one recipe are called by.

    >>> without_seed("rotmnist/p4-seed2")
    'rotmnist/p4'
    """
    return re.sub(r"-seed\d+$", "", name)


def recipe_file(prefix: str) -> Path:
    """Return the recipe file of a prefix.

    Raises:
        InputError: there is no such file, because lee was installed without it.
    """
    file = package_data() / FILES[prefix]
    if not file.is_file():
        raise InputError(f"There is no {file}. Clone the repository: the installed package leaves these networks out.")
    return file


def load_specs(path: Path | None = None, *, budget: str | None = None) -> dict[str, ZooSpec]:
    """Read a file of specifications, or by default those of all prefixes that are here.

    An entry starts from the file's `defaults`, then takes what it does not name itself from the entry that
    its `like:` names.

    Args:
        path: a file like `data/zoo/zoo.yaml`, whose networks then have no prefix.
        budget: a name under `budgets:`; what it says of the recipe replaces what the entry says.

    Raises:
        InputError: the file is missing, is not YAML of the expected shape, or has an unknown field, family,
            budget or `like:`.
    """
    if path is not None:
        return _read(Path(path), budget)
    here = [(prefix, package_data() / file) for prefix, file in FILES.items()]
    read = [_read(file, budget, f"{prefix}/") for prefix, file in here if file.is_file()]
    return {name: spec for specs in read for name, spec in specs.items()}


def load_spec(name: str, path: Path | None = None, *, budget: str | None = None) -> ZooSpec:
    """Return one specification by its name.

    Args:
        name: of an entry.
        path: a file of specifications; the zoo's own by default.
        budget: a name under `budgets:`, as for :func:`load_specs`.

    Raises:
        InputError: there is no such name (the nearest is suggested), or the file is wrong or missing.
    """
    if path is None and has_recipe(name):
        prefix = name.partition("/")[0]
        specs = _read(recipe_file(prefix), budget, f"{prefix}/")
    else:
        specs = load_specs(path, budget=budget)
    if name not in specs:
        raise InputError(f"There is no network {name!r}.{nearest(name, specs)}")
    return specs[name]


def _read(path: Path, budget: str | None, prefix: str = "") -> dict[str, ZooSpec]:
    """Read one file of specifications, whose names get a prefix."""
    try:
        # The same safe loader, in C where PyYAML was built with libyaml: these files are read often.
        content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise InputError(f"The recipe file {path} can't be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The recipe file {path} is not valid YAML: {error}.") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("models"), Mapping):
        raise InputError(f"The recipe file {path} needs a mapping `models:` from names to specifications.")
    models = {name: _like(name, content["models"], path) for name in content["models"]}
    specs = [_spec(f"{prefix}{name}", entry, content, path, budget) for name, entry in models.items()]
    return {spec.name: spec for spec in specs}


def _like(name: str, models: Mapping[str, Any], path: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an entry merged over the one that its `like:` names."""
    where, entry = f"{path.name}, model {name!r}", models[name]
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: expected a mapping with `factory` and `recipe`.")
    base = entry.get("like")
    if base is None:
        return dict(entry)
    if base not in models:
        raise InputError(f"{where}: there is no model {base!r} to be like.{nearest(str(base), models)}")
    if base in seen:
        raise InputError(f"{where}: `like:` leads in a circle: {', '.join((*seen, base))}.")
    return _merged(_like(base, models, path, (*seen, name)), {k: v for k, v in entry.items() if k != "like"})


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; what `over` names wins."""
    both = {key: _merged(base[key], over[key]) for key in over.keys() & base.keys() if isinstance(over[key], Mapping)}
    return {**base, **over, **both}


def _spec(name: str, entry: dict[str, Any], content: Mapping[str, Any], path: Path, budget: str | None) -> ZooSpec:
    """Merge one entry of the file with the file's defaults, and with a budget."""
    where = f"{path.name}, model {name!r}"
    merged = _merged(content.get("defaults") or {}, entry)
    budgets = merged.pop("budgets", {})
    recipe = merged.get("recipe") or {}
    if budget is not None:
        if budget not in budgets:
            raise InputError(f"{where}: there is no budget {budget!r}.{nearest(budget, budgets)}")
        recipe = _merged(recipe, budgets[budget])
    families = content.get("families") or {}
    if merged.get("family") is not None and merged["family"] not in families:
        raise InputError(f"{where}: unknown family {merged['family']!r}.{nearest(str(merged['family']), families)}")
    merged["recipe"] = _checked(Recipe, recipe, f"{where}, recipe")
    for key in ("input_size", "mean", "std"):
        if key in merged:
            merged[key] = tuple(merged[key])
    spec: ZooSpec = _checked(ZooSpec, {**merged, "name": name, "folder": path.parent}, where)
    return spec


def _checked(kind: type, values: dict[str, Any], where: str) -> Any:
    """Build a dataclass from a mapping, refusing unknown and missing fields by name."""
    known = {item.name: item for item in fields(kind)}
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown field {key!r}.{nearest(key, known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{where}: {error}.") from error
