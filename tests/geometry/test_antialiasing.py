"""Folding waves, the error that theory predicts for them against the measured one, and filtered non-linearities."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import timm
import torch
from torch import Tensor, nn

import lee
from lee.autodiff import record_fallbacks
from lee.errors import InputError
from lee.geometry import antialiasing

N = 32
MAPS = {"output": "logits", "boundary": "circular", "representations": "map"}


def texture(cutoff: float, n: int = N, samples: int = 3, seed: int = 0) -> Tensor:
    """Noise below `cutoff` cycles, (samples, 1, n, n), float64, of variance 1 on average."""
    noise = torch.randn(samples, 1, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return antialiasing.low_pass(noise, cutoff, boundary="circular") * n / (2 * math.ceil(cutoff) - 1)


def off_the_limits(x: Tensor, size: int) -> Tensor:
    """Without the waves along x that fold onto the limit of a grid of `size` samples, where they meet their mirror images."""
    waves = torch.fft.fft(x)
    waves[..., antialiasing.fold(torch.arange(x.shape[-1]), size) == size // 2] = 0
    return torch.fft.ifft(waves).real


def measured(layer: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """The Lie derivative along x per pixel of the output, whose side is `size`."""
    return lee.lie_derivative(layer, x, lee.TRANSLATION_X.per_pixel(size), **MAPS)  # type: ignore[arg-type]


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def rectified(p: Tensor) -> Tensor:
    """Fourier coefficients of |sin θ|, which are real: -2 / (π (p² - 1)) for even p, 0 for odd p."""
    even = p.remainder(2) == 0
    return torch.where(even, -2 / (math.pi * torch.where(even, p.double() ** 2 - 1, 1)), 0.0)


def test_harmonics_of_a_rectified_sine_are_those_of_its_fourier_series() -> None:
    n, p = 4096, torch.arange(20)
    sine = torch.sin(2 * torch.pi * torch.arange(n).double() / n)
    # What is left is folded back from around the n-th harmonic: the sum over j ≠ 0 of |c_{p + jn}| < 5 / n².
    absolute, relu = antialiasing.harmonics(sine.abs())[:20], antialiasing.harmonics(sine.relu())[:20]
    assert (absolute - rectified(p)).abs().max() < 5 / n**2
    expected = rectified(p) / 2 + torch.where(p == 1, -0.25j, 0)  # relu(s) = s/2 + |s|/2
    assert (relu - expected).abs().max() < 5 / n**2


def test_a_folded_wave_has_the_same_samples() -> None:
    for size in (7, 8):
        k = torch.arange(-20, 21)
        folded = antialiasing.fold(k, size)
        assert folded.min() == -((size - 1) // 2)
        assert folded.max() == size // 2
        nodes = torch.arange(size).double() / size
        here, there = (torch.exp(2j * torch.pi * w[:, None] * nodes) for w in (k, folded))
        assert torch.allclose(here, there, atol=1e-12)
    assert antialiasing.fold(5, 8) == -3


@pytest.mark.parametrize(("n", "stride"), [(24, 2), (24, 3), (24, 4), (27, 3)])
def test_strided_sampling_has_the_lie_derivative_that_folding_predicts(n: int, stride: int) -> None:
    x, size = texture(n, n), n // stride  # all waves, those at the limits too
    found = measured(lambda z: z[..., ::stride, ::stride], x, size)
    assert gap(antialiasing.aliased_derivative(x[..., ::stride, :], size), found) < 1e-12


def test_stride_two_has_an_error_of_four_pi_squared_times_the_aliased_energy() -> None:
    """LEE = 4π² Σ |c_k|² over |k| > m/2, per output pixel², for every single image without waves at the two limits."""
    x = off_the_limits(texture(N / 2), N // 2)
    aliased = (x - torch.fft.irfft(torch.fft.rfft(x)[..., : N // 4], n=N))[..., ::2, :].square().mean((1, 2, 3))
    found = measured(lambda z: z[..., ::2, ::2], x, N // 2).square().mean((1, 2, 3))
    assert torch.allclose(found, 4 * torch.pi**2 * aliased, rtol=1e-12)
    power = torch.fft.fft(x[..., ::2, :], norm="forward").abs().square()
    assert torch.allclose(antialiasing.aliased_error(power, N // 2).mean((1, 2)), found, rtol=1e-12)


@pytest.mark.parametrize("stride", [2, 4])
def test_other_strides_have_the_predicted_error_on_average_over_their_offsets(stride: int) -> None:
    """Shifted by 0 … s-1 pixels, the folded waves that meet get all relative phases: the cross terms cancel exactly."""
    size = N // stride
    x = off_the_limits(texture(N / 2), size)
    shifted = torch.cat([x.roll((a, b), (-2, -1)) for a in range(stride) for b in range(stride)])
    found = measured(lambda z: z[..., ::stride, ::stride], shifted, size).square().mean()
    power = torch.fft.fft(x, norm="forward").abs().square().mean((0, 1, 2))
    assert torch.allclose(found, antialiasing.aliased_error(power, size), rtol=1e-12)


def test_the_finite_error_is_that_of_the_turned_phases() -> None:
    """‖ρ(-t) S ρ(t) z - S z‖² = Σ 4 sin²(π q_k t) |c_k|² for a shift of t coarse pixels and a stride of 2."""
    size, t = N // 2, 0.7
    x = off_the_limits(texture(N / 2), size)
    shift = lee.TRANSLATION_X.per_pixel(size)
    there = lee.warp(x, shift, t, boundary="circular")[..., ::2, ::2]
    back = lee.warp(there, shift, -t, boundary="circular")
    found = (back - x[..., ::2, ::2]).square().mean()
    power = torch.fft.fft(x[..., ::2, :], norm="forward").abs().square().mean((0, 1, 2))
    folded = antialiasing.fold(torch.arange(N), N).abs() > size // 2
    assert torch.allclose(found, 4 * math.sin(math.pi * t) ** 2 * power[folded].sum(), rtol=1e-10)


@pytest.mark.parametrize("filtered", [nn.AvgPool2d(2), timm.layers.BlurPool2d(1, pad_mode="circular")])
def test_linear_downsampling_is_a_filter_and_a_stride(filtered: nn.Module) -> None:
    """Its predicted error is that of the stride on the filtered map, whose waves are damped by cos(πk/n) or its square."""
    filtered.double()
    x = texture(N / 2)
    found = measured(filtered, x, N // 2)
    power = 1 if isinstance(filtered, nn.AvgPool2d) else 2
    gain = torch.cos(torch.pi * antialiasing.fold(torch.arange(N), N).double() / N) ** power
    damped = torch.fft.fft2(x) * gain * gain[:, None]
    if power == 1:  # a window of two pixels also shifts by half of one
        k = antialiasing.fold(torch.arange(N), N).double()
        damped = damped * torch.exp(1j * torch.pi * k / N) * torch.exp(1j * torch.pi * k / N)[:, None]
    dense = torch.fft.ifft2(damped).real
    assert gap(antialiasing.aliased_derivative(dense[..., ::2, :], N // 2), found) < 1e-6  # timm's filter is float32


def test_a_square_makes_one_harmonic_and_its_error_is_known() -> None:
    """cos² of k cycles has energy 2 (1/4)² at 2k, which folds once if 2k > n/2: LEE = 4π²/8."""
    waves = {k: torch.cos(2 * torch.pi * k * torch.arange(N).double() / N + 0.3).expand(1, 1, N, N) for k in (7, 11)}
    errors = {k: float(measured(torch.square, x, N).square().mean()) for k, x in waves.items()}
    assert errors[7] < 1e-24
    assert errors[11] == pytest.approx(math.pi**2 / 2, rel=1e-12)


@pytest.mark.parametrize("activation", [torch.square, nn.GELU(), nn.Tanh()])
def test_a_smooth_non_linearity_has_the_lie_derivative_that_folding_predicts(
    activation: Callable[[Tensor], Tensor],
) -> None:
    x = texture(12)
    predicted = antialiasing.aliased_derivative(activation(antialiasing.refine(x, 64)), N)
    assert gap(predicted, measured(activation, x, N)) < 1e-10


def test_a_kinked_non_linearity_approaches_the_prediction() -> None:
    """The harmonics of a kink fall as k⁻², those of its derivative as 1/k: the tail's norm as the root of the factor."""
    x = texture(8)
    found = measured(torch.relu, x, N)
    gaps = [gap(antialiasing.aliased_derivative(antialiasing.refine(x, f).relu(), N), found) for f in (4, 16, 64, 256)]
    for coarse, fine in pairwise(gaps):
        assert fine == pytest.approx(coarse / 2, rel=0.25)


