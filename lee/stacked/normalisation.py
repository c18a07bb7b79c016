"""Rules of normalisations, softmax and max pooling.

The Jacobians of softmax and of a normalisation without its affine part are symmetric, so torch's fused backward kernels
compute the forward derivative too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lee.stacked.registry import rule
from lee.stacked.tensor import Stacked

aten = torch.ops.aten


def _lanes(buffer: Tensor, value: Tensor, derivative: Any) -> Stacked:
    """Stack `value` over what `derivative(tangent, out)` writes for each tangent."""
    out = torch.empty(buffer.shape, dtype=value.dtype, device=value.device)
    out[0] = value
    for k in range(1, len(buffer)):
        derivative(buffer[k], out[k])
    return Stacked(out)


def _times(turned: Tensor, weight: Tensor | None, out: Tensor) -> Tensor:
    return out.copy_(turned) if weight is None else torch.mul(turned, weight, out=out)


@rule("native_layer_norm")
def _layer_norm(op: Any, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    if isinstance(weight, Stacked) or not isinstance(x, Stacked):
        return NotImplemented
    buffer = x.buffer.contiguous()
    value, mean, rstd = op(buffer[0], shape, weight, bias, eps)
    mask = [True, False, False]

    def derivative(tangent: Tensor, out: Tensor) -> Tensor:
        turned = aten.native_layer_norm_backward(tangent, buffer[0], shape, mean, rstd, None, None, mask)[0]
        return _times(turned, weight, out)

    return _lanes(buffer, value, derivative), mean, rstd


@rule("native_group_norm")
def _group_norm(op: Any, x: Any, weight: Any, bias: Any, n: int, c: int, area: int, groups: int, eps: float) -> Any:
    if isinstance(weight, Stacked) or not isinstance(x, Stacked):
        return NotImplemented
    buffer = x.buffer.contiguous()
    value, mean, rstd = op(buffer[0], weight, bias, n, c, area, groups, eps)
    mask = [True, False, False]

    gain = None if weight is None else weight.reshape(-1, *[1] * (x.ndim - 2))

    def derivative(tangent: Tensor, out: Tensor) -> Tensor:
        turned = aten.native_group_norm_backward(tangent, buffer[0], mean, rstd, None, n, c, area, groups, mask)[0]
        return _times(turned, gain, out)

    return _lanes(buffer, value, derivative), mean, rstd


@rule("_softmax")
def _softmax(op: Any, x: Stacked, dim: int, half_to_float: bool) -> Stacked:
    value = op(x.buffer[0], dim, half_to_float)
    backward = aten._softmax_backward_data.out
    return _lanes(x.buffer, value, lambda t, out: backward(t, value, dim, value.dtype, grad_input=out))


@rule("_log_softmax")
def _log_softmax(op: Any, x: Stacked, dim: int, half_to_float: bool) -> Stacked:
    value = op(x.buffer[0], dim, half_to_float)
    chance = value.exp()
    return _lanes(x.buffer, value, lambda t, out: torch.sub(t, (chance * t).sum(dim, keepdim=True), out=out))


@rule("max_pool2d_with_indices")
def _max_pool(op: Any, x: Stacked, *args: Any) -> Any:
    """The tangents follow the primal's maxima."""
    buffer = x.buffer
    value, index = op(buffer[0], *args)
    lanes = buffer[1:].flatten(-2).gather(-1, index.flatten(-2).expand(len(buffer) - 1, *index.shape[:-2], -1))
    return Stacked(torch.cat([value[None], lanes.unflatten(-1, index.shape[-2:])])), index


@rule("max.dim", "min.dim")
def _extreme_along(op: Any, x: Stacked, dim: int, keepdim: bool = False) -> Any:
    value, index = op(x.buffer[0], dim, True)
    lanes = x.buffer[1:].gather(dim % x.ndim + 1, index.expand(len(x.buffer) - 1, *index.shape))
    out = torch.cat([value[None], lanes])
    return Stacked(out if keepdim else out.squeeze(dim % x.ndim + 1)), index if keepdim else index.squeeze(dim)
