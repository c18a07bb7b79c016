"""What is said of functions that have no rule: errors with their names, and a record of fallbacks for whoever asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import resolve_name

from lee.errors import InputError

_fallbacks: ContextVar[list[str] | None] = ContextVar("lee_fallbacks", default=None)


class NoRuleError(NotImplementedError):
    """An operator without a rule met a stacked tensor: its function is differentiated by functorch."""


class CannotStackError(RuntimeError):
    """What the function does can't be followed on stacks at all: the whole function runs on dual numbers."""


class ForwardModeError(InputError):
    """Torch has no forward-mode derivative of a function that the model uses."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Torch has no forward-mode derivative of {short(name)}. Use mode='reverse' where the model has a "
            "backward pass, else mode='differences'."
        )


class LeavesTorchError(ForwardModeError):
    """A value that moves with the input leaves torch, as a Python number or a NumPy array; no derivative can follow it there."""

    def __init__(self, name: str) -> None:
        InputError.__init__(
            self,
            f"{short(name)} takes a value that depends on the input out of torch, where no derivative can follow "
            "it. Compute it with torch functions, or use mode='differences'.",
        )


def short(name: str) -> str:
    """The last part of a dotted name; other text unchanged."""
    return name if " " in name else name.rpartition(".")[2]


def name_of(func: Any) -> str:
    """What a function, or the property that a getter or setter belongs to, is called in messages."""
    if isinstance(func, OpOverload | OpOverloadPacket):
        return str(getattr(func, "overloadpacket", func))
    name = getattr(func, "__name__", None)
    if name in ("__get__", "__set__"):
        return str(getattr(func.__self__, "__name__", name))
    if name == "fn":  # what torch calls functions that choose between two
        return str(resolve_name(func))
    return getattr(func, "__qualname__", None) or name or str(func)


def note_fallback(name: str) -> None:
    """Tell the innermost :func:`record_fallbacks` about a function without a rule."""
    found = _fallbacks.get()
    if found is not None:
        found.append(name)


@contextmanager
def record_fallbacks() -> Iterator[list[str]]:
    """Collect the names of functions that have no stacked rule, in the order of their calls.

    Examples:
        >>> import torch
        >>> from lee.autodiff import pushforward
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
