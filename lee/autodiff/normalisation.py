"""Rules of normalisations, softmax and max pooling.

The Jacobians of softmax and of a normalisation without its affine part are symmetric, so torch's fused backward kernels
compute the forward derivative too.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lee.autodiff.registry import axis, rule
from lee.autodiff.tensor import FUNCTION_RULES, Stacked

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


def _layer_norm(
    func: Any, x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    if isinstance(weight, Stacked) or isinstance(bias, Stacked) or not isinstance(x, Stacked):
        return NotImplemented
    buffer = x.buffer.contiguous()
    value, mean, rstd = aten.native_layer_norm(buffer[0], shape, weight, bias, eps)
    mask = [True, False, False]

    def derivative(tangent: Tensor, out: Tensor) -> Tensor:
        turned = aten.native_layer_norm_backward(tangent, buffer[0], shape, mean, rstd, None, None, mask)[0]
        return _times(turned, weight, out)

    return _lanes(buffer, value, derivative)


def _group_norm(
    func: Any, x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    if isinstance(weight, Stacked) or isinstance(bias, Stacked) or not isinstance(x, Stacked) or x.ndim < 2:
        return NotImplemented
    buffer, (n, c) = x.buffer.contiguous(), x.shape[:2]
    area = buffer[0, 0, 0].numel()
    value, mean, rstd = aten.native_group_norm(buffer[0], weight, bias, n, c, area, groups, eps)
    gain, mask = None if weight is None else weight.reshape(-1, *[1] * (x.ndim - 2)), [True, False, False]

    def derivative(tangent: Tensor, out: Tensor) -> Tensor:
        turned = aten.native_group_norm_backward(tangent, buffer[0], mean, rstd, None, n, c, area, groups, mask)[0]
        return _times(turned, gain, out)

    return _lanes(buffer, value, derivative)


FUNCTION_RULES |= {F.layer_norm: _layer_norm, torch.layer_norm: _layer_norm}
FUNCTION_RULES |= {F.group_norm: _group_norm, torch.group_norm: _group_norm}


def _statistics(x: Stacked, flat: Tensor, eps: float, shape: Sequence[int]) -> tuple[Stacked, Stacked]:
    """Mean and inverse standard deviation over the last axis of `flat` (S, ..., entries), as stacks of a given shape."""
    mean = flat.mean(-1, keepdim=True)
    centred = flat[0] - mean[0]
    rstd = (centred.square().mean(-1) + eps).rsqrt()
    slopes = -rstd.pow(3) * (centred * (flat[1:] - mean[1:])).mean(-1)
    whole = torch.cat([rstd[None], slopes])
    return tuple(Stacked(v.reshape(len(flat), *shape)) for v in (mean, whole))  # type: ignore[return-value]


@rule("native_layer_norm")
def _native_layer_norm(op: Any, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    out = _layer_norm(op, x, shape, weight, bias, eps)
    if out is NotImplemented:
        return out
    outer = x.shape[: x.ndim - len(shape)]
    return out, *_statistics(x, x.buffer.flatten(len(outer) + 1), eps, (*outer, *[1] * len(shape)))


@rule("native_group_norm")
def _native_group_norm(
    op: Any, x: Any, weight: Any, bias: Any, n: int, c: int, area: int, groups: int, eps: float
) -> Any:
    out = _group_norm(op, x, groups, weight, bias, eps)
    if out is NotImplemented:
        return out
    return out, *_statistics(x, x.buffer.reshape(len(x.buffer), n, groups, -1), eps, (n, groups))


def _lead(tangent: Tensor, top: Tensor, dim: int) -> Tensor:
    """How much faster each score moves than the top one: softmax ignores a common shift, which would only cost digits."""
    return tangent - tangent.gather(dim, top)


@rule("_softmax")
def _softmax(op: Any, x: Stacked, dim: int, half_to_float: bool) -> Any:
    if half_to_float or not x.ndim:
        return NotImplemented
    value = op(x.buffer[0], dim, half_to_float)
    top, backward = value.argmax(dim, keepdim=True), aten._softmax_backward_data.out
    return _lanes(x.buffer, value, lambda t, out: backward(_lead(t, top, dim), value, dim, value.dtype, grad_input=out))


@rule("_log_softmax")
def _log_softmax(op: Any, x: Stacked, dim: int, half_to_float: bool) -> Any:
    if half_to_float or not x.ndim:
        return NotImplemented
    value = op(x.buffer[0], dim, half_to_float)
    chance, top = value.exp(), value.argmax(dim, keepdim=True)

    def derivative(tangent: Tensor, out: Tensor) -> Tensor:
        lead = _lead(tangent, top, dim)
        return torch.sub(lead, (chance * lead).sum(dim, keepdim=True), out=out)

    return _lanes(x.buffer, value, derivative)


@rule("max_pool2d_with_indices")
def _max_pool(op: Any, x: Stacked, *args: Any) -> Any:
    """The tangents follow the primal's maxima."""
    buffer = x.buffer
    value, index = op(buffer[0], *args)
    lanes = buffer[1:].flatten(-2).gather(-1, index.flatten(-2).expand(len(buffer) - 1, *index.shape[:-2], -1))
    return Stacked(torch.cat([value[None], lanes.unflatten(-1, index.shape[-2:])])), index


@rule("max.dim", "min.dim")
def _extreme_along(op: Any, x: Stacked, dim: int, keepdim: bool = False) -> Any:
    place = axis(dim, x.ndim)
    value, index = op(x.buffer[0], dim, True)
    lanes = x.buffer[1:].gather(place, index.expand(len(x.buffer) - 1, *index.shape))
    out = torch.cat([value[None], lanes])
    return Stacked(out if keepdim else out.squeeze(place)), index if keepdim else index.squeeze(dim)
