r"""Classifiers on a turntable: test error, rotation LEE, and what becomes of the probabilities as the images turn.

A turn of the image by `θ` changes the class probabilities by `Δ(θ) = E‖p(R_θ x) - p(x)‖² / dim`, which is `θ² LEE` for
small `θ`: the Lie derivative is what a network does at the start of the turn, the curve is the rest of it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lee.errors import InputError
from lee.geometry.generators import ROTATION
from lee.geometry.warping import warp
from lee.measure.derivative import equivariance_gram, lie_derivative
from lee.measure.function import one_function
from lee.measure.looking import looked_at

#: Angles of the curves in degrees.
DEGREES = tuple(range(0, 181, 5))
#: Test images behind LEE and behind the curves; the test error is that of all.
IMAGES, TURNED = 1000, 200
MOST = 500  # images per plain pass


def turned(images: Tensor, degrees: Sequence[float]) -> Tensor:
    """Turn images (N, C, H, W) clockwise by each angle: (A, N, C, H, W), by the band-limited kernel of the derivative.

    Quarter turns are those of `torch.rot90`, so that a network that commutes with them shows no error of the sampling. Images
    that are not square keep their shape: by 90° they are turned as by any other angle.

    Args:
        images: (N, C, H, W).
        degrees: A angles, clockwise.

    Raises:
        InputError: There is no angle, or one is not a finite number.
    """
    if not len(degrees) or not all(np.isfinite(angle) for angle in degrees):
        raise InputError(f"`degrees` must hold one finite angle or more, not {list(degrees)!r}.")
    every, step = [], 90 if images.shape[-1] == images.shape[-2] else 180
    for angle in degrees:
        quarters = angle / 90
        exact = angle % step == 0
        every.append(images.rot90(-round(quarters), (2, 3)) if exact else warp(images, ROTATION, np.deg2rad(angle)))
    return torch.stack(every)


def curves(
    model: nn.Module, orbit: Tensor, labels: Tensor, degrees: Sequence[float], *, chunk: int | None = None
) -> pd.DataFrame:
    """Follow the probabilities of a network as images turn.

    Args:
        model: takes images in [0, 1], returns scores.
        orbit: of `turned` for the same angles, (A, N, C, H, W); the first angle is 0.
        labels: the output that is right for each image, (N,).
        degrees: the angles.
        chunk: images per pass, at most; None for as many as usual.

    Returns:
        A row per angle: `angle`, `accuracy`, `probability` (mean, of the true class) and `change` (`Δ` above).

    Raises:
        InputError: the first angle is not 0.
    """
    if degrees[0] != 0:
        raise InputError(f"The first angle is what the others are compared with: 0, not {degrees[0]:g}.")
    with one_function(model, "probabilities") as function:
        values = looked_at(function, orbit[0], chunk or MOST)
        every = torch.stack([values(some) for some in orbit])
    true = every.gather(2, labels.expand(len(orbit), -1)[..., None])[..., 0]
    return pd.DataFrame(
        {
            "angle": list(degrees),
            "accuracy": (every.argmax(-1) == labels).double().mean(1).cpu().numpy(),
            "probability": true.double().mean(1).cpu().numpy(),
            "change": (every - every[0]).square().double().mean((1, 2)).cpu().numpy(),
        }
    )


def tangent(model: nn.Module, image: Tensor, label: int, degrees: Sequence[float]) -> pd.DataFrame:
    """The probability of the true class of one image (C, H, W) over the angle, with its derivative at 0.

    Args:
        model: takes images in [0, 1], returns scores.
        image: (C, H, W).
        label: its class.
        degrees: the angles.

    Returns:
        Columns `angle` in degrees, `probability`, and `slope` per degree, the same in all rows.
    """
    orbit = turned(image[None], degrees)
    with one_function(model, "probabilities") as function:
        values = looked_at(function, orbit[0], 1)(orbit.flatten(0, 1))[:, label]
    slope = float(lie_derivative(model, image[None], ROTATION)[0, label]) * np.pi / 180
    return pd.DataFrame({"angle": list(degrees), "probability": values.double().numpy(), "slope": slope})


def figures(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    n_turned: int = TURNED,
    degrees: Sequence[float] = DEGREES,
    chunk: int | None = None,
) -> dict[str, Any]:
    """What becomes of scores and probabilities as images (N, C, H, W) turn.

    Args:
        model: takes images in [0, 1], returns scores.
        images: (N, C, H, W).
        labels: the output that is right for each image, (N,).
        n_turned: images behind the curves.
        degrees: angles of the curves; the first is 0.
        chunk: images per pass, at most; None for as many as usual.

    Returns:
        `relative`, the rotation LEE of the scores in units of their variance over images; `quarter`, the largest change of a
        score under a quarter turn over the largest score; and the columns of `curves` for the first `n_turned` as lists.
    """
    gram = equivariance_gram(model, images, generators=[ROTATION], output="logits", chunk=chunk, progress=False)
    with one_function(model) as function:
        values = looked_at(function, images, chunk or MOST)
        value, quarter = values(images), values(turned(images, [-90])[0])
    spread = float((value - value.mean(0)).square().mean())
    change = float((quarter - value).abs().max() / value.abs().max())
    few = images[:n_turned]
    followed = curves(model, turned(few, degrees), labels[: len(few)].to(few.device), degrees, chunk=chunk)
    lists = {str(column): followed[column].tolist() for column in followed}
    return {"relative": gram.lee(ROTATION).value / spread, "quarter": change, **lists}
