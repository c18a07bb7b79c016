"""By what one image is found again in the tensors of a batch.

Tangents and gradients are taken apart image by image along the first axis, where a batch is usually folded one image after the
other: `(N, C, H, W)`, `(N · windows, …)`. Elsewhere, as in tokens `(L, N, C)` or in heads before images, that would mix them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

SAMPLE = 1024  # entries of a tensor that are compared


class Print(NamedTuple):
    """Shape of a tensor of one image, and some of its entries."""

    shape: tuple[int, ...]
    sample: Tensor


class FoldError(Exception):
    """A batch can't be told apart inside a module; images are then measured one by one."""


def print_of(value: Tensor) -> Print:
    """What a tensor of one image is found again by."""
    return Print(tuple(value.shape), _sample(value))


def check_fold(name: str, values: Sequence[Tensor], prints: Sequence[Print], n: int) -> None:
    """Refuse tensors of a batch that don't begin with the first image's, each of the size that it has alone.

    Args:
        name: Of the module.
        values: Tensors of a batch of `n` images.
        prints: Those of the first image alone.
        n: Number of images.

    Raises:
        FoldError: If one of them is folded in another way.
    """
    for value, (shape, sample) in zip(values, prints, strict=True) if n > 1 else ():
        whole = value.shape == (n * shape[0], *shape[1:]) if shape else False
        if not whole or not _alike(_sample(value[: shape[0]]), sample):
            raise FoldError(name)


@lru_cache(maxsize=512)
def _places(size: int, device: torch.device) -> Tensor:
    """Where a tensor of that many entries is looked at: everywhere, or at places that no layout favours."""
    if size <= SAMPLE:
        return torch.arange(size, device=device)
    return torch.randint(size, (SAMPLE,), generator=torch.Generator().manual_seed(size)).to(device)


def _sample(value: Tensor) -> Tensor:
    value = value.detach()
    return value.reshape(-1)[_places(value.numel(), value.device)]


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two samples differ by rounding alone: by little of what varies in them, as most may be a constant."""
    gap, size = torch.where(a == b, 0, a - b), b.nan_to_num(0, 0, 0)  # entries that are masked with -inf are equal
    spread = size - size.mean() if size.numel() else size
    eps = torch.finfo(size.dtype).eps
    return float(gap.norm()) <= 0.1 * eps**0.5 * float(spread.norm()) + 50 * eps * float(size.norm())
