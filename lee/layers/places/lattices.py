"""The regular grid that the places of a map lie on, also behind padding, flips and repetition, and coarser or finer ones."""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from lee.geometry.sampling import Registration

NEAR = 1e-9  # places are fractions of small integers, so they coincide far below this


@dataclass(frozen=True)
class Lattice:
    """Entry (i, j) of a map lies at `origin + i·down + j·across`, as row + i·column in heights and widths of the image.

    Args:
        origin: Place of the entry (0, 0), or where it would lie if it is padding.
        down: From one row to the next.
        across: From one column to the next.
    """

    origin: complex
    down: complex
    across: complex

    def places(self, height: int, width: int) -> Tensor:
        """Places of `height` × `width` entries, complex128."""
        i, j = (torch.arange(n).to(torch.complex128) for n in (height, width))
        return self.origin + i[:, None] * self.down + j * self.across

    def resampled(self, rows: tuple[float, float], columns: tuple[float, float]) -> "Lattice":
        """The grid whose entry (i, j) lies at index (a·i + b, a'·j + b') of this one."""
        (a, b), (c, d) = rows, columns
        return Lattice(self.origin + b * self.down + d * self.across, a * self.down, c * self.across)

    def indices(self, places: Tensor) -> Tensor:
        """Row and column of places (n,) on the grid, (2, n); not finite where rows and columns are parallel."""
        determinant = (self.down.conjugate() * self.across).imag
        away = places - self.origin
        rows, columns = (away.conj() * self.across).imag, (self.down.conjugate() * away).imag
        return torch.stack([rows, columns]) / determinant if determinant else torch.full((2, len(places)), torch.nan)

    @property
    def upright(self) -> bool:
        """Whether rows go down and columns to the right, as an image's."""
        straight = abs(self.down.imag) < NEAR > abs(self.across.real)
        return straight and self.down.real > NEAR < self.across.imag

    def is_near(self, other: "Lattice") -> bool:
        """Whether rows and columns run along another grid's, with at most twice its spacing and at least half of it."""
        ratios = other.down / self.down, other.across / self.across
        return all(abs(r.imag) < NEAR and 0.5 - NEAR < r.real < 2 + NEAR for r in ratios)

    @property
    def registration(self) -> Registration:
        """Of an upright grid."""
        return Registration((self.origin.real, self.origin.imag), (self.down.real, self.across.imag))


def covering(height: int, width: int) -> Lattice:
    """The grid that covers the image evenly, as its pixels do."""
    return Lattice(complex(0.5 / height, 0.5 / width), complex(1 / height), complex(0, 1 / width))


def of_registration(registration: Registration) -> Lattice:
    """The upright grid of a registration."""
    (top, left), (down, across) = registration.origin, registration.spacing
    return Lattice(complex(top, left), complex(down), complex(0, across))


def registered(origin: tuple[float, float], spacing: tuple[float, float], size: tuple[int, int]) -> Registration | None:
    """The registration of a grid of `size`; None if it covers the image evenly."""
    even = all(abs(o * n - 0.5) < 1e-7 > abs(s * n - 1) for o, s, n in zip(origin, spacing, size, strict=True))
    # Rounded: equal where they are meant so.
    (top, left), (down, across) = ((round(a, 13), round(b, 13)) for a, b in (origin, spacing))
    return None if even else Registration((top, left), (down, across))


