"""Which module calls a model makes, and how the tensors that go in and out of each transform."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from lee.errors import InputError
from lee.layerwise.calls import Call, Watch
from lee.places import (
    Given,
    Guess,
    Reading,
    Unknown,
    follow,
    follow_nothing,
    given_of,
    guesses_of,
    label,
    of_representation,
    placed_image,
    places_of,
    read,
)
from lee.representations import Image, Map, Representation, Representations, Tokens, Trivial, resolve

CONSTANT = "does not depend on the image"


def tensors(value: Any) -> list[Tensor]:
    """The floating-point tensors in nested arguments or outputs."""
    return [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor) and v.is_floating_point()]


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
        prints: Shape and mean magnitude of each output, by which one image is found again in a batch.
    """

    call: Call
    inputs: list[Reading]
    outputs: list[Reading] = field(default_factory=list)
    leaf: bool = True
    transparent: bool = False
    vanishes: bool = False
    prints: list[tuple[tuple[int, ...], float]] = field(default_factory=list)

    @property
    def placed(self) -> bool:
        """Whether every tensor has a representation, so that the call has a Lie derivative of its own."""
        return bool(self.outputs) and all(r.representation is not None for r in self.inputs + self.outputs)

    @property
    def why(self) -> str:
        """What was inferred, or what keeps the call from being measured on its own."""
        if not self.outputs:
            return "returns no floating-point tensor: counted in the module around it"
        readings = [
            (f"{kind}{k or ''}", r)
            for kind, rs in (("in", self.inputs), ("out", self.outputs))
            for k, r in enumerate(rs)
        ]
        text = "; ".join(f"{name}: {r.why}" for name, r in readings)
        return text if self.placed else f"{text}: counted in the module around it"


class Overrides:
    """The user's `representations` by pattern of module path, for the outputs of matching modules.

    Raises:
        InputError: For an unknown name of a representation.
    """

    def __init__(self, given: Representations) -> None:
        patterns = given if isinstance(given, Mapping) else {}
        self.patterns = {k: None if v is None else resolve(v) for k, v in patterns.items() if k != "output"}
        self.used: set[str] = set()

    def of(self, path: str) -> tuple[str, Representation | None] | None:
        """The last pattern that matches a path, and its representation."""
        fitting = [k for k in self.patterns if path and fnmatchcase(path, k)]
        self.used.update(fitting)
        return (fitting[-1], self.patterns[fitting[-1]]) if fitting else None

    def check_used(self, paths: list[str]) -> None:
        """Refuse patterns that matched no module.

        Raises:
            InputError: With the nearest path.
        """
        from lee.errors import nearest

        for pattern in self.patterns:
            if pattern not in self.used:
                raise InputError(
                    f"The pattern {pattern!r} in `representations` matches no module call.{nearest(pattern, paths)}"
                )


_BACK = ", as it is later combined with that entry by entry"


class Readings:
    """How labelled tensors transform; the same places are read once, for they come back from layer to layer."""

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self._read: dict[tuple[Any, ...], tuple[Tensor, Reading]] = {}

    def of(self, value: Tensor) -> Reading:
        """The reading of one tensor."""
        if value is self.image:
            return Reading(Image(), "the image")
        given = given_of(value)
        if given is not None:
            return given.reading
        places = places_of(value)
        if isinstance(places, Unknown):
            return Reading(None, places.reason)
        if places is None:
            return Reading(Trivial(), CONSTANT)
        key = (places.data_ptr(), places.shape, places.stride())
        if key not in self._read:
            with follow_nothing():
                self._read[key] = (places, read(places))  # kept, so that its address is not given away
        reading, guesses = self._read[key][1], guesses_of(value)
        return replace(reading, why=f"{reading.why}{_BACK}", guesses=guesses) if guesses else reading


def _copied_label(value: Tensor) -> Tensor:
    """The tensor as it is now, for a module may write into it: only its shape and places count."""
    with follow_nothing():
        return label(value.detach(), given_of(value) or places_of(value), guesses_of(value))


def _mark_output(
    value: Tensor, traced: Traced, given: Mapping[str, Tensor], overrides: Overrides, readings: Readings
) -> Reading:
    """The reading of a call's output, after the user's overrides.

    What mixes all places and has its input's shape may have them back, as behind a token-mixing layer: that is a guess until
    the two are combined.
    """
    chosen = overrides.of(traced.call.path)
    if chosen is not None:
        pattern, representation = chosen
        reading = Reading(representation, f"as given for {pattern!r}")
        try:
            places = None if representation is None else of_representation(representation, value.shape)
        except InputError as error:
            raise InputError(f"representations[{pattern!r}] for module {traced.call.name!r}: {error}") from error
        label(value, Given(reading) if places is None else places)
        return reading
    reading = readings.of(value)
    if reading.representation is None:
        for source in given.values():
            inner = readings.of(source)
            if (
                source.shape == value.shape
                and inner.representation is not None
                and not isinstance(inner.representation, Trivial)
            ):
                guesses = (Guess(),)
                label(value, given_of(source) or places_of(source), guesses)
                return Reading(inner.representation, f"{inner.why}{_BACK}", guesses)
    return reading


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
        return before == after == Map()
    return (
        type(module) is nn.Linear
        and before == after
        and (before == Map(channels_last=True) or isinstance(before, Tokens))
    )


def trace(model: nn.Module, x: Tensor, overrides: Overrides) -> list[Traced]:
    """Run one image (1, C, H, W) through the model and read how every module's inputs and outputs transform.

    The model must be in eval mode, and gradients off.
    """
    image = placed_image(x)
    readings = Readings(image)
    found: dict[int, Traced] = {}
    sources: dict[int, dict[str, Tensor]] = {}
    versions: dict[int, list[tuple[Tensor, int]]] = {}

    def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = tensors((args, kwargs))
        found[call.index] = Traced(call, [readings.of(v) for v in given])
        versions[call.index] = [(v, v._version) for v in given]
        sources[call.index] = {str(i): _copied_label(v) for i, v in enumerate(given)}
        if call.parent >= 0:
            found[call.parent].leaf = False

    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        traced = found[call.index]
        given, passed = sources.pop(call.index), versions.pop(call.index)
        with follow_nothing():
            traced.prints = [(tuple(v.shape), float(v.abs().double().mean())) for v in tensors(output)]
        outputs = tensors(output)
        traced.outputs = [
            readings.of(v) if v is image else _mark_output(v, traced, given, overrides, readings) for v in outputs
        ]
        nothing = len(outputs) == 1 and any(outputs[0] is v and v._version == version for v, version in passed)
        same = nothing and overrides.of(call.path) is None
        traced.vanishes = same or _acts_on_channels(module, traced)
        traced.transparent = type(module) is nn.Sequential and _is_as_made(module) and not traced.leaf

    with Watch(model, before, after), sdpa_kernel(SDPBackend.MATH), follow():
        model(image)
    for traced in found.values():
        traced.inputs, traced.outputs = ([r.settled() for r in rs] for rs in (traced.inputs, traced.outputs))
    for traced in found.values():  # what a child leaves to be counted around it is the parent's own
        if not traced.placed and traced.call.parent >= 0:
            found[traced.call.parent].transparent = False
    return [found[i] for i in sorted(found)]


def eager() -> Any:
    """Run what `torch.compile` wraps as plain Python, so that its modules are seen."""
    return torch.compiler.set_stance("force_eager")
