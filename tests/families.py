"""One small member of every family of architectures that the layer-wise identity is tested on."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import ConvNormAct
from timm.models.eva import Eva
from timm.models.inception_v3 import InceptionA, InceptionB
from timm.models.metaformer import MetaFormer, Pooling
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
from torch import Tensor, nn


def _timm(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=6, **kwargs)


def _inception() -> nn.Module:
    """A stem and two kinds of blocks of Inception-v3; the whole of it is wide and deep."""
    block = partial(ConvNormAct, padding=0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        InceptionA(8, pool_features=4, conv_block=block),
        InceptionB(228, conv_block=block),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(708, 6),
    )


class UNet(nn.Module):
    """Image to image: down, up, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.GELU())
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.out = nn.Conv2d(14, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.down(x)
        return self.out(torch.cat([top, self.up(self.deep(top))], 1))


class Several(nn.Module):
    """Takes and returns several tensors, one of them by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 4, 1)

    def forward(self, parts: dict[str, Tensor], *, gate: Tensor, scale: float = 1.0) -> tuple[Tensor, dict[str, Any]]:
        joined = torch.cat([parts["a"], parts["b"]], 1)
        return self.mix(joined) * gate.sigmoid() * scale, {"gate": gate.mean((2, 3)), "name": "gate"}


class Functional(nn.Module):
    """Shared modules, dict and keyword arguments, tuple outputs, in-place and functional operations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(inplace=True))
        self.shared, self.several = nn.Conv2d(4, 4, 3, padding=1), Several()
        self.position, self.head = nn.Parameter(torch.rand(1, 4, 8, 8)), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        z = self.stem(nn.functional.avg_pool2d(x, 4)) + self.position
        first = self.shared(z)
        second = self.shared(torch.tanh(first))
        mixed, more = self.several({"a": first, "b": second}, gate=z, scale=0.5)
        return self.head(torch.cat([mixed.amax((2, 3)), more["gate"]], 1))


TOKENS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_classes": 6}
SWIN: dict[str, Any] = {"embed_dim": 12, "depths": (2, 2), "num_heads": (2, 3)}
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet": (_timm("resnet10t"), 32),
    "VGG": (lambda: timm.models.vgg.VGG(cfg=[8, "M", 8, "M"], num_classes=6, mlp_ratio=0.01), 32),
    "DenseNet": (_timm("densenet121", block_config=(2, 2), growth_rate=8), 32),
    "Inception": (_inception, 16),
    "EfficientNet": (_timm("test_efficientnet"), 32),
    "MobileNetV3": (_timm("mobilenetv3_small_050"), 32),
    "ConvNeXt": (_timm("test_convnext"), 32),
    "RegNet": (_timm("regnetx_002"), 32),
    "ViT": (_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24), 32),
    "DeiT": (_timm("deit_tiny_distilled_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24), 32),
    "Swin": (_timm("swin_tiny_patch4_window7_224", img_size=32, window_size=4, **SWIN), 32),
    "ResMLP": (lambda: MlpMixer(**TOKENS, num_blocks=2, mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine), 32),
    "Mixer": (lambda: MlpMixer(**TOKENS, num_blocks=2), 32),
    "ConvMixer": (lambda: timm.models.convmixer.ConvMixer(dim=16, depth=2, kernel_size=3, patch_size=4, num_classes=6), 32),
    "PoolFormer": (lambda: MetaFormer(depths=(1, 1), dims=(8, 12), token_mixers=Pooling, num_classes=6), 32),
    "XCiT": (_timm("xcit_nano_12_p8_224", depth=2, cls_attn_layers=1, embed_dim=24, num_heads=2), 32),
    "MobileViT": (_timm("mobilevit_xxs"), 64),
    "EVA": (lambda: Eva(**TOKENS, depth=2, num_heads=2, use_rot_pos_emb=True, ref_feat_shape=(4, 4)), 32),
    "U-Net": (UNet, 16),
    "functional": (Functional, 32),
}  # fmt: skip


def family(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """A member of a family with every parameter random, in eval mode, and two images for it."""
    build, side = FAMILIES[name]
    random = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    for parameter in model.parameters():
        if parameter.ndim < 2 or not bool(parameter.any()):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=random)
    coarse = torch.rand(2, 3, side // 2, side // 2, generator=random)
    return model.to(dtype).eval(), nn.functional.interpolate(coarse, scale_factor=2, mode="bicubic").to(dtype)
