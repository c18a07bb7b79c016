r"""Kernels that commute with rotations by any angle: circular harmonics with Gaussian radial profiles.

A field of order `m` has one channel for `m = 0`, whose values don't change as the image is turned, and two for `m > 0`, which
turn `m` times as fast: under a rotation by `θ` they are multiplied by the matrix `R(mθ)`. A kernel from order `n` to
order `m` commutes with all rotations if and only if, in polar coordinates,

.. math::
    \kappa(r, \varphi) = \sum_j p_j(r)\, R(m\varphi)\, A_j\, R(-n\varphi)

with any radial profiles `p_j` and constant matrices `A_j` (d_m × d_n). Here the profiles are Gaussian rings. Each `A_j` is
split into the part that commutes with a quarter turn of the plane and the part that anticommutes: these have the angular
frequencies `|m - n|` and `m + n`. A ring of radius `r` pixels keeps frequencies up to `r`: more would alias on its pixels.

Source: D. Worrall et al., Harmonic Networks, CVPR 2017; M. Weiler & G. Cesa, General E(2)-Equivariant Steerable CNNs,
NeurIPS 2019 (the complete basis for SO(2), and the cut-off of frequencies).
"""

import math
from functools import cache

import torch
from torch import Tensor

from lee.process.alone import ordinary

WIDTH = 0.6  # pixels, the standard deviation of a ring
_TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
_FLIP = torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)


def dimension(order: int) -> int:
    """Channels of one field of an order: 1 or 2."""
    return 1 if order == 0 else 2


def rotation_matrix(order: int, angle: Tensor) -> Tensor:
    """`R(order · angle)` for angles of any shape: (..., d, d)."""
    if order == 0:
        return torch.ones_like(angle)[..., None, None]
    cos, sin = (order * angle).cos(), (order * angle).sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def _mixers(order_out: int, order_in: int) -> list[tuple[int, Tensor]]:
    """A basis of the matrices `A` (d_out, d_in), each with the angular frequency of the kernel that it makes."""
    if order_out == 0 or order_in == 0:
        count = dimension(order_out) * dimension(order_in)
        eye = torch.eye(count, dtype=torch.float64)
        return [(order_out + order_in, row.view(dimension(order_out), dimension(order_in))) for row in eye]
    same, mirrored = abs(order_out - order_in), order_out + order_in
    identity = torch.eye(2, dtype=torch.float64)
    return [(same, identity), (same, _TURN), (mirrored, _FLIP), (mirrored, _TURN @ _FLIP)]


@cache
@ordinary
def kernel_basis(order_out: int, order_in: int, size: int) -> Tensor:
    """Return a basis of the equivariant kernels, of an odd side, from fields of one order to fields of another.

    It is (K, d_out, d_in, size, size), float64; an output channel of each kernel has norm 1 on average. The radii of the rings are
    0, 1, ..., (size - 1) / 2.

    A quarter turn maps the grid to itself, so there the sampled kernels are as exact as the continuous ones:

    >>> kernel = kernel_basis(1, 0, 5)
    >>> back = rotation_matrix(1, -torch.tensor(torch.pi / 2, dtype=torch.float64))
    >>> torch.allclose(kernel.rot90(1, (-2, -1)), torch.einsum("ab,kbiyx->kaiyx", back, kernel), atol=1e-12)
    True
    """
    line = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = -line[:, None].expand(size, size), line.expand(size, size)  # y points up, so angles are as one sees them
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    inside = radius <= (size - 1) / 2 + 0.5
    after, before = rotation_matrix(order_out, angle), rotation_matrix(order_in, -angle)
    kernels = []
    for ring in range((size - 1) // 2 + 1):
        profile = torch.exp(-((radius - ring) ** 2) / (2 * WIDTH**2)) * inside
        for frequency, mixer in _mixers(order_out, order_in):
            if frequency > ring:
                continue
            kernel = (after @ mixer @ before) * (profile * ((radius > 0) | (frequency == 0)))[..., None, None]
            kernel = kernel * math.sqrt(dimension(order_out)) / kernel.norm()
            kernels.append(kernel.permute(2, 3, 0, 1))
    shape = (0, dimension(order_out), dimension(order_in), size, size)
    return torch.stack(kernels) if kernels else torch.zeros(shape, dtype=torch.float64)
