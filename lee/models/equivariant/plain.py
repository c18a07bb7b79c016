"""Networks without rotation built in: a plain CNN, and the same CNN made invariant by pooling over turned images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lee.errors import InputError


def _trunk(channels: Sequence[int]) -> list[nn.Module]:
    """Of grey images: convolutions with normalisation and ReLU, behind the first two a max-pool of 2."""
    layers: list[nn.Module] = []
    for index, count in enumerate(channels):
        size = 5 if index == 0 else 3
        conv = nn.Conv2d(1 if index == 0 else channels[index - 1], count, size, padding=size // 2, bias=False)
        layers += [conv, *([nn.MaxPool2d(2)] if index < 2 else []), nn.BatchNorm2d(count), nn.ReLU()]
    return layers


def plain_cnn(channels: Sequence[int] = (16, 32, 48, 48)) -> nn.Module:
    """Build an ordinary convolutional network of the layout that the equivariant ones share.

    Args:
        channels: channels of each layer; in the first two a max-pool of 2 follows the convolution.

    Returns:
        A module from grey digits (N, 1, H, W) to scores (N, 10).
    """
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10)]
    return nn.Sequential(*_trunk(channels), *head)


class TurnedCopies(nn.Module):
    """Each image at `angles` equally spaced angles, by bilinear interpolation; what lies outside is 0.

    Args:
        img_size: side of the images in pixels.
        angles: number of copies, a multiple of 4 so that quarter turns permute them exactly.
    """

    index: Tensor
    weight: Tensor
    quarters: Tensor

    def __init__(self, img_size: int, angles: int) -> None:
        super().__init__()
        if angles < 4 or angles % 4:
            raise InputError(f"angles = {angles}: quarter turns permute the copies only for multiples of 4.")
        taps = [_bilinear(img_size, 2 * math.pi * step / angles) for step in range(angles // 4)]
        places = torch.arange(img_size**2).view(img_size, img_size)
        self.register_buffer("index", torch.stack([index for index, _ in taps]), persistent=False)
        self.register_buffer("weight", torch.stack([weight for _, weight in taps]).float(), persistent=False)
        quarters = torch.stack([places.rot90(turn).flatten() for turn in range(4)])
        self.register_buffer("quarters", quarters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the copies of images (N, C, H, W), shape (N·angles, C, H, W): those of an image side by side."""
        flat = x.flatten(2)
        first = [(flat[:, :, i] * w).sum(2) for i, w in zip(self.index, self.weight.to(x.dtype), strict=True)]
        every = torch.stack([turned[:, :, self.quarters] for turned in first], 1)  # (N, angles / 4, C, 4, H·W)
        return every.transpose(2, 3).flatten(0, 2).unflatten(2, x.shape[2:])


def _bilinear(side: int, angle: float) -> tuple[Tensor, Tensor]:
    """Sources (4, side²) of each pixel of an image turned by `angle`, as flat indices, and their weights."""
    line = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    row, column = line[:, None].expand(side, side), line.expand(side, side)
    cos, sin = math.cos(angle), math.sin(angle)
    source = torch.stack([cos * row + sin * column, cos * column - sin * row]).flatten(1) + (side - 1) / 2
    low = source.floor()
    part = source - low
    indices, weights = [], []
    for down in (0, 1):
        for across in (0, 1):
            place = low + torch.tensor([[down], [across]], dtype=torch.float64)
            inside = ((place >= 0) & (place < side)).all(0)
            share = (part[0] if down else 1 - part[0]) * (part[1] if across else 1 - part[1])
            place = place.clamp(0, side - 1).long()
            indices.append(place[0] * side + place[1])
            weights.append(share * inside)
    return torch.stack(indices), torch.stack(weights)


class TIPooling(nn.Module):
    """One network on turned copies of the image, the largest value of each feature over the copies, and a classifier.

    The branch goes from images (N, C, H, W) to features (N, D), the head from these to scores.
    """

    def __init__(self, copies: TurnedCopies, branch: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.copies, self.branch, self.head = copies, branch, head

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of images (N, C, H, W)."""
        features: Tensor = self.branch(self.copies(x))
        return self.head(features.unflatten(0, (len(x), -1)).max(1)[0])


def ti_pooling(
    channels: Sequence[int] = (8, 16, 24, 24), features: int = 64, angles: int = 8, img_size: int = 28
) -> nn.Module:
    """Build a network whose scores don't change when the image is turned by 90°, by pooling over turned copies.

    Source: D. Laptev, N. Savinov, J. Buhmann & M. Pollefeys, TI-Pooling, CVPR 2016.

    Args:
        channels: channels of each layer of the shared network.
        features: number of features that are pooled over the copies.
        angles: number of copies, a multiple of 4.
        img_size: side of the images in pixels, a multiple of 4.

    Returns:
        A module from grey digits (N, 1, img_size, img_size) to scores (N, 10).

    Raises:
        InputError: `angles` is no multiple of 4.
    """
    flat = channels[-1] * (img_size // 4) ** 2
    layers = [*_trunk(channels), nn.Flatten(), nn.Linear(flat, features), nn.ReLU()]
    return TIPooling(TurnedCopies(img_size, angles), nn.Sequential(*layers), nn.Linear(features, 10))
