"""RotMNIST: who is in which split, that the angles are uniform, and that `turn` turns."""

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from lee import datasets
from lee.datasets.rotated import POOL, TEST, TRAIN, draw, turn
from lee.errors import InputError


def angles_of(n: int, seed: int = 0) -> torch.Tensor:
    return 2 * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_no_digit_is_in_both_splits_and_none_comes_twice() -> None:
    train, test = draw("train")[0], draw("test")[0]
    assert (len(train), len(test)) == (TRAIN, TEST) == (12_000, 50_000)
    both = torch.cat([train, test])
    assert len(both.unique()) == len(both)
    assert both.min() >= 0
    assert both.max() < POOL


@pytest.mark.parametrize("split", ["train", "test"])
def test_angles_are_uniform_on_the_circle_and_unrelated_to_the_digits_place(split: str) -> None:
    index, angles = draw(split)
    assert len(angles) == len(index)
    assert stats.kstest(angles.numpy(), stats.uniform(0, 2 * math.pi).cdf).pvalue > 0.01
    assert stats.spearmanr(index.numpy(), angles.numpy()).pvalue > 0.01
    half = angles[index < POOL // 2]
    assert stats.kstest(half.numpy(), stats.uniform(0, 2 * math.pi).cdf).pvalue > 0.01


@pytest.mark.parametrize("shape", [(28, 28), (12, 20), (7, 7)])
def test_turn_is_scipys_bilinear_rotation(shape: tuple[int, int]) -> None:
    images = torch.rand(5, 1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    angles = angles_of(5)
    turned = turn(images, angles)
    centre = (np.array(shape) - 1) / 2
    for image, angle, result in zip(images[:, 0].numpy(), angles.tolist(), turned[:, 0].numpy(), strict=True):
        cos, sin = math.cos(angle), math.sin(angle)
        matrix = np.array([[cos, sin], [-sin, cos]])  # (row, column) of the source of each place
        expected = ndimage.affine_transform(
            image, matrix, centre - matrix @ centre, order=1, mode="grid-constant", cval=0.0
        )
        np.testing.assert_allclose(result, expected, atol=1e-12)


def test_quarter_turns_are_exact_and_counter_clockwise() -> None:
    images = torch.rand(3, 2, 28, 28, dtype=torch.float64)
    quarter = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) * math.pi / 2
    turned = turn(images, quarter)
    for k in range(3):
        torch.testing.assert_close(turned[k], images[k].rot90(k + 1, (1, 2)), rtol=0, atol=1e-12)


def test_turned_back_agrees_within_the_error_of_linear_interpolation() -> None:
    """Along a line, linear interpolation errs by at most h²/8·max|f''|; here on two axes, and twice."""
    sigma = 3.0
    grid = torch.arange(28.0, dtype=torch.float64) - 13.5
    rows, columns = torch.tensor([[1.0, -2.0, 3.0], [0.5, 3.0, -2.0]], dtype=torch.float64)[:, :, None, None]
    blobs = torch.exp(-((grid[:, None] - rows) ** 2 + (grid - columns) ** 2) / (2 * sigma**2))[:, None]
    angles = angles_of(3, 2)
    back = turn(turn(blobs, angles), -angles)
    bound = 2 * 2 / (8 * sigma**2)  # |f''| of a Gaussian is at most 1/σ²
    assert (back - blobs).abs().max() < bound
    assert (turn(blobs, angles) - blobs).abs().max() > 2 * bound  # so that a turn by nothing would not pass


def test_large_batches_are_turned_in_parts_with_the_same_result() -> None:
    images, angles = torch.rand(5000, 1, 4, 4), angles_of(5000).float()
    assert torch.equal(turn(images, angles)[4090:4100], turn(images[4090:4100], angles[4090:4100]))


def test_turn_needs_an_angle_for_each_image() -> None:
    with pytest.raises(InputError, match=r"3 images need an angle each.*\(2,\)"):
        turn(torch.rand(3, 1, 4, 4), torch.zeros(2))


def _idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">I", 0x0800 + values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.tobytes())


def _numbered(folder: Path, sizes: tuple[int, int]) -> None:
    """An MNIST whose image i has the label i mod 10 and the brightness i mod 251 in the middle, and none elsewhere."""
    start = 0
    for stem, size in zip(("train", "t10k"), sizes, strict=True):
        index = np.arange(start, start + size)
        pixels = np.zeros((size, 28, 28), dtype=np.uint8)
        pixels[:, 10:18, 10:18] = (index % 251)[:, None, None]
        _idx(folder / "MNIST" / "raw" / f"{stem}-images-idx3-ubyte", pixels)
        _idx(folder / "MNIST" / "raw" / f"{stem}-labels-idx1-ubyte", (index % 10).astype(np.uint8))
        start += size


def test_images_and_labels_are_those_of_the_drawn_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEE_DATA", str(tmp_path))
    _numbered(tmp_path, (60_000, 10_000))
    data = datasets.load("rotmnist", split="train")
    index = draw("train")[0]
    assert data.images.shape == (TRAIN, 1, 28, 28)
    assert data.images.dtype == torch.float32
    assert data.labels is not None
    assert torch.equal(data.labels, index % 10)
    assert torch.equal((data.images[:, 0, 13, 13] * 255).round().long(), index % 251)
    some, more = (datasets.load("rotmnist", n=n, seed=5) for n in (20, 50))
    assert torch.equal(some.images, more.images[:20])
    assert "turned by bilinear" in some.source
    assert len(some.sha256) == 64


def test_another_number_of_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEE_DATA", str(tmp_path))
    _numbered(tmp_path, (20, 10))
    with pytest.raises(InputError, match="all 70000 images of MNIST; LEE_DATA has 30"):
        datasets.load("rotmnist")
    with pytest.raises(InputError, match="Did you mean 'train'"):
        datasets.load("rotmnist", split="trian")


@pytest.mark.skipif(not os.environ.get("LEE_DATA"), reason="LEE_DATA is not set")
def test_turned_back_each_digit_is_mnists() -> None:
    """Over MNIST itself: the upright digit is nearer to the digit turned back than any of 200 others."""
    data = datasets.load("rotmnist", split="train")
    index, angles = draw("train")
    pool = torch.cat([datasets.load("mnist", split=split).images for split in ("train", "test")])
    back, upright = turn(data.images[:200], -angles[:200]).flatten(1), pool[index[:200]].flatten(1)
    assert torch.equal(torch.cdist(back, upright).argmin(1), torch.arange(200))
    counts = torch.bincount(data.labels)  # type: ignore[arg-type]
    share = torch.bincount(torch.cat([datasets.load("mnist", split=s).labels for s in ("train", "test")])) / POOL  # type: ignore[misc]
    # Drawn without replacement, so a little nearer to the share than the multinomial of the test.
    assert stats.chisquare(counts.numpy(), (share * TRAIN).numpy().astype(float), sum_check=False).pvalue > 0.01
