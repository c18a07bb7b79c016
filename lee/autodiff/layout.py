"""Rules of operators that move, copy or combine entries linearly: the same on every slice, with axes shifted by one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.messages import CannotStackError, LeavesTorchError
from lee.autodiff.registry import assign, axis, lift, ndim, rule, with_primal
from lee.autodiff.tensor import FUNCTION_RULES, Stacked, has_tangents, is_moving, primal


def _axes(dims: Sequence[int] | int | None, of: int) -> list[int]:
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return [axis(d, of) for d in range(max(of, 1))]
    return [axis(d, of) for d in ([dims] if isinstance(dims, int) else dims)]


@rule("view", "_unsafe_view", "_reshape_alias", linear=True)
def _view(op: Any, x: Stacked, size: Sequence[int], *_: Any) -> Stacked:
    buffer = x.buffer
    view = torch.ops.aten.view.default if "alias" in str(op) else op
    return Stacked(view(buffer, [len(buffer), *size]))


@rule("alias", "detach", "clone", "_to_copy", "lift_fresh", "neg", "detach_copy", linear=True)
def _copy(op: Any, x: Stacked, *, dtype: torch.dtype | None = None, memory_format: Any = None, **kwargs: Any) -> Any:
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        return op(primal(x), dtype=dtype, **kwargs)
    if dtype is not None:
        kwargs["dtype"] = dtype
    if memory_format is torch.contiguous_format:
        kwargs["memory_format"] = memory_format
    out = op(x.buffer, **kwargs)
    if memory_format is torch.channels_last:  # a layout of the images, not of the 5-dimensional stack
        out = out.flatten(0, 1).contiguous(memory_format=memory_format).unflatten(0, out.shape[:2])
    return Stacked(out)


@rule("as_strided_")
def _as_strided(op: Any, x: Stacked, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Any:
    """Pooling to one pixel restates the strides of axes with one entry, which move nothing."""
    same = all(n == 1 or a == b for n, a, b in zip(size, stride, x.stride(), strict=False))
    return x if tuple(size) == tuple(x.shape) and same and not offset else NotImplemented


@rule("permute", linear=True)
def _permute(op: Any, x: Stacked, dims: Sequence[int]) -> Stacked:
    return Stacked(op(x.buffer, [0, *_axes(dims, x.ndim)]))


@rule("transpose.int", linear=True)
def _transpose(op: Any, x: Stacked, first: int, second: int) -> Stacked:
    return Stacked(op(x.buffer, axis(first, x.ndim), axis(second, x.ndim)))


@rule("t", linear=True)
def _t(op: Any, x: Stacked) -> Stacked:
    return Stacked(x.buffer.mT if x.ndim == 2 else x.buffer)


@rule("unsqueeze", linear=True)
def _unsqueeze(op: Any, x: Stacked, dim: int) -> Stacked:
    return Stacked(op(x.buffer, axis(dim, x.ndim + 1)))


@rule("squeeze", "squeeze.dim", "squeeze.dims", linear=True)
def _squeeze(op: Any, x: Stacked, dim: Sequence[int] | int | None = None) -> Stacked:
    return Stacked(torch.squeeze(x.buffer, tuple(_axes(dim, x.ndim))))


@rule("expand", "repeat", linear=True)
def _expand(op: Any, x: Stacked, size: Sequence[int], **implicit: bool) -> Stacked:
    stack = 1 if "repeat" in str(op) else -1  # the stack's own axis stays as it is
    return Stacked(op(lift(x.buffer, len(size)), [stack, *size]))


@rule("split.Tensor", "split_with_sizes", linear=True)
def _split(op: Any, x: Stacked, size: Any, dim: int = 0) -> list[Stacked]:
    return [Stacked(part) for part in op(x.buffer, size, axis(dim, x.ndim))]


@rule("unbind.int", linear=True)
def _unbind(op: Any, x: Stacked, dim: int = 0) -> list[Stacked]:
    return [Stacked(part) for part in op(x.buffer, axis(dim, x.ndim))]


@rule("slice.Tensor", "select.int", "unfold", "cumsum", "index_select", linear=True)
def _along(op: Any, x: Stacked, dim: int = 0, *args: Any, **kwargs: Any) -> Stacked:
    return Stacked(op(x.buffer, axis(dim, x.ndim), *args, **kwargs))


@rule("flip", linear=True)
def _flip(op: Any, x: Stacked, dims: Sequence[int]) -> Stacked:
    return Stacked(op(x.buffer, [axis(d, x.ndim) for d in dims]))


@rule("roll", linear=True)
def _roll(op: Any, x: Stacked, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    return Stacked(op(x.buffer, shifts, _axes(dims, x.ndim))) if dims else NotImplemented


@rule("tril", "triu", linear=True)
def _triangle(op: Any, x: Stacked, diagonal: int = 0) -> Stacked:
    return Stacked(op(x.buffer, diagonal))


@rule("gather", linear=True)
def _gather(op: Any, x: Stacked, dim: int, index: Tensor, **kwargs: Any) -> Stacked:
    return Stacked(op(x.buffer, axis(dim, x.ndim), index.expand(len(x.buffer), *index.shape)))


@rule("index.Tensor", linear=True)
def _index(op: Any, x: Any, indices: Sequence[Tensor | None]) -> Any:
    places = [i for i, index in enumerate(indices) if index is not None]
    adjacent = places == list(range(places[0], places[-1] + 1))
    if not isinstance(x, Stacked) or not adjacent:  # torch moves the axes of scattered indices to the front
        return NotImplemented
    return Stacked(op(x.buffer, [None, *indices]))


@rule("cat", "stack", linear=True)
def _cat(op: Any, tensors: Sequence[Any], dim: int = 0) -> Stacked:
    depth = len(next(t for t in tensors if isinstance(t, Stacked)).buffer)
    of = ndim(*tensors) + (1 if "stack" in str(op) else 0)
    return Stacked(op([_constant(t, depth) for t in tensors], axis(dim, of)))


def _constant(value: Any, depth: int) -> Tensor:
    """The buffer of a stacked tensor; for a plain one, itself over zero tangents."""
    if isinstance(value, Stacked):
        return value.buffer
    out = value.new_zeros(depth, *value.shape)
    out[0] = value
    return out


@rule("constant_pad_nd", linear=True)
def _pad(op: Any, x: Stacked, pad: Sequence[int], value: float = 0) -> Stacked:
    out = op(x.buffer, pad, 0)
    return with_primal(out, op(primal(x), pad, value)) if value else Stacked(out)


@rule(
    "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "upsample_nearest2d",
    "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    "_adaptive_avg_pool2d", "avg_pool2d", "avg_pool3d", "pixel_shuffle", "pixel_unshuffle", "im2col", "channel_shuffle",
)  # fmt: skip
def _per_image(op: Any, x: Stacked, *args: Any, **kwargs: Any) -> Any:
    """Linear operators on a batch of images: the stack is a larger batch."""
    if x.ndim < 3 or any(isinstance(a, Stacked) for a in args):
        return NotImplemented
    return Stacked(op(x.buffer.flatten(0, 1), *args, **kwargs).unflatten(0, x.buffer.shape[:2]))


@rule("sum", "mean", "sum.dim_IntList", "mean.dim", linear=True)
def _reduce(
    op: Any, x: Stacked, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Stacked:
    return Stacked(op.overloadpacket(x.buffer, _axes(dim, x.ndim), keepdim, dtype=dtype))


@rule(
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full",
    "new_empty", linear=True,
)  # fmt: skip
def _fresh(op: Any, x: Stacked, *args: Any, **kwargs: Any) -> Any:
    """A new tensor may be filled in place later on, so it gets tangents, zero for now."""
    value = op(primal(x).contiguous(), *args, **kwargs)  # in this layout random numbers come in the model's own order
    if not has_tangents(value):
        return value
    return Stacked(_constant(value, len(x.buffer)))


@rule("copy_", linear=True)
def _assign(op: Any, target: Any, source: Any, *_: Any) -> Any:
    return assign(target, source) if isinstance(target, Stacked) else NotImplemented


@rule(
    "fill_.Scalar", "zero_", "bernoulli_.float", "uniform_", "normal_", "log_normal_", "exponential_", "geometric_", "cauchy_",
    "random_", "random_.to", "random_.from", linear=True,
)  # fmt: skip
def _fill(op: Any, target: Stacked, *args: Any, **kwargs: Any) -> Stacked:
    """Constants, random ones too; in this layout those come in the model's own order."""
    return assign(target, op(torch.empty_like(primal(target), memory_format=torch.contiguous_format), *args, **kwargs))