def fit(places: Tensor) -> tuple[Lattice, bool] | None:
    """The grid of maps (1, C, H, W) with these places, and whether every entry lies on it; None where they have none.

    A border of entries without a place (zeros), or of places that come a second time (reflected, repeated, periodic), continues
    the grid inside. Places that come r times in a row, as in an upsampling by repetition, or in depth to space by
    reshapes, are spread over a grid r times as fine. Channels with different grids have the mean grid; those without any place
    (pooled features spread out, coordinates) are left out.
    """
    plane = _plane(places)
    if plane is None:
        return None
    good = torch.isfinite(plane.real)
    if not bool(good.any()):
        return None
    down = _run(plane[:, int(good.sum(0).argmax())], 1.0 + 0j)
    across = _run(plane[int(good.sum(1).argmax())], 1j)
    if down is None or across is None:
        return None
    (top, height, repeat_y), (left, width, repeat_x) = down[:3], across[:3]
    lattice = Lattice(complex(plane[top * repeat_y, left * repeat_x]), down[3], across[3])
    lattice = replace(lattice, origin=lattice.origin - top * lattice.down - left * lattice.across)
    on = lattice.places(len(plane) // repeat_y, plane.shape[1] // repeat_x)
    if repeat_y * repeat_x > 1:
        on = on.repeat_interleave(repeat_y, 0).repeat_interleave(repeat_x, 1)
    here = (on - plane).abs() < NEAR
    inside = here[top * repeat_y : (top + height) * repeat_y, left * repeat_x : (left + width) * repeat_x]
    if not bool(inside.all()):
        return None
    index = lattice.indices(plane[good & ~here])
    cell, first = index.round(), torch.tensor([[top], [left]])
    again = ((index - cell).abs() < 1e-6) & (cell >= first) & (cell < first + torch.tensor([[height], [width]]))
    if not bool(again.all()):
        return None
    spread = [(1 / r, (1 / r - 1) / 2) for r in (repeat_y, repeat_x)]
    whole = bool(here.all()) and repeat_y * repeat_x == 1 and bool(torch.isfinite(places.real).all())
    return lattice.resampled(spread[0], spread[1]), whole


def gathered(places: Tensor) -> Tensor:
    """Places of a map (1, C, H, W) whose channels lie on grids near each other, all moved to the mean grid; others as they are."""
    if places.ndim != 4 or places.stride(1) == 0 or not bool(torch.isfinite(places.real).flatten(2).any(2).all()):
        return places
    plane = None if fit(places) is None else _plane(places)
    return places if plane is None else plane.expand(places.shape)


def _plane(places: Tensor) -> Tensor | None:
    """Places (H, W) of the channels of (1, C, H, W), or their mean where the channels' grids are near each other; else None."""
    if places.ndim != 4 or places.shape[0] != 1 or places.numel() == 0 or places.shape[2:].numel() < 2:
        return None
    if places.stride(1) == 0:
        return places[0, 0]
    planes = places[0]
    planes = planes[torch.isfinite(planes.real).flatten(1).any(1)]
    if len(planes) == 0:
        return None
    good = torch.isfinite(planes.real)
    if not bool((good == good[0]).all()):
        return None
    shift = (planes - planes[0])[:, good[0]]
    if not bool((shift.abs() > NEAR).any()):
        return planes[0]
    if min(planes.shape[1:]) == 1:
        return None  # of one channel behind the places, rows or columns pass for channels
    first = torch.view_as_real(planes[0][good[0]])
    if bool((torch.view_as_real(shift).abs().amax((0, 1)) > first.amax(0) - first.amin(0) + NEAR).any()):
        return None  # windows of one channel: grids beside each other, not on each other
    alike = not bool(((shift - shift[:, :1]).abs() > NEAR).any())
    return planes.mean(0) if alike or _all_near(planes) else None


def _all_near(planes: Tensor) -> bool:
    """Whether planes (C, H, W) of places are grids near the first one's, see :meth:`Lattice.is_near`."""
    numbers = torch.view_as_real(planes).nan_to_num().flatten(1).round(decimals=9)
    kind = numbers.unique(dim=0, return_inverse=True)[1]
    grids = [fit(planes[kind == k][None, :1]) for k in kind.unique()]
    first = grids[0]
    return first is not None and all(grid is not None and first[0].is_near(grid[0]) for grid in grids)


def _run(line: Tensor, alone: complex) -> tuple[int, int, int, complex] | None:
    """The longest part of a line in equal steps: its start, length, how often each place comes, and the step; None for none.

    Of two equally long ones the one along `alone` is taken, which is also the step of a line of one entry.
    """
    values = line.tolist()
    if len(values) == 1:
        return 0, 1, 1, alone
    repeat = next((k for k in range(1, len(values)) if not abs(values[k] - values[0]) < NEAR), 1)
    if len(values) % repeat or not all(abs(v - values[k - k % repeat]) < NEAR for k, v in enumerate(values)):
        repeat = 1
    values = values[::repeat]
    steps = [b - a for a, b in pairwise(values)]
    best, start = (0, False, 0), 0
    for k, step in enumerate(steps):
        moves = abs(step) > NEAR  # false where a place is missing
        if not moves or not abs(step - steps[start]) < NEAR:
            start = k if moves else k + 1
        best = max(best, (k + 1 - start, (step * alone.conjugate()).real > 0, -start))
    count, begin = best[0], -best[2]
    return (begin, count + 1, repeat, (values[begin + count] - values[begin]) / count) if count else None