def test_a_rectified_wave_has_the_error_of_its_fourier_series() -> None:
    """The mean over phases of relu(cos) against 4π² Σ q² |c|² over the closed-form harmonics."""
    cycles, phases = 5, 64 * N
    angle = 2 * torch.pi * (cycles * torch.arange(N).double() / N + torch.arange(phases).double()[:, None] / phases)
    found = measured(torch.relu, angle.cos().view(64, 1, N, N), N).square().mean()  # each row has a phase of its own
    p = torch.arange(2, 200_000, 2)
    k = p * cycles
    turns = (k - antialiasing.fold(k, N)) / N
    turns = torch.where(2 * antialiasing.fold(k, N) == N, k / N, turns)
    predicted = 4 * math.pi**2 * (2 * turns.square() * (rectified(p) / 2).square()).sum()
    assert found == pytest.approx(float(predicted), rel=2e-3)  # an equal-weight rule over jumps: O(1 / phases)


def test_expected_error_of_relu_on_gaussian_noise() -> None:
    """The spectrum of relu(noise) is that of the arc-cosine kernel (Cho & Saul 2009); no sample is needed."""
    cutoff, m = 10, 1 << 15
    lag = torch.arange(m).double() / m
    k = torch.arange(-cutoff + 1, cutoff)
    rho = torch.cos(2 * torch.pi * k[:, None] * lag).mean(0).clamp(-1, 1)
    covariance = ((1 - rho**2).sqrt() + rho * (math.pi - rho.acos())) / (2 * math.pi)
    expected = antialiasing.aliased_error(torch.fft.fft(covariance, norm="forward").real, N)
    errors = measured(torch.relu, texture(cutoff, samples=400), N).square().mean((1, 2, 3))
    found = lee.Estimate.of(errors)
    assert abs(found.value - float(expected)) < 4 * found.stderr
    assert found.stderr < 0.02 * found.value


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_low_pass_keeps_what_is_below_and_removes_the_rest(boundary: str) -> None:
    j = torch.arange(12).double()
    cycle = torch.pi * (j + 0.5) / 12 if boundary == "reflect" else 2 * torch.pi * j / 12
    per_side = 0.5 if boundary == "reflect" else 1.0
    slow, fast = torch.cos(3 * cycle), torch.cos(5 * cycle)
    x = (slow + 2 * fast).expand(12, 12) + 1
    assert torch.allclose(antialiasing.low_pass(x, 5 * per_side, boundary=boundary), 1 + slow.expand(12, 12))
    assert torch.allclose(antialiasing.low_pass(x, math.inf, boundary=boundary), x)
    assert torch.allclose(antialiasing.low_pass(x.mT, 5 * per_side, boundary=boundary), (1 + slow.expand(12, 12)).mT)
    share = antialiasing.share_above(x[None, None], 5 * per_side, boundary=boundary)
    assert share.item() == pytest.approx(0.8)
    assert antialiasing.share_above(torch.ones(1, 2, 4, 4), 1.0).item() == 0


