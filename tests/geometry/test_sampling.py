"""Interpolation, its derivative, and finite warps: group laws, closed forms, independent implementations."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import images
from torch import Tensor

import lee
from lee.geometry.generators import AFFINE
from lee.geometry.interpolation import derivative_matrix, interpolation_matrix
from lee.geometry.sampling import Sampler

CONVENTIONS = [(b, a) for b in ("reflect", "circular") for a in (False, True)]


@pytest.mark.parametrize("kernel", ["fourier", "central", "bilinear"])
@pytest.mark.parametrize(("boundary", "align"), CONVENTIONS)
@pytest.mark.parametrize("size", [2, 7, 8])
def test_interpolation_reproduces_the_samples(kernel: str, boundary: str, align: bool, size: int) -> None:
    matrix = interpolation_matrix(torch.arange(size), size, kernel=kernel, boundary=boundary, align_corners=align)
    torch.testing.assert_close(matrix, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)
    anywhere = interpolation_matrix(
        torch.rand(9) * 40 - 20, size, kernel=kernel, boundary=boundary, align_corners=align
    )
    torch.testing.assert_close(anywhere.sum(1), torch.ones(9, dtype=torch.float64))  # constants stay constant


@pytest.mark.parametrize("kernel", ["fourier", "central"])
@pytest.mark.parametrize(("boundary", "align"), CONVENTIONS)
@pytest.mark.parametrize("size", [7, 8])
def test_derivative_matrix_is_the_derivative_of_the_interpolation(
    kernel: str, boundary: str, align: bool, size: int
) -> None:
    nodes, h = torch.arange(size).double(), 1e-5
    ahead, behind = (
        interpolation_matrix(nodes + s * h, size, kernel=kernel, boundary=boundary, align_corners=align)
        for s in (1, -1)
    )
    matrix = derivative_matrix(size, kernel, boundary, align)
    torch.testing.assert_close((ahead - behind) / (2 * h), matrix, rtol=0, atol=2e-5)


@pytest.mark.parametrize("frequency", range(8))
def test_fourier_kernel_differentiates_waves_exactly(frequency: int) -> None:
    n = torch.arange(16, dtype=torch.float64)
    angle = math.pi * frequency / 16
    even = torch.cos(angle * (n + 0.5))
    torch.testing.assert_close(derivative_matrix(16) @ even, -angle * torch.sin(angle * (n + 0.5)), rtol=0, atol=1e-12)
    wave = torch.cos(2 * angle * n + 0.3)
    torch.testing.assert_close(
        derivative_matrix(16, boundary="circular") @ wave,
        -2 * angle * torch.sin(2 * angle * n + 0.3),
        rtol=0,
        atol=1e-11,
    )


def test_central_kernel_is_the_central_difference() -> None:
    x = images(1)[0, 0, 0]
    inner = (x[2:] - x[:-2]) / 2
    torch.testing.assert_close((derivative_matrix(32, "central") @ x)[1:-1], inner)
    damped = derivative_matrix(32, "central", "circular") @ torch.cos(2 * math.pi * 5 * torch.arange(32).double() / 32)
    expected = -math.sin(2 * math.pi * 5 / 32) * torch.sin(2 * math.pi * 5 * torch.arange(32).double() / 32)
    torch.testing.assert_close(damped, expected)


def test_authors_kernel_takes_one_side_chosen_by_rounding() -> None:
    for size, share in ((224, 0.84), (256, 0.60)):
        matrix = derivative_matrix(size, "authors", "reflect", True, torch.float32)
        forward = (matrix.diagonal() < 0).double().mean()
        assert float(forward) == pytest.approx(share, abs=0.01)
        assert torch.equal(matrix.abs().sum(1), torch.full((size,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(9, 9), (10, 16)])
def test_bilinear_warp_agrees_with_grid_sample(align: bool, size: tuple[int, int]) -> None:
    x = images(2, *size)
    sampler = Sampler("bilinear", "reflect", align)
    theta = lee.ROTATION.flow(0.4)[:2].clone()
    edge = 1 if align else 0
    aspect = (size[1] - edge) / (size[0] - edge)  # grid_sample's units differ along the axes, ours don't
    theta[0, 1] /= aspect
    theta[1, 0] *= aspect
    grid = F.affine_grid(theta[None].expand(2, -1, -1), [2, 3, *size], align_corners=align)
    expected = F.grid_sample(x, grid, padding_mode="reflection", align_corners=align)
    torch.testing.assert_close(sampler.warp(x, lee.ROTATION, 0.4), expected, rtol=1e-6, atol=1e-9)


def test_warp_by_zero_and_by_whole_pixels() -> None:
    x = images(1, 8, 12)
    for kernel in ("fourier", "central", "bilinear"):
        for generator in AFFINE:
            same = lee.warp(x, generator, 0.0, kernel=kernel)
            torch.testing.assert_close(same, x, rtol=0, atol=1e-12)
        shifted = lee.warp(x, lee.TRANSLATION_X.per_pixel(8), 3, kernel=kernel, boundary="circular")
        torch.testing.assert_close(shifted, x.roll(-3, -1), rtol=0, atol=1e-12)


def blob(n: int = 64) -> Tensor:
    u = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    return torch.exp(-((u[None, :] - 0.1) ** 2 + (u[:, None] + 0.05) ** 2) / (2 * 0.1**2))[None, None]


@pytest.mark.parametrize("generator", [*AFFINE, lee.ROTATION, lee.SCALE], ids=lambda g: g.name)
def test_warps_compose_and_invert(generator: lee.Generator) -> None:
    x = blob()
    once = lee.warp(lee.warp(x, generator, 0.05), generator, 0.1)
    torch.testing.assert_close(once, lee.warp(x, generator, 0.15), rtol=0, atol=1e-6)
    back = lee.warp(lee.warp(x, generator, 0.15), generator, -0.15)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["fourier", "central", "bilinear"])
@pytest.mark.parametrize(("boundary", "align"), CONVENTIONS)
def test_axis_aligned_flows_agree_with_the_general_ones(kernel: str, boundary: str, align: bool) -> None:
    sampler, x = Sampler(kernel, boundary, align).for_image(9, 14), images(2, 9, 14)
    for generator in (lee.TRANSLATION_X - 0.3 * lee.TRANSLATION_Y, lee.SCALE, lee.SQUEEZE + lee.TRANSLATION_Y):
        general = generator + 1e-300 * lee.SHEAR_X  # no longer axis-aligned, and the same to every digit
        assert generator.is_axis_aligned
        assert not general.is_axis_aligned
        expected = sampler.warp(x, general, 0.37)
        torch.testing.assert_close(sampler.warp(x, generator, 0.37), expected, rtol=0, atol=1e-12)


def test_commutator_of_actions_is_the_bracket() -> None:
    """`X(Y·z) - Y(X·z) = [X, Y]·z` on a smooth image."""
    image, sampler, x = lee.Image(), Sampler().for_image(64, 64), blob().expand(1, 3, 64, 64)

    def act(generator: lee.Generator, z: Tensor) -> Tensor:
        return image.infinitesimal([generator], z, sampler)[0]

    pairs = [(lee.ROTATION, lee.TRANSLATION_X), (lee.SHEAR_X, lee.SHEAR_Y), (lee.SCALE, lee.TRANSLATION_Y)]
    for first, second in pairs:
        commutator = act(first, act(second, x)) - act(second, act(first, x))
        expected = act(lee.bracket(first, second), x)
        assert float((commutator - expected).norm() / expected.norm()) < 1e-7


@pytest.mark.parametrize("size", [(16, 28), (28, 16)])
@pytest.mark.parametrize("align", [False, True])
def test_round_blob_on_a_wide_image_does_not_change_under_rotation(size: tuple[int, int], align: bool) -> None:
    sampler = Sampler(align_corners=align).for_image(*size)
    x, y = sampler.coordinates(*size)
    z = torch.exp(-(x[None, :] ** 2 + y[:, None] ** 2) / (2 * 0.3**2))[None, None]
    moved = lee.Map().infinitesimal([lee.ROTATION, lee.TRANSLATION_X], z, sampler)
    assert float(moved[0].norm() / moved[1].norm()) < 1e-2


def test_a_stride_commutes_with_translation_in_pixel_area_coordinates() -> None:
    """Averaging pairs of pixels of a band-limited image: the coarse grid's own derivative is the right one."""
    n = torch.arange(32, dtype=torch.float64)
    x = torch.cos(math.pi * 3 * (n + 0.5) / 32).expand(1, 1, 32, 32)
    for align, bound in ((False, 1e-12), (True, 1e-1)):
        fine = Sampler(align_corners=align).for_image(32, 32)
        pooled, moved = F.avg_pool2d(x, 2), F.avg_pool2d(lee.Map().infinitesimal([lee.TRANSLATION_X], x, fine)[0], 2)
        again = lee.Map().infinitesimal([lee.TRANSLATION_X], pooled, fine)[0]
        error = float((moved - again).norm() / moved.norm())
        assert error < bound if not align else error > 1e-3


def test_half_precision_and_bad_options() -> None:
    x = images(1).half()
    gx, _ = lee.spatial_gradient(x)
    assert gx.dtype is torch.float16
    with pytest.raises(lee.InputError, match="no finite warp"):
        lee.warp(images(1), lee.ROTATION, 0.1, kernel="authors")
    with pytest.raises(lee.InputError, match="Did you mean 'circular'"):
        Sampler(boundary="circlar")
    with pytest.raises(lee.InputError, match="Unknown kernel"):
        derivative_matrix(8, "bilinear")
