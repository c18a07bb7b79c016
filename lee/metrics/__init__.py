"""The discrete measures of equivariance of other papers, beside the Lie derivative.

`shifts` compares top-1 classes under whole-pixel shifts, `errors` outputs after finite motions (EQ-T, EQ-T-frac, EQ-R,
sampled invariance; as a mean squared error or in dB), `layers` does so for every module call. All of them depend on how far
one moves, on what comes in at the border and on how one normalises; each of these is an argument here.
"""

from lee.metrics.errors import (
    Differences,
    differences,
    eq_r,
    eq_t,
    eq_t_frac,
    output_range,
    psnr,
    sampled_invariance,
)
from lee.metrics.layers import layer_errors
from lee.metrics.motion import Motion, amounts, disc, in_view, rotations, shift, translations
from lee.metrics.shifts import agreement, consistency, shifted

__all__ = [
    # classes under whole-pixel shifts
    "consistency", "agreement", "shifted",
    # squared errors after finite motions
    "eq_t", "eq_t_frac", "eq_r", "sampled_invariance", "psnr", "output_range", "differences", "Differences",
    # of every layer
    "layer_errors",
    # the motions themselves
    "Motion", "translations", "rotations", "amounts", "shift", "in_view", "disc",
]  # fmt: skip
