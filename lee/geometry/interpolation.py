r"""The spatial derivative of a sampled image, and its finite warp: one interpolation kernel decides both.

Interpolating along one axis is a matrix: row `p` of :func:`interpolation_matrix` holds the weights of the `n` samples
at coordinate `p`. The derivative at the sample points, :func:`derivative_matrix`, is the derivative of those rows. So an
infinitesimal action costs two small matrix products, has an exact transpose, and agrees with its finite action.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lee.errors import InputError, nearest
from lee.process.alone import ordinary

#: Kernels that have a derivative at the samples, by their names.
#:
#: `fourier`: the trigonometric polynomial through the samples, which is the
#: band-limited signal of the paper's theory. `central`: Catmull-Rom interpolation, whose derivative is the central difference (it
#: damps high frequencies). `authors`: bilinear interpolation with the one-sided derivative that the paper's released code takes; at
#: `t = 0` every sample sits on a kink, and rounding of the coordinates picks the side. It is for comparison with published
#: numbers only, and has no finite warp. For finite warps alone there is `bilinear`, too.
KERNELS = ("fourier", "central", "authors")
WARP_KERNELS = ("fourier", "central", "bilinear")
#: What lies beyond the border: `reflect` (an even extension), or `circular` (the image is one period).
BOUNDARIES = ("reflect", "circular")


def _reflect(index: Tensor, size: int, boundary: str, align_corners: bool) -> Tensor:
    """Map any integer index to the sample that the boundary extension repeats there."""
    if boundary == "circular":
        return index.remainder(size)
    period = 2 * (size - 1) if align_corners else 2 * size  # whole- against half-sample symmetry
    index = index.remainder(period)
    last = period if align_corners else period - 1
    return torch.where(index >= size, last - index, index)


def _harmonics(size: int, align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Angular frequencies (k,), phase offset (), and analysis weights (n,) of the even extension's cosine basis."""
    if align_corners:  # DCT-I: symmetric about the outer samples
        ends = torch.ones(size, dtype=torch.float64)
        ends[[0, -1]] = 0.5
        return torch.pi * torch.arange(size).double() / (size - 1), torch.tensor(0.0).double(), ends
    frequency = torch.pi * torch.arange(size).double() / size  # DCT-II: symmetric about the outer edges
    return frequency, torch.tensor(0.5).double(), torch.ones(size, dtype=torch.float64)


def _fourier(points: Tensor, size: int, boundary: str, align_corners: bool, derivative: bool) -> Tensor:
    nodes = torch.arange(size, dtype=torch.float64)
    if boundary == "circular":
        frequency = 2 * torch.pi * torch.arange(size // 2 + 1).double() / size
        weight = torch.full_like(frequency, 2.0)
        weight[0] = 1.0
        if size % 2 == 0:
            weight[-1] = 1.0
        here, there = points[:, None] * frequency, nodes[:, None] * frequency
        cosine, sine = (-frequency * here.sin(), frequency * here.cos()) if derivative else (here.cos(), here.sin())
        return ((cosine * weight) @ there.cos().mT + (sine * weight) @ there.sin().mT) / size
    frequency, offset, ends = _harmonics(size, align_corners)
    analysis = torch.cos(frequency[:, None] * (nodes + offset)) * ends  # (k, n)
    norm = (analysis * torch.cos(frequency[:, None] * (nodes + offset))).sum(1, keepdim=True)
    angle = frequency * (points[:, None] + offset)
    wave = -frequency * angle.sin() if derivative else angle.cos()
    return wave @ (analysis / norm)


def _taps(points: Tensor, size: int, boundary: str, align_corners: bool, taps: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Scatter per-point weights of neighbouring samples into a (p, n) matrix."""
    matrix = points.new_zeros(len(points), size)
    for index, weight in ((points.floor().long() + shift, w) for shift, w in taps):
        matrix.scatter_add_(1, _reflect(index, size, boundary, align_corners)[:, None], weight[:, None])
    return matrix


def interpolation_matrix(
    points: Tensor,
    size: int,
    *,
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
) -> Tensor:
    """Weights of `size` samples at coordinates between them: shape (p, size), float64.

    Args:
        points: Coordinates (p,), in units of samples from the first one.
        size: Number of samples.
        kernel: `"fourier"`, `"central"` or `"bilinear"`.
        boundary: One of :data:`BOUNDARIES`.
        align_corners: Whether a reflection is about the outer samples (True) or the outer edges of their pixels.

    Raises:
        InputError: For a kernel without a finite warp.
    """
    points = points.double()
    if kernel == "fourier":
        return _fourier(points, size, boundary, align_corners, derivative=False)
    u = points - points.floor()
    if kernel == "bilinear":
        return _taps(points, size, boundary, align_corners, [(0, 1 - u), (1, u)])
    if kernel == "central":  # Keys' cubic convolution with a = -1/2
        weights = [
            (-1, ((-0.5 * u + 1) * u - 0.5) * u),
            (0, (1.5 * u - 2.5) * u * u + 1),
            (1, ((-1.5 * u + 2) * u + 0.5) * u),
            (2, (0.5 * u - 0.5) * u * u),
        ]
        return _taps(points, size, boundary, align_corners, weights)
    raise InputError(f"Unknown kernel {kernel!r} for a finite warp.{nearest(kernel, WARP_KERNELS)}")


@lru_cache(maxsize=256)
@ordinary
def derivative_matrix(
    size: int, kernel: str = "fourier", boundary: str = "reflect", align_corners: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """Derivative at the samples, per sample: shape (size, size), float64; row `i` gives the derivative at sample `i`.

    Args:
        size: Number of samples, at least 2.
        kernel: One of :data:`KERNELS`.
        boundary: One of :data:`BOUNDARIES`.
        align_corners: Whether a reflection is about the outer samples (True) or the outer edges of their pixels.
        dtype: Only for ``authors``, whose choice of side depends on the rounding of the coordinates.

    Raises:
        InputError: For an unknown kernel or boundary, or one that can't be combined.
    """
    nodes = torch.arange(size, dtype=torch.float64)
    if kernel == "fourier":
        return _fourier(nodes, size, boundary, align_corners, derivative=True)
    half = torch.full((size,), 0.5, dtype=torch.float64)
    if kernel == "central":
        return _taps(nodes, size, boundary, align_corners, [(1, half), (-1, -half)])
    if kernel == "authors":
        if not align_corners or boundary != "reflect":
            raise InputError(
                "kernel='authors' needs align_corners=True and boundary='reflect', as the released code has."
            )
        theta = torch.eye(2, 3, dtype=dtype)[None]
        grid = F.affine_grid(theta, [1, 1, size, size], align_corners=True)[0, 0, :, 0]
        left = (((grid + 1) / 2) * (size - 1)).floor().double()
        return _taps(left, size, boundary, align_corners, [(1, 2 * half), (0, -2 * half)])
    raise InputError(f"Unknown kernel {kernel!r}.{nearest(kernel, KERNELS)}")
