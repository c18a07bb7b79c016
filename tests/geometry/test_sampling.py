"""Interpolation, its derivative, and finite warps: group laws, closed forms, independent implementations."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import images, relative
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


def by_definition(points: Tensor, size: int, kernel: str, boundary: str, align: bool) -> Tensor:
    """Weights (p, size) of samples: a basis of waves through them, or a local kernel over the extended signal."""
    period = size if boundary == "circular" else 2 * (size - 1) if align else 2 * size
    if kernel == "fourier":
        k, start = torch.arange(size).double(), 0.0 if align or boundary == "circular" else 0.5
        angle = 2 * math.pi / period

        def basis(p: Tensor) -> Tensor:
            if boundary == "reflect":
                return torch.cos(angle * k * (p[:, None] + start))
            waves = [
                torch.cos(angle * ((j + 1) // 2) * p) if j % 2 or j == 0 else torch.sin(angle * (j // 2) * p)
                for j in range(size)
            ]
            return torch.stack(waves, 1)

        return basis(points) @ torch.linalg.inv(basis(torch.arange(size).double()))
    matrix = torch.zeros(len(points), size, dtype=torch.float64)
    for e in range(int(points.min()) - 3, int(points.max()) + 4):
        d, folded = (points - e).abs(), e % period
        folded = folded if folded < size else (period if align else period - 1) - folded
        cubic = torch.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, (-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2) * (d < 2))
        matrix[:, folded] += (1 - d).clamp_min(0) if kernel == "bilinear" else cubic
    return matrix


@pytest.mark.parametrize("kernel", ["fourier", "central", "bilinear"])
@pytest.mark.parametrize(("boundary", "align"), CONVENTIONS)
@pytest.mark.parametrize("size", [(9, 14), (8, 7), (20, 20)])
def test_a_warp_is_the_interpolation_at_the_moved_points(
    kernel: str, boundary: str, align: bool, size: tuple[int, int]
) -> None:
    """Every generator, value and velocity, against dense weights of all samples at all points."""
    sampler, x = Sampler(kernel, boundary, align).for_image(*size), images(2, *size)
    (u, v), t = sampler.coordinates(*size), torch.tensor(0.37, dtype=torch.float64)
    du, dv = u[1] - u[0], v[1] - v[0]
    here = torch.stack([u.expand(size), v[:, None].expand(size), torch.ones(size, dtype=torch.float64)]).flatten(1)

    def expected(generator: lee.Generator, amount: Tensor) -> Tensor:
        moved = generator.flow(amount) @ here
        across = by_definition((moved[0] - u[0]) / du, size[1], kernel, boundary, align)
        down = by_definition((moved[1] - v[0]) / dv, size[0], kernel, boundary, align)
        return torch.einsum("...yx,py,px->...p", x, down, across).reshape(x.shape)

    for generator in (*AFFINE, lee.ROTATION, lee.HYPERBOLIC, lee.SCALE - 0.4 * lee.ROTATION + 0.2 * lee.TRANSLATION_X):
        value = sampler.warp(x, generator, t)
        torch.testing.assert_close(value, expected(generator, t), rtol=0, atol=1e-12)
        single = sampler.warp(x.float(), generator, t)
        torch.testing.assert_close(single.double(), value, rtol=0, atol=3e-6)
        velocity = torch.func.jvp(lambda s, g=generator: sampler.warp(x, g, s), (t,), (torch.ones_like(t),))[1]
        ahead, behind = (expected(generator, t + s * 1e-5) for s in (1, -1))
        assert relative(velocity, (ahead - behind) / 2e-5) < 1e-4


def test_a_warp_in_parts_is_the_same_and_passes_gradients_and_many_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, t = images(2, 8, 8), torch.tensor([-0.2, 0.0, 0.3], dtype=torch.float64)
    for kernel in ("fourier", "central"):

        def turned(z: Tensor, s: Tensor, kernel: str = kernel) -> Tensor:
            return lee.warp(z, lee.ROTATION, s, kernel=kernel)

        whole = turned(x, t[2])
        many = torch.func.vmap(turned, (None, 0))(x, t)
        torch.testing.assert_close(many[2], whole, rtol=0, atol=1e-12)
        z = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((turned(z, t[2]) * x).sum(), z)  # linear: the transpose
        torch.testing.assert_close((gradient * z).sum(), (whole * x).sum(), rtol=1e-10, atol=0)
        with monkeypatch.context() as small:
            small.setattr("lee.geometry.sampling.LARGEST", 5000)
            torch.testing.assert_close(turned(x, t[2]), whole, rtol=0, atol=1e-12)
    for kernel in ("fourier", "central"):  # one sample stands for a constant
        alone = Sampler(kernel, align_corners=True, extent=(1.0, 1.0)).warp(x[:, :, :1, :1], lee.ROTATION, 0.3)
        torch.testing.assert_close(alone, x[:, :, :1, :1])


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


@pytest.mark.parametrize("generator", [lee.ROTATION, lee.SCALE])
def test_a_warped_image_lies_in_memory_as_any_other(generator: lee.Generator) -> None:
    """Models may take views of what they are given."""
    assert lee.warp(torch.rand(2, 3, 8, 10), generator, torch.tensor(0.1)).is_contiguous()


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_picture_one_pixel_high_varies_along_its_length_alone(align_corners: bool) -> None:
    x = torch.arange(8.0).expand(1, 1, 1, 8)
    across, down = lee.spatial_gradient(x, kernel="central", align_corners=align_corners)
    assert bool((across[..., 1:-1] > 0).all())
    assert not down.any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lee.warp(images(2), lee.BRIGHTNESS, 0.5), "spatial generators only .* not for 'brightness'"),
        (lambda: lee.warp(images(2), lee.ROTATION + lee.CONTRAST, 0.5), "not for 'rotation [+] contrast'"),
        (lambda: lee.warp(images(2), lee.Action(lambda x, t: x * t.exp(), "mine"), 0.5), "not for 'mine'"),
        (lambda: lee.warp(images(2), "rotate", 0.5), "Did you mean 'rotation'"),
        (lambda: lee.warp(images(3), lee.ROTATION, torch.tensor([0.1, 0.2, 0.3])), "one number for all images"),
        (lambda: lee.warp(images(3), lee.TRANSLATION_X, torch.tensor([0.1, 0.2])), "one number for all images"),
        (lambda: lee.warp((images(2) * 255).byte(), lee.ROTATION, 0.5), "not torch.uint8; use x.float"),
        (lambda: lee.spatial_gradient((images(2) * 255).byte()), "not torch.uint8"),
        (lambda: lee.spatial_gradient(torch.rand(8)), "at least one pixel"),
        (lambda: lee.bracket("rotation", "contrast"), "not for 'contrast'"),
    ],
)
def test_what_can_not_be_warped_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(lee.InputError, match=said):
        call()


def test_names_stand_for_generators() -> None:
    assert torch.equal(lee.warp(images(1), "rotation", 0.1), lee.warp(images(1), lee.ROTATION, 0.1))
    assert lee.bracket("rotation", "translation_x") == lee.bracket(lee.ROTATION, lee.TRANSLATION_X)
