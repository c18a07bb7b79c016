"""Which modules a callable reaches: through bound methods, partials, closures, attributes and the globals that it names.

A measurement has to know them all: their training flags, parameters and buffers belong to the function as much as its
arguments do.
"""

import dis
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

_DEPTH = 6  # a function that calls a function that holds a list of modules, and the like
_MANY = 1000  # a longer collection is data
_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "builtins", "functools", "lee")
_PLAIN = (Tensor, bool, int, float, complex, str, bytes, type(None))


def reached(*callables: Any) -> list[nn.Module]:
    """The outermost modules that callables reach, each once, in the order in which they are found.

    Args:
        callables: Modules, functions, partials, bound methods, or objects with `__call__`; anything else holds none.

    Examples:
        >>> net = nn.Linear(2, 2)
        >>> reached(net) == reached(net.forward) == reached(partial(net.forward)) == reached({"parts": [net]}) == [net]
        True
    """
    found: dict[int, nn.Module] = {}
    inside: set[int] = set()
    seen: set[int] = set()
    waiting = deque((value, 0) for value in callables)
    while waiting:
        value, depth = waiting.popleft()
        if id(value) in seen or depth > _DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            if id(value) not in inside:
                found[id(value)] = value
            below = list(value.modules())[1:]
            inside.update(map(id, below))
            for module in below:
                found.pop(id(module), None)
            seen.update(map(id, below))
            for module in [value, *below]:
                waiting.extend((part, depth + 1) for part in _parts_of_module(module))
        else:
            waiting.extend((part, depth + 1) for part in _parts(value))
    return list(found.values())


def _parts_of_module(module: nn.Module) -> Iterator[Any]:
    """What a module holds beside its registered submodules: a list of modules that it hides, functions, globals."""
    if isinstance(module, torch.jit.ScriptModule):
        return
    for name, value in module.__dict__.items():
        if name not in ("_modules", "_parameters", "_buffers") and not isinstance(value, _PLAIN):
            yield value
    yield from _parts_of_class(type(module))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        return _parts_of_function(value)
    if isinstance(value, weakref.ref):
        return [value()]
    # Python's own: another mapping or sequence may read files for what it holds, or fail at it, and is an object with attributes.
    if isinstance(value, dict | types.MappingProxyType):
        return value.values() if len(value) < _MANY else []
    if isinstance(value, list | tuple | set | frozenset | deque):
        return value if len(value) < _MANY else []
    if isinstance(value, (types.ModuleType, type, *_PLAIN)):
        return []
    slots = [n for c in type(value).__mro__ for n in _names_in(c.__dict__.get("__slots__", ()))]
    own = [getattr(value, n, None) for n in slots] + list(getattr(value, "__dict__", {}).values())
    return [*own, *_parts_of_class(type(value))]


def _parts_of_class(kind: type) -> Iterator[Any]:
    """Methods and class attributes of a user's class and of those that it derives from."""
    for base in kind.__mro__:
        if not is_library(base.__module__):
            for value in vars(base).values():
                inner = getattr(value, "__func__", None) or getattr(value, "fget", None)
                yield inner if inner is not None else value


def _names_in(slots: Any) -> Iterable[str]:
    return [slots] if isinstance(slots, str) else slots


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    """What a function holds; the globals that it names only if it is no library's (whose wrappers hold a user's functions)."""
    yield getattr(function, "__wrapped__", None)
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    if is_library(function.__globals__.get("__name__")):
        return
    for code in _codes(function.__code__):
        for name in _globals_of(code):
            value = function.__globals__.get(name)
            if isinstance(value, types.ModuleType):  # `net.model(x)` names both
                attributes = (vars(value).get(n) for n in code.co_names)
                yield from (v for v in attributes if isinstance(v, nn.Module | types.FunctionType))
            else:
                yield value


@lru_cache(maxsize=4096)
def _globals_of(code: types.CodeType) -> frozenset[str]:
    """The globals that a code object looks up; an attribute, as in `self.head`, is none."""
    return frozenset(i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def is_library(module: str | None) -> bool:
    """Whether a module's name is that of a library, whose insides are nobody's model."""
    return module is not None and module.split(".")[0] in _LIBRARIES
