"""The measurement: Lie derivatives, Gram matrices and the local equivariance error, checked against the function itself.

`derivative` is the entry, and `terms` computes the two terms of a Lie derivative. On the way there a user's model becomes one
function: `checks` looks at inputs and outputs, `reach` finds the modules behind a callable, `state` keeps and restores them,
`function` makes one function of them and `looking` finds out whether it is one. `reference` takes differences of its values,
`judgement` says whether a derivative agrees with them, `verification` tries ways until one does, and `pushing` takes
derivatives in the way that was verified. `spectrum` finds the directions that a model respects most, `streaming` is the
torchmetrics class, and `testing` has assertions for a project's own tests.
"""

from lee.measure.derivative import equivariance_gram, lie_derivative, local_equivariance_error
from lee.measure.spectrum import (
    ORTHOGONAL,
    SymmetrySpectrum,
    at_equal_size,
    displacement_metric,
    symmetry_spectrum,
    unit_sized,
)  # fmt: skip
from lee.measure.terms import infinitesimal_actions

__all__ = [
    "lie_derivative", "equivariance_gram", "local_equivariance_error", "infinitesimal_actions", "symmetry_spectrum",
    "SymmetrySpectrum", "ORTHOGONAL", "displacement_metric", "unit_sized", "at_equal_size",
]  # fmt: skip
