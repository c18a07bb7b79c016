"""Images differentiated and warped by hand: what a :class:`Sampler` does, with what it can't do refused."""

from torch import Tensor

from lee.errors import InputError
from lee.geometry.algebra import spatial
from lee.geometry.generators import Generator
from lee.geometry.sampling import Sampler


def spatial_gradient(
    x: Tensor, *, kernel: str = "fourier", boundary: str = "reflect", align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Derivatives of images `x` (..., H, W) along x and y, per half of the shorter side.

    Args:
        x: Images (..., H, W).
        kernel: One of :data:`KERNELS`.
        boundary: One of :data:`BOUNDARIES`.
        align_corners: Pixel convention, see :class:`Sampler`.

    Raises:
        InputError: For whole numbers, an unknown kernel or boundary.

    Examples:
        >>> import torch
        >>> wave = torch.cos(torch.pi * (torch.arange(8) + 0.5) / 8).expand(8, 8)
        >>> gx, gy = spatial_gradient(wave)
        >>> bool(gy.abs().max() < 1e-5)
        True
    """
    _check_maps(x)
    return Sampler(kernel, boundary, align_corners).gradient(x)


def _check_maps(x: Tensor) -> None:
    """Refuse what can't hold values between its own."""
    if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"Images must be floating-point tensors, not {kind}; use x.float() / 255 for 8-bit images.")
    if x.ndim < 2 or x.numel() == 0:
        raise InputError(f"Images must have shape (..., H, W) and at least one pixel; got {tuple(x.shape)}.")


def warp(
    x: Tensor,
    generator: str | Generator,
    t: Tensor | float,
    *,
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
) -> Tensor:
    """Images `x` (N, C, H, W) after the finite spatial action `exp(tX)`; differentiable in `x` and in `t`.

    What also changes colours is :meth:`lee.Image.finite`.

    Args:
        x: Images (N, C, H, W).
        generator: A spatial generator, or its name.
        t: How far, in the generator's unit: a number or a 0-dimensional tensor.
        kernel: `"fourier"`, `"central"` or `"bilinear"`.
        boundary: One of :data:`BOUNDARIES`.
        align_corners: Pixel convention, see :class:`Sampler`.

    Raises:
        InputError: For a kernel without a finite warp, an unknown boundary, images of whole numbers, a generator that changes
            colours, or several amounts.
    """
    _check_maps(x)
    generator = spatial(generator, "A warp")
    return Sampler(kernel, boundary, align_corners).warp(x, generator, t)
