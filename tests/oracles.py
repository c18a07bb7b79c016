"""Three independent float64 oracles of the Lie derivative `L_X f(x)`, none of which uses an infinitesimal action."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lee.geometry.generators import Generator
from lee.geometry.representations import Image, Representation, Trivial
from lee.geometry.sampling import Sampler

Function = Callable[[Tensor], Tensor]


def pulled_back(
    function: Function, x: Tensor, generator: Generator, sampler: Sampler, output: Representation
) -> Function:
    """`t ↦ ρ_out(exp(-tX)) f(ρ_in(exp(tX)) x)`, the curve whose velocity at 0 is the Lie derivative."""

    def curve(t: Tensor) -> Tensor:
        moved = function(Image().finite(generator, t, x, sampler))
        return output.finite(generator, -t, moved, sampler)

    return curve


def by_jvp(
    function: Function,
    x: Tensor,
    generator: Generator,
    sampler: Sampler,
    output: Representation | None = None,
) -> Tensor:
    """Forward-mode derivative through the finite warp (the recipe of the paper's Figure 3)."""
    zero = torch.zeros((), dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):
        curve = pulled_back(function, x, generator, sampler, output or Trivial())
        return torch.func.jvp(curve, (zero,), (torch.ones_like(zero),))[1]


def by_differences(
    function: Function,
    x: Tensor,
    generator: Generator,
    sampler: Sampler,
    output: Representation | None = None,
) -> Tensor:
    """Central differences of the finite action at steps h, h/2, h/4, extrapolated to h = 0 (error of order h⁶)."""
    curve = pulled_back(function, x, generator, sampler, output or Trivial())
    with torch.no_grad():
        table = []
        for step in (4e-3, 2e-3, 1e-3):
            h = torch.tensor(step, dtype=torch.float64)
            table.append((curve(h) - curve(-h)) / (2 * step))
    first = [(4 * b - a) / 3 for a, b in itertools.pairwise(table)]
    return (16 * first[1] - first[0]) / 15


def by_dense_jacobian(function: Function, x: Tensor, generator: Generator, sampler: Sampler) -> Tensor:
    """Reverse-mode Jacobian of an invariant output times the velocity of the input, image by image."""
    zero = torch.zeros((), dtype=torch.float64)
    velocity = torch.func.jacfwd(lambda t: Image().finite(generator, t, x, sampler))(zero)
    rows = []
    for image, direction in zip(x, velocity, strict=True):
        with sdpa_kernel(SDPBackend.MATH):
            jacobian = torch.func.jacrev(lambda z: function(z[None])[0])(image).detach()
        rows.append(torch.tensordot(jacobian, direction, dims=direction.ndim))
    return torch.stack(rows)


def slopes(function: Function, x: Tensor, tangents: Tensor, step: float = 1e-4) -> Tensor:
    """Derivatives of a function along directions (K, ...) by central differences of its values, extrapolated (error O(h⁴))."""
    with torch.no_grad():
        wide, narrow = (
            torch.stack([(function(x + h * t) - function(x - h * t)).detach() / (2 * h) for t in tangents])
            for h in (step, step / 2)
        )
    return (4 * narrow - wide) / 3
