"""Which images the explorer offers, and how an uploaded file, of limited size, becomes one."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lee import datasets
from lee.datasets.embedded import MEMBERS
from lee.datasets.image_files import center_square, read, resize, stacked
from lee.errors import InputError
from lee.paths import DATA_VARIABLE

MOST_IMAGES = 64
"""Images of a data set that have an index."""

FOLDER = "imagefolder:"
"""What stands before the path in the name of a folder of images."""

MOST_BYTES, MOST_PIXELS = 10_000_000, 40_000_000
"""Limits of an uploaded file."""

_LOCAL = {
    "cifar10": ("cifar10/test.parquet", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-binary",),
    "mnist": ("MNIST/raw",),
    "rotmnist": ("MNIST/raw",),
}


def offered() -> tuple[str, ...]:
    """Names of the embedded data sets, and of those that lie in `LEE_DATA`."""
    given = os.environ.get(DATA_VARIABLE)
    root = Path(given) if given else None
    local = [n for n, places in _LOCAL.items() if root is not None and any((root / p).exists() for p in places)]
    return (*MEMBERS, *local)


def check_offered(name: str, folders: Sequence[str]) -> None:
    """Refuse a folder of this machine that was not named when the page was started."""
    if FOLDER in name.lower() and name not in folders:  # it may stand behind other words, as in rgb:imagefolder:PATH
        raise InputError(f"{name!r} is not offered here. Name its folder when you start: lee explore --images FOLDER")


def load(name: str, side: int) -> tuple[Tensor, tuple[str, ...]]:
    """The first images of a data set, at most :data:`MOST_IMAGES`, and the class of each in words if it has labels.

    Returns:
        Images in colour, (n, 3, side, side) in [0, 1], and n words, or none.
    """
    try:
        found = datasets.load(name, n=None if name in MEMBERS else MOST_IMAGES, size=side)
    except InputError:  # perhaps it has fewer; otherwise this says what is wrong
        found = datasets.load(name, size=side)
    labels = () if found.labels is None else found.labels[:MOST_IMAGES].tolist()
    titles = tuple(found.class_names[label] if found.class_names else str(label) for label in labels)
    return found.images[:MOST_IMAGES].expand(-1, 3, -1, -1), titles


def decode(content: bytes, side: int | None = None) -> Tensor:
    """The central square of an uploaded picture, turned as its EXIF data says: (1, 3, side, side) in [0, 1].

    By default its side is the picture's shorter one. Refused is a file that is too large, of another kind, damaged, or
    only a pixel wide.
    """
    if len(content) > MOST_BYTES:
        raise InputError(f"The file has {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} MB can be shown.")
    pixels = read(content, "The file", most_pixels=MOST_PIXELS).pixels
    shorter = min(pixels.shape[:2])
    if shorter < 2:
        raise InputError(f"The picture is {pixels.shape[1]} × {pixels.shape[0]} pixels; it needs at least 2 × 2.")
    square = stacked([center_square(pixels, side or shorter)])
    return square.float() / 255 if square.dtype == torch.uint8 else square


def resized(image: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) at another side, with antialiasing; themselves if they have it."""
    return image if image.shape[-1] == side else resize(image, (side, side))
