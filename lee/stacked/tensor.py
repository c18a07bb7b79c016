"""The stacked tensor, and what happens to functions that have no rule.

A :class:`Stacked` tensor looks like the primal, shape `(N, ...)`, and carries a buffer of shape `(1 + K, N, ...)`: slice 0
is the primal, the others are tangents. A linear operation then runs *once* on the whole stack (one convolution or
matrix product over `(1 + K)·N` images), and a non-linear one once on the primal, with its derivative multiplied into
the tangents. So K directional derivatives cost about as much as a forward pass over `1 + K` times the images, and no
graph is kept.

Whatever has no rule is differentiated by `torch.func.vmap(torch.func.jvp)` of that one function. This happens one level
above the dispatcher, in `__torch_function__`, because functorch's transforms can't be entered from inside it.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from lee.errors import InputError

RULES: dict[Any, Callable[..., Any]] = {}  # ATen overload -> rule
FUNCTION_RULES: dict[Any, Callable[..., Any]] = {}  # torch function -> rule, tried before its decomposition

_fallbacks: ContextVar[list[str] | None] = ContextVar("lee_fallbacks", default=None)


class NoRuleError(NotImplementedError):
    """An operator without a rule met a stacked tensor."""


class ForwardModeError(InputError):
    """Torch has no forward-mode derivative of a function that the model uses."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Torch has no forward-mode derivative of {name.rpartition('.')[2]}. Use mode='reverse' where the model has a "
            "backward pass, else mode='differences'."
        )


class LeavesTorchError(ForwardModeError):
    """A value that moves with the input leaves torch, as a Python number or a NumPy array; no derivative can follow it there."""

    def __init__(self, name: str) -> None:
        InputError.__init__(
            self,
            f"{name.rpartition('.')[2]} takes a value that depends on the input out of torch, where no derivative can follow "
            "it. Compute it with torch functions, or use mode='differences'.",
        )


class Stacked(Tensor):
    """A primal and K tangents in one buffer of shape `(1 + K, N, ...)`; to torch code it looks like the primal."""

    _buffer: Tensor | None
    deferred: Any  # a lee.stacked.convolution.Convolution that has not run yet

    @staticmethod
    def __new__(cls, buffer: Tensor | None, deferred: Any = None) -> "Stacked":
        """Wrap `buffer`, or something with `.run() -> buffer` and the `.like` (shape, strides, dtype, device) of it."""
        like = deferred.like if buffer is None else buffer[0]
        self = Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device, requires_grad=False
        )
        self._buffer, self.deferred = buffer, deferred
        return self

    def __init__(self, buffer: Tensor | None, deferred: Any = None) -> None:
        super().__init__()

    @property
    def buffer(self) -> Tensor:
        """The stack, shape (1 + K, N, ...)."""
        if self._buffer is None:
            self._buffer, self.deferred = self.deferred.run(), None
        return self._buffer

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Stacked(shape={tuple(self.shape)}, dtype={self.dtype})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Apply a rule for the whole function, else its ATen decomposition, else functorch."""
        kwargs = kwargs or {}
        rule = FUNCTION_RULES.get(func)
        with torch._C.DisableTorchFunctionSubclass():
            if rule is not None:
                result = rule(func, *args, **kwargs)
                if result is not NotImplemented:
                    return result
            try:
                return func(*args, **kwargs)
            except NoRuleError:
                pass
        return _by_functorch(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Apply the rule of an ATen operator."""
        rule = RULES.get(func)
        if rule is None:
            raise NoRuleError(f"no stacked rule for {func}")
        result = rule(func, *args, **(kwargs or {}))
        if result is NotImplemented:
            raise NoRuleError(f"no stacked rule for {func} with these arguments")
        return result


def primal(value: Any) -> Any:
    """The primal of a stacked tensor; anything else unchanged."""
    return value.buffer[0] if isinstance(value, Stacked) else value


def name_of(func: Any) -> str:
    """What a function is called in messages."""
    return getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or str(func)


