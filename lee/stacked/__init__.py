"""Stacked forward mode: push one primal and K tangents through any torch function in a single pass.

`tensor` holds the tensor subclass and the fallback to functorch; `layout`, `pointwise`, `contraction`, `convolution` and
`normalisation` hold the rules per operator; `pushforward` is the entry, `alternatives` what is left where torch
has no forward mode. The method and its cost are described in
chapter 2 of the book, the measured ratios in `benchmarks/`.
"""

from lee.stacked import contraction, convolution, layout, normalisation, pointwise  # noqa: F401  (register the rules)
from lee.stacked.alternatives import by_differences, check_mode, pushed
from lee.stacked.functorch import load_formulas
from lee.stacked.messages import ForwardModeError, LeavesTorchError, record_fallbacks
from lee.stacked.pushforward import by_dual_numbers, push_leaves, pushforward
from lee.stacked.surroundings import eager, stacked_pass
from lee.stacked.tensor import Stacked
from lee.stacked.weights import workspace

__all__ = [
    "ForwardModeError", "LeavesTorchError", "Stacked", "by_differences", "by_dual_numbers", "check_mode", "eager", "load_formulas",
    "push_leaves", "pushed", "pushforward", "record_fallbacks", "stacked_pass", "workspace",
]  # fmt: skip
