"""What the JPEG compression of a copy of CIFAR-10 does to errors measured on it: the same images with and without it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lee import datasets, models
from lee.errors import InputError
from lee.measure import equivariance_gram
from lee.metrics.yardsticks import TRANSLATION
from lee.statistics import paired_ratio
from lee.sweep.results import read_csv, write_csv

FARTHEST = 0.15  # root mean square of a difference that compression can make; other images of CIFAR-10 are farther


def twins(images: Tensor, others: Tensor) -> Tensor:
    """For every image its nearest among others, which must be a slightly changed copy of it: indices (N,).

    Args:
        images: (N, C, H, W) in [0, 1], with sides that 4 divides.
        others: (M, C, H, W).

    Raises:
        InputError: If the nearest of some image is no copy of it.
    """
    coarse, there = (avg_pool2d(z, 4).flatten(1) for z in (images, others))
    nearest = torch.cat([torch.cdist(part, there).argmin(1) for part in coarse.split(64)])
    gap = (others[nearest] - images).square().flatten(1).mean(1).sqrt()
    if float(gap.max()) > FARTHEST:
        raise InputError(
            f"Image {int(gap.argmax())} has no copy among the others: the nearest is {float(gap.max()):.2f} away."
        )
    return nearest


def measure(names: Sequence[str], n: int, path: Path) -> pd.DataFrame:
    """Measure both versions of `n` training images, and write the comparison as CSV; needs both sets below `LEE_DATA`.

    Args:
        names: Networks that were trained on the compressed images.
        n: How many images.
        path: The file to write.

    Returns:
        A row per network: `model`, mean errors of the probabilities under translation `lossless` and `jpeg`, the first over the
        second as `ratio` with its paired 95 % interval over images `low` and `high`, `n`, and `rmse` between the two versions of
        the images, in grey values of 255.

    Raises:
        InputError: If a network or the images can't be had, or the compressed set lacks some of them.
    """
    clean = datasets.load("cifar10-lossless", split="train", n=n).images
    every = datasets.load("cifar10", split="train").images
    compressed = every[twins(clean, every)]
    rmse = 255 * float((clean - compressed).square().mean().sqrt())
    rows = []
    for name in names:
        model = models.load(name)
        grams = [equivariance_gram(model, x, generators=TRANSLATION, progress=False) for x in (clean, compressed)]
        lossless, jpeg = (torch.stack([g.lee_per_image(one) for one in TRANSLATION]).sum(0) for g in grams)
        found = paired_ratio(lossless, jpeg)
        row = {"model": name, "lossless": float(lossless.mean()), "jpeg": float(jpeg.mean()), "ratio": found.value}
        rows.append({**row, "low": found.low, "high": found.high, "n": n, "rmse": rmse})
    return write_csv(pd.DataFrame(rows), path, 4)


def read() -> pd.DataFrame:
    """The committed comparison, `data/results/compression.csv`, as :func:`measure` returns it."""
    return read_csv("compression.csv", "lee.studies.compression.measure")
