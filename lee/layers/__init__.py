r"""Which layers break equivariance: an exact, complete and hierarchical decomposition of the Lie derivative.

By the chain rule the Lie derivative of a network is a sum over the calls of its modules, each with its own failure to
commute with the motion, pushed to the output. Containers are measured like leaves, so the decomposition is read at any depth, and
how each tensor transforms is followed through the operators (:func:`explain_representations` says what was found).

The parts sum to the whole:

>>> import lee
>>> from torch import nn, rand
>>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
>>> images = rand(2, 1, 8, 8).double()
>>> parts = lee.layerwise(model.double(), images, "rotation", output="logits")
>>> bool(parts.residual < 1e-12)
True
>>> round(float(parts.frame.self_share.sum()), 9)
1.0
"""

# `calls` sees the module calls of a pass, between the modules' own `hooks`; `trace` reads how their tensors transform, with
# `readings` of where their entries lie and the `flow` of those that are not handed on as arguments and results; `nested` opens
# the containers around them. `local` computes each call's own Lie derivative and `forward` carries it to the output, `reverse`
# does both from the output's side, along the directions of `deflation` where there are many classes; `primals` has all passes
# take the same side of kinks. `passes` chooses between them, `decomposition` sums up; `decomposing` is the entry.
# `explanation` says what `trace` found. `aliasing` pushes what layers fold, which `between` reads between their samples.
from lee.layers.aliasing import AliasedPart, aliased_part
from lee.layers.decomposing import layerwise
from lee.layers.decomposition import Decomposition
from lee.layers.explanation import Explanation, explain_representations

__all__ = ["layerwise", "Decomposition", "aliased_part", "AliasedPart", "explain_representations", "Explanation"]
