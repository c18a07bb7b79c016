"""Which module calls a model makes, and how the tensors that go in and out of each transform."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lee.errors import InputError
from lee.geometry.representations import Map, Tokens, Trivial
from lee.layers.calls import Call, Watch
from lee.layers.flow import Flow, clear
from lee.layers.folds import Print, check_fold, print_of
from lee.layers.hooks import Hooks, own_hooks
from lee.layers.nested import Lent, changed, tensors
from lee.layers.places import Follow, Reading, follow_nothing, given_of, guesses_of, label, placed_image, places_of
from lee.layers.readings import CONSTANT, Overrides, Readings
from lee.measure.reference import generic
from lee.measure.state import RandomState

LOST = "depends on the image in a way that can't be followed (a NumPy array, another thread, a subclass of Tensor)"


@dataclass
class Traced:
    """A call, and the readings of its input and output tensors.

    Args:
        call: The call.
        inputs: One reading per floating-point tensor among the arguments.
        outputs: One reading per floating-point tensor in the output.
        leaf: Whether it called no other module.
        transparent: Whether it does nothing but call measured children one after the other, as `nn.Sequential` does.
        vanishes: Whether its local derivative is zero whatever the values: nothing happens, or a linear map of the channels.
        hidden: Why the call is no function of its arguments alone, or not all that it does is returned; else empty.
        hooks: What the module's own hooks do.
        input_prints: By which the first image's inputs are found again in a batch.
        output_prints: The same of its outputs.
        steered: Of the model's own call: whether values of the image may have chosen what is computed, or where.
    """

    call: Call
    inputs: list[Reading]
    outputs: list[Reading] = field(default_factory=list)
    leaf: bool = True
    transparent: bool = False
    vanishes: bool = False
    hidden: str = ""
    hooks: Hooks = field(default_factory=Hooks)
    input_prints: list[Print] = field(default_factory=list)
    output_prints: list[Print] = field(default_factory=list)
    steered: bool = False

    @property
    def placed(self) -> bool:
        """Whether every tensor has a representation, and is seen, so that the call has a Lie derivative of its own."""
        return (
            not self.hidden
            and bool(self.outputs)
            and all(r.representation is not None for r in self.inputs + self.outputs)
        )

    def check_inputs(self, values: Sequence[Tensor], n: int) -> None:
        """Refuse inputs (of a batch of `n` images) that move with the image and are not folded one image after the other."""
        self._check(self.inputs, values, self.input_prints, n)

    def check_outputs(self, values: Sequence[Tensor], n: int) -> None:
        """The same of outputs."""
        self._check(self.outputs, values, self.output_prints, n)

    def _check(self, readings: Sequence[Reading], values: Sequence[Tensor], prints: Sequence[Print], n: int) -> None:
        moving = [k for k, r in enumerate(readings) if not isinstance(r.representation, Trivial | None)]
        check_fold(self.call.name, [values[k] for k in moving], [prints[k] for k in moving], n)

    @property
    def why(self) -> str:
        """What was inferred, or what keeps the call from being measured on its own."""
        if self.hidden:
            return f"{self.hidden}: counted in the module around it"
        if not self.outputs:
            return "returns no floating-point tensor: counted in the module around it"
        readings = [
            (f"{kind}{k or ''}", r)
            for kind, rs in (("in", self.inputs), ("out", self.outputs))
            for k, r in enumerate(rs)
        ]
        text = "; ".join(f"{name}: {r.why}" for name, r in readings)
        return text if self.placed else f"{text}: counted in the module around it"


def _copied_label(value: Tensor) -> Tensor:
    """The tensor as it is now, for a module may write into it: only its shape and places count."""
    with follow_nothing():
        return label(value.detach(), given_of(value) or places_of(value), guesses_of(value))


def _is_as_made(module: nn.Module) -> bool:
    """Whether a module does what its class does: no hooks but our two, no `forward` of its own."""
    return len(module._forward_hooks) + len(module._forward_pre_hooks) <= 2 and "forward" not in module.__dict__


def _acts_on_channels(module: nn.Module, traced: Traced) -> bool:
    """Whether a module is a fixed linear map of the channels at each place: a 1×1 convolution, batch normalisation, `Linear`."""
    if not _is_as_made(module) or len(traced.inputs) != 1 or len(traced.outputs) != 1:
        return False
    before, after = traced.inputs[0].representation, traced.outputs[0].representation
    if (type(module) is nn.BatchNorm2d and module.running_mean is not None) or (
        type(module) is nn.Conv2d and (module.kernel_size, module.stride, module.padding) == ((1, 1), (1, 1), (0, 0))
    ):
        return before == after and isinstance(before, Map) and not before.channels_last
    linear = type(module) is nn.Linear and before == after
    return linear and (isinstance(before, Tokens) or (isinstance(before, Map) and before.channels_last))


def trace(model: nn.Module, x: Tensor, overrides: Overrides, *, centred: bool = False) -> list[Traced]:
    """Run one image (1, C, H, W) through the model and read how every module's inputs and outputs transform.

    The model must be in eval mode, and gradients off. Hooks of its own cost another pass. If `centred`, every grid is taken to
    cover the image evenly, wherever its samples lie.
    """
    hooks = own_hooks(model, lambda: model(x.clone()))
    tracer = _Tracer(model, Readings(placed_image(x), centred=centred), overrides, hooks)
    follow, random = Follow(tracer.note), RandomState([model])
    try:
        with tracer.watch, sdpa_kernel(SDPBackend.MATH), follow:
            model(tracer.readings.image)
    finally:
        clear(chain(model.parameters(), model.buffers()))
    found = [tracer.found[i] for i in sorted(tracer.found)]
    random.restore()  # what is drawn is a constant
    tracer.check_constants(model, x)
    for traced in found:
        traced.inputs, traced.outputs = ([r.settled() for r in rs] for rs in (traced.inputs, traced.outputs))
        traced.hidden = tracer.flow.hidden.get(traced.call.index, "")
        traced.hooks = hooks.get(traced.call.path, Hooks())
    found[0].steered = follow.steered
    for traced in found:  # what a child leaves to be counted around it is the parent's own
        if not traced.placed and traced.call.parent >= 0:
            found[traced.call.parent].transparent = False
    return found


def trace_alike(model: nn.Module, x: Tensor, overrides: Overrides, *, centred: bool = False) -> list[Traced]:
    """:func:`trace` of the first of several images; where values steer the model, the others must be like it.

    Raises:
        InputError: If a tensor transforms in another way for another image.
    """
    found = trace(model, x[:1], overrides, centred=centred)
    for i in range(1, len(x) if found[0].steered else 1):
        other = trace(model, x[i : i + 1], overrides, centred=centred)
        check_calls([t.call for t in other], found)
        if any(a.inputs != b.inputs or a.outputs != b.outputs for a, b in zip(found, other, strict=True)):
            raise InputError(
                f"The values of the image choose where the model looks, and image {i} is laid out otherwise than image 0. "
                "Measure images that are laid out alike together, or each by itself."
            )
    return found


class _Tracer:
    """Hooks that read every call of one pass."""

    def __init__(self, model: nn.Module, readings: Readings, overrides: Overrides, hooks: Mapping[str, Hooks]) -> None:
        self.overrides, self.readings = overrides, readings
        self.found: dict[int, Traced] = {}
        self._lent: dict[int, Lent] = {}
        self._sources: dict[int, list[Tensor]] = {}
        self._versions: dict[int, list[tuple[Tensor, int]]] = {}
        self._constants: dict[tuple[int, str], dict[int, Tensor]] = {}
        self.watch = Watch(model, self._before, self._after, hooks)
        self.flow = Flow(self.watch.calls)

    def note(self, read: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """An operator has run."""
        call = self.watch.current
        if call is not None:
            for value in read:
                self.flow.used(value, call.index)
            for value in made:
                self.flow.made(value, call.index)

    def _keep_constants(self, call: Call, side: str, readings: Sequence[Reading], values: Sequence[Tensor]) -> None:
        with follow_nothing():
            kept = {k: v.clone() for k, (r, v) in enumerate(zip(readings, values, strict=True)) if r.why == CONSTANT}
        if kept:
            self._constants[call.index, side] = kept

    def check_constants(self, model: nn.Module, x: Tensor) -> None:
        """Run another image, and call unknown what was taken for constant and isn't.

        Labels are lost where a tensor leaves torch (NumPy), this thread, or its Python object (a subclass, a parameter), and
        what is computed from it looks like a constant to the last layer.
        """
        if not self._constants:
            return
        lost = Reading(None, LOST)

        def compare(call: Call, side: str, nested: Any) -> None:
            before = self.found.get(call.index)
            if before is None or before.call != call:  # another course of computation
                return
            values, readings = tensors(nested), getattr(before, side)
            for k, value in self._constants.get((call.index, side), {}).items():
                if k < len(values) and not torch.equal(values[k].as_subclass(Tensor), value.as_subclass(Tensor)):
                    readings[k] = lost

        watch = Watch(
            model,
            lambda call, module, args, kwargs: compare(call, "inputs", (args, kwargs)),
            lambda call, module, args, kwargs, output: compare(call, "outputs", output),
            self.watch.hooks,
        )
        with watch, sdpa_kernel(SDPBackend.MATH):
            model(generic(x).as_subclass(Tensor))

    def _handed(self, value: Tensor, index: int) -> Tensor:
        alias = self.flow.handed(value, index)
        if self.readings.is_image(value):
            self.readings.images.append(alias)
        return alias

    def _before(self, call: Call, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if call.parent >= 0:
            self.found[call.parent].leaf = False
            for value in tensors((args, kwargs)):
                self.flow.used(value, call.parent)
        self._lent[call.index] = Lent((args, kwargs), lambda v: self._handed(v, call.index))
        args, kwargs = self._lent[call.index].nested
        given = tensors((args, kwargs))
        self.found[call.index] = Traced(call, [self.readings.of(v) for v in given])
        self._versions[call.index] = [(v, v._version) for v in given]
        self._keep_constants(call, "inputs", self.found[call.index].inputs, given)
        with follow_nothing():
            self.found[call.index].input_prints = [print_of(v) for v in given]
        self._sources[call.index] = [_copied_label(v) for v in given]
        return args, kwargs

    def _after(self, call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        traced, outputs = self.found[call.index], tensors(output)
        if any(map(torch._C._functorch.is_functorch_wrapped_tensor, outputs)):
            raise InputError(
                f"The module {call.path or 'itself'} runs inside a transform of torch.func, such as vmap, where its tensors "
                "can't be followed: the layers can't be told apart. Measure the whole model, or write the loop without it."
            )
        given, passed = self._sources.pop(call.index), self._versions.pop(call.index)
        with follow_nothing():
            traced.output_prints = [print_of(v) for v in outputs]
        traced.outputs = [self.readings.of_output(v, call, given, self.overrides) for v in outputs]
        self._keep_constants(call, "outputs", traced.outputs, outputs)
        nothing = len(outputs) == 1 and any(outputs[0] is v and v._version == version for v, version in passed)
        same = nothing and self.overrides.of(call.path) is None
        traced.vanishes = same or _acts_on_channels(module, traced)
        traced.transparent = type(module) is nn.Sequential and _is_as_made(module) and not traced.leaf
        for value in outputs:
            self.flow.used(value, call.index)
        self.flow.wrote(self._lent.pop(call.index).returned(), call.index)
        return changed(output, lambda v, _: self._handed(v, call.parent)) if call.parent >= 0 and outputs else None


def hooks_of(found: Sequence[Traced]) -> dict[str, Hooks]:
    """What the modules' own hooks do, by path of the module."""
    return {traced.call.path: traced.hooks for traced in found}


CHANGED = (
    "The model makes other module calls for this image than for the first one, so there is no common list of layers; "
    "measure images with the same course of computation together. A model that loops over its images does the same for each with "
    "chunk=1."
)


def check_calls(calls: Sequence[Call], found: Sequence[Traced]) -> None:
    """Refuse a pass with other calls than the traced ones."""
    if list(calls) != [t.call for t in found]:
        raise InputError(CHANGED)


def check_call(call: Call, found: Sequence[Traced]) -> None:
    """Refuse a call that was not traced in its place."""
    if call.index >= len(found) or found[call.index].call != call:
        raise InputError(CHANGED)
