"""The derivative of one function without a rule, by `torch.func.vmap(torch.func.jvp)`."""

import importlib
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from lee.autodiff import passes
from lee.autodiff.messages import CannotStackError, ForwardModeError, NoRuleError, name_of, note_fallback, short
from lee.autodiff.surroundings import random_state
from lee.autodiff.tensor import Stacked, has_tangents

#: What torch has a wrong formula for, or a zero in place of one.
BROKEN = frozenset({
    "cholesky_inverse", "logcumsumexp", "logical_and_", "logical_not_", "logical_or_", "logical_xor_", "normal", "scatter_reduce_",
})  # fmt: skip


def check_formula(name: str, kwargs: Any) -> None:
    """Refuse a function of moving values that torch differentiates wrongly.

    Raises:
        ForwardModeError: For such a function.
    """
    if name in BROKEN or (name == "embedding" and kwargs.get("max_norm") is not None):
        raise ForwardModeError(name)


@cache
def load_formulas() -> None:
    """Import torch's formulas for forward mode, which torch itself still scripts, without a warning to the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


class _Call:
    """A function of the primals of its stacked arguments, and what it does to its arguments in place."""

    def __init__(self, func: Any, args: Any, kwargs: Any) -> None:
        self.func = func
        self.leaves, self.tree = pytree.tree_flatten((args, kwargs))
        self.places = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Stacked)]
        self.stacks: list[Stacked] = [self.leaves[i] for i in self.places]
        self.constants = [v for v in self.leaves if isinstance(v, Tensor) and not isinstance(v, Stacked)]
        self.changed: list[int] = []  # positions, among the stacks, of those that the function writes into

    def on(self, copies: list[Tensor]) -> Any:
        """The function's result on these values, into which it may write."""
        filled = list(self.leaves)
        for place, copy in zip(self.places, copies, strict=True):
            filled[place] = copy
        positional, named = pytree.tree_unflatten(filled, self.tree)
        return self.func(*positional, **named)

    def value(self) -> tuple[Any, list[Tensor]]:
        """The result on copies of the primals, and the copies as the function leaves them."""
        before = [v._version for v in self.constants if not v.is_inference()]
        copies = [s.buffer[0].clone() for s in self.stacks]
        places = [(c.data_ptr(), c.shape, c.stride()) for c in copies]
        result = self.on(copies)
        if before != [v._version for v in self.constants if not v.is_inference()]:
            raise NoRuleError(f"{name_of(self.func)} writes a stacked tensor into a plain one")
        if places != [(c.data_ptr(), c.shape, c.stride()) for c in copies]:
            raise CannotStackError(f"{name_of(self.func)} changes in place how a tensor lies in memory")
        self.changed = [i for i, copy in enumerate(copies) if copy._version]
        return result, copies

    def moving(self, *values: Tensor) -> list[Tensor]:
        """All that depends on the values: results, then changed arguments."""
        copies = [v.clone() for v in values]
        result = self.on(copies)
        return [v for v in pytree.tree_leaves(result) if _is_followed(v)] + [copies[i] for i in self.changed]


def by_functorch(func: Any, args: Any, kwargs: Any) -> Any:
    """Differentiate one function: the rule of everything without a rule.

    Raises:
        NoRuleError: If the function writes a stack into a plain tensor.
        CannotStackError: If its effect on memory can't be repeated on stacks.
        ForwardModeError: If torch can't differentiate it forward.
    """
    note_fallback(name_of(func))
    check_formula(short(name_of(func)), kwargs)
    load_formulas()
    call = _Call(func, args, kwargs)
    if call.places[0] != 0 and writes_first(func):
        raise NoRuleError(f"{name_of(func)} writes a stacked tensor into a plain one")
    with torch._C._DisableTorchDispatch(), sdpa_kernel(SDPBackend.MATH):  # functorch crashes below dispatch modes
        result, copies = call.value()
        leaves, tree = pytree.tree_flatten(result)
        _check(call, leaves, copies)
        values = [v for v in leaves if _is_followed(v)] + [copies[i] for i in call.changed]
        lanes = _directions(call, name_of(func)) if values else []
        buffers = [torch.cat([v[None], lane.to(v.dtype)]) for v, lane in zip(values, lanes, strict=True)]
        for i, buffer in zip(call.changed, buffers[len(buffers) - len(call.changed) :], strict=True):
            _write(call.stacks[i], buffer)
    written = {id(copies[i]): call.stacks[i] for i in call.changed}
    made = iter(buffers)
    stacked = [(next(made), v) if _is_followed(v) else (None, v) for v in leaves]
    out = [v if b is None else written[id(v)] if id(v) in written else Stacked(b) for b, v in stacked]
    _doubt_views(call, copies, leaves, out)
    return pytree.tree_unflatten(out, tree)


