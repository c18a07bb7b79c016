"""Small smooth models of every kind that the oracles can differentiate exactly, and images for them."""

from collections.abc import Callable

import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

SIDE, CLASSES = 32, 5


def images(n: int = 2, height: int = SIDE, width: int = SIDE, channels: int = 3, seed: int = 0) -> Tensor:
    """Random images in [0, 1], (n, channels, height, width), float64."""
    return torch.rand(n, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth_cnn() -> nn.Module:
    """Convolutions, BatchNorm and a stride, with SiLU in place of kinks."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 12, 3, stride=2, bias=False),
        nn.BatchNorm2d(12), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, CLASSES),
    )  # fmt: skip


def vit() -> nn.Module:
    return VisionTransformer(img_size=SIDE, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES)


def mixer() -> nn.Module:
    return MlpMixer(img_size=SIDE, patch_size=8, embed_dim=24, num_blocks=2, num_classes=CLASSES)


def convnext() -> nn.Module:
    return ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), num_classes=CLASSES, patch_size=2)


def swin() -> nn.Module:
    return SwinTransformer(
        img_size=SIDE,
        patch_size=4,
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 3),
        num_classes=CLASSES,
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "cnn": smooth_cnn, "vit": vit, "mixer": mixer, "convnext": convnext, "swin": swin,
}  # fmt: skip


def build(name: str, seed: int = 0) -> nn.Module:
    """A model of this file (or of timm, at its smallest) in float64 and eval mode, every parameter random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS[name]() if name in MODELS else timm.create_model(name, num_classes=CLASSES)
        for parameter in model.parameters():  # zero heads and unit scales would hide errors
            nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else float(parameter[0].numel()) ** -0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return model.double().eval()


def relative(a: Tensor, b: Tensor) -> float:
    """`‖a - b‖ / ‖b‖`."""
    return float((a - b).detach().norm() / b.detach().norm())
