r"""The path of an image under a generator, and its velocity: what the slider of `t` moves along.

For a spatial or a photometric generator the path is :math:`x_t = \exp(tX)\,x`. A mixture of both has no closed form where
contrast takes part (the mean that it keeps changes as the image moves). Then the path is spatial part first, photometric
parts afterwards, each by its own flow; at `t = 0` its velocity is that of the mixture all the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lee.autodiff.functorch import load_formulas
from lee.geometry.generators import BASIS, PHOTOMETRIC_BASIS, SPATIAL_BASIS, Action, Generator
from lee.geometry.representations import Image
from lee.geometry.sampling import Sampler

TOGETHER = 16
"""Amounts that are warped at once, which bounds the memory."""


def parts(generator: Generator) -> list[Generator]:
    """The spatial part of a generator and each of its photometric ones, without those that vanish.

    Examples:
        >>> from lee.geometry.generators import CONTRAST, ROTATION
        >>> [p.name for p in parts(ROTATION + 0.5 * CONTRAST)]
        ['spatial', 'contrast']
    """
    split = [("spatial", SPATIAL_BASIS), *((name, (name,)) for name in PHOTOMETRIC_BASIS)]
    kept = []
    for name, basis in split:
        values = tuple(c if b in basis else 0.0 for b, c in zip(BASIS, generator.coefficients, strict=True))
        if any(values):
            kept.append(Generator(name, values, generator.unit))
    return kept


def act(x: Tensor, generator: Generator, t: Tensor | float, sampler: Sampler) -> Tensor:
    """The images `x` (N, C, H, W) at `t` on their paths; same shape, differentiable in `t`."""
    for part in parts(generator):
        x = Image().finite(part, t, x, sampler)
    return x


def action(generator: Generator, kernel: str = "fourier", boundary: str = "reflect") -> Action:
    """The path as an action that :func:`lee.orbit` follows, also for mixtures of spatial and photometric generators."""
    sampler = Sampler(kernel, boundary)
    return Action(
        lambda x, t: act(x, generator, t, sampler.for_image(*x.shape[-2:])), generator.name, unit=generator.unit
    )


def path(x: Tensor, generator: Generator, stops: Sequence[float], sampler: Sampler) -> Tensor:
    """One image `x` (1, C, H, W) at each of T values of `t`: shape (T, C, H, W)."""
    amounts = torch.tensor(stops, dtype=torch.float64)
    moved: Tensor = torch.func.vmap(lambda t: act(x, generator, t, sampler)[0], chunk_size=TOGETHER)(amounts)
    return moved


def velocity(x: Tensor, generator: Generator, t: float, sampler: Sampler) -> tuple[Tensor, Tensor]:
    r"""The images at `t` and :math:`\frac{d}{dt} x_t`, by forward mode through the warp: two tensors of the shape of `x`.

    At `t = 0` the velocity is `X·x`, the tangent image of the Lie derivative.
    """
    load_formulas()
    at = torch.tensor(t, dtype=torch.float64)
    with torch.no_grad():
        moved, speed = torch.func.jvp(lambda s: act(x, generator, s, sampler), (at,), (torch.ones_like(at),))[:2]
    return moved, speed
