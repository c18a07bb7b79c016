"""The discrete measures of equivariance of other papers, beside the Lie derivative.

They compare a model's outputs before and after a finite motion: top-1 classes under whole-pixel shifts, squared errors after
translations and rotations, of the output or of every layer. All of them depend on how far one moves, on what comes in at the
border and on how one normalises; each of these is an argument here.

A mean over all pixels does not see a circular shift, so its top-1 class never changes:

>>> import torch
>>> from lee.metrics import consistency
>>> images = torch.rand(4, 3, 8, 8).double()
>>> print(consistency(lambda x: x.mean((2, 3)), images))
consistency circular shifts = 1 ± 0 (n = 4)
"""

from lee.metrics.decibels import output_range, psnr
from lee.metrics.errors import Differences, differences, eq_r, eq_t, eq_t_frac, sampled_invariance
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
