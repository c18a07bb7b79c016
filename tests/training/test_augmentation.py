"""Random changes of training images: drawn from the generator alone, and what they should be."""

import math

import pytest
import torch
from scipy import ndimage

from lee.training.augmentation import seeded, strong, turned


def test_strong_repeats_from_the_generator_and_leaves_the_global_state() -> None:
    images, labels = torch.rand(32, 3, 16, 16), torch.randint(0, 10, (32,))
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = strong(images, labels, 10, seeded("a"))
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    second = strong(images, labels, 10, seeded("a"))
    other = strong(images, labels, 10, seeded("b"))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_strong_mixes_about_half_of_the_batches_and_keeps_the_weight_of_labels() -> None:
    images, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    generator, mixed = seeded("mix"), 0
    for _ in range(200):
        found, target = strong(images, labels, 10, generator)
        assert found.shape == images.shape
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        assert torch.allclose(target.sum(1), torch.ones(16), atol=1e-6)
        mixed += int((target.max(1).values < 1 - 1e-6).any())
    assert 70 < mixed < 130  # 100 expected; 4 standard deviations of a binomial are 28


@pytest.mark.parametrize("shape", [(15, 15), (12, 20)])
def test_turned_is_a_rotation_about_the_centre(shape: tuple[int, int]) -> None:
    """scipy turns by the same angle with the same (bilinear) kernel; the angle is read from the generator."""
    rows, columns = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    image = torch.exp(-((rows - 4.0) ** 2 + (columns - 7.0) ** 2) / 6).float()
    images = image.expand(6, 1, *shape)
    angles = 2 * math.pi * torch.rand(6, generator=seeded("turn"))
    found = turned(images, seeded("turn"))
    # Away from the border, where scipy's `constant` mode and torch's `zeros` treat the outside differently.
    for angle, one in zip(angles.tolist(), found, strict=True):
        expected = ndimage.rotate(image.numpy(), math.degrees(angle), reshape=False, order=1, mode="grid-constant")
        assert abs(expected - one[0].numpy()).max() < 1e-4
