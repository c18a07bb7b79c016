"""What one stacked pass keeps in mind about memory: what is deferred, and which tensors may or may not share storage.

A stack lies in memory in its own way, so where torch returns a view or a copy depending on strides (`reshape`,
`contiguous`), and where a fallback returns a copy of what is a view in torch, a later write in place could reach too few
tensors or too many. Such pairs are *doubtful*: a write into one while the other is alive ends the stacked pass, and the
whole function runs on dual numbers.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from lee.stacked.messages import CannotStackError


@dataclass(eq=False)
class Pass:
    """The state of one stacked pass.

    Args:
        is_open: False once the pass has ended: stacks that a model has kept are constants from then on.
        deferred: Those whose convolution has not run.
        written: Storages written in place since the current function began.
        doubts: Per storage, itself and the one that may share its memory in torch, or may not although it does here.
    """

    is_open: bool = True
    deferred: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet)
    written: set[int] = field(default_factory=set)
    doubts: dict[int, list[tuple[StorageWeakRef, StorageWeakRef]]] = field(default_factory=dict)

    def doubt(self, first: Tensor, second: Tensor) -> None:
        """Remember that writes into the memory of one tensor may concern the other."""
        a, b = (StorageWeakRef(t.untyped_storage()) for t in (first, second))
        self.doubts.setdefault(a.cdata, []).append((a, b))
        self.doubts.setdefault(b.cdata, []).append((b, a))

    def before_write(self, memory: Tensor) -> None:
        """Prepare for a write into `memory`, the buffer of a stack or a plain tensor: run what is deferred on it.

        Raises:
            CannotStackError: If it is doubtful which tensors the write reaches.
        """
        storage = storage_of(memory)
        for stack in list(self.deferred):
            if stack.deferred is not None and storage in map(storage_of, stack.deferred.sources):
                _ = stack.buffer
        for _, other in self.doubts.get(storage, ()):
            if _users(storage) > 1 if other.cdata == storage else not other.expired():
                raise CannotStackError("a write in place into memory that a copy or a view may share")


def _users(storage: int) -> int:
    """How many tensors lie in a storage (which the object that stands for it in Python uses as well)."""
    return int(torch._C._storage_Use_Count(storage)) - 1


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
