"""How rules are registered, and the few helpers that all of them use."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.messages import NoRuleError
from lee.autodiff.tensor import LINEAR, RULES, Stacked

Rule = Callable[..., Any]


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)


def rule(*names: str, linear: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for ATen overloads such as `"add.Tensor"`; names that this torch doesn't have are passed over.

    A rule is called as `rule(op, *args, **kwargs)` and returns NotImplemented for arguments that it doesn't cover. It meets
    real stacks of one precision alone, unless it only moves, copies or adds entries, which is `linear` for complex ones too.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            if (op := _overload(name)) is not None:
                RULES[op] = function
                in_place = _register_in_place(name, op, function)
                if linear:
                    LINEAR.update({op, in_place} - {None})
        return function

    return register


def _register_in_place(name: str, op: Any, function: Rule) -> Any:
    """Derive the rule of `add_` from that of `add`: compute, then write into the first argument's buffer."""
    packet, _, overload = name.partition(".")
    in_place = _overload(f"{packet}_.{overload or 'default'}") or _overload(f"{packet}_.Tensor")
    if in_place is None or in_place in RULES or torch.Tag.inplace_view in in_place.tags:
        return None

    # Computed aside and copied, never in place: the rule may read an argument that shares memory with the target
    # (`x.add_(x.flip(0))`), which torch itself forbids or orders in its own way.
    def write(_: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(target, Stacked):
            return NotImplemented
        result = function(op, target, *args, **kwargs)
        if result is NotImplemented or result.shape != target.shape:
            return NotImplemented
        return assign(target, result)

    RULES[in_place] = write
    return in_place


def assign(target: Stacked, value: Any) -> Stacked:
    """Write a stack, or a constant without tangents, into the buffer of another."""
    if isinstance(value, Stacked):
        target.buffer.copy_(lift(value.buffer, target.ndim))
    else:
        target.buffer[0].copy_(value)
        target.buffer[1:].zero_()
    return target


def axis(dim: int, of: int) -> int:
    """Position, in the stack, of axis `dim` of a tensor with `of` dimensions."""
    if not of:
        raise NoRuleError("a number has no axes")
    return dim % of + 1


def lift(buffer: Tensor, ndim: int) -> Tensor:
    """Insert axes behind the stack's, so that a stack of `d`-dimensional tensors broadcasts as `ndim`-dimensional ones."""
    missing = ndim - (buffer.ndim - 1)
    return buffer if missing <= 0 else buffer[(slice(None),) + (None,) * missing]


def ndim(*values: Any) -> int:
    """The largest number of dimensions among tensors; numbers have none."""
    return max(v.ndim if isinstance(v, Tensor) else 0 for v in values)


def with_primal(out: Tensor, value: Any) -> Stacked:
    """`out` with its slice 0 replaced by `value`."""
    out[0] = value
    return Stacked(out)
