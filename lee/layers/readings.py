"""How the tensors of a traced pass transform: what their places say, what the user gave, and what is guessed until confirmed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from lee.errors import InputError, nearest
from lee.geometry.outputs import Representations, resolve
from lee.geometry.representations import Image, Representation, Trivial
from lee.layers.calls import Call
from lee.layers.places import (
    Given,
    Guess,
    Reading,
    Unknown,
    follow_nothing,
    given_of,
    guesses_of,
    label,
    of_representation,
    places_of,
    read,
)

CONSTANT = "does not depend on the image"
_BACK = ", because it is later combined entry by entry with a tensor laid out so"


class Overrides:
    """The user's `representations` by pattern of module path, for the outputs of matching modules."""

    def __init__(self, given: Representations) -> None:
        patterns = given if isinstance(given, Mapping) else {} if given is None else {"output": resolve(given)}
        if wrong := [k for k in patterns if not isinstance(k, str)]:
            raise InputError(
                f"The keys of `representations` are patterns of module paths, such as 'layer1.*', not {wrong[0]!r}."
            )
        self.patterns = {k: None if v is None else resolve(v) for k, v in patterns.items() if k != "output"}
        self.used: set[str] = set()

    def of(self, path: str) -> tuple[str, Representation | None] | None:
        """The last pattern that matches a path, and its representation."""
        fitting = [k for k in self.patterns if path and fnmatchcase(path, k)]
        self.used.update(fitting)
        return (fitting[-1], self.patterns[fitting[-1]]) if fitting else None

    def check_used(self, paths: list[str]) -> None:
        """Refuse patterns that matched no module."""
        for pattern in self.patterns:
            if pattern not in self.used:
                raise InputError(
                    f"The pattern {pattern!r} in `representations` matches no module call.{nearest(pattern, paths)}"
                )


class Readings:
    """How labelled tensors transform; the same places are read once, for they come back from layer to layer.

    Args:
        image: The image, which knows its places.
        centred: Whether every grid is taken to cover the image evenly, wherever its samples lie.
    """

    def __init__(self, image: Tensor, *, centred: bool = False) -> None:
        self.image, self.centred = image, centred
        self.images = [image]  # and its aliases
        self._read: dict[tuple[Any, ...], tuple[Tensor, Reading]] = {}

    def is_image(self, value: Tensor) -> bool:
        """Whether a tensor is the image."""
        return any(value is v for v in self.images)

    def of(self, value: Tensor) -> Reading:
        """The reading of one tensor."""
        if self.is_image(value):
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
            with follow_nothing():  # the places are kept, so that their address is not given away
                self._read[key] = places, read(places, centred=self.centred)
        reading, guesses = self._read[key][1], guesses_of(value)
        return replace(reading, why=f"{reading.why}{_BACK}", guesses=guesses) if guesses else reading

    def of_output(self, value: Tensor, call: Call, given: Sequence[Tensor], overrides: Overrides) -> Reading:
        """The reading of a call's output, after the user's overrides.

        What mixes all places and has its input's shape may have them back, as behind a token-mixing layer: that is a guess until
        the two are combined.
        """
        if self.is_image(value):
            return self.of(value)
        chosen = overrides.of(call.path)
        if chosen is not None:
            pattern, representation = chosen
            reading = Reading(representation, f"as given for {pattern!r}")
            try:
                places = None if representation is None else of_representation(representation, value.shape)
            except InputError as error:
                raise InputError(f"representations[{pattern!r}] for module {call.name!r}: {error}") from error
            label(value, Given(reading) if places is None else places)
            return reading
        reading = self.of(value)
        if reading.representation is None:
            for source in given:
                inner = self.of(source)
                if (
                    source.shape == value.shape
                    and inner.representation is not None
                    and not isinstance(inner.representation, Trivial)
                ):
                    guesses = (Guess(),)
                    label(value, given_of(source) or places_of(source), guesses)
                    return Reading(inner.representation, f"{inner.why}{_BACK}", guesses)
        return reading
