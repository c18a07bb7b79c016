"""Random changes of training images, drawn from explicit generators and computed on whole batches."""

import hashlib

import torch
from torch import Tensor


def seeded(*parts: object) -> torch.Generator:
    """Return a generator whose seed is a digest of `parts`, so that nearby seeds are unrelated."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def flip_crop(images: Tensor, generator: torch.Generator, shift: int = 4) -> Tensor:
    """Mirror half of the images and shift each by up to `shift` pixels, reflecting at the border.

    Args:
        images: (N, C, H, W) of any dtype.
        generator: source of all randomness.
        shift: largest shift in pixels along each side.

    Returns:
        New images of the same shape; pixel (i, j) comes from (i + dy, ±j + dx).
    """
    n, _, height, width = images.shape
    dy, dx = torch.randint(-shift, shift + 1, (2, n, 1), generator=generator)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    rows = _reflect(torch.arange(height) + dy, height)
    columns = _reflect(torch.arange(width) + dx, width)
    columns = torch.where(flip, width - 1 - columns, columns)
    index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    index = index[:, None].expand(-1, images.shape[1], -1).to(images.device)
    return images.flatten(2).gather(2, index).view_as(images)


def _reflect(index: Tensor, length: int) -> Tensor:
    """Fold indices outside [0, length) back in, without repeating the border pixel."""
    return (length - 1) - ((length - 1) - index.abs()).abs()
