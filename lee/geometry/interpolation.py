r"""The spatial derivative of a sampled image, and its finite warp: one interpolation kernel decides both.

Interpolating along one axis is a matrix: row `p` of :func:`interpolation_matrix` holds the weights of the `n` samples
at coordinate `p`. The derivative at the sample points, :func:`derivative_matrix`, is the derivative of those rows. So an
infinitesimal action costs two small matrix products, has an exact transpose, and agrees with its finite action.

Points that lie anywhere in the plane need a few samples each, those of :func:`taps`. The kernel `fourier` has weights for
*all* samples; but of a grid twice as fine, :func:`refined`, it takes a few as well. With :math:`\varphi` a window that is `w` fine
samples wide, :math:`\hat\varphi` its Fourier transform, and :math:`g` the fine samples of the signal whose every frequency
:math:`\omega` is divided by :math:`\hat\varphi(\omega)`,

.. math:: z(p) = \sum_q \varphi(q - p)\, g(q)

up to :math:`\hat\varphi` at the frequencies that the fine grid takes for :math:`\omega`. They lie at three times the largest one or
beyond, where the transform of this window, the exponential of a semicircle, is some :math:`e^{-2.2 w}` of what it is at
:math:`\omega`: below rounding, by :data:`WIDTHS`. Source: Barnett, Magland & af Klinteberg, SIAM J. Sci. Comput. 41 (2019), on
Fourier transforms at points that lie anywhere.
"""

from functools import lru_cache

import numpy as np
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
#: Samples of the fine grid that a point takes along each axis with the kernel `fourier`, by the precision of the result.
WIDTHS = {torch.float32: 10, torch.float64: 16}
#: Of the window, by its width: what makes its transform smallest where the fine grid confuses frequencies.
STEEPNESS = 2.3


def _reflect(index: Tensor, size: int, boundary: str, align_corners: bool) -> Tensor:
    """Map any integer index to the sample that the boundary extension repeats there."""
    if boundary == "circular" or size == 1:  # one sample stands for a constant
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
        return torch.pi * torch.arange(size).double() / max(size - 1, 1), torch.tensor(0.0).double(), ends
    frequency = torch.pi * torch.arange(size).double() / size  # DCT-II: symmetric about the outer edges
    return frequency, torch.tensor(0.5).double(), torch.ones(size, dtype=torch.float64)


