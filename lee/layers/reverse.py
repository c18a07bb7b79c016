"""Reverse mode: every call's contribution pulled back from the output, without local derivatives."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lee.geometry.generators import Generator
from lee.geometry.representations import Image, Representation
from lee.geometry.sampling import Sampler
from lee.layers.calls import Call, Watch
from lee.layers.local import ROUNDING, action, check_calls, check_fold
from lee.layers.nested import tensors, with_tensors
from lee.layers.places import Reading
from lee.layers.trace import Traced, hooks_of
from lee.memory import is_shortage


class BackwardError(Exception):
    """The model's backward pass can't be used: it fails, or it isn't the derivative of its forward pass."""


class Bumps:
    r"""One graph in which every call's own contribution hangs on two numbers `ε` per image.

    The input is moved by `ε X·h` and the output by `ε' X·m(h)`, so by the chain rule
    :math:`v_m = \partial y/\partial\varepsilon - \partial y/\partial\varepsilon'`, for leaves and containers alike, without a local
    derivative. One more pair moves the image itself.

    Args:
        model: In eval mode.
        run: From images to the selected output.
        x: Images, (n, C, H, W).
        found: The traced calls.
        generator: The generator.
        sampler: Kernel and boundary.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[Tensor], Tensor],
        x: Tensor,
        found: Sequence[Traced],
        generator: Generator,
        sampler: Sampler,
    ) -> None:
        self.n, self.found, self.generator, self.sampler = len(x), found, generator, sampler
        self.calls = [t.call.index for t in found if t.placed and not t.vanishes and t.call.index > 0]
        self.place = {index: m for m, index in enumerate(self.calls)}
        self.finished: list[int] = []
        self._actions: dict[int, tuple[Tensor, int, Representation | None, Tensor]] = {}
        count = len(self.calls) + 1
        self.epsilon = torch.zeros(self.n, 2, count, dtype=x.dtype, device=x.device, requires_grad=True)
        watch = Watch(model, self._before, self._after, hooks_of(found))
        with torch.enable_grad(), watch:
            tangent = Image().infinitesimal([generator], x, sampler)[0]
            self.y = run(self._moved(x, tangent, 0, count - 1))
        check_calls(watch.calls, found)

    def _moved(self, value: Tensor, by: Tensor, side: int, m: int) -> Tensor:
        images = by.reshape(self.n, -1) * self.epsilon[:, side, m, None]  # a batch is folded image after image
        return value + images.reshape(value.shape)

    def _all_moved(self, nested: Any, readings: Sequence[Reading], side: int, m: int) -> Any:
        values, changed = tensors(nested), False
        for i, (reading, value) in enumerate(zip(readings, values, strict=True)):
            by = self._action(reading.representation, value)
            if by is not None:
                changed, values[i] = True, self._moved(value, by[0], side, m)
                self._actions[id(values[i])] = (values[i], values[i]._version, reading.representation, by)
        return with_tensors(nested, values) if changed else None

    def _action(self, representation: Representation | None, value: Tensor) -> Tensor | None:
        """`X·z`, which a tensor shares with those moved from it, for they are equal at `ε = 0`."""
        known = self._actions.get(id(value))
        if known is not None and known[0] is value and known[1] == value._version and known[2] == representation:
            return known[3]
        with torch.no_grad():
            return action(representation, value.detach(), self.generator, self.sampler)

    def _before(self, call: Call, module: nn.Module, args: Any, kwargs: Any) -> Any:
        m = self.place.get(call.index)
        return None if m is None else self._all_moved((args, kwargs), self.found[call.index].inputs, 0, m)

    def _after(self, call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        self.finished.append(call.index)
        m = self.place.get(call.index)
        if m is None:
            return None
        check_fold(self.found[call.index], tensors(output), self.n)
        return self._all_moved(output, self.found[call.index].outputs, 1, m)

    def pulled_back(self, cotangents: Iterable[Tensor]) -> Tensor:
        """Derivatives of the output along cotangents, each of its shape: (M + 1, n, C), the image's own last.

        Raises:
            BackwardError: If the model has no backward pass.
        """
        columns = torch.stack([self._gradient(c) for c in cotangents], -1)  # (n, 2, M + 1, C)
        into, out = columns.unbind(1)
        gap, size = into - out, into.norm(dim=(0, 2)) + out.norm(dim=(0, 2))
        rounding = gap.norm(dim=(0, 2)) <= ROUNDING * torch.finfo(gap.dtype).eps * size
        return torch.where(rounding[:, None], 0, gap).transpose(0, 1)

    def _gradient(self, cotangent: Tensor) -> Tensor:
        if not self.y.requires_grad:
            return torch.zeros_like(self.epsilon)
        try:
            (found,) = torch.autograd.grad(
                self.y, self.epsilon, cotangent.expand(self.y.shape), retain_graph=True, allow_unused=True
            )
        except Exception as error:
            if is_shortage(error):
                raise
            raise BackwardError(f"its backward pass fails ({type(error).__name__}: {error}).") from error
        return torch.zeros_like(self.epsilon) if found is None else found

    def every_output(self) -> Iterator[Tensor]:
        """A cotangent per output dimension."""
        for row in torch.eye(self.y[0].numel()).to(self.y):
            yield row.reshape(1, *self.y.shape[1:])
