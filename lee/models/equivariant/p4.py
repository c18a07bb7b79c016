r"""Convolutions on the group p4 of translations and quarter turns, and a network of them.

A feature of `C` fields is a map (N, 4C, H, W): channel `4c + r` holds field `c` as seen by filters turned by `r` quarter
turns. A quarter turn of the image turns every map and moves orientation `r` to `r + 1 (mod 4)`: the regular representation.
A filter `w[o, i, s]` gives

.. math::
    y[o, r] = \sum_{i, s} x[i, s] \star \mathrm{rot90}^r\, w[o, i, s - r],

so the layer commutes with that action, exactly and at any weights.

Source: T. Cohen & M. Welling, Group Equivariant Convolutional Networks, ICML 2016 (eqs. 10 and 11, by transformed filters).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lee.errors import InputError

ORIENTATIONS = 4


def quarter_turn(x: Tensor, turns: int = 1, *, fields: bool = False) -> Tensor:
    """Turn maps counter-clockwise by `turns` quarter turns, and for `fields` move their orientations along.

    Args:
        x: (N, C, H, W) with H = W; with `fields`, C is a multiple of 4.
        turns: any integer.
        fields: whether the channels are p4 fields, in the order of this module.

    Returns:
        A tensor of the same shape; no value is interpolated.

    >>> x = torch.arange(8.0).view(1, 8, 1, 1)
    >>> quarter_turn(x, fields=True).flatten().tolist()
    [3.0, 0.0, 1.0, 2.0, 7.0, 4.0, 5.0, 6.0]
    """
    turned = x.rot90(turns, (-2, -1))
    if not fields:
        return turned
    return turned.unflatten(1, (-1, ORIENTATIONS)).roll(turns, 2).flatten(1, 2)


class Lift(nn.Module):
    """From maps to fields: convolve with a filter of odd side and its three quarter turns; the padding keeps the size.

    The output has four times as many channels as fields.
    """

    def __init__(self, in_channels: int, fields: int, kernel_size: int) -> None:
        super().__init__()
        self.padding = half(kernel_size)
        self.weight = nn.Parameter(torch.empty(fields, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def filters(self) -> Tensor:
        """Return all turned filters, (4·fields, in_channels, k, k)."""
        return torch.stack([self.weight.rot90(r, (2, 3)) for r in range(ORIENTATIONS)], 1).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return fields (N, 4·fields, H, W) of maps (N, in_channels, H, W)."""
        return F.conv2d(x, self.filters(), padding=self.padding)


class FieldConv(Lift):
    """From fields to fields: convolve over places and orientations."""

    def __init__(self, in_fields: int, fields: int, kernel_size: int) -> None:
        super().__init__(in_fields * ORIENTATIONS, fields, kernel_size)

    def filters(self) -> Tensor:
        """Return the filters of all pairs of orientations, (4·fields, 4·in_fields, k, k)."""
        weight = self.weight.unflatten(1, (-1, ORIENTATIONS))
        turned = [weight.roll(r, 2).rot90(r, (3, 4)) for r in range(ORIENTATIONS)]
        return torch.stack(turned, 1).flatten(0, 1).flatten(1, 2)


class FieldNorm(nn.BatchNorm2d):
    """Batch normalisation with one mean, variance, scale and shift for the four orientations of a field."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise fields (N, 4·fields, H, W)."""
        n, channels, height, width = x.shape
        tall = x.reshape(n, channels // ORIENTATIONS, ORIENTATIONS * height, width)
        return super().forward(tall).reshape(n, channels, height, width)


class OrientationPool(nn.Module):
    """The largest value over the four orientations: from fields to maps that turn with the image."""

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, C, H, W) of fields (N, 4C, H, W)."""
        return x.unflatten(1, (-1, ORIENTATIONS)).max(2)[0]


def group_cnn(fields: Sequence[int] = (8, 16, 24, 24)) -> nn.Module:
    """Build a p4 network whose scores don't change when the image is turned by 90°.

    The layout is that of `plain_cnn`, so a plain network of twice the channels has as many
    parameters in its convolutions. Sides must be multiples of 4: a stride on an odd side has no centre.

    Source: T. Cohen & M. Welling, Group Equivariant Convolutional Networks, ICML 2016 (eqs. 10 and 11).

    Args:
        fields: fields of each layer; in the first two a max-pool of 2 follows the convolution.

    Returns:
        A module from grey digits (N, 1, H, W) to scores (N, 10).
    """
    layers: list[nn.Module] = []
    for index, count in enumerate(fields):
        conv = Lift(1, count, 5) if index == 0 else FieldConv(fields[index - 1], count, 3)
        layers += [conv, *([nn.MaxPool2d(2)] if index < 2 else []), FieldNorm(count), nn.ReLU()]
    pool = [OrientationPool(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pool, nn.Linear(fields[-1], 10))


def half(kernel_size: int) -> int:
    """The padding that keeps the size, which must be odd."""
    if kernel_size % 2 == 0:
        raise InputError(f"kernel_size = {kernel_size} has no centre to turn about. Choose an odd number.")
    return kernel_size // 2
