"""Which images the explorer offers, and how an uploaded file becomes one: PNG and JPEG only, of limited size."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from lee import datasets
from lee.embedded import MEMBERS, resize
from lee.errors import InputError
from lee.local_data import center_square, to_planes
from lee.paths import DATA_VARIABLE

MOST_IMAGES = 64
"""Images of a data set that have an index."""

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


def load(name: str, side: int) -> Tensor:
    """The first images of a data set in colour: (n, 3, side, side) in [0, 1], at most :data:`MOST_IMAGES`.

    Raises:
        InputError: As :func:`lee.datasets.load`.
    """
    if name in MEMBERS:
        images = datasets.load(name, size=side).images[:MOST_IMAGES]
    else:
        try:
            images = datasets.load(name, n=MOST_IMAGES, size=side).images
        except InputError:  # perhaps it has fewer; otherwise this says what is wrong
            images = datasets.load(name, size=side).images[:MOST_IMAGES]
    return images.expand(-1, 3, -1, -1)


def decode(content: bytes, side: int | None = None) -> Tensor:
    """The central square of an uploaded picture, turned as its EXIF data says: (1, 3, side, side) in [0, 1].

    Args:
        content: The bytes of a PNG or JPEG file.
        side: Side in pixels; the shorter side of the picture by default.

    Raises:
        InputError: If the file is too large, neither PNG nor JPEG, damaged, or only a pixel wide.
    """
    if len(content) > MOST_BYTES:
        raise InputError(f"The file has {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} MB can be shown.")
    pixels = _pixels(content)
    shorter = min(pixels.shape[:2])
    if shorter < 2:
        raise InputError(f"The picture is {pixels.shape[1]} × {pixels.shape[0]} pixels; it needs at least 2 × 2.")
    return to_planes(center_square(pixels, side or shorter)[None]).float() / 255


def _pixels(content: bytes) -> np.ndarray:
    """(H, W, 3) bytes. The header's size is judged before any pixel is decoded."""
    too_large = (
        f"The picture has too many pixels; at most {MOST_PIXELS / 1e6:.0f} million can be shown. Make it smaller."
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise InputError(too_large)
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(too_large) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"The file can't be read as PNG or JPEG: it is damaged or of another kind ({type(error).__name__})."
        ) from error


def resized(image: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) at another side, with antialiasing; themselves if they have it."""
    return image if image.shape[-1] == side else resize(image, (side, side))
