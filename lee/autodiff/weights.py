"""Weights prepared for stacked convolutions: in the layout that suits the machine, with BatchNorm folded in.

They are kept for one measurement, one entry per parameter, and made anew when the content of what they were made from has
changed. Only parameters have entries: other weights may be new tensors in every pass, as those of standardised convolutions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from lee.autodiff.passes import storage_of


@dataclass(frozen=True)
class _Entry:
    """What was made of tensors; `sources` keeps their memory, so that no other content can come to lie there."""

    key: tuple[Any, ...]
    sources: tuple[Tensor, ...]
    result: Any


@dataclass(frozen=True)
class Workspace:
    """The layout of a measurement's convolutions, and its prepared weights."""

    channels_last: bool
    entries: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)

    def prepared(self, owner: Tensor, sources: tuple[Tensor, ...], kind: Any, make: Callable[[], Any]) -> Any:
        """What `make()` returns for some source tensors; kept, if the weight that they belong to is a parameter."""
        if not isinstance(owner, nn.Parameter) or any(s.is_inference() for s in sources):
            return make()
        # The address and torch's version counter say that the content is the same; `sources` in the entry keeps the memory alive,
        # so that no other tensor can come to lie at that address. Writes through `.data` move no counter: see `forget`.
        key = (kind, owner._version, *((s.data_ptr(), s._version, s.shape, s.stride(), s.dtype) for s in sources))
        entry = self.entries.get(owner)
        if entry is None or entry.key != key:
            self.entries[owner] = entry = _Entry(key, tuple(s.detach() for s in sources), make())
        return entry.result


_current: ContextVar[Workspace | None] = ContextVar("lee_workspace", default=None)


def current_workspace() -> Workspace | None:
    """The workspace of the measurement that is going on."""
    return _current.get()


@contextmanager
def workspace(x: Tensor) -> Iterator[None]:
    """Keep prepared weights for the passes inside; an inner call joins the outer one.

    On a CPU, float32 convolutions run with channels last, which oneDNN computes faster. (On a GPU that pays in half
    precision only, so the layout stays the model's own.)

    Args:
        x: What will be measured, (N, ...): its device and dtype choose the layout.
    """
    if _current.get() is not None:
        yield
        return
    token = _current.set(Workspace(x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)))
    try:
        yield
    finally:
        _current.reset(token)


def forget(memory: Tensor) -> None:
    """Drop what was made from a tensor that is about to change (a write into `.data` leaves no other trace)."""
    space, storage = _current.get(), storage_of(memory)
    entries = {} if space is None else space.entries
    for weight, entry in list(entries.items()):
        if any(storage_of(s) == storage for s in entry.sources):
            del entries[weight]
