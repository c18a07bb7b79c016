"""Everything that determines a trained network: its architecture, and how it is trained."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from lee.configuration import Strict
from lee.errors import MOST, InputError, nearest

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
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "lr": (self.lr > 0, "above 0"),
            "fraction": (0 < self.fraction <= 1, "above 0, up to 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0, below 1"),
            "warmup_epochs": (
                0 <= self.warmup_epochs < self.epochs,
                f"from 0, below `epochs` ({self.epochs}). Write such a one, as `warmup_epochs: 0`; without any it is 1",
            ),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "clip_norm": (self.clip_norm >= 0, "0 or more"),
            "seed": (0 <= self.seed <= MOST, f"from 0 to {MOST}"),
            "score_every": (self.score_every >= 1, "1 or more"),
            "pretrain_epochs": (self.pretrain_epochs >= 0, "0 or more"),
            "pretrain_lr": (self.pretrain_lr > 0, "above 0"),
            "mask_ratio": (0 < self.mask_ratio < 1, "between 0 and 1"),
            "pseudo_labels": (
                self.pseudo_labels == 0 or (self.pseudo_labels > 0 and self.fraction < 1),
                "0, or more with a `fraction` below 1",
            ),
            "pseudo_threshold": (0 <= self.pseudo_threshold <= 1, "from 0 to 1"),
            "penalty": (self.penalty >= 0, "0 or more"),
            "penalty_generators": (len(self.penalty_generators) > 0, "one or more"),
            "penalty_images": (
                self.penalty_images == 0 or 2 <= self.penalty_images <= self.batch_size,
                "0 for all, or from 2 to `batch_size`",
            ),
        }
        for name, (valid, allowed_values) in ranges.items():
            value = getattr(self, name)
            if not valid or (isinstance(value, float) and not math.isfinite(value)):
                raise InputError(f"Recipe field {name} is {value!r}, which is out of range: {allowed_values}.")


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

    def __post_init__(self) -> None:
        channels = self.input_size[0] if len(self.input_size) == 3 else 0
        if channels < 1 or min(self.input_size) < 1:
            raise InputError(f"`input_size` is {list(self.input_size)}; expected channels, height and width.")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != channels:
                raise InputError(
                    f"`{name}` is {list(getattr(self, name))}; expected {channels} numbers, one for each channel."
                )
        if not min(self.std) > 0:
            raise InputError(f"`std` is {list(self.std)}; expected numbers above 0.")

    @property
    def stem(self) -> str:
        """The name of its files, without an ending."""
        return self.name.rpartition("/")[2]

    def snapshot(self, epoch: int) -> Path:
        """The file of the weights after an epoch, which a training with `--snapshots` keeps of some.

        Args:
            epoch: number of supervised epochs that were done, from 1.
        """
        return self.folder / f"{self.stem}.snapshots" / f"{epoch}.safetensors"

    def digest(self) -> str:
        """Return a SHA-256 digest of all that determines the training; a checkpoint carries it."""
        content = asdict(self) | {"name": self.stem}
        for described in ("title", "family", "folder"):
            content.pop(described)
        for term, start in (("penalty", "penalty"), ("pseudo_labels", "pseudo_")):
            if not content["recipe"][term]:  # what a term of weight 0 would be like determines nothing
                content["recipe"] = {k: v for k, v in content["recipe"].items() if not k.startswith(start)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


#: Some or all fields of a :class:`Recipe`, as a recipe file has them.
RecipeFields: Any = create_model(
    "RecipeFields",
    __base__=Strict,
    **{item.name: (list[str] if item.type is tuple else item.type, None) for item in fields(Recipe)},  # type: ignore[call-overload]
)


class Entry(Strict):
    """A network of a recipe file, or what all share."""

    like: str | None = None
    title: str = ""
    family: str | None = None
    factory: str = ""
    arguments: dict[str, Any] = Field({})
    recipe: RecipeFields = RecipeFields()
    budgets: dict[str, RecipeFields] = Field({})
    input_size: list[int] = Field([3, 32, 32], min_length=3, max_length=3)
    mean: list[float] = Field([])
    std: list[float] = Field([])


class File(Strict):
    """A recipe file."""

    families: dict[str, str] = Field({})
    defaults: Entry = Entry()
    models: dict[str, Entry]
