r"""The local Lie derivative :math:`\Lambda_m = J_m\,(X \cdot h_m) - X \cdot m(h_m)` of every module call, and its own part of it.

Each call is run again on its own input, with the input's infinitesimal action as tangent. In a second lane those of its
children are carried to its output; what they leave of it is the call's own local term :math:`\lambda_m`, which for most
containers is zero. An own term that is zero up to rounding is dropped, and with it nothing but rounding is left to the call around.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lee.autodiff.pushforward import push_leaves
from lee.errors import InputError, LeeError
from lee.geometry.generators import Generator
from lee.geometry.representations import Image, Representation, Trivial
from lee.geometry.sampling import Sampler
from lee.layers.calls import Call, Watch
from lee.layers.lanes import added
from lee.layers.nested import changed, tensors, with_tensors
from lee.layers.primals import Primals
from lee.layers.trace import Traced, check_call, check_calls, hooks_of
from lee.measure.function import Function
from lee.measure.state import RandomState
from lee.memory import is_shortage

ROUNDING = 200.0  # in units of the dtype's eps, relative to the two terms that cancel


class ForwardError(Exception):
    """A stacked pass fails where a plain one does not."""


def around(call: int, parents: list[int], found: list[Traced]) -> int:
    """The nearest measured call around one that does something itself; -1 for the model."""
    above = parents[call]
    while above > 0 and found[above].transparent:
        above = parents[above]
    return above


class _Collector:
    """Hooks that compute the local derivative of every call as soon as it has ended."""

    def __init__(
        self, model: nn.Module, found: list[Traced], parents: list[int], generator: Generator, sampler: Sampler,
        primals: Primals, random: RandomState | None,
    ) -> None:  # fmt: skip
        # What a Sequential passes through is explained, and carried on, by the call around it.
        self.around = [around(i, parents, found) for i in range(len(found))]
        self.found, self.generator, self.sampler, self.primals = found, generator, sampler, primals
        self.random = random
        self.kept: dict[int, tuple[Any, list[Tensor], RandomState | None]] = {}
        self.whole: dict[int, list[Tensor]] = {}  # Λ, children included, until the call around has ended
        self.own: dict[int, list[Tensor]] = {}  # λ, in the order in which calls end, where it is more than rounding
        self.watch = Watch(model, self._before, self._after, hooks_of(found))

    def _before(self, call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
        check_call(call, self.found)
        traced = self.found[call.index]
        if call.index and traced.placed and not traced.vanishes and not traced.transparent:
            traced.check_inputs(tensors((args, kwargs)), len(self.primals.x))
            # Copied, tensors and lists, for a module may write into its input.
            kept = changed((args, kwargs), lambda v, _: v.clone())
            self.kept[call.index] = (kept, tensors(kept), self.random and self.random.now())

    def _after(self, call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if call.index not in self.kept:
            return
        traced, outputs = self.found[call.index], tensors(output)
        traced.check_outputs(outputs, len(self.primals.x))
        nested, inputs, random = self.kept.pop(call.index)
        try:
            tangents, moved = (
                [
                    action(r.representation, v, self.generator, self.sampler)
                    for r, v in zip(readings, values, strict=True)
                ]
                for readings, values in ((traced.inputs, inputs), (traced.outputs, outputs))
            )
        except InputError as error:
            raise InputError(f"Module {call.name!r} ({call.type}): {error}") from error

        def again(values: list[Tensor]) -> list[Tensor]:
            positional, named = with_tensors(nested, values)
            return tensors(module(*positional, **named))

        with _drawing_again(random):
            lanes = self.run_again(call.index, again, inputs, tangents)
        self._keep(call.index, lanes, moved, outputs)

    def run_again(
        self,
        index: int,
        function: Callable[[list[Tensor]], list[Tensor]],
        inputs: list[Tensor],
        tangents: list[Tensor | None],
    ) -> list[tuple[Tensor | None, Tensor | None]]:
        """`J·v` and what the children explain of it, for each output."""
        inside = {c: self.whole.pop(c) for c in [c for c in self.whole if self.around[c] == index]}
        if not inside and all(t is None for t in tangents):
            return [(None, None)] * len(self.found[index].outputs)
        lanes = 2 if inside else 1

        def change(called: int, output: Any) -> Any:
            self.primals.leave(called, output)
            return added(output, inside[called], 1, lanes) if called in inside else None

        def replayed(values: list[Tensor]) -> list[Tensor]:
            with self.watch.replay(index, self.primals.enter, change):
                return function(values)

        zeros = [torch.zeros(lanes, *v.shape, dtype=v.dtype, device=v.device) for v in inputs]
        for lane, tangent in zip(zeros, tangents, strict=True):
            if tangent is not None:
                lane[0] = tangent[0]
        try:
            found = push_leaves(replayed, inputs, zeros, fallback=not inside)[1]
        except Exception as error:
            if not inside or isinstance(error, LeeError) or is_shortage(error):
                raise
            raise ForwardError(f"{type(error).__name__}: {error}.") from error
        return [(None, None) if t is None else (t[0], t[1] if inside else None) for t in found]

    def _keep(
        self,
        index: int,
        lanes: list[tuple[Tensor | None, Tensor | None]],
        moved: list[Tensor | None],
        outputs: list[Tensor],
    ) -> None:
        zero = [torch.zeros_like(v) for v in outputs]
        terms = [
            (z if a is None else a, z if m is None else m[0], z if b is None else b)
            for (a, b), m, z in zip(lanes, moved, zero, strict=True)
        ]
        whole, explained = [a - m for a, m, _ in terms], [b for _, _, b in terms]
        own = [w - b for w, b in zip(whole, explained, strict=True)]
        sizes = [0.0 if m is None else float(v.norm()) for m, v in zip(moved, outputs, strict=True)]
        if any(_is_more_than_rounding(o, t, size) for o, t, size in zip(own, terms, sizes, strict=True)):
            self.own[index], self.whole[index] = own, whole
        elif any(b is not None for _, b in lanes):  # what is dropped here is left to the call around: nothing is lost
            self.whole[index] = explained


@contextmanager
def _drawing_again(random: RandomState | None) -> Iterator[None]:
    """Draw the same random numbers again in this block, and go on afterwards as without it."""
    if random is None:
        yield
        return
    later = random.now()
    random.restore()
    try:
        yield
    finally:
        later.restore()


def locals_of(
    model: nn.Module, run: Function, x: Tensor, found: list[Traced], parents: list[int],
    generator: Generator, sampler: Sampler, primals: Primals,
) -> tuple[dict[int, list[Tensor]], Tensor]:  # fmt: skip
    """The own local terms of all calls in one pass of images `x` (n, C, H, W).

    Returns:
        The non-zero ones by call, in the order in which their calls end: one tensor per floating-point output, of its shape.
        And what the model's direct children leave unexplained of `J·(X·x)` of the whole model, (n, ...).

    Raises:
        InputError: If the pass makes other calls than the traced ones.
        FoldError: If it folds the images in a way that can't be followed.
        ForwardError: If a stacked pass fails.
    """
    random = RandomState([model]) if run.random else None
    collector = _Collector(model, found, parents, generator, sampler, primals, random)
    with collector.watch:
        run(x.clone())
        check_calls(collector.watch.calls, found)
        tangent = Image().infinitesimal([generator], x, sampler)
        ((moving, explained),) = collector.run_again(0, lambda values: [run(values[0])], [x], [tangent])
    if moving is None:
        raise ForwardError("the output carries no tangent.")
    return collector.own, moving if explained is None else moving - explained


def action(representation: Representation | None, z: Tensor, generator: Generator, sampler: Sampler) -> Tensor | None:
    """`X·z`, shape (1, *z.shape); None where it is zero for certain."""
    if representation is None or isinstance(representation, Trivial):
        return None
    return representation.infinitesimal([generator], z, sampler)


def _is_more_than_rounding(value: Tensor, terms: Sequence[Tensor], size: float) -> bool:
    """Whether a difference of terms is more than their rounding, or than that of moving an output of this norm."""
    return float(value.norm()) > ROUNDING * torch.finfo(value.dtype).eps * (sum(float(t.norm()) for t in terms) + size)
