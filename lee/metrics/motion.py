r"""Finite motions drawn at random, what they leave in view, and what part of a map survives all rotations."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lee.errors import InputError, check_count, check_flag, check_number
from lee.geometry.generators import ROTATION, TRANSLATION_X, TRANSLATION_Y, Action, AnyGenerator, Generator, get
from lee.geometry.representations import Representation, Scattered, Tokens
from lee.geometry.sampling import Sampler
from lee.memory import retold


class Motion(NamedTuple):
    """The finite action `exp(tX)`.

    Args:
        generator: `X`.
        t: How far, in the generator's unit.
    """

    generator: Generator | Action
    t: float


def seeded(random: torch.Generator | None) -> torch.Generator:
    """The given source of random numbers, or one of seed 0."""
    if random is not None and not isinstance(random, torch.Generator):
        raise InputError(f"`random` must be a torch.Generator, as torch.Generator().manual_seed(0) is, not {random!r}.")
    return torch.Generator().manual_seed(0) if random is None else random


def shift(dx: float, dy: float, height: int, width: int) -> Motion:
    """The translation of an image of `height` × `width` pixels that reads `dx` pixels to the right and `dy` further down.

    Args:
        dx: Pixels to the right.
        dy: Pixels down.
        height: Rows of the image.
        width: Columns of the image.
    """
    check_count("height", height)
    check_count("width", width)
    half = min(height, width) / 2
    field = (dx / half) * TRANSLATION_X + (dy / half) * TRANSLATION_Y
    return Motion(field.renamed(f"shift ({dx:.4g}, {dy:.4g})", "shift"), 1.0)


def translations(
    x: Tensor, draws: int, *, max_shift: float = 0.125, integer: bool = False, step: int = 1,
    random: torch.Generator | None = None,
) -> list[Motion]:  # fmt: skip
    """Shifts drawn uniformly from ± `max_shift` of the side along both axes (Karras et al. 2021, appendix E).

    Args:
        x: Images (N, C, H, W).
        draws: How many; all images move together, so that models can be compared in pairs.
        max_shift: Largest shift as a fraction of the side, in (0, 1).
        integer: Round to whole pixels of the image.
        step: Round to multiples of so many pixels, so that the shift is whole on maps of that stride too.
        random: Source of the draws; None for seed 0.

    Raises:
        InputError: If an argument is out of range, or no shift is left after rounding.
    """
    check_count("draws", draws)
    check_number("max_shift", max_shift, 0, 1)
    check_count("step", step)
    check_flag("integer", integer)
    height, width = x.shape[-2:]
    most = max_shift * torch.tensor([width, height], dtype=torch.float64)
    steps = (most / step + 1e-9).floor()  # whole multiples within reach
    if integer and not bool(steps.all()):
        raise InputError(
            f"No shift up to {max_shift:g} of {min(height, width)} pixels is a multiple of {step} but zero; raise `max_shift`."
        )
    offsets = (2 * torch.rand(draws, 2, dtype=torch.float64, generator=seeded(random)) - 1) * most
    if integer:
        offsets = (offsets / step).round().clamp(-steps, steps) * step
        if not bool(offsets.any()):
            raise InputError(f"All shifts of draws={draws} round to zero; raise `draws`, or take another `random`.")
    return [shift(dx, dy, height, width) for dx, dy in offsets.tolist()]


def amounts(
    generator: AnyGenerator, draws: int, *, radius: float, random: torch.Generator | None = None
) -> list[Motion]:
    """Motions along one generator with `t` uniform in ± `radius`, in the generator's unit.

    One `t` is drawn from each of `draws` equal parts of the interval: means over `t` have the same expectation as with
    independent draws, and much less noise.

    Args:
        generator: A name, a mixture or an action.
        draws: How many; all images move together.
        radius: Largest `|t|`, in the generator's unit.
        random: Source of the draws; None for seed 0.

    Raises:
        InputError: If an argument is out of range.
    """
    check_count("draws", draws)
    check_number("radius", radius, 0)
    chosen = get(generator)
    parts = torch.arange(draws) + torch.rand(draws, dtype=torch.float64, generator=seeded(random))
    t = (2 * parts / draws - 1) * radius
    return [Motion(chosen, value) for value in t.tolist()]


def rotations(draws: int, *, max_angle: float = math.pi, random: torch.Generator | None = None) -> list[Motion]:
    """Rotations about the centre by angles uniform in ± `max_angle` radians, drawn as by :func:`amounts`.

    Args:
        draws: How many.
        max_angle: Largest angle, in radians.
        random: Source of the draws; None for seed 0.

    Raises:
        InputError: If an argument is out of range.
    """
    return amounts(ROTATION, draws, radius=max_angle, random=random)


def in_view(motion: Motion, height: int, width: int, sampler: Sampler, margin: int = 0) -> Tensor:
    """Which samples of a moved map come from inside: shape (height, width), bool.

    Left out are those read from beyond the outer samples, and all that lie less than `margin` samples from the border before
    or after the motion. With a circular boundary a translation brings nothing in from outside, and there is no border.

    Args:
        motion: The motion.
        height: Rows of the map.
        width: Columns of the map.
        sampler: How the map is sampled.
        margin: Samples along the border that are left out as well.
    """
    generator = motion.generator
    everything = torch.ones(height, width, dtype=torch.bool)
    if isinstance(generator, Action):
        return everything
    if sampler.boundary == "circular" and not any(map(any, generator.matrix)):
        return everything
    x, y = sampler.coordinates(height, width)
    here = torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.ones(height, width).double()])
    source = torch.einsum("ij,jhw->ihw", generator.flow(motion.t), here)
    for points in (here, source):
        for along, coordinates, size in ((0, x, width), (1, y, height)):
            edge = (1 - 2 * margin / max(size - 1, 1)) * float(coordinates.abs().max())
            everything &= points[along].abs() <= edge + 1e-9
    return everything


def whole_samples(motion: Motion, grids: Sequence[tuple[int, int]], sampler: Sampler) -> Motion:
    """A translation rounded to whole samples of the coarsest of some grids, and so of all that it divides."""
    generator = motion.generator
    if isinstance(generator, Action) or any(generator.coefficients[2:]):
        raise InputError(f"Only translations can be rounded to whole samples, not {generator.name!r}.")
    extent = sampler.extent or (1.0, 1.0)
    steps = [
        2 * e / min(sizes) for e, sizes in zip(extent, ([w for _, w in grids], [h for h, _ in grids]), strict=True)
    ]
    x, y = (round(motion.t * b / step) * step for b, step in zip(generator.offset, steps, strict=True))
    return Motion((x * TRANSLATION_X + y * TRANSLATION_Y).renamed(generator.name), 1.0)


def grid_of(representation: Representation, z: Tensor) -> tuple[int, int] | None:
    """Height and width of the grid that a tensor lies on; None where it has none."""
    maps = representation.maps(z)
    return None if maps is None else (maps.shape[-2], maps.shape[-1])


def apart(representation: Representation, z: Tensor, n: int) -> tuple[Tensor | None, Tensor]:
    """The part of a tensor of `n` samples that lies on a grid, (n, C, h, w) or None, and the rest, (n, r)."""
    maps = representation.maps(z)
    if maps is None:
        return None, z.reshape(n, -1)
    if isinstance(representation, Tokens):
        return maps, z[:, : representation.prefix].flatten(1)
    if isinstance(representation, Scattered):
        free = torch.ones(representation.numel, dtype=torch.bool, device=z.device)
        free[representation.index.flatten().to(z.device)] = False
        return maps, z.reshape(-1, representation.numel)[:, free]
    return maps, z.new_zeros(len(z), 0)


def disc(z: Tensor, boundary: str = "reflect") -> Tensor:
    """Maps (..., H, W) without the frequencies beyond half a cycle per sample in *any* direction.

    A square grid holds higher frequencies along its diagonals than along its axes. A rotation moves these corners of the
    spectrum to where the grid can't hold them, so no map can be equivariant there; what is inside the disc survives every
    rotation. (Karras et al. filter both sides of EQ-R with a windowed sinc to the same purpose.)

    Args:
        z: Maps (..., H, W).
        boundary: `"reflect"` or `"circular"`.
    """
    if z.is_complex():
        return torch.complex(disc(z.real, boundary), disc(z.imag, boundary))
    work = z.to(torch.promote_types(z.dtype, torch.float32))
    if boundary == "reflect":  # half-sample symmetric, as the sampler's
        work = torch.cat([work, work.flip(-1)], -1)
        work = torch.cat([work, work.flip(-2)], -2)
    height, width = work.shape[-2:]
    fy = 2 * torch.fft.fftfreq(height, dtype=torch.float64)
    fx = 2 * torch.fft.rfftfreq(width, dtype=torch.float64)
    keep = (fy[:, None] ** 2 + fx**2 <= 1 + 1e-9).to(z.device)
    filtered = torch.fft.irfft2(torch.fft.rfft2(work) * keep, s=(height, width))
    return filtered[..., : z.shape[-2], : z.shape[-1]].to(z.dtype)


def as_motions(motions: Sequence[Motion | tuple[AnyGenerator, float]]) -> list[Motion]:
    """A list of motions, checked."""
    if isinstance(motions, list | tuple) and not motions:
        raise InputError(
            "There is no motion to measure; draw some with lee.metrics.translations, rotations or amounts."
        )
    with retold(InputError, "`motions` must be a list of pairs (generator, t), such as [('rotation', 0.1)] ({})."):
        return [Motion(get(generator), float(t)) for generator, t in motions]
