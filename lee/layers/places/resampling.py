"""Where the samples lie that a convolution, a pooling or an interpolation makes: at which index of its input each one sits."""

from collections.abc import Mapping
from fractions import Fraction
from math import floor
from typing import Any

from torch import Tensor

Index = tuple[float, float]  # (a, b): output i sits at input index a·i + b

WINDOWS = ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "max_pool1d_with_indices", "avg_pool1d")
CONVOLUTIONS = ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution")
ADAPTIVE = ("_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
NEAREST = ("upsample_nearest2d", "_upsample_nearest_exact2d")
SMOOTH = ("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
PADS = ("reflection_pad2d", "replication_pad2d")
SHUFFLES = ("pixel_shuffle", "pixel_unshuffle")
UNFOLD, FOLD = "im2col", "col2im"


def indices(name: str, named: Mapping[str, Any], given: Tensor, out: Tensor) -> list[Index]:
    """Input index of the output's samples, along each axis of the grid.

    A window's sample sits at its middle, whatever its weights: `s·i + d (k - 1)/2 - p` for kernel k, stride s, padding p and
    dilation d. What is padded on one side only, by the layer or before it, counts on that side. A transposed convolution
    inverts this. An adaptive pooling whose windows differ in size is taken at their mean positions, and so is the pick of a
    nearest neighbour, whose rounding shifts samples to and fro; a pixel shuffle spreads the channels over the cell that they
    come from, and an unshuffle takes the cell's middle.

    Args:
        name: Name of the ATen operator.
        named: Its arguments.
        given: Its input, the grid along the last axes.
        out: Its output.
    """
    axes = range(len(given.shape) - 2)
    sizes = [(given.shape[2 + k], out.shape[2 + k]) for k in axes]

    def of(key: str, default: Any) -> list[Any]:
        value = named.get(key)
        values = list(value) if isinstance(value, list | tuple) else [value]
        values = list(default) if value is None or not values else values
        return [values[k % len(values)] for k in axes]

    if name in (*CONVOLUTIONS, *WINDOWS, UNFOLD, FOLD):
        kernel = list(named["weight"].shape[2:]) if name in CONVOLUTIONS else of("kernel_size", [])
        stride = of("stride", kernel if name in WINDOWS else [1])
        middle = [d * (k - 1) / 2 - p for k, d, p in zip(kernel, of("dilation", [1]), of("padding", [0]), strict=True)]
        if named.get("transposed") or name == FOLD:
            return [(1 / s, -m / s) for s, m in zip(stride, middle, strict=True)]
        return [(float(s), m) for s, m in zip(stride, middle, strict=True)]
    if name in PADS:
        left, _, top, _ = named["padding"]
        return [(1.0, -float(top)), (1.0, -float(left))]
    if name in NEAREST or name in SMOOTH:
        scales = [named.get("scales_h"), named.get("scales_w")]
        return [_interpolated(name, named, *pair) for pair in zip(sizes, scales, strict=True)]
    ratios = [a / b for a, b in sizes]  # adaptive pooling and pixel shuffles tile the map
    return [(r, (r - 1) / 2) for r in ratios]


def _interpolated(name: str, named: Mapping[str, Any], sizes: tuple[int, int], scale: float | None) -> Index:
    given, made = sizes
    step = Fraction(1 / scale).limit_denominator(4096) if scale else Fraction(given, made)
    if name in SMOOTH and named.get("align_corners") and made > 1:
        return (given - 1) / (made - 1), 0.0
    if name in SMOOTH:
        return float(step), float(step - 1) / 2
    half = step / 2 if "exact" in name else 0
    away = [floor(step * i + half) - step * i for i in range(step.denominator)]
    return float(step), float(sum(away) / len(away))
