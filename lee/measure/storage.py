"""Which tensors have values that can be read, and whether they are those that they had."""

import torch
from torch import Tensor


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor can be copied, compared and summed up: sparse, nested, packed and freed ones can't, or not everywhere."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or not is_in_memory(tensor):
        return False
    try:
        one = tensor.detach().reshape(-1)[:1]
        return torch.equal(one, one.clone()) or bool(one.isnan().any())
    except (RuntimeError, NotImplementedError):  # of a dtype that torch only stores
        return False


def equal(tensor: Tensor, kept: Tensor) -> bool:
    """Whether a tensor has the values that were kept; one whose memory is gone by now has none that differ."""
    return not is_in_memory(tensor) or (
        tensor.shape == kept.shape and tensor.dtype == kept.dtype and torch.equal(tensor.detach(), kept)
    )


def is_in_memory(tensor: Tensor) -> bool:
    """Whether the memory is there: weights that lie elsewhere between two calls, as those of FSDP, keep their shape alone."""
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size() if tensor.numel() else 0
    return tensor.untyped_storage().nbytes() >= needed
