"""How rules are registered, and the few helpers that all of them use."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lee.stacked.tensor import RULES, Stacked

Rule = Callable[..., Any]


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen overloads such as `"add.Tensor"`; names that this torch doesn't have are passed over.

    A rule is called as `rule(op, *args, **kwargs)` and returns NotImplemented for arguments that it doesn't cover.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            if (op := _overload(name)) is not None:
                RULES[op] = function
                _register_in_place(name, op, function)
        return function

    return register


def _register_in_place(name: str, op: Any, function: Rule) -> None:
    """Derive the rule of `add_` from that of `add`: compute, then write into the first argument's buffer."""
    from lee.stacked.convolution import flush

    packet, _, overload = name.partition(".")
    in_place = _overload(f"{packet}_.{overload or 'default'}")
    if in_place is None or in_place in RULES:
        return

    def write(_: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(target, Stacked):
            return NotImplemented
        flush()
        result = function(op, target, *args, **kwargs)
        if result is NotImplemented:
            return result
        target.buffer.copy_(result.buffer)
        return target

    RULES[in_place] = write


def lift(buffer: Tensor, ndim: int) -> Tensor:
    """Insert axes behind the stack's, so that a stack of `d`-dimensional tensors broadcasts as `ndim`-dimensional ones."""
    missing = ndim - (buffer.ndim - 1)
    return buffer if missing <= 0 else buffer[(slice(None),) + (None,) * missing]


def ndim(*values: Any) -> int:
    """The largest number of dimensions among tensors; numbers have none."""
    return max(v.ndim if isinstance(v, Tensor) else 0 for v in values)


def scaled(buffer: Tensor, value: Tensor, slope: Tensor) -> Stacked:
    """The stack of a pointwise function: `value` as primal, the tangents of `buffer` times `slope`."""
    out = torch.empty_like(buffer)
    out[0] = value
    torch.mul(buffer[1:], slope, out=out[1:])
    return Stacked(out)


def with_primal(out: Tensor, value: Any) -> Stacked:
    """`out` with its slice 0 replaced by `value`."""
    out[0] = value
    return Stacked(out)
