"""Sampled images that move: the spatial derivative and the finite warp by one interpolation kernel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lee.errors import InputError, check_flag, check_known, nearest
from lee.geometry.generators import Generator
from lee.geometry.interpolation import (
    BOUNDARIES,
    KERNELS,
    WARP_KERNELS,
    derivative_matrix,
    interpolation_matrix,
    refined,
    taps,
    width_of,
)
from lee.process.alone import ordinary, without_autocast

LARGEST = 2_000_000
"""Values that lie beside each other while points are interpolated, which bounds the memory."""


@dataclass(frozen=True)
class Registration:
    """Where the samples of a map lie in the image: sample (i, j) at `origin + (i, j)·spacing`.

    Both are in heights and widths of the image, whose pixel (i, j) of H × W lies at ((i + 1/2)/H, (j + 1/2)/W).

    A boundary `reflect` is about the map's own edges, half a spacing beyond its outer samples, not about the image's. Samples
    that lie off the centre thus have an error at the border, also where the image is smooth. A reflection about the image's
    edges would spare them that, but has to extrapolate by up to half a spacing, which enlarges whatever is rough.

    Args:
        origin: Row and column of the first sample.
        spacing: Distance between neighbouring samples, down and across.
    """

    origin: tuple[float, float]
    spacing: tuple[float, float]


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
        registration: Where the samples lie in it; None: evenly over all of it.

    Raises:
        InputError: For an unknown kernel or boundary.
    """

    kernel: str = "fourier"
    boundary: str = "reflect"
    align_corners: bool = False
    extent: tuple[float, float] | None = None
    registration: Registration | None = None

    def __post_init__(self) -> None:
        if self.kernel not in (*KERNELS, "bilinear"):
            raise InputError(f"Unknown kernel {self.kernel!r}.{nearest(self.kernel, KERNELS)}")
        check_known("boundary", self.boundary, BOUNDARIES)
        check_flag("align_corners", self.align_corners)

    def for_image(self, height: int, width: int) -> "Sampler":
        """The same sampler with the field of view of an image of `height` × `width` pixels.

        Args:
            height: Rows of the image.
            width: Columns of the image.
        """
        edge = 1 if self.align_corners else 0
        shorter = max(min(height, width) - edge, 1)  # one sample has no neighbour
        extent = ((width - edge) / shorter, (height - edge) / shorter)
        return Sampler(self.kernel, self.boundary, self.align_corners, extent)

    @property
    def aspect(self) -> float | None:
        """Width over height of the field of view; None if it is that of whatever grid is given."""
        return None if self.extent is None else self.extent[0] / self.extent[1]

    def on(self, registration: Registration | None) -> "Sampler":
        """The same sampler for maps whose samples lie elsewhere.

        With `align_corners=True` the outer samples of *every* map lie on the image's border, as in the paper's code, and the
        sampler stays as it is.

        Args:
            registration: Where the samples lie; None: evenly over the image.
        """
        return self if self.align_corners else replace(self, registration=registration)

    def _spacing(self, height: int, width: int) -> tuple[float, float]:
        """Distance between neighbouring samples in half sides, along x and y."""
        extent = self.extent or self.for_image(height, width).extent
        assert extent is not None
        if self.registration is not None:
            down, across = self.registration.spacing
            return 2 * extent[0] * across, 2 * extent[1] * down
        edge = 1 if self.align_corners else 0
        return 2 * extent[0] / max(width - edge, 1), 2 * extent[1] / max(height - edge, 1)

    def _middle(self, height: int, width: int) -> tuple[float, float]:
        """The image's centre, in samples from the first one, along x and y."""
        if self.registration is None:
            return (width - 1) / 2, (height - 1) / 2
        (top, left), (down, across) = self.registration.origin, self.registration.spacing
        return (0.5 - left) / across, (0.5 - top) / down

    def coordinates(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Positions of the samples in half sides: `x` (width,) and `y` (height,), float64.

        Args:
            height: Rows.
            width: Columns.
        """
        (dx, dy), (cx, cy) = self._spacing(height, width), self._middle(height, width)
        x = (torch.arange(width, dtype=torch.float64) - cx) * dx
        y = (torch.arange(height, dtype=torch.float64) - cy) * dy
        return x, y

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives along x and y, per half side, of `z` (..., H, W): two tensors of its shape and dtype.

        Args:
            z: Maps (..., H, W).
        """
        return self.derivative(z, 0), self.derivative(z, 1)

    @without_autocast()
    def derivative(self, z: Tensor, axis: int) -> Tensor:
        """Derivative along x or y, per half side, of `z` (..., H, W): a tensor of its shape and dtype.

        Args:
            z: Maps (..., H, W).
            axis: 0 for x, 1 for y.
        """
        n, d = z.shape[-1 - axis], self._spacing(*z.shape[-2:])[axis]
        if n == 1:
            return torch.zeros_like(z)  # one sample stands for a constant
        work = torch.promote_types(z.dtype, torch.float32)  # half precision would lose the differences
        matrix = derivative_matrix(n, self.kernel, self.boundary, self.align_corners, z.dtype)
        along = (matrix / d).to(work).to(z.device)
        wide = z.to(work).contiguous()  # products of many small strided matrices would copy each of them
        return (along @ wide if axis else wide @ along.T).to(z.dtype)

    def fields(self, generators: Sequence[Generator], height: int, width: int) -> Tensor:
        """The vector fields `ξ(p) = A p + b` at the samples: shape (K, 2, height, width), float64, in half sides.

        Args:
            generators: K spatial generators.
            height: Rows.
            width: Columns.
        """
        x, y = self.coordinates(height, width)
        plane = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
        matrix = torch.tensor([g.matrix for g in generators], dtype=torch.float64)
        offset = torch.tensor([g.offset for g in generators], dtype=torch.float64)
        return torch.einsum("kij,jhw->kihw", matrix, plane) + offset[:, :, None, None]

    @without_autocast()
    def warp(self, z: Tensor, generator: Generator, t: Tensor | float) -> Tensor:
        """Pull `z` (..., H, W) back along the flow: `z(exp(tX) p)` at every sample `p`; same shape and dtype.

        Args:
            z: Maps (..., H, W).
            generator: A spatial generator.
            t: How far, in the generator's unit: a number or a 0-dimensional tensor.

        Raises:
            InputError: For a kernel without a finite warp.
        """
        if self.kernel not in WARP_KERNELS:
            raise InputError(f"kernel={self.kernel!r} has no finite warp; use one of {', '.join(WARP_KERNELS)}.")
        height, width = z.shape[-2:]
        (dx, dy), (cx, cy) = self._spacing(height, width), self._middle(height, width)
        x, y = self.coordinates(height, width)
        if generator.is_axis_aligned:
            return self._stretched(z, generator.flow(t), x, y)
        points = torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).flatten(1)
        points = torch.cat([points, torch.ones(1, points.shape[1], dtype=torch.float64)])
        moved = generator.flow(t) @ points
        return self._gathered(z, moved[0] / dx + cx, moved[1] / dy + cy)

    def _gathered(self, z: Tensor, across: Tensor, down: Tensor) -> Tensor:
        """`z` (..., H, W) at H·W points of any columns and rows: a few samples for each, however large the image is."""
        work = torch.promote_types(z.dtype, torch.float32)
        width = width_of(self.kernel, work)
        how: dict[str, Any] = {"boundary": self.boundary, "align_corners": self.align_corners, "width": width}
        fine = z.to(work)
        if self.kernel == "fourier":
            rows, columns = (refined(n, **how).to(work).to(z.device) for n in z.shape[-2:])
            fine = rows @ fine @ columns.T
        samples = fine.flatten(-2).reshape(-1, fine.shape[-2] * fine.shape[-1]).T.contiguous()  # all maps' side by side
        parts = []
        most = max(1, LARGEST // max(1, samples.shape[1] * width**2))
        for here in zip(across.split(most), down.split(most), strict=True):
            (i, x), (j, y) = (
                taps(p, n, kernel=self.kernel, **how) for p, n in zip(here, reversed(z.shape[-2:]), strict=True)
            )
            index = j[:, :, None] * fine.shape[-1] + i[:, None, :]
            weight = (y.to(work)[:, :, None] * x.to(work)[:, None, :]).flatten(1).to(z.device)
            near = samples.index_select(0, index.flatten().to(z.device)).unflatten(0, weight.shape)
            parts.append((weight[:, None] @ near)[:, 0])
        return torch.cat(parts).T.contiguous().reshape(z.shape).to(z.dtype)

    def _stretched(self, z: Tensor, flow: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """`z` pulled back along a flow that keeps rows rows and columns columns: one matrix product for each axis."""
        height, width = z.shape[-2:]
        (dx, dy), (cx, cy) = self._spacing(height, width), self._middle(height, width)
        options = {"kernel": self.kernel, "boundary": self.boundary, "align_corners": self.align_corners}
        work = torch.promote_types(z.dtype, torch.float32)
        across, down = (
            interpolation_matrix((flow[k, k] * p + flow[k, 2]) / d + c, n, **options).to(work).to(z.device)  # type: ignore[arg-type]
            for k, (p, d, c, n) in enumerate(((x, dx, cx, width), (y, dy, cy, height)))
        )
        return (down @ (z.to(work) @ across.T)).to(z.dtype)


def transport(generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
    """`ξ_k·∇z` of scalars (N, C, H, W): shape (K, N, C, H, W), one derivative along each axis that a generator moves."""
    fields = _fields(tuple(generators), sampler, *z.shape[-2:], z.dtype, z.device)
    if not fields:
        return z.new_zeros(len(generators), *z.shape)
    (first, field), *others = fields.items()
    along = sampler.derivative(z, first)
    out = field * along if len(generators) > 1 else along[None].mul_(field)
    for axis, field in others:
        out.addcmul_(field, sampler.derivative(z, axis))
    return out


@lru_cache(maxsize=16)  # a network has few shapes, and each of them once per call and pass
@ordinary
def _fields(
    generators: tuple[Generator, ...],
    sampler: Sampler,
    height: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[int, Tensor]:
    """The axes that some generator moves, each with the speeds along it, (K, 1, 1, H, W)."""
    fields = sampler.fields(generators, height, width).to(dtype).to(device)[:, :, None, None]
    return {axis: fields[:, axis] for axis in (0, 1) if bool(fields[:, axis].any())}
