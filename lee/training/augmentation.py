"""Random changes of training images, drawn from explicit generators and computed on whole batches."""

import hashlib
import math

import torch
from torch import Tensor

from lee.datasets.rotated import turn
from lee.process.alone import alone

SHIFT = 4  # pixels, the largest along each side
#: Neighbours of the (shuffled) batch that share their two operations: one costs as much on eight images as on one.
GROUP = 8


def seeded(*parts: object) -> torch.Generator:
    """Return a generator whose seed is a digest of `parts`, so that nearby seeds are unrelated."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images (N, C, H, W) and shift each by up to 4 pixels along each side, reflecting at the border.

    Pixel (i, j) comes from (i + dy, ±j + dx).
    """
    n, _, height, width = images.shape
    dy, dx = torch.randint(-SHIFT, SHIFT + 1, (2, n, 1), generator=generator)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    rows = _reflect(torch.arange(height) + dy, height)
    columns = _reflect(torch.arange(width) + dx, width)
    columns = torch.where(flip, width - 1 - columns, columns)
    index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    index = index[:, None].expand(-1, images.shape[1], -1).to(images.device)
    return images.flatten(2).gather(2, index).view_as(images)


def _reflect(index: Tensor, length: int) -> Tensor:
    """Fold indices outside [0, length) back in, without repeating the border pixel."""
    return (length - 1) - ((length - 1) - index.abs()).abs()


def strong(images: Tensor, labels: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """RandAugment of images (N, C, H, W) in [0, 1], then mixup or CutMix on half of the batches, which makes labels (N, classes).

    E. D. Cubuk et al., RandAugment, NeurIPS 2020 (two operations of magnitude 9); H. Zhang et al., mixup,
    ICLR 2018 (alpha 0.2); S. Yun et al., CutMix, ICCV 2019 (alpha 1). All by torchvision.
    """
    from torchvision.transforms import v2

    change = v2.RandAugment(num_ops=2, magnitude=9)
    mixup, cutmix = v2.MixUp(alpha=0.2, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)
    with alone(), torch.random.fork_rng(devices=[]):  # torchvision draws from the global state
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        pixels = (images * 255).round().to(torch.uint8)
        images = torch.cat([change(part) for part in pixels.split(GROUP)]).to(images.dtype) / 255
        choice = float(torch.rand(()))
        if choice < 0.25:
            images, labels = mixup(images, labels)
        elif choice < 0.5:
            images, labels = cutmix(images, labels)
        else:
            labels = torch.nn.functional.one_hot(labels, classes).to(images.dtype)
    return images, labels


def turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each image (N, C, H, W) about its centre by an angle drawn uniformly from the circle; bilinear, 0 outside.

    What leaves the image is lost, as in rotated MNIST.
    """
    return turn(images, 2 * math.pi * torch.rand(len(images), generator=generator))
