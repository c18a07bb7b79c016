"""Rules of pointwise operators: the derivative is computed once, on the primal, and multiplied into the tangents."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.registry import lift, ndim, rule, with_primal
from lee.autodiff.tensor import Stacked, primal

aten = torch.ops.aten

# slope(x, y, *arguments of the operator) with y = f(x)
_SLOPES: dict[str, Callable[..., Tensor]] = {
    "exp": lambda x, y: y,
    "log": lambda x, y: x.reciprocal(),
    "log1p": lambda x, y: (1 + x).reciprocal(),
    "sqrt": lambda x, y: 0.5 / y,
    "rsqrt": lambda x, y: -0.5 * y / x,
    "reciprocal": lambda x, y: -y * y,
    "sin": lambda x, y: x.cos(),
    "cos": lambda x, y: -x.sin(),
    "abs": lambda x, y: x.sign(),
    "tanh": lambda x, y: 4 * (2 * x).sigmoid() * (-2 * x).sigmoid(),  # `1 - y²` is rounding where `y` is almost 1
    "sigmoid": lambda x, y: y * (-x).sigmoid(),
    "asinh": lambda x, y: (x * x + 1).rsqrt(),
    "acosh": lambda x, y: (x * x - 1).rsqrt(),
    "atanh": lambda x, y: (1 - x * x).reciprocal(),
    "erf": lambda x, y: torch.exp(-x * x) * (2 / math.sqrt(math.pi)),
    "pow.Tensor_Scalar": lambda x, y, p: _power(x, p),
    "gelu": lambda x, y, approximate="none": aten.gelu_backward(torch.ones_like(x), x, approximate=approximate),
    "silu": lambda x, y: aten.silu_backward(torch.ones_like(x), x),
    "mish": lambda x, y: aten.mish_backward(torch.ones_like(x), x),
    "hardswish": lambda x, y: aten.hardswish_backward(torch.ones_like(x), x),
    "hardsigmoid": lambda x, y: aten.hardsigmoid_backward(torch.ones_like(x), x),
    "hardtanh": lambda x, y, low=-1.0, high=1.0: ((x > low) & (x < high)).to(x.dtype),
    "leaky_relu": lambda x, y, slope=0.01: aten.leaky_relu_backward(torch.ones_like(x), x, slope, False),
    "elu": lambda x, y, a=1.0, s=1.0, i=1.0: aten.elu_backward(torch.ones_like(x), a, s, i, False, x),
    "softplus": lambda x, y, beta=1.0, limit=20.0: aten.softplus_backward(torch.ones_like(x), x, beta, limit),
    "clamp": lambda x, y, low=None, high=None: _inside(x, low, high),
    "clamp_min": lambda x, y, low: _inside(x, low, None),
    "clamp_max": lambda x, y, high: _inside(x, None, high),
}


def _power(x: Tensor, p: float) -> Tensor:
    return 2 * x if p == 2 else p * x.pow(p - 1) if p else torch.zeros_like(x)


def _inside(x: Tensor, low: float | None, high: float | None) -> Tensor:
    inside = torch.ones_like(x, dtype=torch.bool)
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high
    return inside.to(x.dtype)


def _pointwise(slope: Callable[..., Tensor]) -> Callable[..., Any]:
    def apply(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, Stacked) or any(isinstance(a, Tensor) for a in args):
            return NotImplemented
        buffer = x.buffer
        value = op(buffer[0], *args, **kwargs)
        out = torch.empty_like(buffer)
        out[0] = value
        torch.mul(buffer[1:], slope(buffer[0], value, *args, **kwargs), out=out[1:])
        return Stacked(out)

    return apply


for _name, _slope in _SLOPES.items():
    rule(_name)(_pointwise(_slope))


@rule("relu")
def _relu(op: Any, x: Stacked) -> Stacked:
    buffer = x.buffer
    return Stacked(aten.threshold_backward(buffer, buffer[0].expand_as(buffer), 0))  # one pass for value and tangents


@rule("relu_")
def _relu_in_place(op: Any, x: Stacked) -> Stacked:
    buffer = x.buffer
    lanes = buffer[1:]
    aten.threshold_backward.grad_input(lanes, buffer[0].expand_as(lanes), 0, grad_input=lanes)
    buffer[0].relu_()
    return x


@rule("add.Tensor", "sub.Tensor", "add.Scalar", "sub.Scalar")
def _add(op: Any, a: Any, b: Any, *, alpha: float = 1) -> Stacked:
    factor = -alpha if "sub" in str(op) else alpha
    depth = ndim(a, b)
    if isinstance(a, Stacked) and isinstance(b, Stacked):
        return Stacked(torch.add(lift(a.buffer, depth), lift(b.buffer, depth), alpha=factor))
    stack, constant = (a, b) if isinstance(a, Stacked) else (b, a)
    buffer = lift(stack.buffer, depth)
    if isinstance(constant, Tensor):
        shape = torch.broadcast_shapes(stack.shape, constant.shape)
        if shape != stack.shape:
            buffer = buffer.expand(-1, *shape)
    if stack is a:
        return with_primal(buffer.clone(), torch.add(buffer[0], constant, alpha=factor))
    return with_primal(buffer * factor, op(a, primal(b), alpha=alpha) if alpha != 1 else op(a, primal(b)))


@rule("rsub.Scalar", "rsub.Tensor")
def _rsub(op: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    if alpha != 1 or not isinstance(a, Stacked) or isinstance(b, Tensor):
        return NotImplemented
    return with_primal(-a.buffer, b - primal(a))


@rule("add_.Tensor")
def _add_in_place(op: Any, a: Any, b: Any, *, alpha: float = 1) -> Any:
    if not isinstance(a, Stacked):
        return NotImplemented
    if isinstance(b, Stacked):
        a.buffer.add_(lift(b.buffer, a.ndim), alpha=alpha)
    else:
        a.buffer[0].add_(b, alpha=alpha)
    return a


@rule("mul.Tensor", "mul.Scalar")
def _mul(op: Any, a: Any, b: Any) -> Stacked:
    depth = ndim(a, b)
    if isinstance(a, Stacked) and isinstance(b, Stacked):
        first, second = lift(a.buffer, depth), lift(b.buffer, depth)
        out = first * second[0]
        out[1:].addcmul_(first[0], second[1:])
        return Stacked(out)
    stack, constant = (a, b) if isinstance(a, Stacked) else (b, a)
    return Stacked(lift(stack.buffer, depth) * constant)


@rule("div.Tensor", "div.Scalar")
def _div(op: Any, a: Any, b: Any) -> Stacked:
    depth = ndim(a, b)
    if not isinstance(b, Stacked):
        return Stacked(lift(a.buffer, depth) / b)
    below = lift(b.buffer, depth)
    value = primal(a) / below[0]
    tangents = -value * below[1:]
    if isinstance(a, Stacked):
        tangents = tangents + lift(a.buffer, depth)[1:]
    return Stacked(torch.cat([value[None], tangents / below[0]]))


@rule("where.self")
def _where(op: Any, condition: Any, a: Any, b: Any) -> Stacked:
    depth = ndim(condition, a, b)
    stacks = [lift(v.buffer, depth) if isinstance(v, Stacked) else v for v in (a, b)]
    tangents = [s[1:] if isinstance(v, Stacked) else torch.zeros_like(v) for s, v in zip(stacks, (a, b), strict=True)]
    value = op(primal(condition), primal(a), primal(b))
    lanes = op(primal(condition), *tangents)
    return Stacked(torch.cat([value[None], lanes]))


@rule("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(op: Any, x: Any, mask: Any, value: Any) -> Any:
    if not isinstance(x, Stacked) or isinstance(value, Stacked):
        return NotImplemented
    zero = 0 if not isinstance(value, Tensor) else torch.zeros_like(value)
    buffer = lift(x.buffer, ndim(x, mask))
    return with_primal(op(buffer, primal(mask), zero), op(buffer[0], primal(mask), value))


@rule("maximum", "minimum")
def _extreme(op: Any, a: Any, b: Any) -> Any:
    """Ties take the mean of both tangents, as torch's own derivative does."""
    depth = ndim(a, b)
    first, second = primal(a), primal(b)
    ahead = first > second if "maximum" in str(op) else first < second
    weight = torch.where(first == second, 0.5, ahead.to(first.dtype))
    lanes: Tensor | float = 0.0
    for value, share in ((a, weight), (b, 1 - weight)):
        if isinstance(value, Stacked):
            lanes = lanes + lift(value.buffer, depth)[1:] * share
    return Stacked(torch.cat([op(first, second)[None], torch.as_tensor(lanes)]))
