"""What one stacked pass keeps in mind about memory: what is deferred, and which tensors may or may not share it.

A stack lies in memory in its own way, so where torch returns a view or a copy depending on strides (`reshape`,
`contiguous`), and where a fallback returns a copy of what is a view in torch, a later write in place could reach too few
tensors or too many. Stacks that are views of each other for certain are one *group*; groups that may be are *doubtful*: a
write into one of them while another is alive ends the stacked pass, and the whole function runs on dual numbers.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.messages import CannotStackError


class Group:
    """Stacks that are views of each other; it lives as long as one of them does."""

    __slots__ = ("__weakref__", "family")

    def __init__(self) -> None:
        self.family: weakref.WeakSet[Group] | None = None  # this group and the doubtful ones

    def doubt(self, other: "Group") -> None:
        """Remember that writes into one group may concern the other, and whoever is doubtful to either."""
        family = weakref.WeakSet({self, other, *(self.family or ()), *(other.family or ())})
        for group in family:
            group.family = family

    def before_write(self) -> None:
        """Check that it is certain which tensors a write reaches.

        Raises:
            CannotStackError: If it isn't.
        """
        if self.family is not None and any(group is not self for group in self.family):
            raise CannotStackError("a write in place into memory that a copy or a view may share")


@dataclass(eq=False)
class Pass:
    """The state of one stacked pass.

    Args:
        is_open: False once the pass has ended: stacks that a model has kept are constants from then on.
        deferred: Stacks whose convolution has not run.
        written: Storages written in place since the current function began.
    """

    is_open: bool = True
    deferred: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet)
    written: set[int] = field(default_factory=set)

    def before_write(self, memory: Tensor) -> None:
        """Run what is deferred on the memory of a tensor that is about to change."""
        storage = storage_of(memory)
        for stack in list(self.deferred):
            if stack.deferred is not None and storage in map(storage_of, stack.deferred.sources):
                _ = stack.buffer


_current: ContextVar[Pass | None] = ContextVar("lee_pass", default=None)


def current() -> Pass | None:
    """The pass that is going on."""
    return _current.get()


@contextmanager
def new_pass() -> Iterator[Pass]:
    """The stacks that are made inside belong together."""
    state = Pass()
    token = _current.set(state)
    try:
        yield state
    finally:
        state.is_open = False
        _current.reset(token)


def storage_of(memory: Tensor) -> int:
    """What identifies the memory of a tensor while that exists."""
    return int(memory.untyped_storage()._cdata)


def are_shared(first: Any, second: Any) -> bool:
    """Whether two tensors lie in the same memory."""
    strides = all(isinstance(t, Tensor) and t.layout is torch.strided for t in (first, second))
    return strides and storage_of(first) == storage_of(second)