def _fourier(
    points: Tensor, size: int, boundary: str, align_corners: bool, derivative: bool = False, width: int = 0
) -> Tensor:
    """Weights of the samples at points; with a `width`, of the signal whose frequencies its window will attenuate."""
    nodes = torch.arange(size, dtype=torch.float64)
    if boundary == "circular":
        frequency = 2 * torch.pi * torch.arange(size // 2 + 1).double() / size
        weight = torch.full_like(frequency, 2.0)
        weight[0] = 1.0
        if size % 2 == 0:
            weight[-1] = 1.0
        weight = weight / _passed(frequency / 2, width)
        here, there = points[:, None] * frequency, nodes[:, None] * frequency
        cosine, sine = (-frequency * here.sin(), frequency * here.cos()) if derivative else (here.cos(), here.sin())
        return ((cosine * weight) @ there.cos().mT + (sine * weight) @ there.sin().mT) / size
    frequency, offset, ends = _harmonics(size, align_corners)
    analysis = torch.cos(frequency[:, None] * (nodes + offset)) * ends  # (k, n)
    norm = (analysis * torch.cos(frequency[:, None] * (nodes + offset))).sum(1, keepdim=True)
    angle = frequency * (points[:, None] + offset)
    wave = -frequency * angle.sin() if derivative else angle.cos()
    return wave @ (analysis / norm / _passed(frequency / 2, width)[:, None])


def _window(distance: Tensor, width: int) -> Tensor:
    """The window at distances of at most half its width, in fine samples."""
    # The root has no derivative at its end; where it is cut off, the window is its smallest value to rounding.
    inside = (1 - (2 / width * distance).square()).clamp_min(1e-4)
    return (STEEPNESS * width * (inside.sqrt() - 1)).exp()


def _passed(frequency: Tensor, width: int) -> Tensor:
    """The transform of the window at frequencies per fine sample; one without a window."""
    if not width:
        return torch.ones_like(frequency)
    nodes, weights = (torch.from_numpy(v) * width / 2 for v in np.polynomial.legendre.leggauss(128))
    return torch.cos(frequency[:, None] * nodes) @ (weights * _window(nodes, width))


def width_of(kernel: str, dtype: torch.dtype) -> int:
    """How many samples a point takes along each axis by one of :data:`WARP_KERNELS`, for a real or complex dtype of the result."""
    return {"bilinear": 2, "central": 4}.get(kernel) or WIDTHS[dtype.to_real()]


def _weights(points: Tensor, kernel: str, width: int) -> tuple[int, Tensor]:
    """The first sample that points take, counted from the one before them, and the weights of it and those after it: (p, w)."""
    u = (points - points.floor())[:, None]
    if kernel == "bilinear":
        return 0, torch.cat([1 - u, u], 1)
    if kernel == "central":  # Keys' cubic convolution with a = -1/2
        cubic = [
            ((-0.5 * u + 1) * u - 0.5) * u,
            (1.5 * u - 2.5) * u * u + 1,
            ((-1.5 * u + 2) * u + 0.5) * u,
            (0.5 * u - 0.5) * u * u,
        ]
        return -1, torch.cat(cubic, 1)
    if kernel == "fourier":
        first = 1 - width // 2
        return first, _window(torch.arange(first, first + width) - u, width)
    raise InputError(f"Unknown kernel {kernel!r} for a finite warp.{nearest(kernel, WARP_KERNELS)}")


def taps(
    points: Tensor, size: int, *, kernel: str, boundary: str, align_corners: bool, width: int = 0
) -> tuple[Tensor, Tensor]:
    """The samples that make a value between them, and their weights: indices (p, w) and float64 (p, w).

    Args:
        points: Coordinates (p,), in units of samples from the first one.
        size: Number of samples.
        kernel: One of :data:`WARP_KERNELS`. The samples of `"fourier"` are those of :func:`refined`.
        boundary: One of :data:`BOUNDARIES`.
        align_corners: Whether a reflection is about the outer samples (True) or the outer edges of their pixels.
        width: For `"fourier"`, how many samples a point takes, an even number.

    Raises:
        InputError: For a kernel without a finite warp.
    """
    points = points.double()
    if kernel == "fourier":
        points, size = _finer(points, size, boundary, align_corners)
    shift, weight = _weights(points, kernel, width)
    index = points.floor().long()[:, None] + torch.arange(shift, shift + weight.shape[-1])
    return _reflect(index, size, boundary, align_corners), weight


def _finer(points: Tensor, size: int, boundary: str, align_corners: bool) -> tuple[Tensor, int]:
    """Coordinates in a grid twice as fine that has the same symmetry, and its size."""
    if boundary == "circular":
        return 2 * points, 2 * size
    return (2 * points, 2 * size - 1) if align_corners else (2 * points + 0.5, 2 * size)


@lru_cache(maxsize=256)
@ordinary
def refined(size: int, width: int, boundary: str, align_corners: bool) -> Tensor:
    """From `size` samples to those of a grid twice as fine from which :func:`taps` interpolates: a matrix (m, size), float64.

    A point takes `width` fine samples; boundary and pixel convention are as for :func:`taps`.
    """
    start, fine = _finer(torch.zeros(1, dtype=torch.float64), size, boundary, align_corners)
    nodes = (torch.arange(fine) - start) / 2
    return _fourier(nodes, size, boundary, align_corners, width=width)


def _matrix(index: Tensor, weight: Tensor, size: int) -> Tensor:
    """Taps as rows of a (p, size) matrix."""
    return torch.zeros(len(index), size, dtype=torch.float64).scatter_add(1, index, weight)


def interpolation_matrix(
    points: Tensor, size: int, *, kernel: str = "fourier", boundary: str = "reflect", align_corners: bool = False
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
        return _fourier(points, size, boundary, align_corners)
    return _matrix(*taps(points, size, kernel=kernel, boundary=boundary, align_corners=align_corners), size)


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
    if kernel == "central":
        return _slope(nodes - 1, 2, size, boundary, align_corners) / 2
    if kernel == "authors":
        if not align_corners or boundary != "reflect":
            raise InputError(
                "kernel='authors' needs align_corners=True and boundary='reflect', as the released code has."
            )
        theta = torch.eye(2, 3, dtype=dtype)[None]
        grid = F.affine_grid(theta, [1, 1, size, size], align_corners=True)[0, 0, :, 0]
        left = (((grid + 1) / 2) * (size - 1)).floor().double()
        return _slope(left, 1, size, boundary, align_corners)
    raise InputError(f"Unknown kernel {kernel!r}.{nearest(kernel, KERNELS)}")


def _slope(left: Tensor, apart: int, size: int, boundary: str, align_corners: bool) -> Tensor:
    """Differences of samples `left` and others `apart` from them, as rows of a (p, size) matrix."""
    index = left.long()[:, None] + torch.tensor([0, apart])
    weight = torch.tensor([-1.0, 1.0], dtype=torch.float64).expand(len(left), 2)
    return _matrix(_reflect(index, size, boundary, align_corners), weight, size)
