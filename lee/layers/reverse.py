"""Reverse mode: every call's contribution pulled back from the output, without local derivatives."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lee.autodiff.surroundings import gradients
from lee.geometry.generators import Generator
from lee.geometry.representations import Image, Representation
from lee.geometry.sampling import Sampler
from lee.layers.calls import Call, Watch
from lee.layers.local import ROUNDING, action
from lee.layers.nested import tensors, with_tensors
from lee.layers.places import Reading
from lee.layers.trace import Traced, check_calls, hooks_of
from lee.memory import retold


class BackwardError(Exception):
    """The model's backward pass can't be used: it fails, or it isn't the derivative of its forward pass."""


class _Products:
    """What backward passes note: per image, side and place the inner products of gradients with tangents."""

    # It knows nothing of the graph, which holds it: a cycle through autograd's nodes would never be freed.
    def __init__(self, n: int, places: int, like: Tensor) -> None:
        self.n, self.places, self.like = n, places, like.new_zeros(())
        self._noted: list[tuple[int, Tensor]] = []
        self._latest: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, side: int, place: int, gradient: Tensor, by: Tensor) -> None:
        """Note one. What leaves a call and enters another is met twice: the second time the product is known."""
        if self._latest is None or self._latest[0] is not gradient or self._latest[1] is not by:
            images = (t.reshape(self.n, -1) for t in (gradient, by))  # a batch is folded image after image
            # Faster than a batched product.
            found = torch.stack([torch.dot(g, b) for g, b in zip(*images, strict=True)])
            self._latest = gradient, by, found
        self._noted.append((side * self.places + place, self._latest[2]))

    def taken(self) -> Tensor:
        """The sums of what was noted, (n, 2, places), which are forgotten: added up at once, as there are hundreds."""
        values = self.like.new_zeros(self.n, 2 * self.places)
        if self._noted:
            at, found = zip(*self._noted, strict=True)
            values.index_add_(1, torch.tensor(at, device=values.device), torch.stack(found, 1))
        self._noted, self._latest = [], None
        return values.reshape(self.n, 2, self.places)


class _Noted(torch.autograd.Function):
    """A copy of a tensor, whose backward pass notes the product of its gradient with a tangent."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, start: Tensor, by: Tensor, products: _Products, side: int, place: int
    ) -> Tensor:
        ctx.by, ctx.products, ctx.where = by, products, (side, place)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.products.add(*ctx.where, gradients[0], ctx.by)
        return gradients[0], None, None, None, None, None


class Bumps:
    r"""One graph in which every call's own contribution is the difference of two inner products per image.

    If the input is moved by `ε X·h` and the output by `ε' X·m(h)`, then by the chain rule
    :math:`v_m = \partial y/\partial\varepsilon - \partial y/\partial\varepsilon'`, for leaves and containers alike, without a local
    derivative. Along a cotangent of `y` both derivatives at 0 are inner products of the gradients that arrive there with `X·h` and
    with `X·m(h)`. One more pair moves the image itself. The arguments are those of :class:`lee.layers.primals.Primals`.
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
        self._actions: dict[int, tuple[Tensor, int, Representation | None, Tensor]] = {}
        self.products = _Products(self.n, len(self.calls) + 1, x)
        self.start = x.new_zeros(()).requires_grad_()  # a backward pass to it goes through all that is noted
        watch = Watch(model, self._before, self._after, hooks_of(found))
        tangent = Image().infinitesimal([generator], x, sampler)
        with gradients(), watch, retold(BackwardError, "it fails where gradients are switched on ({})."):
            self.y = run(self._moved(x, tangent, 0, len(self.calls)))
        check_calls(watch.calls, found)

    def _moved(self, value: Tensor, by: Tensor, side: int, m: int) -> Tensor:
        moved: Tensor = _Noted.apply(value, self.start, by, self.products, side, m)
        return moved

    def _all_moved(self, nested: Any, readings: Sequence[Reading], side: int, m: int) -> Any:
        values, changed = tensors(nested), False
        for i, (reading, value) in enumerate(zip(readings, values, strict=True)):
            by = self._action(reading.representation, value)
            if by is not None:
                changed, values[i] = True, self._moved(value, by, side, m)
                self._actions[id(values[i])] = (values[i], values[i]._version, reading.representation, by)
        return with_tensors(nested, values) if changed else None

    def _action(self, representation: Representation | None, value: Tensor) -> Tensor | None:
        """`X·z`, which a tensor shares with its copies."""
        known = self._actions.get(id(value))
        if known is not None and known[0] is value and known[1] == value._version and known[2] == representation:
            return known[3]
        with torch.no_grad():
            return action(representation, value.detach(), self.generator, self.sampler)

    def _before(self, call: Call, module: nn.Module, args: Any, kwargs: Any) -> Any:
        m = self.place.get(call.index)
        if m is None:
            return None
        self.found[call.index].check_inputs(tensors((args, kwargs)), self.n)
        return self._all_moved((args, kwargs), self.found[call.index].inputs, 0, m)

    def _after(self, call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        m = self.place.get(call.index)
        if m is None:
            return None
        self.found[call.index].check_outputs(tensors(output), self.n)
        return self._all_moved(output, self.found[call.index].outputs, 1, m)

    def pulled_back(self, cotangents: Iterable[Tensor]) -> Tensor:
        """Derivatives of the output along cotangents, each of its shape: (M + 1, n, C), the image's own last.

        Raises:
            BackwardError: If the model has no backward pass.
        """
        columns = torch.stack([self._products(c) for c in cotangents], -1)  # (n, 2, M + 1, C)
        into, out = columns.unbind(1)
        # In double precision, as squares of large numbers are infinite in single.
        gap, wide = into - out, (into.double(), out.double())
        size = sum(t.norm(dim=(0, 2)) for t in wide)
        rounding = (wide[0] - wide[1]).norm(dim=(0, 2)) <= ROUNDING * torch.finfo(gap.dtype).eps * size
        return torch.where(rounding[:, None], 0, gap).transpose(0, 1)

    def _products(self, cotangent: Tensor) -> Tensor:
        self.products.taken()  # nothing of a pass that failed
        if self.y.requires_grad:
            with retold(BackwardError, "its backward pass fails ({})."):
                torch.autograd.grad(
                    self.y, self.start, cotangent.expand(self.y.shape), retain_graph=True, allow_unused=True
                )
        return self.products.taken()

    def every_output(self) -> Iterator[Tensor]:
        """A cotangent per output dimension."""
        for row in torch.eye(self.y[0].numel()).to(self.y):
            yield row.reshape(1, *self.y.shape[1:])
