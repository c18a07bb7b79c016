"""What is known about the places of a tensor's entries, and the representation that follows from it.

The places of one sample's tensor are complex numbers of its shape: row + i·column of the entry's centre, in heights and
widths of the image, so in (0, 1). `NONE` marks an entry without a place (a constant, a class token), `MIXED` one that has
been computed from all places alike (a pooled feature, a hidden unit of a token-mixing layer).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lee.errors import InputError
from lee.geometry.representations import Image, Map, Representation, Scattered, Tokens, Trivial

NONE = complex("nan+nanj")
MIXED = complex("inf+infj")
_DIGITS = 9  # places are fractions of small integers, so they coincide far below this


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
    if height * width == 1:
        return torch.full((1, 1), MIXED)
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    return torch.complex(rows[:, None].expand(height, width), columns.expand(height, width).contiguous())


def finite(places: Tensor) -> Tensor:
    """Where an entry has a place."""
    return torch.isfinite(places.real)


def is_map(places: Tensor) -> bool:
    """Whether these are the places of channels-first maps (1, C, H, W)."""
    if places.ndim != 4 or places.shape[0] != 1 or places[0, 0].numel() < 2:
        return False
    known = grid(*places.shape[-2:])
    first = places[:, :1] if places.stride(1) == 0 else places
    return bool(((first - known).abs() < 10.0**-_DIGITS).all())


def is_padded_map(places: Tensor) -> bool:
    """Whether these are the places of maps (1, C, H, W) with a border of zeros, reflections or repetitions around them."""
    if places.ndim != 4 or places.shape[0] != 1:
        return False
    first, good = places[:, :1], finite(places[:, :1])
    if not bool(good.any()) or not torch.equal(places.nan_to_num(), first.nan_to_num().expand(places.shape)):
        return False
    cells = _cells(first[good])
    return cells is not None and len(torch.unique(cells[1])) == cells[0][0] * cells[0][1] > 1


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
    differed = bool((torch.where(good, (places - average).abs(), zero.real) > 10.0**-_DIGITS).any())
    mixed, none = torch.tensor(MIXED, dtype=places.dtype), torch.tensor(NONE, dtype=places.dtype)
    empty = torch.where(torch.isinf(places.real).sum(dims, keepdim=True) > 0, mixed, none)
    out = torch.where(count > 0, average, empty)
    values = average[count > 0]
    if differed and len(values) and bool(((values - values[0]).abs() < 10.0**-_DIGITS).all()):
        out = torch.where(count > 0, mixed, out)
    return out, differed


def of_representation(representation: Representation, shape: torch.Size) -> Tensor | None:
    """Places of one sample's tensor that are read as `representation`; None where none are (a vector field, say).

    Raises:
        InputError: If the representation doesn't fit the shape.
    """
    if isinstance(representation, Trivial):
        return torch.full((), NONE, dtype=torch.complex128).expand(shape)
    places = None
    if type(representation) in (Map, Image) and len(shape) == 4:
        last = representation.channels_last  # type: ignore[attr-defined]
        places = grid(*shape[1:3])[None, ..., None] if last else grid(*shape[2:])
    elif isinstance(representation, Tokens) and len(shape) == 3:
        size = representation.grid
        places = torch.cat([torch.full((representation.prefix,), NONE, dtype=torch.complex128), grid(*size).flatten()])[
            :, None
        ]
        places = places if len(places) == shape[1] else None
    elif isinstance(representation, Scattered) and shape.numel() == representation.numel:
        places = torch.full((representation.numel,), NONE, dtype=torch.complex128)
        places[representation.index] = grid(*representation.grid).flatten()[:, None]
        places = places.reshape(shape)
    if places is None and type(representation) in (Map, Image, Tokens, Scattered):
        raise InputError(f"{representation} does not fit a tensor of shape {tuple(shape)}.")
    return None if places is None else places.expand(shape)


def _cells(values: Tensor) -> tuple[tuple[int, int], Tensor] | None:
    """Height and width of the regular grid that places (n,) lie on, and the cell of each; None where they lie on none."""
    sides, ranks = [], []
    for axis in (values.real, values.imag):
        found, rank = torch.unique(torch.round(axis, decimals=_DIGITS), return_inverse=True)
        steps = found.diff()
        if len(steps) and bool((steps - steps.mean()).abs().max() > 10.0 ** (2 - _DIGITS)):
            return None
        sides.append(len(found))
        ranks.append(rank)
    return (sides[0], sides[1]), ranks[0] * sides[1] + ranks[1]


def _lattice(values: Tensor) -> tuple[tuple[int, int], Tensor] | None:
    """As :func:`_cells`, but None unless the places fill the grid evenly."""
    cells = _cells(values)
    if cells is None:
        return None
    (height, width), cell = cells
    counts = torch.bincount(cell, minlength=height * width)
    return cells if height * width > 1 and bool((counts == counts[0]).all()) else None


def read(places: Tensor) -> Reading:
    """The representation of a tensor with these places, or None where it has none.

    Args:
        places: Places of one sample, of the tensor's shape.
    """
    if is_map(places):
        return Reading(Map(), f"channels first on a {places.shape[2]}×{places.shape[3]} grid")
    slim = (
        places[..., :1] if places.ndim and places.stride(-1) == 0 else places
    )  # channels behind their places: one stands for all
    good = finite(slim)
    if not bool(good.any()):
        return _placeless(places)
    if slim is places and places.ndim > 2 and bool(good.all()):
        average, differed = mean(places, [places.ndim - 1])
        filled = _lattice(average.flatten()) if differed and bool(finite(average).all()) else None
        if filled is not None and filled[0][0] * filled[0][1] == average.numel():
            coarse = read(average.expand(places.shape))
            return Reading(coarse.representation, f"{coarse.why}; its channels come from a block of places each")
    filled = _lattice(slim[good])
    if filled is None:
        return Reading(None, "its places form no regular grid")
    order = torch.full(slim.shape, -1)
    order[good] = filled[1]
    return _arrangement(order.expand(places.shape), filled[0])


def _placeless(places: Tensor) -> Reading:
    if bool(torch.isnan(places.real).all()):
        return Reading(Trivial(), "no entry has a place in the image")
    sizes = [n for n in places.shape if n > 1]
    if places.ndim <= 2 or len(sizes) <= 1:
        return Reading(Trivial(), "pooled over all places")
    return Reading(None, "each entry mixes all places")


def _arrangement(order: Tensor, size: tuple[int, int]) -> Reading:
    """The simplest representation of entries that fill a grid of `size`; `order` tells the cell of each, -1 for none."""
    shape, (height, width) = order.shape, size
    line = torch.arange(height * width)
    if len(shape) == 4 and shape[:3] == (1, height, width) and _is(order[0].flatten(0, 1), line):
        return Reading(Map(channels_last=True), f"channels last on a {height}×{width} grid")
    prefix = shape[1] - height * width if len(shape) == 3 and shape[0] == 1 else -1
    if prefix >= 0 and _is(order[0, prefix:], line) and bool((order[0, :prefix] < 0).all()):
        tail = f" behind {prefix} without a place" if prefix else ""
        return Reading(Tokens(size, prefix), f"{height}×{width} tokens{tail}")
    flat = order.flatten()
    placed = (flat >= 0).nonzero()[:, 0]
    index = placed[torch.argsort(flat[placed], stable=True)].reshape(height * width, -1)
    return Reading(Scattered(size, index, flat.numel()), f"entries of a {height}×{width} grid in another order")


def _is(order: Tensor, line: Tensor) -> bool:
    return bool((order == line[:, None]).all())
