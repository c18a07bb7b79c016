r"""The measurement: Lie derivatives, Gram matrices and the local equivariance error, checked against the function itself.

The Lie derivative :math:`L_X f(x) = J_f(x)\,(X \cdot x) - X \cdot f(x)` says how much `f` fails to commute with the
infinitesimal action of a generator `X`; the local equivariance error is the mean of its square over images and outputs.
Every derivative is compared with finite differences of the function's own values before a number is returned.

A linear function of the pixels has itself as its derivative: here `f(x) = Σ w x`, whose Lie derivative is `w·(X·x)`.

>>> import lee, torch
>>> weights = torch.arange(64).view(8, 8).double()
>>> f = lambda z: (weights * z).sum((1, 2, 3))
>>> images = torch.rand(2, 1, 8, 8).double()
>>> found = lee.lie_derivative(f, images, "translation_x", output="logits")
>>> along_x, along_y = lee.spatial_gradient(images)
>>> torch.allclose(found, f(along_x))
True
"""

from typing import Any

# On the way a user's model becomes one function: `checks` looks at inputs and outputs, `reach` finds the modules behind a
# callable, `state` keeps and restores them, `function` makes one function of them and `looking` finds out whether it is one.
# `terms` computes the two terms of a Lie derivative. `reference` takes differences of the function's values, `judgement` says
# whether a derivative agrees with them, `verification` tries ways until one does, and `pushing` takes derivatives in the way
# that was verified. `maps` shares an error out among pixels, `orbits` follows an output along finite motions.
from lee.measure.derivative import equivariance_gram, lie_derivative, local_equivariance_error
from lee.measure.maps import error_map
from lee.measure.orbits import Orbit, orbit
from lee.measure.shares import ErrorMap
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
    "local_equivariance_error", "lie_derivative", "equivariance_gram", "LocalEquivarianceError", "infinitesimal_actions",
    # over the pixels of a picture
    "error_map", "ErrorMap",
    # along finite motions
    "orbit", "Orbit",
    # over all directions of the algebra
    "symmetry_spectrum", "SymmetrySpectrum", "ORTHOGONAL", "displacement_metric", "unit_sized", "at_equal_size",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """`LocalEquivarianceError` needs torchmetrics, so it is imported on first use."""
    if name == "LocalEquivarianceError":
        from lee.measure.streaming import LocalEquivarianceError

        return LocalEquivarianceError
    raise AttributeError(f"module 'lee.measure' has no attribute {name!r}")
