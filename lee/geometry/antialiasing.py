r"""Where aliasing comes from, what it adds to a Lie derivative, and a non-linearity that keeps it out.

A periodic signal on a grid of `n` samples is a sum of waves with coefficients :math:`c_k`, `k` cycles per period. Read on a
coarser grid of `m` samples, wave `k` looks like wave :math:`\kappa = k - qm` with :math:`|\kappa| < m/2`: it has been
folded `q` times. A translation by one coarse pixel turns its phase by :math:`2\pi k/m`, but what is seen there as
:math:`\kappa` should turn by :math:`2\pi\kappa/m` only. So sampling has the Lie derivative and, over random phases, the error

.. math::
    L = 2\pi i \sum_k q_k\, c_k\, e_\kappa, \qquad
    \mathrm{LEE} = 4\pi^2 \sum_k q_k^2\, \mathbb{E}|c_k|^2 \quad\text{per coarse pixel}^2 .

Without the mean this is exact for a stride of 2, where no two folded waves meet. A pointwise non-linearity is the same case:
its output is a continuous signal with new harmonics, read on the old grid.

Sources: Gruver et al., ICLR 2023 (aliasing as the source of equivariance error); Karras et al., NeurIPS 2021 (filtered
non-linearities).
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from lee.errors import InputError, check_count, check_known
from lee.geometry.interpolation import BOUNDARIES, interpolation_matrix
from lee.process.alone import ordinary


def harmonics(signal: Tensor) -> Tensor:
    r"""Fourier coefficients of one period of real signals (..., n): complex (..., n // 2 + 1).

    With :math:`\theta_j = 2\pi j/n` the signal is :math:`c_0 + 2\,\mathrm{Re} \sum_{k \ge 1} c_k e^{ik\theta_j}`; for even `n` the
    last term counts once.

    Args:
        signal: One period of real samples, (..., n).

    Examples:
        >>> theta = 2 * torch.pi * torch.arange(8) / 8
        >>> harmonics(1 + 2 * torch.cos(3 * theta)).abs().round(decimals=3).tolist()
        [1.0, 0.0, 0.0, 1.0, 0.0]
    """
    return torch.fft.rfft(signal, norm="forward")


def fold(k: Tensor | int, size: int) -> Tensor:
    """The wave that wave `k` looks like on a grid of `size` samples: integers in (-size/2, size/2].

    Args:
        k: Numbers of waves, integers of any shape.
        size: Samples of the coarse grid.

    Examples:
        >>> fold(torch.tensor([3, 5, 11, -5]), 8).tolist()
        [3, -3, 3, 3]
    """
    low = (size - 1) // 2
    return (torch.as_tensor(k) + low).remainder(size) - low


def _turns(n: int, size: int) -> Tensor:
    """How often each of the `n` waves, in the order of the FFT, folds on a grid of `size` samples: (n,), float64.

    A wave at a grid's limit of half a cycle per sample stands still there: samples can't tell which way it moves. On the
    coarse grid it counts as folded by half a turn.
    """
    if size < 1 or n % size:
        raise InputError(f"A grid of {n} samples can't be thinned out to {size}; `size` must divide {n}.")
    k = fold(torch.arange(n), n).double()
    kappa = fold(k, size)
    return (k.where(2 * k != n, 0) - kappa.where(2 * kappa != size, 0)) / size


def aliased_derivative(fine: Tensor, size: int) -> Tensor:
    r"""The Lie derivative :math:`2\pi i \sum_k q_k c_k e_\kappa` of keeping `size` samples of each period, from the waves alone.

    Args:
        fine: Periodic signals (..., n) along the last axis.
        size: Samples that are kept, a divisor of `n`: `fine[..., :: n // size]`.

    Returns:
        The derivative at these samples, (..., size), for a translation of one unit per coarse pixel, which is
        `lee.TRANSLATION_X.per_pixel(size)` if the last axis is x.

    Raises:
        InputError: If `size` doesn't divide `n`.
    """
    n = fine.shape[-1]
    spectrum = 2j * torch.pi * _turns(n, size).to(fine.device) * torch.fft.fft(fine, norm="forward")
    folded = spectrum.unflatten(-1, (n // size, size)).sum(-2)  # waves k ≡ l modulo `size` meet at l
    return torch.fft.ifft(folded, norm="forward").real


def aliased_error(power: Tensor, size: int) -> Tensor:
    r"""The error :math:`4\pi^2 \sum_k q_k^2\, \mathbb{E}|c_k|^2` of keeping `size` samples of signals with this spectrum.

    Args:
        power: Mean energies :math:`\mathbb{E}|c_k|^2` of all `n` waves in the order of `torch.fft.fft`, (..., n). The phases are
            taken to be independent; for a stride of 2 they don't matter.
        size: Samples that are kept, a divisor of `n`.

    Returns:
        The local equivariance error per coarse pixel², (...).

    Raises:
        InputError: If `size` doesn't divide `n`.

    Examples:
        >>> theta = 2 * torch.pi * torch.arange(8) / 8
        >>> power = torch.fft.fft(torch.cos(3 * theta), norm="forward").abs() ** 2
        >>> bool((aliased_error(power, 4) - 4 * torch.pi**2 * 0.5).abs() < 1e-5)  # all its energy folds once
        True
    """
    turns = _turns(power.shape[-1], size).to(power.device)
    return 4 * torch.pi**2 * (turns.square() * power).sum(-1)


def refine(x: Tensor, factor: int) -> Tensor:
    """The band-limited periodic signals through the samples `x` (..., n), `factor` times as dense: (..., factor·n).

    Every `factor`-th sample is the original one.

    Args:
        x: Samples (..., n) of one period.
        factor: Points per sample.
    """
    check_count("factor", factor)
    n = x.shape[-1]
    points = torch.arange(factor * n, dtype=torch.float64) / factor
    return x @ interpolation_matrix(points, n, boundary="circular").T.to(x)


def low_pass(x: Tensor, cutoff: float, *, boundary: str = "reflect") -> Tensor:
    """Keep the waves slower than `cutoff`, along each of the two axes.

    Args:
        x: Maps (..., H, W).
        cutoff: Cycles per side; waves at the cutoff and above are removed. An infinite one keeps all.
        boundary: `"circular"`: the maps are one period. `"reflect"`: they are continued by reflection, so that half-integer
            numbers of cycles occur too.

    Returns:
        Maps of the same shape, band-limited.

    Raises:
        InputError: If the cutoff is not positive or the boundary unknown.
    """
    if not cutoff > 0:
        raise InputError(f"`cutoff` must be a positive number of cycles per side, not {cutoff!r}.")
    check_known("boundary", boundary, BOUNDARIES)
    for axis in (-2, -1):
        n = x.shape[axis]
        mirrored = boundary == "reflect"
        period = torch.cat([x, x.flip(axis)], axis) if mirrored else x
        cycles = torch.arange(period.shape[axis] // 2 + 1, device=x.device) * (0.5 if mirrored else 1.0)
        kept = (cycles < cutoff).to(x.dtype).view((-1, 1) if axis == -2 else (-1,))
        spectrum = torch.fft.rfft(period, dim=axis) * kept
        x = torch.fft.irfft(spectrum, n=period.shape[axis], dim=axis).narrow(axis, 0, n)
    return x


def share_above(x: Tensor, cutoff: float, *, boundary: str = "reflect") -> Tensor:
    """Share of each sample's variance in waves at `cutoff` and above, for maps (N, C, H, W): (N,), each in [0, 1].

    The variance is about each channel's own mean; a map without any has share 0.

    Args:
        x: Maps (N, C, H, W).
        cutoff: Cycles per side.
        boundary: As for :func:`low_pass`.

    Raises:
        InputError: As for :func:`low_pass`, and if `x` has another rank.
    """
    if x.ndim != 4:
        raise InputError(f"Maps must have shape (N, C, H, W); got {tuple(x.shape)}.")
    above = (x - low_pass(x, cutoff, boundary=boundary)).square().flatten(1).sum(1)
    whole = (x - x.mean((2, 3), keepdim=True)).square().flatten(1).sum(1)
    return torch.where(whole > 0, above / whole, torch.zeros_like(whole)).clamp(0, 1)


@lru_cache(maxsize=64)
@ordinary
def _up(n: int, factor: int, boundary: str) -> Tensor:
    """Samples of the band-limited signal at `factor` places per pixel, from `n` samples: (factor·n, n), float64.

    Its transpose, divided by `factor`, takes the fine samples to the coarse ones without the waves that don't fit.
    """
    points = (torch.arange(factor * n, dtype=torch.float64) + 0.5) / factor - 0.5
    matrix = interpolation_matrix(points, n, boundary=boundary)
    if boundary == "circular" and n % 2 == 0:  # the wave at the limit is dropped: its samples don't determine it
        limit = torch.tensor([1.0, -1.0]).double().repeat(n // 2)
        matrix = matrix - (matrix @ limit)[:, None] * limit / n
    return matrix


class FilteredActivation(nn.Module):
    """A pointwise non-linearity that is applied between the pixels, so that few of its new harmonics fold back.

    Interpolate the maps to a grid `factor` times as fine, apply the non-linearity, drop what is too fine for the old
    grid, and go back to it. For a polynomial of degree `d`, `factor ≥ (d + 1) / 2` leaves no aliasing at all; for others the
    error falls as the factor grows. The filters are ideal ones (in the cosine basis with `"reflect"`), unlike the
    windowed ones of the source, and cost four small matrix products.

    With `boundary="circular"` and an even side, the wave of half a cycle per pixel is dropped, because its samples don't
    determine it.

    Args:
        activation: A pointwise function, such as `torch.nn.GELU()`.
        factor: Points per pixel along each axis; 1 filters the input only.
        boundary: `"reflect"` or `"circular"`, as in :class:`lee.Sampler`.

    Raises:
        InputError: For a factor that is no positive integer, or an unknown boundary.

    Source: Karras et al., *Alias-Free Generative Adversarial Networks*, NeurIPS 2021.

    Examples:
        >>> FilteredActivation(torch.nn.ReLU(), factor=4)(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, activation: Callable[[Tensor], Tensor], factor: int = 2, boundary: str = "reflect") -> None:
        super().__init__()
        check_known("boundary", boundary, BOUNDARIES)
        check_count("factor", factor)
        self.activation, self.factor, self.boundary = activation, factor, boundary

    def forward(self, x: Tensor) -> Tensor:
        """Return the filtered activation of maps (..., H, W), same shape.

        Args:
            x: Maps (..., H, W).
        """
        down, across = (_up(n, self.factor, self.boundary).to(x) for n in x.shape[-2:])
        fine = self.activation(down @ x @ across.T)
        return (down.T @ fine @ across) / self.factor**2

    def extra_repr(self) -> str:
        """What `print` shows beside the activation."""
        return f"factor={self.factor}, boundary={self.boundary!r}"
