"""The spectrum of a Gram matrix: generalised eigenproblem, displacement metric, intervals with known truth."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

import lee
from lee.errors import InputError
from lee.geometry import Sampler
from lee.geometry.generators import AFFINE, BRIGHTNESS, CONTRAST, ROTATION, SCALE, TRANSLATION_X, Action, Generator
from lee.measure.spectrum import ORTHOGONAL, at_equal_size, displacement_metric, symmetry_spectrum, unit_sized
from lee.statistics import EquivarianceGram, concatenate


def gram_of(per_image: Tensor, generators: tuple[Generator | Action, ...] = AFFINE) -> EquivarianceGram:
    return EquivarianceGram(per_image, generators, "fourier")


def drawn(n: int, seed: int = 0, covariance: Tensor | None = None) -> Tensor:
    """Gram matrices of n images, each of rank 3, with a known mean."""
    root = torch.eye(6).double() if covariance is None else torch.linalg.cholesky(covariance)
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 3, 6, generator=random, dtype=torch.float64) @ root.T
    return rows.mT @ rows / 3


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.4])
def test_displacement_metric_is_the_mean_over_a_fine_grid(aspect: float) -> None:
    generators = [*AFFINE, ROTATION, 0.3 * ROTATION + 2.0 * SCALE - TRANSLATION_X]
    one = (np.arange(400) + 0.5) / 200 - 1
    xs, ys = max(aspect, 1) * one, max(1 / aspect, 1) * one
    x, y = np.meshgrid(xs, ys)
    fields = []
    for g in generators:
        (a, b), (c, d) = g.matrix
        fields.append(np.stack([g.offset[0] + a * x + b * y, g.offset[1] + c * x + d * y]).ravel())
    grid = np.array(fields) @ np.array(fields).T / x.size
    assert np.allclose(displacement_metric(generators, aspect=aspect).numpy(), grid, atol=1e-4)


def test_directions_solve_the_generalised_eigenproblem() -> None:
    gram = gram_of(drawn(50))
    spectrum = symmetry_spectrum(gram, resamples=100)
    metric = displacement_metric(AFFINE)
    wanted, vectors = scipy.linalg.eigh(gram.matrix.numpy(), metric.numpy())
    assert np.allclose(spectrum.eigenvalues.numpy(), wanted)
    assert torch.allclose(spectrum.directions @ metric @ spectrum.directions.T, torch.eye(6).double(), atol=1e-12)
    assert np.allclose(np.abs(np.diag(spectrum.directions.numpy() @ metric.numpy() @ vectors)), 1)
    for value, generator in zip(spectrum.eigenvalues, spectrum.generators, strict=True):
        assert gram.lee(generator).value == pytest.approx(float(value))


def test_eigenvalues_do_not_depend_on_the_basis_that_was_measured() -> None:
    per_image = drawn(40)
    first = symmetry_spectrum(gram_of(per_image), resamples=100)
    change = torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fields = torch.tensor([g.coefficients for g in AFFINE], dtype=torch.float64)
    other = tuple(Generator(f"g{k}", tuple(row)) for k, row in enumerate((change @ fields).tolist()))
    second = symmetry_spectrum(gram_of(change @ per_image @ change.T, other), resamples=100)
    assert torch.allclose(first.eigenvalues, second.eigenvalues, rtol=1e-8)
    assert torch.allclose(first.low, second.low, rtol=1e-8)
    for one, two in zip(first.generators, second.generators, strict=True):
        mine, its = (torch.tensor(g.coefficients) for g in (one, two))
        assert torch.allclose(mine, its, atol=1e-6) or torch.allclose(mine, -its, atol=1e-6)


def test_intervals_cover_well_separated_eigenvalues() -> None:
    """Truth: M^{1/2} diag(1, 3, 9, ...) M^{1/2}; 200 samples of 60 images; a binomial tolerance."""
    metric = displacement_metric(AFFINE)
    truth = 3.0 ** torch.arange(6).double()
    covariance = metric.sqrt() @ torch.diag(truth) @ metric.sqrt()  # M is diagonal
    inside = torch.zeros(6)
    for seed in range(200):
        spectrum = symmetry_spectrum(gram_of(drawn(60, seed, covariance)), resamples=200, level=0.9, seed=seed)
        inside += (spectrum.low <= truth) & (truth <= spectrum.high)
    # Percentile intervals of a variance of 180 skewed numbers fall somewhat short; 0.9 ± 4 sqrt(0.9·0.1/200) = 0.085.
    assert float(inside.mean() / 200) == pytest.approx(0.9, abs=0.06)
    assert (inside / 200 > 0.78).all()


@pytest.mark.parametrize(("images", "ranks"), [(3, 1), (5, 1), (2, 2)])
def test_images_too_few_for_all_directions_are_refused(images: int, ranks: int) -> None:
    """`n (C - 1) < 6`: the least eigenvalues would be 0, or rounding, for any model; in single precision, too."""
    rows = torch.randn(images, ranks, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for per_image in (rows.mT @ rows, (rows.mT @ rows).float().double()):
        with pytest.raises(lee.InputError, match=f"depend on {images * ranks} directions at most"):
            symmetry_spectrum(gram_of(per_image))
    assert symmetry_spectrum(gram_of(torch.zeros(images, 6, 6).double())).eigenvalues.tolist() == [0] * 6


@pytest.mark.parametrize(("n", "truth"), [(8, 1.0), (40, 1.0), (40, 30.0)])
def test_images_that_did_not_choose_the_directions_give_the_factor_between_them(n: int, truth: float) -> None:
    """Of 100 samples; the ratio of the eigenvalues of 8 images is 3 or more where the truth is 1."""
    metric = displacement_metric(AFFINE)
    covariance = metric.sqrt() @ torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, truth]).double()) @ metric.sqrt()
    spectra = [symmetry_spectrum(gram_of(drawn(n, seed, covariance)), resamples=100) for seed in range(100)]
    factors = [s.factor for s in spectra]
    assert sum(f.low <= truth <= f.high for f in factors) >= 86  # 95 less four standard errors
    assert torch.tensor([f.value for f in factors]).median() == pytest.approx(truth, rel=0.25)
    assert all(f.n == n // 2 for f in factors)
    naive = torch.tensor([float(s.eigenvalues[-1] / s.eigenvalues[0]) for s in spectra]).median()
    assert n > 8 or naive > 3


def test_alignment_tells_determined_directions_from_undetermined_ones() -> None:
    metric = displacement_metric(AFFINE)
    truth = torch.tensor([1.0, 10.0, 100.0, 1000.0, 1000.0, 1000.0]).double()
    spectrum = symmetry_spectrum(gram_of(drawn(200, 0, metric.sqrt() @ torch.diag(truth) @ metric.sqrt())))
    assert (spectrum.alignment[:3] > 0.95).all()
    assert (spectrum.alignment[3:] < 0.95).all()
    assert list(spectrum.frame().columns[:5]) == ["direction", "eigenvalue", "low", "high", "alignment"]


def test_a_model_that_ignores_rotations_has_rotation_as_its_most_respected_direction() -> None:
    """The mean over circles about the centre: rotations leave it alone, up to the kernel's error."""
    side = 33
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    radius = (xs**2 + ys**2).sqrt()
    rings = torch.stack([torch.exp(-(((radius - r) / 0.15) ** 2)) for r in (0.2, 0.45, 0.7)]).double()

    class Rings(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("nchw,rhw->nrc", x, rings).flatten(1)

    random = torch.Generator().manual_seed(0)
    noise = torch.randn(24, 1, side, side, generator=random, dtype=torch.float64)
    waves = torch.fft.fft2(noise) * (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.fftfreq(side) ** 2 < 0.01)
    images = torch.fft.ifft2(waves).real * torch.exp(-((radius / 0.5) ** 4))
    gram = lee.equivariance_gram(Rings(), images, output="logits", progress=False)
    spectrum = symmetry_spectrum(gram, resamples=100)
    rotation = torch.tensor(ROTATION.coefficients[:6]).double() * (3 / 2) ** 0.5  # of unit displacement
    found = torch.tensor(spectrum.generators[0].coefficients[:6]).double()
    cosine = float((found * torch.tensor([1, 1, 1 / 3, 1 / 3, 1 / 3, 1 / 3]).double() * rotation).sum().abs())
    assert cosine > 0.99
    assert spectrum.eigenvalues[0] < 0.05 * spectrum.eigenvalues[1]


@pytest.mark.parametrize(
    ("generators", "message"),
    [
        ((TRANSLATION_X, TRANSLATION_X + BRIGHTNESS), "can't be given as a displacement"),
        ((BRIGHTNESS, CONTRAST), "no spatial generator"),
        ((TRANSLATION_X, Action(lambda x, t: x, "mine")), "size of 'mine' can't be given"),
        ((TRANSLATION_X, 2.0 * TRANSLATION_X), "depend on each other"),
    ],
)
def test_generators_without_a_displacement_of_their_own_are_refused(
    generators: tuple[Generator | Action, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        symmetry_spectrum(gram_of(torch.eye(2).double().expand(5, 2, 2), generators))


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="two or more images"):
        symmetry_spectrum(gram_of(drawn(1)))
    with pytest.raises(InputError, match="`level` must be a number between 0 and 1, not 1"):
        symmetry_spectrum(gram_of(drawn(3)), level=1)
    with pytest.raises(InputError, match=r"aspect = -0\.5"):
        displacement_metric(AFFINE, aspect=-0.5)
    with pytest.raises(InputError, match="aspect = 0"):
        symmetry_spectrum(gram_of(drawn(3)), aspect=0)


@pytest.mark.parametrize("size", [(12, 24), (24, 12)])
def test_the_metric_is_that_of_the_images(size: tuple[int, int]) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Tanh(), torch.nn.Flatten()).double()
    x = torch.rand(3, 1, *size, dtype=torch.float64)
    gram = lee.equivariance_gram(model, x, generators=AFFINE, output="logits", progress=False)
    y, across = Sampler().for_image(*size).fields(AFFINE, *size).flatten(2).mT.flatten(1), np.prod(size)
    known = scipy.linalg.eigh(gram.matrix.numpy(), (y @ y.T / across).numpy(), eigvals_only=True)
    found = symmetry_spectrum(gram, resamples=100)
    assert np.allclose(found.eigenvalues.numpy(), known, rtol=0.02)  # samples in the middle of pixels
    both = concatenate([gram, dataclasses.replace(gram, aspect=1.0)])
    assert both.aspect is None


def test_shares_are_squared_cosines_over_an_orthogonal_basis() -> None:
    spectrum = symmetry_spectrum(gram_of(drawn(50)), resamples=100)
    shares = spectrum.shares()
    assert torch.allclose(shares.sum(1), torch.ones(6).double())
    assert torch.allclose(shares.sum(0), torch.ones(6).double())
    metric = displacement_metric(AFFINE)
    rotation = torch.tensor(ROTATION.coefficients[:6]).double()
    cosine = spectrum.directions @ metric @ rotation / (rotation @ metric @ rotation).sqrt()
    assert torch.allclose(spectrum.shares([ROTATION])[:, 0], cosine**2)


def test_the_spread_of_a_plane_turns_freely_inside_and_stands_still_outside() -> None:
    """Two equal eigenvalues: each direction is anywhere in their plane, the plane itself is known."""
    metric = displacement_metric(AFFINE)
    truth = torch.tensor([1.0, 1.0, 100.0, 1e4, 1e6, 1e8]).double()
    spectrum = symmetry_spectrum(gram_of(drawn(200, 0, metric.sqrt() @ torch.diag(truth) @ metric.sqrt())))
    assert spectrum.spread[0] > 25
    assert spectrum.plane_spread(1, 2) < 5
    assert spectrum.plane_spread(3, 3) == pytest.approx(float(spectrum.spread[2]), abs=1e-6)
    with pytest.raises(InputError, match="not 0 to 2"):
        spectrum.plane_spread(0, 2)


def test_the_spread_is_the_angle_between_samples_and_their_resamples() -> None:
    """The resamples' directions are orthonormal, turned towards the whole sample's, and about as far off as two samples."""
    metric = displacement_metric(AFFINE)
    covariance = metric.sqrt() @ torch.diag(4.0 ** torch.arange(6).double()) @ metric.sqrt()
    spectrum = symmetry_spectrum(gram_of(drawn(100, 0, covariance)), resamples=300)
    assert spectrum.resampled.shape == (300, 6, 6)
    inner = torch.einsum("bki,ij,kj->bk", spectrum.resampled, metric, spectrum.directions)
    assert (inner >= 0).all()
    assert torch.allclose(torch.rad2deg(inner.clamp(max=1).arccos()).quantile(0.95, dim=0), spectrum.spread)
    true = metric.sqrt().inverse()  # row k: the k-th true direction
    seen = [
        symmetry_spectrum(gram_of(drawn(100, seed, covariance)), resamples=100).directions for seed in range(1, 200)
    ]
    angles = torch.stack([torch.rad2deg((d @ metric * true).sum(1).abs().clamp(max=1).arccos()) for d in seen])
    # A resample is as far from its sample as the sample is from the truth, give or take a factor of one and a half.
    ratio = spectrum.spread / angles.quantile(0.95, dim=0)
    assert (ratio > 0.6).all()
    assert (ratio < 1.7).all()


def test_unit_sized_generators_move_by_one_half_side() -> None:
    for generator in AFFINE:
        assert float(displacement_metric([unit_sized(generator)])) == pytest.approx(1)
        assert unit_sized(generator).name == generator.name
    assert torch.allclose(displacement_metric(ORTHOGONAL), torch.diag(displacement_metric(ORTHOGONAL).diag()))
    with pytest.raises(InputError, match="moves no pixel"):
        unit_sized(Generator("nothing", (0.0,) * 9))


def test_gram_matrices_at_equal_size_have_the_errors_of_unit_sized_generators() -> None:
    gram = gram_of(drawn(20))
    same = at_equal_size(gram)
    assert same.basis == tuple(g.name for g in ORTHOGONAL)
    for k, generator in enumerate(ORTHOGONAL):
        assert float(same.matrix[k, k]) == pytest.approx(gram.lee(unit_sized(generator)).value)
    before, after = (symmetry_spectrum(g, resamples=100).eigenvalues for g in (gram, same))
    assert torch.allclose(before, after)


def test_how_large_generators_are_says_nothing_of_whether_they_depend_on_each_other() -> None:
    """Coordinates of a small generator are large, and that is all."""
    whole = gram_of(drawn(30))
    small = 1e-6 * ROTATION
    rows = torch.stack([whole.coefficients(g) for g in (TRANSLATION_X, ROTATION)])
    per_image = rows @ whole.per_image @ rows.T
    scale = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    usual = symmetry_spectrum(gram_of(per_image, (TRANSLATION_X, ROTATION)))
    found = symmetry_spectrum(gram_of(per_image * scale * scale[:, None], (TRANSLATION_X, small)))
    torch.testing.assert_close(found.eigenvalues, usual.eigenvalues)
    torch.testing.assert_close(found.directions * scale, usual.directions)
    torch.testing.assert_close(found.low, usual.low)
    for dependent in ((ROTATION, small), (ROTATION, SCALE, 1e-8 * (ROTATION + SCALE))):
        k = len(dependent)
        with pytest.raises(InputError, match="depend on each other"):
            symmetry_spectrum(gram_of(torch.eye(k).double().expand(4, k, k), dependent))


@pytest.mark.parametrize("resamples", [1, 2, 99])
def test_few_resamples_make_no_interval(resamples: int) -> None:
    with pytest.raises(InputError, match="`resamples` must be a whole number from 100"):
        symmetry_spectrum(gram_of(drawn(10)), resamples=resamples)