@rule("index_fill.int_Scalar", "index_fill.int_Tensor", linear=True)
def _index_fill(op: Any, x: Any, dim: int, index: Tensor, value: Any) -> Stacked:
    if isinstance(value, Stacked):
        raise CannotStackError("index_fill with a moving value, which functorch takes for a constant")
    place = axis(dim, x.ndim)
    return with_primal(
        op(x.buffer, place, index, torch.zeros_like(value) if isinstance(value, Tensor) else 0),
        op(primal(x), dim, index, value),
    )


@rule(
    "gt.Tensor", "gt.Scalar", "ge.Tensor", "ge.Scalar", "lt.Tensor", "lt.Scalar", "le.Tensor", "le.Scalar", "eq.Tensor",
    "eq.Scalar", "ne.Tensor", "ne.Scalar", "isnan", "isinf", "argmax", "argmin", "any", "all", "equal",
    "any.dim", "all.dim", "sign", "floor", "ceil", "round", "trunc", "floor_divide",
    "floor_divide.Scalar", "logical_not", "logical_and", "logical_or", "logical_xor", "is_same_size",
)  # fmt: skip
def _no_derivative(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Piecewise constant: the tangents end here."""
    return op(*(primal(a) for a in args), **kwargs)


@rule("_local_scalar_dense", linear=True)
def _number(op: Any, x: Any) -> Any:
    if is_moving(x):
        raise LeavesTorchError("item")
    return op(primal(x))


def _set_data(func: Any, target: Any, value: Any) -> Any:
    """`target.data = value`: from here on, `target` is another name for the memory of `value`."""
    if not (isinstance(target, Stacked) and isinstance(value, Stacked)) or target.shape != value.shape:
        return NotImplemented
    target._buffer, target.deferred, target.group = value.buffer, None, value.group
    return None


FUNCTION_RULES[Tensor.data.__set__] = _set_data  # type: ignore[attr-defined]


@rule("heaviside")
def _heaviside(op: Any, x: Any, values: Any) -> Any:
    return NotImplemented if isinstance(values, Stacked) else op(primal(x), values)
