"""What a forward pass may change in modules, kept and put back: attributes, parameters and buffers, random numbers."""

import copy
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lee.measure.reach import is_library
from lee.measure.storage import equal, is_in_memory, is_plain
from lee.process.alone import put_back

DEEPEST, MANY = 6, 10_000  # how deep attributes are looked into, and up to how many items
KEPT = 2**30  # bytes of parameters that are copied to be put back, or converted to double precision


def all_modules(roots: Sequence[nn.Module]) -> list[nn.Module]:
    """The modules of several trees, each once."""
    return list({id(m): m for root in roots for m in root.modules()}.values())


class RandomState:
    """The state of all random numbers that a model may draw: torch's on every device, NumPy's, Python's, and its own.

    Args:
        roots: The outermost modules; generators of random numbers that are attributes of theirs are the model's own.
    """

    def __init__(self, roots: Sequence[nn.Module] = ()) -> None:
        self._sources: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
            (torch.get_rng_state, torch.set_rng_state),
            (np.random.get_state, np.random.set_state),
            (random.getstate, random.setstate),
        ]
        if torch.cuda.is_initialized():
            self._sources.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
        for value in (v for m in all_modules(roots) if not _is_scripted(m) for v in m.__dict__.values()):
            if isinstance(value, torch.Generator | np.random.RandomState):
                self._sources.append((value.get_state, value.set_state))
            elif isinstance(value, np.random.Generator):
                bits = value.bit_generator
                self._sources.append((partial(getattr, bits, "state"), partial(setattr, bits, "state")))
            elif isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
                self._sources.append((value.getstate, value.setstate))
        self._kept = [get() for get, _ in self._sources]

    def now(self) -> "RandomState":
        """The state of the same sources as it is now."""
        other = copy.copy(self)
        other._kept = [get() for get, _ in self._sources]
        return other

    def restore(self) -> None:
        """Put it back."""
        for (_, put), state in zip(self._sources, self._kept, strict=True):
            put(state)

    def drawn(self) -> bool:
        """Whether anything was drawn since."""
        return any(not _alike(get(), state) for (get, _), state in zip(self._sources, self._kept, strict=True))


def _alike(a: Any, b: Any) -> bool:
    """Whether two states of random numbers, made of tensors, arrays and containers, are equal."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return _alike(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple) and not all(isinstance(v, int) for v in a):  # Python's has 625 whole numbers
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


class ModuleState:
    """Attributes, parameters and buffers of modules as they are now.

    Parameters beyond :data:`KEPT` bytes are not copied (buffers always are).

    Args:
        roots: The outermost modules.
        before: An earlier state of them, whose copies are shared where nothing has changed.
    """

    def __init__(self, roots: Sequence[nn.Module], before: "ModuleState | None" = None) -> None:
        everything = all_modules(roots)
        self._scripted = [(m, m.training) for m in everything if _is_scripted(m) and hasattr(m, "training")]
        modules = [m for m in everything if not _is_scripted(m)]  # scripted: no dictionary
        values = [v for m in modules for v in m.__dict__.values()]
        self._dictionaries = [(m.__dict__, dict(m.__dict__), "") for m in modules] + [
            (v, dict(v), name) for m in modules for name, v in m.__dict__.items() if isinstance(v, dict)
        ]
        inside = _inside(values)
        known_ones = {id(d) for d, _, _ in self._dictionaries}
        self._dictionaries += [(v, dict(v), "") for v in inside if isinstance(v, dict) and id(v) not in known_ones]
        self._collections = [(v, type(v)(v)) for v in inside if type(v) in (list, set, deque)]
        arrays = [v for v in inside if isinstance(v, np.ndarray)]
        self._arrays = [(v, v.copy()) for v in arrays] if sum(v.nbytes for v in arrays) <= KEPT // 4 else []
        parameters = [p for p in _unique(p for m in everything for p in m.parameters(recurse=False)) if is_plain(p)]
        buffers = _unique(b for m in everything for b in m.buffers(recurse=False))
        held = _unique(t for t in inside if isinstance(t, Tensor) and not isinstance(t, nn.Parameter))
        buffers += held if sum(t.nbytes for t in held if is_plain(t)) <= KEPT else []
        buffers = [t for t in buffers if is_plain(t)]
        self._gradients = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in parameters]
        small = sum(p.nbytes for p in parameters) <= KEPT
        known = {id(t): kept for t, kept in before._tensors} if before is not None else {}
        self._tensors: list[tuple[Tensor, Tensor]] = [
            (t, kept if (kept := known.get(id(t))) is not None and equal(t, kept) else t.detach().clone())
            for t in (parameters if small else []) + buffers
        ]
        self._versions = {id(p): _version(p) for p in parameters}

    def changed(self, *, by_value: bool = True) -> bool:
        """Whether any parameter, buffer or attribute is another one or has another value.

        This package's own hooks don't count. Without `by_value`, parameters count if they were written into, which is known
        without reading them.
        """
        ours = self._our_hooks()
        return (
            any(_is_other(d, b, ours if "hook" in name else ()) for d, b, name in self._dictionaries if d or b)
            or any(not _holds_the_same(values, earlier) for values, earlier in self._collections)
            or any(not np.array_equal(array, kept) for array, kept in self._arrays if array.dtype != object)
            or any(not equal(t, kept) for t, kept in self._tensors if by_value or self._may_differ(t))
        )

    def _may_differ(self, tensor: Tensor) -> bool:
        return self._versions.get(id(tensor)) != _version(tensor)

    def _our_hooks(self) -> set[Any]:
        return {k for d, _, name in self._dictionaries if "hook" in name for k, hook in d.items() if _is_ours(hook)}

    def restore(self, *, hooks: bool = True) -> None:
        """Put everything back; without `hooks`, all but the hooks that this package has registered since."""
        for module, training in self._scripted:
            module.training = training
        ours = self._our_hooks()
        for dictionary, before, name in self._dictionaries:
            if hooks or not ("hook" in name and name.startswith("_")):
                if not _is_untouched(dictionary, before):  # one that nobody may write into never is
                    dictionary.clear()
                    dictionary.update(before)
            else:
                for key in dictionary.keys() - before.keys() - ours:
                    del dictionary[key]
        for values, earlier in self._collections:
            values.clear()
            values.update(earlier) if isinstance(values, set) else values.extend(earlier)
        for array, kept_array in self._arrays:
            if array.flags.writeable:
                array[...] = kept_array
        for tensor, kept in self._tensors:
            if not equal(tensor, kept):
                # Past autograd's version counter: as if nothing had been written.
                tensor.data = kept.clone() if tensor.shape != kept.shape else tensor.data
                tensor.data.copy_(kept)
        for parameter, gradient, kept_gradient in self._gradients:
            parameter.grad = gradient
            if gradient is not None and kept_gradient is not None and not equal(gradient, kept_gradient):
                gradient.data.copy_(kept_gradient)


def _is_ours(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("lee.")


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


_HELD = (dict, list, tuple, set, deque, np.ndarray, Tensor)


def _inside(values: Sequence[Any]) -> list[Any]:
    """Lists, sets, queues, dictionaries, arrays and tensors among some values, and those inside of them, each once.

    The attributes of an object are a dictionary: of a user's class, such as a memory, or of an optimizer.
    """
    found: dict[int, Any] = {}
    level: list[Any] = list(values)
    for _ in range(DEEPEST):
        level = [v.__dict__ if _has_attributes(v) else v for v in level]
        new = [v for v in level if isinstance(v, _HELD) and id(v) not in found]
        found.update({id(v): v for v in new})
        holders = [v for v in new if not isinstance(v, np.ndarray | Tensor | set) and len(v) <= MANY]
        level = [item for v in holders for item in (v.values() if isinstance(v, dict) else v)]
    return [v for v in found.values() if not isinstance(v, tuple)]


def _has_attributes(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, (*_HELD, nn.Module, type, types.ModuleType, types.FunctionType, types.MethodType)):
        return False
    standard = (
        kind.__module__.split(".")[0] in sys.stdlib_module_names
    )  # a thread's or a lock's state is not to be put back
    known = isinstance(value, torch.optim.Optimizer | types.SimpleNamespace) or not (
        standard or is_library(kind.__module__)
    )
    return known and isinstance(getattr(value, "__dict__", None), dict)


def _is_other(now: dict[Any, Any], before: dict[Any, Any], ignored: Collection[Any]) -> bool:
    """Whether a dictionary has other keys, or something else at one, but for what is ignored."""
    keys = now.keys() - ignored if ignored else now.keys()
    return keys != before.keys() or any(now[k] is not v for k, v in before.items())


def _is_untouched(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Whether a dictionary has the same keys with the same values in the same order."""
    pairs = zip(now.items(), before.items(), strict=False)
    return len(now) == len(before) and all(a is c and b is d for (a, b), (c, d) in pairs)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _holds_the_same(values: Any, earlier: Any) -> bool:
    if isinstance(values, set):
        return values == earlier
    return len(values) == len(earlier) and all(a is b for a, b in zip(values, earlier, strict=True))


