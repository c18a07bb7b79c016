"""Architectures of the zoo that need more than one call of a timm class."""

from collections.abc import Sequence
from typing import cast

from torch import nn


def resnet(
    channels: Sequence[int] = (32, 64, 128, 256),
    layers: Sequence[int] = (1, 1, 1, 1),
    num_classes: int = 10,
    in_chans: int = 3,
) -> nn.Module:
    """Build timm's ResNet for small images: a stem of stride 1 and no max-pool.

    The stem is timm's `deep` one (three 3x3 convolutions that end in `channels[0]` maps), with its
    stride of 2 removed, so that a 32x32 image reaches the last of four stages as 4x4 maps.

    Args:
        channels: width of each stage; the first must be even.
        layers: basic blocks in each stage.
        num_classes: number of outputs.
        in_chans: channels of the input images.

    Returns:
        A module from (N, in_chans, H, W) to (N, num_classes).
    """
    from timm.models.resnet import BasicBlock, ResNet

    net = ResNet(
        BasicBlock,  # type: ignore[arg-type]  # timm annotates an instance
        tuple(layers),
        num_classes=num_classes,
        in_chans=in_chans,
        stem_type="deep",
        stem_width=channels[0] // 2,
        channels=tuple(channels),
    )
    cast(nn.Conv2d, net.conv1[0]).stride = (1, 1)
    net.maxpool = nn.Identity()  # type: ignore[assignment]  # timm declares one of its own classes
    return net
