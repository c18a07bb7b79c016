"""What a step of a training needs: the network made ready, its optimiser, learning rate, and loss without labels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lee.models import Normalized
from lee.models.recipes import Recipe


def learning_rate(peak: float, step: int, steps: int, warmup: float) -> float:
    """Linear warm-up to `peak` over `warmup` of `steps` steps, then half a cosine that reaches 0 after the last.

    Args:
        peak: the largest rate.
        step: which step, from 0.
        steps: how many steps there are.
        warmup: steps of the warm-up; may be a fraction.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / (steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def pseudo_loss(scores: Tensor, threshold: float) -> Tensor:
    """Return the cross-entropy of scores (N, classes) under their own largest class, where its probability is at least `threshold`.

    It is summed over these images and divided by N, so that doubtful ones count as zeros.

    D.-H. Lee, Pseudo-Label, ICML workshop 2013; with the threshold in place of its ramp as A. Oliver et al., Realistic
    Evaluation of Deep Semi-Supervised Learning Algorithms, NeurIPS 2018.
    """
    highest = scores.log_softmax(1).amax(1)
    return -(highest * (highest.detach().exp() >= threshold)).mean()


def prepare(model: Normalized, recipe: Recipe) -> Normalized:
    """Set memory format, attention kernel and precision of blurring; they only change speed and rounding."""
    from timm.layers.blur_pool import BlurPool2d

    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if not recipe.fused_attention and hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
        if isinstance(module, BlurPool2d):
            module.forward = _in_float32(module.forward)  # type: ignore[assignment,method-assign]
    return model


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Leave autocast for a blur: CPUs take 5 to 20 times as long for a depthwise convolution in bfloat16."""

    def blurred(x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return blurred


def optimizer_of(model: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """Build the optimiser; biases, norms and other vectors are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=lr)
