"""RotMNIST: 62 000 digits of MNIST, each turned by an angle of its own; made here from MNIST's own files.

Source: H. Larochelle, D. Erhan, A. Courville, J. Bergstra & Y. Bengio, An Empirical Evaluation of Deep Architectures on
Problems with Many Factors of Variation, ICML 2007: 12 000 digits for training and validation, 50 000 for the test, angles
uniform in [0, 2π). The numbers and the distribution are theirs, the draws are not: no image here is one of their file.
"""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from lee.datasets.image_files import resize
from lee.datasets.local_data import Decoded, check_split, choose, mnist
from lee.errors import InputError

#: MNIST's training and test images together, and how many of them become training and test images here.
POOL, TRAIN, TEST = 70_000, 12_000, 50_000
#: Seeds the partition and the angles. A constant: a data set whose test images change is another data set.
SEED = 2007
_BLOCK = 4096  # images turned at once


def rotmnist(split: str, n: int | None, seed: int, *, download: bool) -> Decoded:
    """Read RotMNIST: images (N, 1, 28, 28), float32 in [0, 1], computed from MNIST in `LEE_DATA`.

    No digit is in both splits. The seed says which `n` images are taken; it changes neither the partition nor an angle.
    """
    check_split(split)
    parts = [mnist(part, None, 0, download=download) for part in ("train", "test")]
    pool = torch.cat([part.images for part in parts])
    labels = torch.cat([part.labels for part in parts if part.labels is not None])
    if len(pool) != POOL:
        raise InputError(f"RotMNIST is made from all {POOL} images of MNIST; LEE_DATA has {len(pool)}. Fetch it again.")
    index, angles = draw(split)
    rows = choose(len(index), n, seed)
    images = turn(pool[index[rows]].to(torch.float32).div_(255), angles[rows])
    digest = hashlib.sha256("\n".join(part.sha256 for part in parts).encode()).hexdigest()
    return Decoded(images, labels[index[rows]], parts[0].class_names, digest, "turned by bilinear interpolation")


def draw(split: str) -> tuple[Tensor, Tensor]:
    """Return which images of the pool (MNIST's training, then its test images) a split has, and their angles in [0, 2π)."""
    generator = torch.Generator().manual_seed(SEED)
    index = torch.randperm(POOL, generator=generator)
    angles = 2 * torch.pi * torch.rand(POOL, generator=generator)
    part = slice(0, TRAIN) if split == "train" else slice(TRAIN, TRAIN + TEST)
    return index[part], angles[part]


def turn(images: Tensor, angles: Tensor) -> Tensor:
    """Turn each image (N, C, H, W) about its centre by its own angle, by bilinear interpolation; what lies outside is 0.

    Angles are in radians, counter-clockwise as one sees it.

    >>> image = torch.arange(9.0).view(1, 1, 3, 3)
    >>> torch.allclose(turn(image, torch.tensor([torch.pi / 2])), image.rot90(1, (2, 3)), atol=1e-5)
    True
    """
    if angles.shape != images.shape[:1]:
        raise InputError(f"{len(images)} images need an angle each; got angles of shape {tuple(angles.shape)}.")
    if len(images) > _BLOCK:
        return torch.cat([turn(*part) for part in zip(images.split(_BLOCK), angles.split(_BLOCK), strict=True)])
    height, width = images.shape[-2:]
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    ratio = height / width  # positions run from -1 to 1 along either side
    matrix = torch.stack([cos, -sin * ratio, zero, sin / ratio, cos, zero], 1).view(-1, 2, 3).to(images)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def rotate_randomly(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each image by an angle uniform in [0, 2π), about its centre and with a margin of 2 pixels.

    The rotation interpolates on a grid four times as fine, so that it blurs little.
    """
    fine = 4
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    height, width = padded.shape[-2:]
    big = resize(padded, (fine * height, fine * width))
    turned = turn(big, 2 * torch.pi * torch.rand(len(images), generator=generator))
    return resize(turned, (height, width))