def into(func: Any, args: Any, kwargs: Any) -> Any:
    """A function with `out=`: the same without it, then a write in place.

    Raises:
        NoRuleError: If a stack would have to be written into a plain tensor.
    """
    target = kwargs["out"]
    given = {k: v for k, v in kwargs.items() if k != "out"}
    with torch._C._EnableTorchFunction():
        result = func(*args, **given)
    if not isinstance(target, Stacked) or not isinstance(result, Tensor) or result.shape != target.shape:
        raise NoRuleError(f"{name_of(func)} writes a stacked tensor into a plain one")
    return target.copy_(result)


def _write(stack: Stacked, buffer: Tensor) -> None:
    if (state := passes.current()) is not None:
        state.before_write(stack.buffer)
    stack.group.before_write()
    stack.buffer.copy_(buffer)


def _doubt_views(call: _Call, copies: list[Tensor], leaves: list[Any], out: list[Any]) -> None:
    """Results that are views in torch are copies here."""
    places = list(zip(copies, call.stacks, strict=True))
    for leaf, stack in zip(leaves, out, strict=True):
        if isinstance(stack, Stacked):
            for seen, other in places:
                if stack is not other and passes.are_shared(leaf, seen):
                    stack.group.doubt(other.group)
            places.append((leaf, stack))


def _check(call: _Call, leaves: list[Any], copies: list[Tensor]) -> None:
    """Refuse results that carry the input's values on without tangents, and those that lie in a constant's memory."""
    name = name_of(call.func)
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.layout is not torch.strided:
            raise CannotStackError(f"{name} returns a {leaf.layout} tensor")
        if any(passes.are_shared(leaf, v) for v in call.constants):
            raise CannotStackError(f"{name} returns a view of a constant")
        same_bits = any(passes.are_shared(leaf, c) for c in copies)  # read as integers
        if isinstance(leaf, Tensor) and not _is_followed(leaf) and (leaf.is_quantized or same_bits):
            raise ForwardModeError(name)


def _directions(call: _Call, name: str) -> list[Tensor]:
    """The tangents of a function's outputs.

    Raises:
        ForwardModeError: If torch's forward mode passes over the function, as it does over torchvision's own operators.
    """
    primals = tuple(s.buffer[0] for s in call.stacks)

    def along(*tangents: Tensor, strict: bool) -> Any:
        return torch.func.jvp(call.moving, primals, tangents, strict=strict)[1]

    lanes = tuple(s.buffer[1:] for s in call.stacks)
    try:
        return torch.func.vmap(partial(along, strict=True))(*lanes)
    except RuntimeError as error:
        if "strict=True" not in str(error):
            raise
    directions: list[Tensor] = torch.func.vmap(partial(along, strict=False))(*lanes)
    still = [not bool(d.any()) for d in directions]
    if any(a and b for a, b in zip(still, answers(call.moving, primals, [t[0] for t in lanes]), strict=True)):
        raise ForwardModeError(name)
    return directions


def answers(function: Callable[..., list[Tensor]], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[bool]:
    """Whether each output of a function changes when its inputs do: if so, a vanishing tangent is a missing formula."""
    restart, runs = random_state(primals[0].device), []
    for far in (0, 1):
        runs.append(function(*(p + far * _step(p, t) * t for p, t in zip(primals, tangents, strict=True))))
        restart()
    here, there = runs
    return [
        a.shape != b.shape or not torch.allclose(a, b, 0, 0, equal_nan=True) for a, b in zip(here, there, strict=True)
    ]


def _step(x: Tensor, tangent: Tensor) -> Tensor:
    """What makes a step along the tangent small, but not as small as rounding."""
    size, speed = x.abs().amax() if x.numel() else x.sum().abs(), tangent.abs().amax() if x.numel() else x.sum().abs()
    return torch.where(speed > 0, torch.finfo(x.dtype).eps ** 0.25 * torch.where(size > 0, size, 1) / speed, 0)


def writes_first(func: Any) -> bool:
    """Whether a function's name says that it writes into its first argument."""
    name = getattr(func, "__name__", "").partition(".")[0]
    in_place = name.endswith("_") and not name.endswith("__")
    special = name.startswith("__i") and name not in ("__index__", "__invert__", "__int__", "__iter__")
    return in_place or special or name in ("__setitem__", "__set__")


def _is_followed(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and has_tangents(value)
