"""What is known about the places of a tensor's entries, and the representation that follows from it.

The places of one sample's tensor are complex numbers of its shape: row + i·column of the entry's centre, in heights and
widths of the image, so in (0, 1) for its pixels. `NONE` marks an entry without a place (a constant, a class token), `MIXED`
one that has been computed from all places alike (a pooled feature, a hidden unit of a token-mixing layer).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lee.errors import InputError
from lee.geometry.representations import Image, Map, Representation, Scattered, Tokens, Trivial
from lee.geometry.sampling import Registration
from lee.layers.places.lattices import NEAR, covering, fit, gathered, of_registration, registered

NONE = complex("nan+nanj")
MIXED = complex("inf+infj")
_DIGITS = 9


@dataclass(frozen=True)
class Unknown:
    """The places of a tensor can't be told, and why."""

    reason: str


Places = Tensor | Unknown | None  # None: the tensor does not depend on the image


@dataclass(eq=False)
class Guess:
    """Places that a tensor may have got back behind a layer that mixes all of them.

    Confirmed as soon as it is combined, entry by entry, with a tensor of the same places: as a rule a residual addition.
    """

    confirmed: bool = False


@dataclass(frozen=True)
class Reading:
    """The representation of a tensor; None where it has none that is known.

    Args:
        representation: The representation.
        why: How it was found, or why not.
        guesses: What it rests on.
    """

    representation: Representation | None
    why: str
    guesses: tuple[Guess, ...] = ()

    def settled(self) -> "Reading":
        """Itself if its guesses have been confirmed, else none."""
        if all(g.confirmed for g in self.guesses):
            return self
        return Reading(None, "each entry mixes all places")


@dataclass(frozen=True)
class Given:
    """Stands for places where a tensor's representation was given and has no places that could be followed further."""

    reading: Reading


def grid(height: int, width: int) -> Tensor:
    """Places of an image of `height` × `width` pixels, complex128; a single pixel stands for all places."""
    return torch.full((1, 1), MIXED) if height * width == 1 else covering(height, width).places(height, width)


def finite(places: Tensor) -> Tensor:
    """Where an entry has a place."""
    return torch.isfinite(places.real)


def mean(places: Tensor, dims: list[int]) -> tuple[Tensor, bool]:
    """Average of the places along `dims` (kept as axes of size 1), and whether they differed along them.

    Where the averages of all entries coincide, the entries were computed from all places alike: `MIXED`.
    """
    # "Averages coincide" is what tells pooling from a convolution: over all places the mean is the image's centre for every
    # entry, over a window it differs from entry to entry. It stops being right for one window per image, which is pooling.
    good = finite(places)
    count = good.sum(dims, keepdim=True)
    zero = torch.zeros((), dtype=places.dtype)
    average = torch.where(good, places, zero).sum(dims, keepdim=True) / count.clamp(min=1)
    differed = bool((torch.where(good, (places - average).abs(), zero.real) > NEAR).any())
    mixed, none = torch.tensor(MIXED, dtype=places.dtype), torch.tensor(NONE, dtype=places.dtype)
    empty = torch.where(torch.isinf(places.real).sum(dims, keepdim=True) > 0, mixed, none)
    out = torch.where(count > 0, average, empty)
    values = average[count > 0]
    if differed and len(values) and bool(((values - values[0]).abs() < NEAR).all()):
        out = torch.where(count > 0, mixed, out)
    return out, differed


def of_representation(representation: Representation, shape: torch.Size) -> Tensor | None:
    """Places of one sample's tensor that are read as `representation`; None where none are (a vector field, say)."""
    if isinstance(representation, Trivial):
        return torch.full((), NONE, dtype=torch.complex128).expand(shape)
    places = None
    at = getattr(representation, "registration", None)

    def on(height: int, width: int) -> Tensor:
        return grid(height, width) if at is None else of_registration(at).places(height, width)

    if type(representation) in (Map, Image) and len(shape) == 4:
        last = representation.channels_last  # type: ignore[attr-defined]
        places = on(*shape[1:3])[None, ..., None] if last else on(*shape[2:])
    elif isinstance(representation, Tokens) and len(shape) == 3:
        prefix = torch.full((representation.prefix,), NONE, dtype=torch.complex128)
        places = torch.cat([prefix, on(*representation.grid).flatten()])[:, None]
        places = places if len(places) == shape[1] else None
    elif isinstance(representation, Scattered) and shape.numel() == representation.numel:
        places = torch.full((representation.numel,), NONE, dtype=torch.complex128)
        places[representation.index] = on(*representation.grid).flatten()[:, None]
        places = places.reshape(shape)
    if places is None and type(representation) in (Map, Image, Tokens, Scattered):
        raise InputError(f"{representation} does not fit a tensor of shape {tuple(shape)}.")
    return None if places is None else places.expand(shape)


