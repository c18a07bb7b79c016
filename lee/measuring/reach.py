"""Which modules a callable reaches: through bound methods, partials, closures, attributes and the globals that it names.

A measurement has to know them all: their training flags, parameters and buffers belong to the function as much as its
arguments do.
"""

import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_DEPTH = 6  # a function that calls a function that holds a list of modules, and the like
_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "builtins", "lee")


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
        if name not in ("_modules", "_parameters", "_buffers") and not isinstance(value, Tensor | bool | int | str):
            yield value
    if not _is_library(type(module).__module__):
        yield type(module).forward


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        return _parts_of_function(value)
    if isinstance(value, Mapping):
        return value.values() if len(value) < 1000 else []
    if isinstance(value, Sequence | Set | deque) and not isinstance(value, str | bytes | range):
        return value if len(value) < 1000 else []
    if isinstance(value, Tensor | type | types.ModuleType) or _is_library(type(value).__module__):
        return []
    own = list(vars(value).values()) if hasattr(value, "__dict__") else []
    call = type(value).__dict__.get("__call__")
    return [*own, call] if isinstance(call, types.FunctionType) else own


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    if _is_library(function.__module__):
        return
    yield getattr(function, "__wrapped__", None)
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    names = set(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):  # `net.model(x)` names both
            yield from (v for n in names if isinstance(v := vars(value).get(n), nn.Module | types.FunctionType))
        else:
            yield value


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function and the functions inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_library(module: str | None) -> bool:
    return module is not None and module.split(".")[0] in _LIBRARIES
