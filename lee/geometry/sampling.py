r"""The spatial derivative of a sampled image, and its finite warp: one interpolation kernel decides both.

Interpolating along one axis is a matrix: row `p` of :func:`interpolation_matrix` holds the weights of the `n` samples
at coordinate `p`. The derivative at the sample points, :func:`derivative_matrix`, is the derivative of those rows. So an
infinitesimal action costs two small matrix products, has an exact transpose, and agrees with its finite action.

Kernels:
    - ``fourier``: the trigonometric polynomial through the samples, i.e. the band-limited signal of the paper's theory.
    - ``central``: Catmull-Rom interpolation, whose derivative is the central difference (it damps high frequencies).
    - ``authors``: bilinear interpolation with the one-sided derivative that the paper's released code takes. At `t = 0`
      every sample sits on a kink, and rounding of the coordinates picks the side. For comparison with published
      numbers only; it has no finite warp other than ``bilinear``.
    - ``bilinear``: for finite warps; its derivative at the samples doesn't exist, so :func:`derivative_matrix` refuses.

Boundaries: ``reflect`` (even extension) and ``circular``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lee.errors import InputError, check_known, nearest
from lee.geometry.generators import Generator

KERNELS = ("fourier", "central", "authors")
WARP_KERNELS = ("fourier", "central", "bilinear")
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
    """Weights of `size` samples at coordinates `points` (p,), in units of samples: shape (p, size), float64."""
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


@dataclass(frozen=True)
class Sampler:
    """How a grid of samples stands for a continuous image.

    Args:
        kernel: One of :data:`KERNELS`.
        boundary: One of :data:`BOUNDARIES`.
        align_corners: False: samples are the areas of pixels, so a stride commutes with translation. True: the outer
            samples lie on the image's border, as in the paper's code.
        extent: Half width and half height of the field of view, in half sides; None: that of the grid itself.
            A feature map has the extent of the image that it was computed from.
    """

    kernel: str = "fourier"
    boundary: str = "reflect"
    align_corners: bool = False
    extent: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.kernel not in (*KERNELS, "bilinear"):
            raise InputError(f"Unknown kernel {self.kernel!r}.{nearest(self.kernel, KERNELS)}")
        check_known("boundary", self.boundary, BOUNDARIES)

    def for_image(self, height: int, width: int) -> "Sampler":
        """The same sampler with the field of view of an image of `height` × `width` pixels."""
        edge = 1 if self.align_corners else 0
        shorter = min(height, width) - edge
        extent = ((width - edge) / shorter, (height - edge) / shorter)
        return Sampler(self.kernel, self.boundary, self.align_corners, extent)

    def _spacing(self, height: int, width: int) -> tuple[float, float]:
        """Distance between neighbouring samples in half sides, along x and y."""
        extent = self.extent or self.for_image(height, width).extent
        assert extent is not None
        edge = 1 if self.align_corners else 0
        return 2 * extent[0] / max(width - edge, 1), 2 * extent[1] / max(
            height - edge, 1
        )  # one sample has no neighbour

    def coordinates(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Positions of the samples in half sides: `x` (width,) and `y` (height,), float64."""
        dx, dy = self._spacing(height, width)
        x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * dx
        y = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2) * dy
        return x, y

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives along x and y, per half side, of `z` (..., H, W): two tensors of its shape and dtype."""
        height, width = z.shape[-2:]
        dx, dy = self._spacing(height, width)
        work = torch.promote_types(z.dtype, torch.float32)  # half precision would lose the differences
        along = [
            (derivative_matrix(n, self.kernel, self.boundary, self.align_corners, z.dtype) / d).to(work).to(z.device)
            if n > 1
            else torch.zeros(1, 1, dtype=work, device=z.device)  # one sample stands for a constant
            for n, d in ((width, dx), (height, dy))
        ]
        wide = z.to(work).contiguous()  # products of many small strided matrices would copy each of them
        return (wide @ along[0].T).to(z.dtype), (along[1] @ wide).to(z.dtype)

    def fields(self, generators: Sequence[Generator], height: int, width: int) -> Tensor:
        """The vector fields `ξ(p) = A p + b` at the samples: shape (K, 2, height, width), float64, in half sides."""
        x, y = self.coordinates(height, width)
        plane = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
        matrix = torch.tensor([g.matrix for g in generators], dtype=torch.float64)
        offset = torch.tensor([g.offset for g in generators], dtype=torch.float64)
        return torch.einsum("kij,jhw->kihw", matrix, plane) + offset[:, :, None, None]

    def warp(self, z: Tensor, generator: Generator, t: Tensor | float) -> Tensor:
        """Pull `z` (..., H, W) back along the flow: `z(exp(tX) p)` at every sample `p`; same shape and dtype."""
        if self.kernel not in WARP_KERNELS:
            raise InputError(f"kernel={self.kernel!r} has no finite warp; use one of {', '.join(WARP_KERNELS)}.")
        height, width = z.shape[-2:]
        dx, dy = self._spacing(height, width)
        x, y = self.coordinates(height, width)
        if generator.is_axis_aligned:
            return self._stretched(z, generator.flow(t), x, y)
        points = torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).flatten(1)
        points = torch.cat([points, torch.ones(1, points.shape[1], dtype=torch.float64)])
        moved = generator.flow(t) @ points
        options = {"kernel": self.kernel, "boundary": self.boundary, "align_corners": self.align_corners}
        work = torch.promote_types(z.dtype, torch.float32)
        rows = []
        for part in moved[:2].split(max(1, 4_000_000 // (height + width)), dim=1):  # bounds the weights' memory
            across = interpolation_matrix(part[0] / dx + (width - 1) / 2, width, **options)  # type: ignore[arg-type]
            down = interpolation_matrix(part[1] / dy + (height - 1) / 2, height, **options)  # type: ignore[arg-type]
            columns = z.to(work) @ across.T.to(work).to(z.device)  # (..., H, p)
            rows.append((columns * down.T.to(work).to(z.device)).sum(-2))
        return torch.cat(rows, dim=-1).reshape(z.shape).to(z.dtype)

    def _stretched(self, z: Tensor, flow: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """`z` pulled back along a flow that keeps rows rows and columns columns: one matrix product for each axis."""
        height, width = z.shape[-2:]
        dx, dy = self._spacing(height, width)
        options = {"kernel": self.kernel, "boundary": self.boundary, "align_corners": self.align_corners}
        work = torch.promote_types(z.dtype, torch.float32)
        across, down = (
            interpolation_matrix((flow[k, k] * p + flow[k, 2]) / d + (n - 1) / 2, n, **options).to(work).to(z.device)  # type: ignore[arg-type]
            for k, (p, d, n) in enumerate(((x, dx, width), (y, dy, height)))
        )
        return (down @ (z.to(work) @ across.T)).to(z.dtype)


def spatial_gradient(
    x: Tensor, *, kernel: str = "fourier", boundary: str = "reflect", align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Derivatives of images `x` (..., H, W) along x and y, per half of the shorter side.

    Examples:
        >>> wave = torch.cos(torch.pi * (torch.arange(8) + 0.5) / 8).expand(8, 8)
        >>> gx, gy = spatial_gradient(wave)
        >>> bool(gy.abs().max() < 1e-5)
        True
    """
    return Sampler(kernel, boundary, align_corners).gradient(x)


def warp(
    x: Tensor,
    generator: Generator,
    t: Tensor | float,
    *,
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
) -> Tensor:
    """Images `x` (N, C, H, W) after the finite spatial action `exp(tX)`; differentiable in `x` and in `t`."""
    return Sampler(kernel, boundary, align_corners).warp(x, generator, t)
