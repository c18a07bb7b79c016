"""Corruptions: the published constants, formulas by an independent computation, seeds, names, errors."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from lee import datasets
from lee.datasets.corruptions import BLUR, CONTRAST, KINDS, NOISE, Corruption, parse
from lee.errors import InputError


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return datasets.load("patches", n=6).images


def test_constants_are_those_that_made_cifar10_c() -> None:
    """Copied a second time from the authors' `make_cifar_c.py`, severities 1 to 5."""
    assert NOISE == (0.04, 0.06, 0.08, 0.09, 0.10)
    assert BLUR == (0.4, 0.6, 0.7, 0.8, 1.0)
    assert CONTRAST == (0.75, 0.5, 0.4, 0.3, 0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_stronger_is_further_away_and_stays_in_the_unit_interval(kind: str, images: torch.Tensor) -> None:
    before = images.clone()
    corrupted = [Corruption(kind, strength)(images, seed=3) for strength in range(1, 6)]
    assert torch.equal(images, before)
    distances = [float((c - images).square().mean()) for c in corrupted]
    assert distances[0] > 0
    assert all(a < b for a, b in pairwise(distances))
    assert all(c.dtype == torch.float32 and c.shape == images.shape for c in corrupted)
    assert all(c.min() >= 0 and c.max() <= 1 for c in corrupted)


@pytest.mark.parametrize("strength", [1, 5])
def test_noise_has_the_standard_deviation_it_says(strength: int) -> None:
    grey = torch.full((8, 3, 32, 32), 0.5)  # five standard deviations from 0 and from 1: no clipping
    noise = Corruption("gaussian_noise", strength)(grey, seed=1) - 0.5
    n = noise.numel()
    assert float(noise.std()) == pytest.approx(NOISE[strength - 1], rel=4 / (2 * n) ** 0.5)
    assert abs(float(noise.mean())) < 4 * NOISE[strength - 1] / n**0.5
    apart = torch.corrcoef(noise.flatten(1))
    assert (apart - torch.eye(8)).abs().max() < 5 / (3 * 32 * 32) ** 0.5


def test_noise_follows_from_the_seed_and_not_from_how_many_images_there_are(images: torch.Tensor) -> None:
    noisy = Corruption("gaussian_noise", 3)
    assert torch.equal(noisy(images, seed=5), noisy(images, seed=5))
    assert torch.equal(noisy(images, seed=5)[:2], noisy(images[:2], seed=5))
    assert not torch.equal(noisy(images, seed=5), noisy(images, seed=6))


def test_noise_is_the_same_pattern_at_all_strengths() -> None:
    grey = torch.full((2, 3, 16, 16), 0.5)
    weak, strong = (Corruption("gaussian_noise", s)(grey, seed=2) - 0.5 for s in (1, 5))
    assert torch.allclose(weak / NOISE[0], strong / NOISE[4], atol=1e-4)


def test_blur_multiplies_a_cosine_by_the_gaussian_transfer_function() -> None:
    """A cosine of period P shrinks by `Σ_k w_k cos(2πk/P)`, with `w` the sampled Gaussian; mirrored about a peak it repeats."""
    sigma, period, side = 1.0, 8, 64
    wave = 0.5 + 0.4 * torch.cos(2 * torch.pi * torch.arange(side) / period)
    image = wave.expand(1, 3, side, side)
    k = np.arange(-4, 5)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    factor = float((weights / weights.sum() * np.cos(2 * np.pi * k / period)).sum())
    inner = slice(8, -8)  # the border is repeated outwards, which is another signal
    expected = 0.5 + factor * (wave - 0.5)
    blurred = Corruption("gaussian_blur", 5)(image)
    assert torch.allclose(blurred[0, 1, 30, inner], expected[inner], atol=1e-5)
    assert torch.allclose(blurred[0, 0, inner, 20], expected[20].expand(side - 16), atol=1e-5)


def test_blur_mixes_neither_channels_nor_images() -> None:
    image = torch.zeros(2, 3, 16, 16)
    image[1, 2, 8, 8] = 1
    blurred = Corruption("gaussian_blur", 3)(image)
    assert float(blurred[0].abs().max()) == 0
    assert float(blurred[1, :2].abs().max()) == 0
    assert float(blurred[1, 2].sum()) == pytest.approx(1, abs=1e-5)


def test_contrast_keeps_each_channels_mean_and_scales_its_deviation(images: torch.Tensor) -> None:
    flat = Corruption("contrast", 4)(images)
    assert torch.allclose(flat.mean((-2, -1)), images.mean((-2, -1)), atol=1e-6)
    assert torch.allclose(flat.std((-2, -1)), 0.3 * images.std((-2, -1)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10-c/gausian_noise/3", "Did you mean 'gaussian_noise'"),
        ("cifar10-c/contrast/6", "must be 1 to 5, not 6"),
        ("cifar10-c/contrast/0", "must be 1 to 5, not 0"),
        ("cifar10-c/contrast", "write corrupt:BASE/KIND/STRENGTH"),
        ("corrupt:patches/contrast/strong", "write corrupt:BASE/KIND/STRENGTH"),
        ("corrupt:patchs/contrast/1", "Did you mean 'patches'"),
        ("rgb:digit", "Did you mean 'digits'"),
    ],
)
def test_a_name_that_is_wrong_is_told_so(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        datasets.load(name, n=1)


def test_a_base_may_have_slashes_of_its_own() -> None:
    assert parse("corrupt:imagefolder:a/b/gaussian_blur/2") == ("imagefolder:a/b", Corruption("gaussian_blur", 2))
    assert parse("patches") is None


def test_a_corrupted_set_is_its_base_corrupted() -> None:
    base, made = datasets.load("patches", n=3, seed=4), datasets.load("corrupt:patches/contrast/2", n=3, seed=4)
    assert torch.equal(made.images, Corruption("contrast", 2)(base.images))
    assert made.name == "corrupt:patches/contrast/2"
    assert (made.licence, made.sha256, made.class_names) == (base.licence, base.sha256, base.class_names)
    assert torch.equal(made.labels, base.labels)  # type: ignore[arg-type]
    assert made.source == f"{base.source}; contrast of strength 2 (0.5)"


def test_corruption_comes_after_resizing() -> None:
    made = datasets.load("corrupt:rgb:digits/gaussian_blur/5", n=2, size=16)
    assert torch.equal(made.images, Corruption("gaussian_blur", 5)(datasets.load("rgb:digits", n=2, size=16).images))


def test_grey_images_become_colour_images_of_32_pixels() -> None:
    grey, colour = datasets.load("digits", n=5, size=32), datasets.load("rgb:digits", n=5)
    assert colour.images.shape == (5, 3, 32, 32)
    assert all(torch.equal(colour.images[:, c], grey.images[:, 0]) for c in range(3))
    assert datasets.load("rgb:digits", n=5, size=8).images.shape == (5, 3, 8, 8)
    assert torch.equal(datasets.load("rgb:patches", n=2).images, datasets.load("patches", n=2).images)
    assert datasets.load("rgb:digits", n=2, split="train").labels is not None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), "got torch.float32 of shape"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "got torch.uint8"),
        (torch.full((1, 3, 8, 8), 1.5), r"must lie in \[0, 1\]"),
    ],
)
def test_images_that_are_none_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Corruption("contrast", 1)(images)