@cache
def load_formulas() -> None:
    """Import torch's formulas for forward mode, which torch itself still scripts, without a warning to the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _by_functorch(func: Any, args: Any, kwargs: Any) -> Any:
    """Differentiate one function by `vmap(jvp)`: the rule of everything without a rule."""
    note_fallback(name_of(func))
    load_formulas()
    leaves, tree = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Stacked)]
    stacks = [leaves[i].buffer for i in places]
    mutates = _mutates_first(func)
    if mutates and places[0] != 0:
        raise NoRuleError(f"{name_of(func)} writes a stacked tensor into a plain one")

    def call(*values: Tensor) -> Any:
        filled = list(leaves)
        for place, value in zip(places, values, strict=True):
            filled[place] = value.clone() if mutates and place == places[0] else value
        positional, named = pytree.tree_unflatten(filled, tree)
        result = func(*positional, **named)
        return positional[0] if mutates and not isinstance(result, Tensor) else result

    primals = tuple(s[0] for s in stacks)
    with sdpa_kernel(SDPBackend.MATH):
        value = call(*primals)
        directions = _directions(_tensors_only(call), primals, tuple(s[1:] for s in stacks), name_of(func))
    result = _zip_stacks(value, directions)
    if mutates and isinstance(leaves[places[0]], Stacked):
        leaves[places[0]].buffer.copy_(result.buffer)
        return leaves[places[0]]
    return result


def _directions(call: Callable[..., Any], primals: tuple[Tensor, ...], lanes: tuple[Tensor, ...], name: str) -> Any:
    """The tangents of a function's outputs.

    Raises:
        ForwardModeError: If torch's forward mode passes over the function, as it does over torchvision's own operators.
    """

    def along(*tangents: Tensor, strict: bool) -> Any:
        return torch.func.jvp(call, primals, tangents, strict=strict)[1]

    try:
        return torch.func.vmap(partial(along, strict=True))(*lanes)
    except RuntimeError as error:
        if "strict=True" not in str(error):
            raise
    directions = torch.func.vmap(partial(along, strict=False))(*lanes)
    still = [not bool(d.any()) for d in directions]
    if any(a and b for a, b in zip(still, _are_differentiable(call, primals), strict=True)):
        raise ForwardModeError(name)
    return directions


def _are_differentiable(call: Callable[..., Any], primals: Sequence[Tensor]) -> list[bool]:
    """Whether torch's reverse mode sees that each output depends on the inputs."""
    with torch.enable_grad():
        return [out.requires_grad for out in call(*(p.detach().clone().requires_grad_() for p in primals))]


def _mutates_first(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return (
        in_place
        or name == "__setitem__"
        or (name.startswith("__i") and name not in ("__index__", "__invert__", "__int__"))
    )


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype.is_floating_point


def _tensors_only(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: [leaf for leaf in pytree.tree_leaves(call(*values)) if _is_real(leaf)]


def _zip_stacks(value: Any, directions: list[Tensor]) -> Any:
    leaves, tree = pytree.tree_flatten(value)
    lanes = iter(directions)
    joined = [Stacked(torch.cat([leaf[None], next(lanes)])) if _is_real(leaf) else leaf for leaf in leaves]
    return pytree.tree_unflatten(joined, tree)


def note_fallback(name: str) -> None:
    """Tell the innermost :func:`record_fallbacks` about a function without a rule."""
    found = _fallbacks.get()
    if found is not None:
        found.append(name)


@contextmanager
def record_fallbacks() -> Iterator[list[str]]:
    """Collect the names of functions that have no stacked rule, in the order of their calls.

    Examples:
        >>> from lee.stacked import pushforward
        >>> with record_fallbacks() as names:
        ...     _ = pushforward(torch.special.i0e, torch.ones(1, 2), torch.ones(1, 1, 2))
        >>> len(names)
        1
    """
    names: list[str] = []
    token = _fallbacks.set(names)
    try:
        yield names
    finally:
        _fallbacks.reset(token)
