"""Tensors that go round the arguments and results of a module: kept by a hook, an attribute or a list, and read elsewhere.

A call's Lie derivative is that of its results by its arguments. Where a tensor from inside a call is used outside it without
being returned, or a call uses one that it is not given, there is no such derivative, so the call counts as a part of the one
around it. For this every tensor that depends on the image knows the calls in which it is at home: the one that made it, and
those that it is given to or returned to.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from lee.layers.calls import Call
from lee.layers.places import follow_nothing, forget, given_of, guesses_of, label, places_of

_HOMES = "_lee_homes"  # on the tensor itself, so it lives exactly as long
LEAVES = (
    "a tensor from inside it is used outside it without being returned (kept by a hook, an attribute or a container)"
)
WRITES = "writes into a list or a dictionary that it is given"
ENTERS = "uses a tensor that it is not given (kept by a hook, an attribute or a container)"
COMPLEX = "takes in or hands on complex numbers, which are not followed from module to module"


class Flow:
    """Where the tensors of one pass are used.

    Args:
        calls: The calls so far, which grow.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        #: Calls that tensors leave or enter unseen, and why each counts in the call around it.
        self.hidden: dict[int, str] = {}

    def made(self, value: Tensor, index: int) -> None:
        """A tensor is at home in a call."""
        if _is_followed(value):
            setattr(value, _HOMES, getattr(value, _HOMES, frozenset()) | {index})

    def handed(self, value: Tensor, index: int) -> Tensor:
        """An alias of a tensor that is at home in one call only, so that it can be told from the tensor itself."""
        if not _is_followed(value):
            return value
        with follow_nothing():
            alias = label(value.view_as(value), given_of(value) or places_of(value), guesses_of(value))
        self.made(alias, index)
        return alias

    def used(self, value: Tensor, index: int) -> None:
        """A tensor is used in a call."""
        homes = getattr(value, _HOMES, None)
        if homes is None or index in homes or not _is_followed(value):
            return
        path = self._around(index)
        shared = {home: next(i for i in path if i in self._around(home)) for home in homes}
        leaves, enters = (COMPLEX, COMPLEX) if value.is_complex() else (LEAVES, ENTERS)
        inner = max(shared.values(), key=lambda i: self.calls[i].depth)
        if inner not in homes:
            for home, above in shared.items():
                self._hide(home, above, leaves)
        self._hide(index, inner, enters)
        self.made(value, index)

    def wrote(self, values: Sequence[Any], index: int) -> None:
        """A call has written values into containers among its arguments; where tensors are used is seen without that."""
        if not all(isinstance(v, Tensor) and _is_followed(v) for v in values):
            self.hidden.setdefault(index, WRITES)

    def _around(self, index: int) -> list[int]:
        """A call and those around it, from the inside out."""
        path = []
        while index >= 0:
            path.append(index)
            index = self.calls[index].parent
        return path

    def _hide(self, index: int, above: int, why: str) -> None:
        for i in self._around(index):
            if i == above:
                return
            self.hidden.setdefault(i, why)


def _is_followed(value: Tensor) -> bool:
    return (value.is_floating_point() or value.is_complex()) and places_of(value) is not None


def clear(values: Iterable[Tensor]) -> None:
    """Take the labels off tensors that live on, such as buffers that a model writes into."""
    for value in values:
        forget(value)
        if hasattr(value, _HOMES):
            delattr(value, _HOMES)
