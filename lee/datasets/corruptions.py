"""Corrupted copies of images at five strengths: noise, blur and loss of contrast.

The kinds, their formulas and the constants of the five strengths are those that made CIFAR-10-C.

Source: Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*, ICLR
2019; constants for 32-pixel images from `ImageNet-C/create_c/make_cifar_c.py` of the authors' repository
hendrycks/robustness (commit ca360085). Unlike their files, images stay floats: nothing is cut to 8 bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lee.errors import InputError, nearest

CORRUPT, CIFAR10_C = "corrupt:", "cifar10-c/"
#: Standard deviation of the noise, in units of the full range of grey values.
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
#: Standard deviation of the blurring Gaussian, in pixels.
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
#: What is left of each channel's deviation from its mean.
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
STRENGTHS = 5


def gaussian_noise(images: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Add independent normal numbers of standard deviation `sigma`; clipped to [0, 1].

    The noise of an image does not depend on how many follow it, and grows in proportion to `sigma`.
    """
    from skimage.util import random_noise

    return random_noise(images, mode="gaussian", rng=np.random.default_rng(seed), var=sigma**2, clip=True)


def gaussian_blur(images: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Convolve with a Gaussian of standard deviation `sigma` pixels; the border is repeated outwards."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images, sigma=(0, 0, sigma, sigma), mode="nearest", truncate=4.0)


def contrast(images: np.ndarray, factor: float, seed: int) -> np.ndarray:
    """Draw the values of each channel towards its mean: `factor (x − mean) + mean`."""
    mean = images.mean(axis=(-2, -1), keepdims=True)
    return factor * (images - mean) + mean


#: Kind → what it does to images (N, C, H, W), and its constant at strengths 1 to 5.
KINDS: dict[str, tuple[Callable[[np.ndarray, float, int], np.ndarray], tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, NOISE),
    "gaussian_blur": (gaussian_blur, BLUR),
    "contrast": (contrast, CONTRAST),
}


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption at a strength.

    Source: Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*,
    ICLR 2019 (CIFAR-10-C).

    Args:
        kind: `gaussian_noise`, `gaussian_blur` or `contrast`.
        strength: 1 (weak) to 5 (strong).

    Raises:
        InputError: an unknown kind (the nearest is suggested), or another strength.
    """

    kind: str
    strength: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"There is no corruption {self.kind!r}.{nearest(self.kind, KINDS)}")
        if self.strength not in range(1, STRENGTHS + 1):
            raise InputError(f"The strength of {self.kind} must be 1 to {STRENGTHS}, not {self.strength!r}.")

    @property
    def constant(self) -> float:
        """The constant of this kind at this strength."""
        return KINDS[self.kind][1][self.strength - 1]

    def __call__(self, images: Tensor, seed: int = 0) -> Tensor:
        """Return a corrupted copy.

        Args:
            images: float32 (N, C, H, W) in [0, 1].
            seed: of the noise; the same at all strengths, so that curves over the strength are paired.

        Raises:
            InputError: images of another shape or type, or values outside [0, 1].
        """
        if images.ndim != 4 or images.dtype != torch.float32:
            raise InputError(
                f"Expected float32 images (N, C, H, W); got {images.dtype} of shape {tuple(images.shape)}."
            )
        if len(images) and not (images.min() >= 0 and images.max() <= 1):
            raise InputError("Images must lie in [0, 1] before they are corrupted. Divide bytes by 255.")
        result = KINDS[self.kind][0](images.cpu().numpy(), self.constant, seed)
        return torch.from_numpy(np.ascontiguousarray(result, dtype=np.float32)).clamp_(0, 1).to(images.device)

    def __str__(self) -> str:
        return f"{self.kind} of strength {self.strength} ({self.constant:g})"


def parse(name: str) -> tuple[str, Corruption] | None:
    """Split the name of a corrupted data set into the name of its base and the corruption; None for other names.

    Raises:
        InputError: a name that starts like one but isn't: another form, kind or strength.

    >>> parse("cifar10-c/contrast/3")
    ('cifar10', Corruption(kind='contrast', strength=3))
    >>> parse("corrupt:patches/gaussian_blur/1")
    ('patches', Corruption(kind='gaussian_blur', strength=1))
    """
    if name.startswith(CIFAR10_C):
        name = f"{CORRUPT}cifar10/{name.removeprefix(CIFAR10_C)}"
    if not name.startswith(CORRUPT):
        return None
    base, *parts = name.removeprefix(CORRUPT).rsplit("/", 2)
    if len(parts) != 2 or not base or not parts[1].isdecimal():
        raise InputError(
            f"{name!r}: write {CORRUPT}BASE/KIND/STRENGTH or {CIFAR10_C}KIND/STRENGTH, with a strength of 1 to 5."
        )
    return base, Corruption(parts[0], int(parts[1]))
