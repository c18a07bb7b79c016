"""The images of an epoch in their order, changed as the recipe says; all randomness follows from (seed, epoch)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lee.datasets import ImageSet
from lee.errors import InputError
from lee.models.recipes import Recipe
from lee.training.augmentation import flip_crop, seeded, strong, turned


def fraction(data: ImageSet, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the recipe's seeded fraction of the images and their labels.

    Raises:
        InputError: no labels, or fewer images than a batch.
    """
    if data.labels is None:
        raise InputError(f"The data set {data.name!r} has no labels, so nothing can be trained on it.")
    count = round(recipe.fraction * len(data))
    if count < recipe.batch_size:
        raise InputError(f"A batch has {recipe.batch_size} images, but only {count} are left to train on.")
    if count == len(data):
        return data.images, data.labels
    chosen = torch.randperm(len(data), generator=seeded(recipe.seed, "fraction"))[:count]
    return data.images[chosen], data.labels[chosen]


def batches(
    recipe: Recipe, images: Tensor, labels: Tensor, epoch: int, *, augmentation: str, classes: int, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of an epoch, (B, C, H, W) with labels (B,) or, where images are mixed, (B, classes).

    Args:
        recipe: its seed, batch size and memory format are used.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        epoch: from which, with the seed, the order and every change are drawn.
        augmentation: one of the recipe's.
        classes: number of classes.
        device: where the batches go.
    """
    generator = seeded(recipe.seed, epoch, "data")
    order = torch.randperm(len(images), generator=generator)
    for step in range(len(images) // recipe.batch_size):
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        batch, target = images[chosen], labels[chosen]
        if augmentation in ("flip-crop", "strong"):
            batch = flip_crop(batch, generator)
        if augmentation == "strong":
            batch, target = strong(batch, target, classes, generator)
        if augmentation == "rotate":
            batch = turned(batch, generator)
        if recipe.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        yield batch.to(device), target.to(device)
