"""Which module calls happen in a forward pass, seen through hooks that are gone afterwards."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from lee.errors import InputError
from lee.layers.hooks import Hooks, called_again, put_among
from lee.measure.checks import check_model, plain


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Args:
        index: Position in the order in which calls start.
        path: Dotted path of the module; empty for the model itself.
        type: Name of the module's class.
        call: 0 for the module's first call in this pass, 1 for its second, …
        depth: Number of calls around it.
        parent: Index of the call around it, -1 for the model.
    """

    index: int
    path: str
    type: str
    call: int
    depth: int
    parent: int

    @property
    def name(self) -> str:
        """The path, and which call it is where there are several."""
        return (self.path or "the model") + (f" (call {self.call + 1})" if self.call else "")


Before = Callable[[Call, nn.Module, tuple[Any, ...], dict[str, Any]], Any]
After = Callable[[Call, nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]


class Watch:
    """Report the module calls of the passes run inside this context, in this thread only.

    Args:
        model: The model; calls of every module in it are seen, however deep.
        before: Called with each call and its arguments, before the user's own hooks that may change them, which a second
            call runs again; a pair (args, kwargs) that it returns replaces them.
        after: Called with each call, its arguments and its output after the user's hooks that may change it; what it
            returns replaces the output, None leaves it.
        hooks: What the user's hooks do, by path of the module, see :func:`own_hooks`: those that change nothing see the
            arguments as they were before, and the output as it is after.
    """

    def __init__(
        self,
        model: nn.Module,
        before: Before | None = None,
        after: After | None = None,
        hooks: Mapping[str, Hooks] | None = None,
    ) -> None:
        self.model, self._before, self._after, self.hooks = model, before, after, hooks or {}
        self._modules = dict(model.named_modules())
        self._last: dict[str, int] = {}
        self.calls: list[Call] = []
        self._stack: list[Call] = []
        self._seen: Counter[str] = Counter()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._thread = threading.get_ident()
        self._replayed: tuple[Callable[[Any], None], Callable[[Any], Any]] | None = None

    def __enter__(self) -> Self:
        for path, module in self._modules.items():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # its calls can't be seen: part of the call around it
            first = module.register_forward_pre_hook(self._starts(path), with_kwargs=True)
            last = module.register_forward_hook(self._ends(path), with_kwargs=True)
            self._handles += [first, last]
            self._last[path] = last.id
            put_among(module, last.id, self.hooks.get(path, Hooks()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        if error is not None and self._stack:
            error.add_note(f"Raised while measuring inside module {self._stack[-1].name!r}.")

    @property
    def current(self) -> Call | None:
        """The innermost call that has not ended; after an exception the one that raised it."""
        return self._stack[-1] if self._stack else None

    def again(self, index: int) -> AbstractContextManager[None]:
        """Run a call again in this block, and leave everything in it as it is."""
        return self.replay(index, lambda called, given: None, lambda called, output: None)

    @contextmanager
    def replay(
        self, first: int, enter: Callable[[int, Any], None], change: Callable[[int, Any], Any]
    ) -> Iterator[None]:
        """Run a call again in this block: calls are not recorded, but known by their index.

        Hooks that watch this call to keep something have seen it, and don't see it again.

        Args:
            first: Index of the call that is run again; those in it follow.
            enter: Called with an index and the arguments.
            change: Called with an index and an output; what it returns replaces the output, None leaves it.
        """
        path, numbers, opened = self.calls[first].path, count(first), list[int]()

        def start(given: Any) -> None:
            opened.append(next(numbers))
            enter(opened[-1], given)

        self._replayed = start, lambda output: change(opened.pop(), output)
        try:
            with called_again(self._modules[path], self._last[path], self.hooks.get(path, Hooks())):
                yield
        finally:
            self._replayed = None

    def _starts(self, path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != self._thread:
                return None
            if self._replayed is not None:
                self._replayed[0]((args, kwargs))
                return None
            parent = self._stack[-1].index if self._stack else -1
            call = Call(len(self.calls), path, type(module).__name__, self._seen[path], len(self._stack), parent)
            self._seen[path] += 1
            self.calls.append(call)
            self._stack.append(call)
            return None if self._before is None else self._before(call, module, args, kwargs)

        return hook

    def _ends(self, path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if threading.get_ident() != self._thread:
                return None
            if self._replayed is not None:
                return self._replayed[1](output)
            call = self._stack[-1]
            if call.path != path:
                raise InputError(
                    f"The module {call.name!r} raised an exception that {path or 'the model'!r} caught, so calls can't be told "
                    "apart. Let the model do without."
                )
            result = None if self._after is None else self._after(call, module, args, kwargs, output)
            self._stack.pop()
            return result

        return hook


def check_modules(model: Any) -> nn.Module:
    """The module inside a wrapper; refuses models whose inner calls can't be seen or differentiated.

    Raises:
        InputError: For something that is no module, a scripted one, a replicating `DataParallel` and quantised modules,
            with the module's path.
    """
    model = plain(model)
    check_model(model)
    if not isinstance(model, nn.Module):
        raise InputError(f"A decomposition needs a torch.nn.Module, not {type(model).__name__}.")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("The model is scripted, so its layers can't be told apart; pass the original module.")
    for path, module in model.named_modules():
        home = type(module).__module__
        floating = isinstance(module, torch.ao.nn.quantized.FloatFunctional | torch.ao.nn.quantized.FXFloatFunctional)
        if ".quantized" in home and not floating:  # those two prepare a model of floats for it
            raise InputError(
                f"The module {path!r} ({type(module).__name__}) is quantised and has no derivative; pass the float model."
            )
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise InputError(
                f"The module {path!r} is a DataParallel over several devices; put its .module in its place."
            )
    return model
