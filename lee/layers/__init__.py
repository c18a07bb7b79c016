"""Which layers break equivariance: an exact, complete and hierarchical decomposition of the Lie derivative.

`calls` sees the module calls of a pass, between the modules' own `hooks`; `trace` reads how their tensors transform, with
`readings` of where their entries lie and the `flow` of those that are not handed on as arguments and results; `nested` opens
the containers around them. `local` computes each call's own Lie derivative and `forward` carries it to the output, `reverse`
does both from the output's side, `passes` chooses between them, `decomposition` sums up; `measure` is the entry.
`explanation` says what `trace` found.
"""

from lee.layers.decomposing import layerwise
from lee.layers.decomposition import Decomposition
from lee.layers.explanation import Explanation, explain_representations

__all__ = ["Decomposition", "Explanation", "explain_representations", "layerwise"]