def _unique(tensors: Iterator[Tensor]) -> list[Tensor]:
    return list({id(t): t for t in tensors}.values())


def start_evaluating(roots: Sequence[nn.Module]) -> None:
    """Put modules into eval mode, through their own `train` or `eval` where they have one.

    Such a method may prepare what eval mode needs (escnn's convolutions expand their filters in it).
    """
    for root in roots:
        own = (nn.Module.train, nn.Module.eval)
        if any((type(m).train, type(m).eval) != own for m in root.modules()):
            root.eval()
        for module in root.modules():
            module.training = False


@contextmanager
def in_double(roots: Sequence[nn.Module]) -> Iterator[None]:
    """Modules whose floating-point tensors, attributes included, are double-precision copies; put back afterwards."""
    modules = [m for m in all_modules(roots) if not _is_scripted(m)]
    dictionaries: list[dict[str, Any]] = [d for m in modules for d in (m.__dict__, m._parameters, m._buffers)]
    kept = [dict(d) for d in dictionaries]
    copies: dict[int, tuple[Any, Any]] = {}

    def wide(value: Any) -> Any:
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            return value
        if value.layout == torch.strided and not is_in_memory(value):
            return value
        if id(value) not in copies:  # tied weights stay tied; kept alive with the copy, as ids are reused
            target = torch.complex128 if value.is_complex() else torch.float64
            double = value.detach().to(target)
            copies[id(value)] = value, nn.Parameter(double, False) if isinstance(value, nn.Parameter) else double
        return copies[id(value)][1]

    def restore() -> None:
        for dictionary, before in zip(dictionaries, kept, strict=True):
            dictionary.clear()
            dictionary.update(before)

    with put_back(restore):
        for dictionary in dictionaries:
            for name, value in dictionary.items():
                weights = value if isinstance(value, list) and all(isinstance(v, Tensor) for v in value) else []
                dictionary[name] = [wide(v) for v in weights] if weights else wide(value)
        yield


def convertible(roots: Sequence[nn.Module]) -> bool:
    """Whether :func:`in_double` can convert modules: none is scripted, and their parameters are small enough."""
    modules = all_modules(roots)
    size = sum(p.nbytes for p in _unique(p for m in modules for p in m.parameters(recurse=False)) if is_plain(p))
    return size <= KEPT and not any(map(_is_scripted, modules))