def cells(values: Tensor) -> tuple[tuple[int, int], Tensor, Registration | None] | None:
    """Size of the regular grid that places (n,) fill evenly, the cell of each, and where it lies; None where they fill none."""
    sides, ranks, origin, spacing = [], [], [], []
    for axis in (values.real, values.imag):
        found, rank = torch.unique(torch.round(axis, decimals=_DIGITS), return_inverse=True)
        steps = found.diff()
        if len(steps) and bool((steps - steps.mean()).abs().max() > 10.0 ** (2 - _DIGITS)):
            return None
        sides.append(len(found))
        ranks.append(rank)
        origin.append(float(axis.min()))
        spacing.append(float(axis.max() - axis.min()) / len(steps) if len(steps) else 1.0)
    height, width = sides
    cell = ranks[0] * width + ranks[1]
    counts = torch.bincount(cell, minlength=height * width)
    if height * width == 1 or not bool((counts == counts[0]).all()):
        return None
    return (height, width), cell, registered((origin[0], origin[1]), (spacing[0], spacing[1]), (height, width))


def read(places: Tensor, *, centred: bool = False) -> Reading:
    """The representation of a tensor with these places, or None where it has none.

    Args:
        places: Places of one sample, of the tensor's shape.
        centred: Whether the grid is taken to cover the image evenly, wherever its samples lie.
    """
    reading = _registered(places)
    if centred and isinstance(reading.representation, Map | Tokens | Scattered):
        return replace(reading, representation=replace(reading.representation, registration=None))
    return reading


def _registered(places: Tensor) -> Reading:
    found = fit(places)
    if found is not None and found[1] and found[0].upright:
        size, at = (places.shape[2], places.shape[3]), found[0].registration
        registration = registered(at.origin, at.spacing, size)
        return Reading(Map(registration=registration), f"channels first on a grid of {_described(size, registration)}")
    places = gathered(places)
    # Of channels behind their places, one stands for all.
    slim = places[..., :1] if places.ndim and places.stride(-1) == 0 else places
    good = finite(slim)
    if not bool(good.any()):
        return _placeless(places)
    if slim is places and places.ndim > 2 and bool(good.all()):
        average, differed = mean(places, [places.ndim - 1])
        filled = cells(average.flatten()) if differed and bool(finite(average).all()) else None
        # A single row or column is no block of places, but a side of a map with one channel.
        if filled is not None and filled[0][0] * filled[0][1] == average.numel() and min(filled[0]) > 1:
            coarse = _registered(average.expand(places.shape))
            return Reading(coarse.representation, f"{coarse.why}; its channels come from a block of places each")
    filled = cells(slim[good])
    if filled is None:
        return Reading(None, "its places form no regular grid")
    order = torch.full(slim.shape, -1)
    order[good] = filled[1]
    return _arrangement(order.expand(places.shape), filled[0], filled[2])


def _described(size: tuple[int, int], registration: Registration | None) -> str:
    """A grid in words, with what sets it apart from one that covers the image evenly."""
    words = f"{size[0]}×{size[1]} places"
    if registration is None:
        return words
    sides = list(zip(size, registration.origin, registration.spacing, strict=True))
    off = [round((o + (n - 1) / 2 * s - 0.5) / s, 3) + 0.0 for n, o, s in sides]
    if any(off):
        words += f", {off[0]:+g} rows and {off[1]:+g} columns off the image's centre"
    if any(abs(n * s - 1) > NEAR for n, _, s in sides):
        words += f", over {' × '.join(f'{n * s:.3g}' for n, _, s in sides)} of it"
    return words


def _placeless(places: Tensor) -> Reading:
    if bool(torch.isnan(places.real).all()):
        return Reading(Trivial(), "no entry has a place in the image")
    if is_pooled(places):
        return Reading(Trivial(), "pooled over all places")
    return Reading(None, "each entry mixes all places")


def is_pooled(places: Tensor) -> bool:
    """Whether no entry has a place, and there are no others along more than one axis that might take one from it."""
    return not bool(finite(places).any()) and (places.ndim <= 2 or len([n for n in places.shape if n > 1]) <= 1)


def _arrangement(order: Tensor, size: tuple[int, int], registration: Registration | None) -> Reading:
    """The simplest representation of entries that fill a grid of `size`; `order` tells the cell of each, -1 for none."""
    shape, (height, width), words = order.shape, size, _described(size, registration)
    line = torch.arange(height * width)
    if len(shape) == 4 and shape[:3] == (1, height, width) and _is(order[0].flatten(0, 1), line):
        return Reading(Map(channels_last=True, registration=registration), f"channels last on a grid of {words}")
    prefix = shape[1] - height * width if len(shape) == 3 and shape[0] == 1 else -1
    if prefix >= 0 and _is(order[0, prefix:], line) and bool((order[0, :prefix] < 0).all()):
        tail = f" behind {prefix} without a place" if prefix else ""
        words = words.replace(" places", " tokens", 1)
        return Reading(Tokens(size, prefix, registration=registration), f"{words}{tail}")
    flat = order.flatten()
    placed = (flat >= 0).nonzero()[:, 0]
    index = placed[torch.argsort(flat[placed], stable=True)].reshape(height * width, -1)
    found = Scattered(size, index, flat.numel(), registration=registration)
    return Reading(found, f"entries of a grid of {words} in another order")


def _is(order: Tensor, line: Tensor) -> bool:
    return bool((order == line[:, None]).all())
