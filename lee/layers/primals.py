"""The values of one plain pass, put in place of those that stacked passes compute again.

Passes round differently: in a stack the batch is another one, the layout too, and a BatchNorm goes into the convolution before it.
Where rounding decides on which side of a kink an entry lies (ReLU, max-pooling), the derivative jumps, and two passes don't add
up. So every call's inputs and outputs are kept once, and each stack that goes in or out of a call takes the kept values as its
primal: then all passes choose the same side, but for kinks that follow another operation between two calls.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from lee.autodiff import Stacked
from lee.layers.calls import Call, Watch
from lee.layers.nested import tensors
from lee.layers.trace import Traced, check_calls, hooks_of

Side = dict[int, list[Tensor | None]]


class Primals:
    """What a plain pass of images gives to every call, and gets from it.

    Args:
        model: In eval mode.
        run: From images to the selected output.
        x: Images, (n, C, H, W).
        found: The traced calls.
    """

    def __init__(self, model: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, found: Sequence[Traced]) -> None:
        self.model, self.x, self.found = model, x, found
        self._given: Side = {}
        self._made: Side = {}
        known = WeakTensorKeyDictionary()  # what was kept on the way out of a call needn't be kept on the way in

        def kept(nested: Any) -> list[Tensor | None]:
            copies = [None if known.get(v) == v._version else v.clone() for v in tensors(nested)]
            known.update({v: v._version for v in tensors(nested)})
            return copies

        def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
            self._given[call.index] = kept((args, kwargs))

        def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._made[call.index] = kept(output)

        with Watch(model, before, after, hooks_of(found)) as watch:
            run(x.clone())
        check_calls(watch.calls, found)

    def enter(self, index: int, nested: Any) -> None:
        """Give the stacks among a call's arguments their primals."""
        _take(nested, self._given[index])

    def leave(self, index: int, output: Any) -> None:
        """Give the stacks among a call's outputs their primals."""
        _take(output, self._made[index])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Passes of the same images on stacks take all primals from here."""
        first: int | None = None

        def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
            nonlocal first
            if call.parent < 0:
                first = call.index if self._are_ours(tensors((args, kwargs))) else None
            if (index := self._index(call, first)) is not None:
                self.enter(index, (args, kwargs))

        def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if (index := self._index(call, first)) is not None:
                self.leave(index, output)

        with Watch(self.model, before, after, hooks_of(self.found)):
            yield

    def _are_ours(self, given: list[Tensor]) -> bool:
        if not given or not isinstance(given[0], Stacked) or given[0].shape != self.x.shape:
            return False
        return given[0].dtype == self.x.dtype and torch.equal(given[0].buffer[0], self.x)

    def _index(self, call: Call, first: int | None) -> int | None:
        """Which of the kept calls it is, `first` the model's own in this pass."""
        if first is None or call.index - first >= len(self.found):
            return None
        return call.index - first if self.found[call.index - first].call.path == call.path else None


def _take(nested: Any, primals: Sequence[Tensor | None]) -> None:
    for stack, primal in zip(tensors(nested), primals, strict=True):
        if primal is None or not isinstance(stack, Stacked) or stack.shape != primal.shape:
            continue
        if stack.deferred is not None:
            stack.deferred = replace(stack.deferred, primal=primal)
        elif 0 not in stack.buffer[0].stride():  # expanded memory holds fewer entries
            with _disable_current_modes():  # what is written differs by rounding: nobody need know
                stack.buffer[0].copy_(primal)
