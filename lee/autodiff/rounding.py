"""Products of the tangents in a lower precision than the primal's.

A tangent enters an operator linearly, so rounding its factors changes it by as much, relatively, and no more; what the primal
decides (sides of kinks, means and variances, softmax weights) keeps its precision, since the primal keeps it. A model that is
converted as a whole decides otherwise, and its mean squares are off by tens of per cent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lee.process.alone import put_back

_dtype: torch.dtype | None = None


@contextmanager
def rounded_products(dtype: torch.dtype) -> Iterator[None]:
    """Compute the tangents' products with weights in `dtype`; to be entered :func:`lee.process.alone.alone`."""
    global _dtype
    before = _dtype

    def restore() -> None:
        global _dtype
        _dtype = before

    with put_back(restore):
        _dtype = dtype
        yield


def product(run: Callable[[Tensor, Tensor], Tensor], flat: Tensor, weight: Tensor, n: int) -> Tensor:
    """A product with a weight, linear in its first factor: of a stack's slices, one behind the other.

    Args:
        run: The product.
        flat: First factor, (S · n, ...), the primal's `n` entries first.
        weight: The weight.
        n: How many entries the primal has.
    """
    if _dtype is None or flat.dtype != torch.float32 or weight.dtype != torch.float32 or len(flat) == n:
        return run(flat, weight)
    primal = run(flat[:n], weight)
    out = primal.new_empty((len(flat), *primal.shape[1:]))
    if primal.ndim == 4 and primal.is_contiguous(memory_format=torch.channels_last):
        out = out.contiguous(memory_format=torch.channels_last)
    out[:n] = primal
    out[n:] = run(flat[n:].to(_dtype), weight.to(_dtype))
    return out
