"""A module's own forward hooks: which of them change what goes in or out, and which only watch.

What changes the arguments or the output is part of the module's call. What only watches must see the tensors that the module
around it sees, because it may keep them for a part of the model further on (a head that reads features gathered by hooks).
"""

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Hooks:
    """What a module's own forward hooks do, by their ids.

    Args:
        changing: Part of its call: from the first that changes arguments, and up to the last that changes the output.
        keeping: Those that watch its arguments and keep them.
    """

    changing: frozenset[int] = frozenset()
    keeping: frozenset[int] = frozenset()


def own_hooks(model: nn.Module, run: Callable[[], Any]) -> dict[str, Hooks]:
    """What the hooks of a model's modules do in a pass, by path of the module.

    Args:
        model: Any module.
        run: Runs it once; not called where no module has hooks.
    """
    hooked = {path: m for path, m in model.named_modules() if m._forward_pre_hooks or m._forward_hooks}
    if not hooked:
        return {}
    changing, keeping = set[int](), set[int]()
    tables = [table for m in hooked.values() for table in _tables(m)]
    kept = [dict(table) for table in tables]
    try:
        for path, module in hooked.items():
            for table in _tables(module):
                before = table is module._forward_pre_hooks
                for key, hook in list(table.items()):
                    table[key] = _Noted(hook, key, path, changing, keeping if before else None)
        run()
    finally:
        for table, hooks in zip(tables, kept, strict=True):
            table.update({key: hook for key, hook in hooks.items() if key in table})
    found = {}
    for path, module in hooked.items():
        part = _from_first(module._forward_pre_hooks, changing) | _from_first(reversed(module._forward_hooks), changing)
        found[path] = Hooks(part, frozenset(keeping) & module._forward_pre_hooks.keys() - part)
    return found


def _tables(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    return module._forward_pre_hooks, module._forward_hooks


def _from_first(keys: Iterable[int], found: Collection[int]) -> frozenset[int]:
    ordered = list(keys)
    start = next((i for i, key in enumerate(ordered) if key in found), len(ordered))
    return frozenset(ordered[start:])


class _Noted:
    """A hook that says what it does, and where it is when it raises.

    Args:
        hook: The hook.
        key: Its id.
        path: Its module's path.
        changing: Where the ids of hooks are entered that change what they are given.
        keeping: Where those of hooks before a call are entered that keep what they are given; None for hooks after it.
    """

    def __init__(
        self, hook: Callable[..., Any], key: int, path: str, changing: set[int], keeping: set[int] | None
    ) -> None:
        self._hook, self._key, self._path, self._changing, self._keeping = hook, key, path, changing, keeping

    def __call__(self, module: nn.Module, *given: Any) -> Any:
        """Run the hook; before a call it gets aliases of the tensors, and has kept those that live on."""
        before = self._keeping is not None
        if before:
            given = _aliased(given)
        marks = [weakref.ref(v) for v in pytree.tree_leaves(given) if before and isinstance(v, Tensor)]
        versions, identities = _versions(given), _identities(given if before else given[-1])
        try:
            result = self._hook(module, *given)
        except Exception as error:
            error.add_note(f"Raised while measuring by a hook of module {self._path or 'the model'!r}.")
            raise
        if result is not None and _identities(result) == identities:
            result = None
        if result is not None or _versions(given) != versions:
            self._changing.add(self._key)
        del given
        if self._keeping is not None and any(mark() is not None for mark in marks):
            self._keeping.add(self._key)
        return result


def _aliased(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional and the named arguments, if any, with an alias of every tensor that is not in a container."""
    args, *named = given
    aliases = {id(v): v.view_as(v) for v in [*args, *(v for d in named for v in d.values())] if isinstance(v, Tensor)}
    return tuple(aliases.get(id(v), v) for v in args), *(
        {k: aliases.get(id(v), v) for k, v in d.items()} for d in named
    )


def _versions(given: Any) -> list[tuple[int, int]]:
    return [(id(v), v._version) for v in pytree.tree_leaves(given) if isinstance(v, Tensor)]


def _identities(nested: Any) -> list[int]:
    return [id(v) for v in pytree.tree_leaves(nested)]


def put_among(module: nn.Module, after: int, hooks: Hooks) -> None:
    """Sort two hooks of ours that were registered last, the second of them `after`, around those that are part of the call."""
    for key in [k for k in module._forward_pre_hooks if k in hooks.changing]:
        module._forward_pre_hooks[key] = module._forward_pre_hooks.pop(key)
    for key in [k for k in module._forward_hooks if k not in hooks.changing and k != after]:
        module._forward_hooks[key] = module._forward_hooks.pop(key)


@contextmanager
def called_again(module: nn.Module, after: int, hooks: Hooks) -> Iterator[None]:
    """A module without the hooks that would keep what goes in and out a second time."""
    kept = [dict(table) for table in _tables(module)]
    for key in hooks.keeping & module._forward_pre_hooks.keys():
        del module._forward_pre_hooks[key]
    for key in module._forward_hooks.keys() - hooks.changing - {after}:
        del module._forward_hooks[key]
    try:
        yield
    finally:
        for table, earlier in zip(_tables(module), kept, strict=True):
            table.clear()
            table.update(earlier)