def test_refining_goes_through_the_samples_and_stays_band_limited() -> None:
    x = texture(7)
    fine = antialiasing.refine(x, 4)
    assert torch.allclose(fine[..., ::4], x, atol=1e-12)
    assert torch.fft.rfft(fine, norm="forward")[..., 7:].abs().max() < 1e-12


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_a_filtered_identity_is_the_identity_below_the_limit(boundary: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if boundary == "circular":
        x = antialiasing.low_pass(x, 3.5, boundary=boundary)
    for factor in (1, 2, 3):
        layer = antialiasing.FilteredActivation(nn.Identity(), factor, boundary)
        assert torch.allclose(layer(x), x, atol=1e-12)


@pytest.mark.parametrize(("degree", "factor"), [(2, 2), (3, 2), (5, 3), (7, 4)])
def test_a_filtered_polynomial_is_equivariant_when_the_factor_suffices(degree: int, factor: int) -> None:
    """Degree d makes waves up to d n/2; on a grid of F n samples they fold to above n/2 if F ≥ (d + 1) / 2."""

    def activation(z: Tensor) -> Tensor:
        return z**degree

    x = texture(N / 2)
    plain = measured(activation, x, N).square().mean()
    enough = measured(antialiasing.FilteredActivation(activation, factor, "circular"), x, N).square().mean()
    short = measured(antialiasing.FilteredActivation(activation, factor - 1, "circular"), x, N).square().mean()
    assert enough < 1e-20 * plain
    assert short > 1e-6 * plain


def test_filtering_lowers_the_error_of_relu_with_every_doubling() -> None:
    x = texture(10)
    errors = [measured(torch.relu, x, N).square().mean()]
    for factor in (2, 4, 8):
        layer = antialiasing.FilteredActivation(nn.ReLU(), factor, "circular")
        errors.append(measured(layer, x, N).square().mean())
    assert all(fine < coarse / 4 for coarse, fine in pairwise(errors))


def test_filtered_activations_run_stacked_and_train() -> None:
    layer = antialiasing.FilteredActivation(nn.ReLU(), 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with record_fallbacks() as names:
        lee.lie_derivative(model, x, "rotation")
    assert names == []
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert "factor=2, boundary='reflect'" in str(layer)
    assert layer(x.half()).dtype == torch.float16


def test_bad_arguments_are_refused() -> None:
    x = torch.rand(1, 1, 8, 8)
    for call, message in (
        (lambda: antialiasing.aliased_derivative(x, 3), "`size` must divide 8"),
        (lambda: antialiasing.aliased_error(x, 0), "`size` must divide 8"),
        (lambda: antialiasing.refine(x, 0), "`factor` must be a whole number from 1"),
        (lambda: antialiasing.FilteredActivation(nn.ReLU(), 1.5), "`factor` must be a whole number from 1"),  # type: ignore[arg-type]
        (lambda: antialiasing.FilteredActivation(nn.ReLU(), boundary="cirular"), "Did you mean 'circular'"),
        (lambda: antialiasing.low_pass(x, 0), "`cutoff` must be a positive number"),
        (lambda: antialiasing.low_pass(x, 2, boundary="zeros"), "Unknown boundary 'zeros'"),
        (lambda: antialiasing.share_above(x[0], 2), r"Maps must have shape \(N, C, H, W\)"),
    ):
        with pytest.raises(InputError, match=message):
            call()
