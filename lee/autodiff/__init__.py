"""Stacked forward mode: push one primal and K tangents through any torch function in a single pass.

`tensor` holds the tensor subclass and the fallback to functorch; `layout`, `pointwise`, `contraction`, `convolution` and
`normalisation` hold the rules per operator; `pushforward` is the entry, `alternatives` what is left where torch
has no forward mode. The method and its cost are described in
chapter 2 of the book, the measured ratios in `benchmarks/`.
"""

from lee.autodiff import contraction, convolution, layout, normalisation, pointwise  # noqa: F401  (register the rules)
from lee.autodiff.alternatives import by_differences, check_mode, pushed
from lee.autodiff.functorch import load_formulas
from lee.autodiff.messages import ForwardModeError, LeavesTorchError, record_fallbacks
from lee.autodiff.pushforward import by_dual_numbers, push_leaves, pushforward
from lee.autodiff.surroundings import eager, stacked_pass
from lee.autodiff.tensor import Stacked
from lee.autodiff.weights import workspace

__all__ = [
    "ForwardModeError", "LeavesTorchError", "Stacked", "by_differences", "by_dual_numbers", "check_mode", "eager", "load_formulas",
    "push_leaves", "pushed", "pushforward", "record_fallbacks", "stacked_pass", "workspace",
]  # fmt: skip
