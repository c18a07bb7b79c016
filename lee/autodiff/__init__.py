"""Stacked forward mode: one primal and K tangents go through any torch function together, in a single pass.

A directional derivative `J_f(x)·v` is exact, and K of them share the work that does not depend on the direction. What has no
rule for stacks is differentiated by torch's own forward mode, and reported to :func:`record_fallbacks`. Chapter 2 of the
book explains the method and its cost.

For `f(x) = Σ x³` the derivative along `v` is `3 x²·v`:

>>> import torch
>>> from lee.autodiff import pushforward
>>> x = torch.tensor([[1.0, 2.0]]).double()
>>> v = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]).double()
>>> value, derivatives = pushforward(lambda z: (z**3).sum(1), x, v)
>>> value.tolist(), derivatives.tolist()
([9.0], [[3.0], [15.0]])
"""

# `tensor` holds the tensor subclass, `functorch` what becomes of a function without a rule; `layout`, `pointwise`,
# `contraction`, `convolution` and `normalisation` hold the rules per operator; `pushforward` is the entry, `alternatives` what is
# left where torch has no forward mode.
from lee.autodiff import contraction, convolution, layout, normalisation, pointwise  # noqa: F401  (register the rules)
from lee.autodiff.alternatives import by_differences, pullback
from lee.autodiff.messages import ForwardModeError, LeavesTorchError, record_fallbacks
from lee.autodiff.pushforward import by_dual_numbers, pushforward
from lee.autodiff.tensor import Stacked
from lee.autodiff.weights import workspace

__all__ = [
    "pushforward", "by_dual_numbers", "by_differences", "pullback", "record_fallbacks", "workspace", "Stacked",
    "ForwardModeError", "LeavesTorchError",
]  # fmt: skip
