"""Architectures of the zoo that need more than one call of a timm class."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lee.errors import InputError, nearest
from lee.geometry.antialiasing import FilteredActivation

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def resnet(
    channels: Sequence[int] = (32, 64, 128, 256),
    layers: Sequence[int] = (1, 1, 1, 1),
    num_classes: int = 10,
    in_chans: int = 3,
    activation: str = "relu",
    blur: bool = False,
    oversampling: int = 1,
) -> nn.Module:
    """Build timm's ResNet for small images: a stem of stride 1 and no max-pool.

    The stem is timm's `deep` one (three 3x3 convolutions that end in `channels[0]` maps), with its
    stride of 2 removed, so that a 32x32 image reaches the last of four stages as 4x4 maps.

    Args:
        channels: width of each stage; the first must be even.
        layers: basic blocks in each stage.
        num_classes: number of outputs.
        in_chans: channels of the input images.
        activation: `relu`, `gelu` or `silu`.
        blur: replace the stride of each block's 3x3 convolution by a BlurPool (R. Zhang, ICML 2019), as
            timm's resnetblur models do; the 1x1 shortcuts keep their stride.
        oversampling: factor, along each axis, of the grid on which activations are applied
            (:class:`lee.geometry.antialiasing.FilteredActivation`); 1 leaves them as they are.

    Returns:
        A module from (N, in_chans, H, W) to (N, num_classes).

    Raises:
        InputError: an unknown activation, or an oversampling that is no positive integer.
    """
    from timm.layers.blur_pool import BlurPool2d
    from timm.models.resnet import BasicBlock, ResNet

    if activation not in _ACTIVATIONS:
        raise InputError(f"There is no activation {activation!r}.{nearest(activation, _ACTIVATIONS)}")

    def filtered(inplace: bool = False) -> nn.Module:
        return FilteredActivation(_ACTIVATIONS[activation](), oversampling)

    net = ResNet(
        BasicBlock,  # type: ignore[arg-type]  # timm annotates an instance
        tuple(layers),
        num_classes=num_classes,
        in_chans=in_chans,
        stem_type="deep",
        stem_width=channels[0] // 2,
        channels=tuple(channels),
        act_layer=activation if oversampling == 1 else filtered,
        aa_layer=BlurPool2d if blur else None,
    )
    cast(nn.Conv2d, net.conv1[0]).stride = (1, 1)
    net.maxpool = nn.Identity()  # type: ignore[assignment]  # timm declares one of its own classes
    return net


def vit(blur: bool = False, **arguments: Any) -> nn.Module:
    """Build timm's VisionTransformer, with its patches cut out smoothly if `blur`.

    A patch embedding is a convolution whose stride is the patch's side, and so it aliases. With `blur` the same kernel is
    applied at every pixel, and the maps are brought to the patches' grid by BlurPools of stride 2 (R. Zhang, ICML
    2019), with five binomial taps. It has as many parameters; its patches overlap.

    Args:
        blur: whether to embed patches so.
        arguments: of `timm.models.vision_transformer.VisionTransformer`; with `blur`, `patch_size` is a power of 2.

    Returns:
        A module from (N, in_chans, img_size, img_size) to (N, num_classes).

    Raises:
        InputError: `blur` with another patch size.
    """
    from timm.models.vision_transformer import VisionTransformer

    net = VisionTransformer(**arguments)
    if blur:
        net.patch_embed.proj = _BlurredPatches(cast(nn.Conv2d, net.patch_embed.proj))
    return net


class _BlurredPatches(nn.Module):
    """A patch embedding whose kernel is applied at every pixel, then blurred and thinned out by 2 until patches are left.

    All of this is linear, so it is one convolution by the blurred kernel, with the old stride.
    """

    filter: Tensor

    def __init__(self, proj: nn.Conv2d) -> None:
        super().__init__()
        side = proj.kernel_size[0]
        if side & (side - 1):
            raise InputError(f"Blurred patches need a side that is a power of 2, not {side} pixels.")
        self.proj, taps, step = proj, torch.ones(1, dtype=torch.float64), 1
        while step < side:  # blurring after `log2 step` halvings is blurring by taps that far apart
            apart = torch.zeros(4 * step + 1, dtype=torch.float64)
            apart[::step] = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]).double() / 16
            taps = torch.nn.functional.conv1d(taps[None, None], apart[None, None], padding=4 * step)[0, 0]
            step *= 2
        self.register_buffer("filter", torch.outer(taps, taps).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedded patches (N, D, H / side, W / side) of images (N, C, H, W)."""
        wide, side = len(self.filter) - 1, self.proj.stride[0]
        kernels = self.proj.weight.flatten(0, 1)[:, None]
        blurred = nn.functional.conv2d(kernels, self.filter[None, None].to(kernels), padding=wide)
        weight = blurred.view(*self.proj.weight.shape[:2], *blurred.shape[-2:])
        padded = nn.functional.pad(x, [wide // 2] * 4, mode="reflect")
        return nn.functional.conv2d(padded, weight, self.proj.bias, stride=side)


def resmlp(
    img_size: int = 32, patch_size: int = 4, embed_dim: int = 64, num_blocks: int = 4, num_classes: int = 10
) -> nn.Module:
    """Build timm's ResMLP (H. Touvron et al., 2021): one linear layer over tokens, affine layers for norms.

    Args:
        img_size: side of the images in pixels.
        patch_size: side of a patch in pixels.
        embed_dim: channels of a token.
        num_blocks: number of blocks.
        num_classes: number of outputs.

    Returns:
        A module from (N, 3, img_size, img_size) to (N, num_classes).
    """
    from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock

    return MlpMixer(
        img_size=img_size,
        patch_size=patch_size,
        num_classes=num_classes,
        embed_dim=embed_dim,
        num_blocks=num_blocks,
        mlp_ratio=4,
        block_layer=ResBlock,
        norm_layer=Affine,
    )


def poolformer(dims: Sequence[int] = (48, 96), depths: Sequence[int] = (2, 2), num_classes: int = 10) -> nn.Module:
    """Build timm's PoolFormer (W. Yu et al., CVPR 2022): average pools instead of attention.

    timm's stem has a stride of 4, so that a 32x32 image reaches two stages as 8x8 and 4x4 maps. Layer scale
    starts at 1, not at 1e-5: a short training can't grow it.

    Args:
        dims: channels of each stage.
        depths: blocks in each stage.
        num_classes: number of outputs.

    Returns:
        A module from (N, 3, H, W) to (N, num_classes).
    """
    from timm.layers.norm import GroupNorm1
    from timm.models.metaformer import MetaFormer

    stages = len(dims)
    return MetaFormer(
        num_classes=num_classes,
        depths=tuple(depths),
        dims=tuple(dims),
        downsample_norm=None,
        mlp_act=nn.GELU,
        mlp_bias=True,
        norm_layers=GroupNorm1,
        layer_scale_init_values=[1.0] * stages,
        res_scale_init_values=(None,) * stages,
        use_mlp_head=False,
    )
