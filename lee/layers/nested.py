"""The floating-point tensors in nested arguments and outputs: found in order, and replaced.

Tuples, lists, dictionaries and what is registered as a node with torch's pytree are opened; so are subclasses of dictionaries
and lists, dataclasses and simple namespaces that are not. Anything else is closed, and :mod:`lee.layers.flow` finds the
modules that hand tensors on inside it.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


def tensors(value: Any) -> list[Tensor]:
    """The floating-point tensors in nested arguments or outputs, in order."""
    return list(_found(value, set()))


def changed(nested: Any, change: Callable[[Tensor, int], Tensor]) -> Any:
    """`nested` with `change(tensor, i)` in place of its floating-point tensors; the containers around them are new."""
    return _changed(nested, change, itertools.count(), {})


def with_tensors(nested: Any, values: list[Tensor]) -> Any:
    """`nested` with its floating-point tensors replaced in order."""
    return changed(nested, lambda _, i: values[i])


class Lent:
    """Nested arguments with other tensors in place of their own, lent to a module that may write into lists and dictionaries.

    Args:
        nested: The arguments.
        change: Gives the tensor that takes the place of another, wherever that is.
    """

    def __init__(self, nested: Any, change: Callable[[Tensor], Tensor]) -> None:
        others: dict[int, Tensor] = {}
        self.nested = changed(nested, lambda v, _: others.setdefault(id(v), change(v)))
        self._own = {id(others[id(v)]): v for v in tensors(nested)}
        self._pairs = list(_containers(nested, self.nested))
        self._own |= {id(lent): own for own, lent in self._pairs}
        self._entries = [_entries(lent) for _, lent in self._pairs]

    def returned(self) -> list[Any]:
        """What the module has written into lists and dictionaries, which goes into the arguments' own as well.

        Where it has removed something, None stands for that.
        """
        found: list[Any] = []
        for (own, lent), earlier in zip(self._pairs, self._entries, strict=True):
            now, before = _entries(lent), dict(earlier)
            fresh = [v for k, v in now if k not in before or v is not before[k]]
            gone = [None for _ in before.keys() - dict(now).keys()]
            if not fresh and not gone:
                continue
            found += fresh + gone
            own.clear()
            entries = {k: self._own.get(id(v), v) for k, v in now}
            own.update(entries) if isinstance(own, dict) else own.extend(entries.values())
        return found


def _containers(own: Any, lent: Any) -> Iterator[tuple[Any, Any]]:
    """The lists and dictionaries in nested values, side by side."""
    if lent is own or not isinstance(own, list | tuple | dict):
        return
    if not isinstance(own, tuple):
        yield own, lent
    for (_, inner), (_, other) in zip(_entries(own), _entries(lent), strict=True):
        yield from _containers(inner, other)


def _entries(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value))


def _found(value: Any, opened: set[int]) -> Iterator[Tensor]:
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            if leaf.is_floating_point():
                yield leaf
        elif id(leaf) not in opened:
            opened.add(id(leaf))
            for _, _, inner in _parts(leaf):
                yield from _found(inner, opened)


def _changed(nested: Any, change: Callable[[Tensor, int], Tensor], place: Iterator[int], opened: dict[int, Any]) -> Any:
    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value, next(place)) if value.is_floating_point() else value
        parts = list(_parts(value))
        if not parts or id(value) in opened:
            return opened.get(id(value), value)
        opened[id(value)] = fresh = copy.copy(value)
        for put, name, inner in parts:
            put(fresh, name, _changed(inner, change, place, opened))
        return fresh

    return pytree.tree_map(leaf, nested)


def _parts(value: Any) -> Iterator[tuple[Callable[[Any, Any, Any], None], Any, Any]]:
    """What a container holds that pytree takes for a leaf: how to put it into a copy, its key, and the value.

    A field of a dictionary that is also its entry (a model output of Hugging Face's, say) follows the entry.
    """
    if isinstance(value, nn.Module) or not _is_container(value):
        return
    entries = _entries(value) if isinstance(value, dict | list) else []
    fields = getattr(value, "__dict__", {})
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)} | fields
    both = {key for key, inner in entries if key in fields and fields[key] is inner}
    for key, inner in entries:
        yield (_put_both if key in both else _put_entry), key, inner
    for name, inner in fields.items():
        if name not in both:
            yield object.__setattr__, name, inner


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list | SimpleNamespace) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def _put_entry(container: Any, key: Any, value: Any) -> None:
    container[key] = value


def _put_both(container: Any, key: Any, value: Any) -> None:
    container[key] = value
    object.__setattr__(container, key, value)
