"""The images of an epoch in their order, changed as the recipe says; all randomness follows from (seed, epoch)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lee.datasets import ImageSet
from lee.errors import InputError
from lee.models.recipes import Recipe
from lee.training.augmentation import flip_crop, seeded, strong, turned


def fraction(data: ImageSet, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """Return the recipe's seeded fraction of the images, their labels, and the other images."""
    if data.labels is None:
        raise InputError(f"The data set {data.name!r} has no labels, so nothing can be trained on it.")
    count = round(recipe.fraction * len(data))
    if count < recipe.batch_size:
        raise InputError(f"A batch has {recipe.batch_size} images, but only {count} are left to train on.")
    if count == len(data) and recipe.pseudo_labels:
        raise InputError(
            f"All of the {len(data)} images are labelled with fraction={recipe.fraction}: none is left to guess."
        )
    if count == len(data):
        return data.images, data.labels, data.images[:0]
    order = torch.randperm(len(data), generator=seeded(recipe.seed, "fraction"))
    chosen = order[:count]
    return data.images[chosen], data.labels[chosen], data.images[order[count:]]


def batches(
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    epoch: int,
    *,
    augmentation: str,
    classes: int,
    device: str,
    unlabelled: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of an epoch, (B, C, H, W) with labels (B,) or, where images are mixed, (B, classes).

    Unlabelled images follow the labelled ones in their batch, (2 B, C, H, W), drawn without replacement while they last. They
    leave the labelled ones, and their changes, as they would be without them; they are mirrored, shifted and turned, but never
    mixed. The order and every change are drawn from the recipe's seed and the epoch.
    """
    generator, others = seeded(recipe.seed, epoch, "data"), seeded(recipe.seed, epoch, "unlabelled")
    order = torch.randperm(len(images), generator=generator)
    rest = None if unlabelled is None else torch.randperm(len(unlabelled), generator=others)
    for step in range(len(images) // recipe.batch_size):
        places = torch.arange(step * recipe.batch_size, (step + 1) * recipe.batch_size)
        batch, target = _moved(images[order[places]], augmentation, generator), labels[order[places]]
        if augmentation == "strong":
            batch, target = strong(batch, target, classes, generator)
        if unlabelled is not None and rest is not None:
            batch = torch.cat([batch, _moved(unlabelled[rest[places % len(rest)]], augmentation, others)])
        if recipe.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        yield batch.to(device), target.to(device)


def _moved(images: Tensor, augmentation: str, generator: torch.Generator) -> Tensor:
    """Mirror and shift, or turn, each image of a batch, as the augmentation says."""
    if augmentation in ("flip-crop", "strong"):
        return flip_crop(images, generator)
    return turned(images, generator) if augmentation == "rotate" else images
