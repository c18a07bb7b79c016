r"""A convolutional network that commutes with rotations by any angle, but for what sampling on pixels costs.

Its features are fields of orders 0, 1, 2, ... (:mod:`lee.models.equivariant.harmonics`). Convolutions take them to one another by
kernels of circular harmonics; scalars pass a pointwise non-linearity; fields of higher order are multiplied by a gate, the
sigmoid of a scalar of their own; maps are made smaller by a Gaussian, which is isotropic; the read-out sees scalars only.

Source: D. Worrall et al., Harmonic Networks, CVPR 2017; M. Weiler & G. Cesa, NeurIPS 2019 (gated non-linearities, section 2.6).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lee.errors import InputError
from lee.models.equivariant.actions import Fields
from lee.models.equivariant.harmonics import dimension, kernel_basis
from lee.models.equivariant.p4 import half


class HarmonicConv(nn.Module):
    """A convolution between fields, its kernels of odd side learned combinations of circular harmonics."""

    def __init__(self, fields_in: Fields, fields_out: Fields, kernel_size: int) -> None:
        super().__init__()
        self.fields_in, self.fields_out = fields_in, fields_out
        self.size, self.padding = kernel_size, half(kernel_size)
        self.weights = nn.ParameterDict()
        for out, count in enumerate(fields_out.counts):
            bases = {order: kernel_basis(out, order, kernel_size) for order in range(len(fields_in.counts))}
            fan = sum(number * len(bases[order]) for order, number in enumerate(fields_in.counts))
            for order, number in enumerate(fields_in.counts):
                self.register_buffer(f"basis_{out}_{order}", bases[order].float().flatten(1), persistent=False)
                weight = torch.randn(count, number, len(bases[order])) * (2 / max(fan, 1)) ** 0.5
                self.weights[f"{out}_{order}"] = nn.Parameter(weight)

    def filters(self) -> Tensor:
        """Return the kernels, (fields_out.channels, fields_in.channels, k, k)."""
        rows = []
        for out in range(len(self.fields_out.counts)):
            blocks = []
            for order in range(len(self.fields_in.counts)):
                basis, weight = getattr(self, f"basis_{out}_{order}"), self.weights[f"{out}_{order}"]
                mixed = (weight @ basis).unflatten(2, (dimension(out), dimension(order), self.size, self.size))
                blocks.append(mixed.transpose(1, 2).flatten(2, 3).flatten(0, 1))
            rows.append(torch.cat(blocks, 1))
        return torch.cat(rows)

    def forward(self, x: Tensor) -> Tensor:
        """Return fields (N, fields_out.channels, H, W) of fields (N, fields_in.channels, H, W)."""
        return F.conv2d(x, self.filters(), padding=self.padding)


class FieldScale(nn.Module):
    """Batch normalisation of fields that turn, of two channels each: division by the root mean square of the length, no shift."""

    running: Tensor
    momentum, eps = 0.1, 1e-5  # those of batch normalisation

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(fields))
        self.register_buffer("running", torch.ones(fields))

    def forward(self) -> Tensor:
        """Return the factor of each field (fields, 1, 1, 1) by the running mean square."""
        return (self.weight * (self.running + self.eps).rsqrt())[:, None, None, None]

    def observe(self, x: Tensor) -> Tensor:
        """Return the factor by the mean square of a batch (N, fields, 2, H, W), and update the running one."""
        square = x.to(self.running.dtype).square().mean((0, 2, 3, 4))
        with torch.no_grad():
            self.running.lerp_(square, self.momentum)
        return (self.weight * (square + self.eps).rsqrt())[:, None, None, None]


class Gate(nn.Module):
    """The non-linearity of fields: scalars through ELU, each turning field times the sigmoid of a scalar of its own.

    The input, `fields_in`, has one scalar more for each turning field.
    """

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.scalars, self.turning = fields.counts[0], fields.turning
        self.fields_in = Fields((fields.counts[0] + fields.turning, *fields.counts[1:]))
        self.norm = nn.BatchNorm2d(self.scalars + self.turning)
        self.scale = FieldScale(self.turning) if self.turning else None

    def forward(self, x: Tensor) -> Tensor:
        """Return fields (N, fields.channels, H, W) of (N, fields_in.channels, H, W)."""
        scalars = self.norm(x[:, : self.scalars + self.turning])
        if self.scale is None:
            return F.elu(scalars)
        turning = x[:, self.scalars + self.turning :].unflatten(1, (self.turning, 2))
        factor = self.scale.observe(turning) if self.training else self.scale()
        gates = scalars[:, self.scalars :].sigmoid()[:, :, None]
        turned = (turning * (factor.to(turning.dtype) * gates)).flatten(1, 2)
        return torch.cat([F.elu(scalars[:, : self.scalars]), turned], 1)


class GaussianHalving(nn.Module):
    """Halve the side of maps after a Gaussian blur of a pixel's width, which has no direction; constants stay what they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, C, H/2, W/2) of maps (N, C, H, W) with even sides; the new pixels lie midway between the old ones."""
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            raise InputError(f"Maps of {height} × {width} pixels can't be halved symmetrically. Use multiples of 4.")
        down, across = (self._matrix(side).to(x) for side in (height, width))
        return down @ (x @ across.mT)

    def _matrix(self, side: int) -> Tensor:
        places = 2 * torch.arange(side // 2, dtype=torch.float64) + 0.5
        weights = torch.exp(-((places[:, None] - torch.arange(side)) ** 2) / 2)
        return weights / weights.sum(1, keepdim=True)


def steerable_cnn(fields: Sequence[Sequence[int]] = ((8, 4, 4), (12, 8, 8), (16, 8, 8), (48,))) -> nn.Module:
    """Build a network whose scores hardly change when the image is turned by any angle, and not at all by 90°.

    Source: D. Worrall et al., Harmonic Networks, CVPR 2017; M. Weiler & G. Cesa, NeurIPS 2019 (gated non-linearities,
    section 2.6).

    Args:
        fields: for each layer, how many fields of order 0, 1, 2, ... it has; the last has scalars only. The first two layers
            end in a halving, so sides must be multiples of 4.

    Returns:
        A module from grey digits (N, 1, H, W) to scores (N, 10).

    Raises:
        InputError: a last layer with other fields than scalars.
    """
    if len(fields[-1]) != 1:
        raise InputError(f"The last layer feeds the scores, so it has scalars only: (count,), not {tuple(fields[-1])}.")
    layers: list[nn.Module] = []
    before = Fields((1,))
    for index, counts in enumerate(fields):
        gate = Gate(Fields(tuple(counts)))
        layers += [HarmonicConv(before, gate.fields_in, 5), gate]
        if index < 2:
            layers.append(GaussianHalving())
        before = Fields(tuple(counts))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before.channels, 10)]
    return nn.Sequential(*layers, *head)
