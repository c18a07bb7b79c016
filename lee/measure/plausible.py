"""Mistakes that give a number all the same: images of another range or axis order, scores that are probabilities already."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lee.errors import ImageWarning, OutputWarning

CHANNELS = (1, 3, 4)
FAR = 20.0  # beyond any usual normalisation of images, whose values stay within some units


def warn_of_images(model: Callable[..., Any], x: Tensor) -> None:
    """Warn of images (N, C, H, W) that don't look like what a model expects.

    Args:
        model: timm's models say how their input is normalised; `lee.models.Normalized` takes images in [0, 1].
        x: Images.
    """
    low, high = float(x.min()), float(x.max())
    if x.shape[1] not in CHANNELS and x.shape[3] in CHANNELS:
        _warn(f"Images of shape {tuple(x.shape)} look channels-last; x.permute(0, 3, 1, 2) makes them (N, C, H, W).")
    elif low == high:
        _warn(f"Every pixel of these images is {low:g}: there is nothing that could move.")
    elif max(-low, high) > FAR:
        _warn(
            f"The images have values from {low:.3g} to {high:.3g}; images in [0, 1] or normalised ones are usual (x / 255?)."
        )
    elif _takes_plain(model):
        if low < -0.25 or high > 1.25:
            _warn(
                f"The model normalises images in [0, 1] itself, and these have values from {low:.3g} to {high:.3g}: are they "
                "normalised already?"
            )
    elif low >= 0 and high <= 1 and (expected := _normalisation(model)) is not None:
        mean, std = expected
        _warn(
            f"The images lie in [0, 1], but the model's configuration expects them normalised with mean {mean} and std {std}: "
            "lee.models.Normalized(model, mean, std) does that, and lee.models.load returns timm's models so."
        )


def _warn(text: str) -> None:
    warnings.warn(text, ImageWarning, stacklevel=5)


def _takes_plain(model: Callable[..., Any]) -> bool:
    normalize = getattr(model, "normalize", None)
    return isinstance(normalize, nn.Module) and not isinstance(normalize, nn.Identity) and hasattr(model, "net")


def _normalisation(model: Callable[..., Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that timm's configuration of a model states; None without them, or where they do nothing."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if not isinstance(config, dict) or not config.get("mean") or not config.get("std"):
        return None
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return None if set(mean) == {0} and set(std) == {1} else (mean, std)


def warn_of_probabilities(scores: Any) -> None:
    """Warn of class scores (N, K) that sum to one already, of which probabilities are about to be computed once more."""
    if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2:
        return
    wide = scores.detach().double()
    sums = wide.sum(1)
    if bool(((wide >= 0) & (wide <= 1)).all()) and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-3)):
        warnings.warn(
            "The model's output sums to one already, like probabilities; output='probabilities' takes their softmax once more. Use "
            "output='logits' to measure the output as it is.",
            OutputWarning,
            stacklevel=6,
        )
