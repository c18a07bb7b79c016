r"""The local Lie derivative :math:`\Lambda_m = J_m\,(X \cdot h_m) - X \cdot m(h_m)` of every module call.

Each call is run again on its own input, with the input's infinitesimal action as tangent. A call whose derivative is
zero up to rounding (a 1×1 convolution, batch normalisation in eval mode, a linear layer over channels) is dropped here:
nothing of it would reach the output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lee.errors import InputError
from lee.generators import Generator
from lee.layerwise.calls import Call, Watch
from lee.layerwise.trace import Traced, tensors
from lee.representations import Representation, Trivial
from lee.sampling import Sampler
from lee.stacked import push_leaves

ROUNDING = 200.0  # in units of the dtype's eps, relative to the two terms that cancel


@dataclass(frozen=True)
class Local:
    """The local derivative of one call.

    Args:
        index: The call.
        finished: Position in the order in which calls end.
        parts: One tensor per floating-point output, of the output's shape.
    """

    index: int
    finished: int
    parts: list[Tensor]


def with_tensors(nested: Any, values: list[Tensor]) -> Any:
    """`nested` with its floating-point tensors replaced in order."""
    fresh = iter(values)
    return pytree.tree_map(lambda v: next(fresh) if isinstance(v, Tensor) and v.is_floating_point() else v, nested)


def locals_of(
    model: nn.Module, run: Callable[[], Any], found: list[Traced], generator: Generator, sampler: Sampler, n: int
) -> tuple[list[Local], list[int]]:
    """The calls with a non-zero local derivative in one pass of `n` images, and all calls in the order in which they end.

    Raises:
        InputError: If the pass makes other calls than the traced ones, or folds the images in a way that can't be followed.
    """
    kept: dict[int, tuple[Any, list[Tensor]]] = {}
    results: list[Local] = []
    finished: list[int] = []

    def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
        check_call(call, found)
        if found[call.index].placed and not found[call.index].vanishes:  # cloned, for a module may write into its input
            kept[call.index] = ((args, kwargs), [v.clone() for v in tensors((args, kwargs))])

    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        finished.append(call.index)
        if call.index not in kept or call.parent < 0:
            return
        nested, inputs = kept.pop(call.index)
        traced = found[call.index]
        check_fold(traced, tensors(output), n)
        with watch.paused():
            parts = _local(module, nested, inputs, tensors(output), traced, generator, sampler)
        if parts is not None:
            results.append(Local(call.index, len(finished), parts))

    watch = Watch(model, before, after)
    with watch:
        run()
    check_calls(watch.calls, found)
    return results, finished


CHANGED = (
    "The model makes other module calls for this image than for the first one, so there is no common list of layers; "
    "measure images with the same course of computation together."
)


def check_calls(calls: Sequence[Call], found: Sequence[Traced]) -> None:
    """Refuse a pass with other calls than the traced ones.

    Raises:
        InputError: If they differ.
    """
    if list(calls) != [t.call for t in found]:
        raise InputError(CHANGED)


def check_call(call: Call, found: Sequence[Traced]) -> None:
    """Refuse a call that was not traced in its place."""
    if call.index >= len(found) or found[call.index].call != call:
        raise InputError(CHANGED)


def check_fold(traced: Traced, outputs: list[Tensor], n: int) -> None:
    """Images must be folded one after the other along the first axis, as the trace of one image has it."""
    for value, (shape, size) in zip(outputs, traced.prints, strict=True):
        whole = value.shape == (n * shape[0], *shape[1:]) if shape else False
        if n == 1 or (whole and _alike(float(value[: shape[0]].detach().abs().double().mean()), size, value.dtype)):
            continue
        raise FoldError(traced.call.name)


def _alike(a: float, b: float, dtype: torch.dtype) -> bool:
    return abs(a - b) <= 0.1 * torch.finfo(dtype).eps ** 0.5 * max(abs(a), abs(b)) + 1e-12


class FoldError(Exception):
    """A batch can't be told apart inside a module; images are then measured one by one."""


def _local(
    module: nn.Module,
    nested: Any,
    inputs: list[Tensor],
    outputs: list[Tensor],
    traced: Traced,
    generator: Generator,
    sampler: Sampler,
) -> list[Tensor] | None:
    """`Λ` of one call, a tensor per output; None where it is zero."""
    try:
        tangents = [action(r.representation, v, generator, sampler) for r, v in zip(traced.inputs, inputs, strict=True)]
        moved = [action(r.representation, v, generator, sampler) for r, v in zip(traced.outputs, outputs, strict=True)]
    except InputError as error:
        raise InputError(f"Module {traced.call.name!r} ({traced.call.type}): {error}") from error
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def function(values: list[Tensor]) -> list[Tensor]:
        filled = [v.clone() for v in inputs]
        for place, value in zip(moving, values, strict=True):
            filled[place] = value
        args, kwargs = with_tensors(nested, filled)
        return tensors(module(*args, **kwargs))

    lanes: list[Tensor | None] = [None] * len(outputs)
    if moving:
        lanes = push_leaves(function, [inputs[i] for i in moving], [tangents[i] for i in moving])[1]  # type: ignore[misc]
    parts = [_difference(lane, moved_, out) for lane, moved_, out in zip(lanes, moved, outputs, strict=True)]
    if all(p is None for p in parts):
        return None
    return [torch.zeros_like(out) if p is None else p for p, out in zip(parts, outputs, strict=True)]


def action(representation: Representation | None, z: Tensor, generator: Generator, sampler: Sampler) -> Tensor | None:
    """`X·z`, shape (1, *z.shape); None where it is zero for certain."""
    if representation is None or isinstance(representation, Trivial):
        return None
    return representation.infinitesimal([generator], z, sampler)


def _difference(lane: Tensor | None, moved: Tensor | None, out: Tensor) -> Tensor | None:
    """`lane - moved` without the stack's axis, or None where only rounding is left."""
    terms = [t[0] for t in (lane, moved) if t is not None]
    if not terms:
        return None
    scale = sum(float(t.norm()) for t in terms) + float(out.norm())
    value = terms[0] if moved is None else -terms[0] if lane is None else terms[0] - terms[1]
    return value if float(value.norm()) > ROUNDING * torch.finfo(out.dtype).eps * scale else None
