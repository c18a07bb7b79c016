"""Measure learned equivariance: Lie derivatives and the local equivariance error of torch modules.

>>> import lee, torch
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 5))
>>> lee.local_equivariance_error(model, torch.rand(4, 3, 8, 8), "rotation", progress=False).n
4
"""

from typing import Any

# isort: off
from lee.errors import (
    BatchInteractionWarning, ConstantOutputWarning, ImageWarning, InputError, LeavesTorchWarning, LeeError, LeeWarning,
    OutputWarning, RandomFunctionWarning, StateWarning, TrainingModeWarning, VerificationError, VerificationWarning,
)  # fmt: skip
from lee.geometry.generators import (
    BRIGHTNESS, CONTRAST, HYPERBOLIC, ROTATION, SATURATION, SCALE, SHEAR_X, SHEAR_Y, SQUEEZE, STRETCH_X, STRETCH_Y,
    TRANSLATION_X, TRANSLATION_Y, Action, Generator, bracket,
)  # fmt: skip

# isort: on
from lee import metrics
from lee.geometry.representations import Image, Map, Representation, Tokens, Trivial, VectorField
from lee.geometry.sampling import Sampler, spatial_gradient, warp
from lee.layers import Decomposition, explain_representations, layerwise
from lee.measure.derivative import equivariance_gram, lie_derivative, local_equivariance_error
from lee.measure.maps import error_map
from lee.measure.orbits import Orbit, orbit
from lee.measure.shares import ErrorMap
from lee.measure.spectrum import symmetry_spectrum
from lee.statistics import EquivarianceGram, Estimate

__version__ = "0.1.0"
__all__ = [
    # measuring
    "local_equivariance_error", "equivariance_gram", "lie_derivative", "layerwise", "explain_representations",
    "symmetry_spectrum", "error_map", "orbit", "LocalEquivarianceError", "Estimate", "EquivarianceGram", "Decomposition",
    "ErrorMap", "Orbit", "metrics",
    # what moves, and how
    "Generator", "Action", "bracket", "TRANSLATION_X", "TRANSLATION_Y", "ROTATION", "SCALE", "STRETCH_X", "STRETCH_Y",
    "SHEAR_X", "SHEAR_Y", "HYPERBOLIC", "SQUEEZE", "BRIGHTNESS", "CONTRAST", "SATURATION", "Representation", "Image", "Map",
    "Tokens", "Trivial", "VectorField", "Sampler", "spatial_gradient", "warp",
    # errors and warnings
    "LeeError", "InputError", "VerificationError", "LeeWarning", "BatchInteractionWarning", "ConstantOutputWarning",
    "ImageWarning", "LeavesTorchWarning", "OutputWarning", "RandomFunctionWarning", "StateWarning", "TrainingModeWarning",
    "VerificationWarning",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """`lee.LocalEquivarianceError` needs torchmetrics, so it is imported on first use."""
    if name == "LocalEquivarianceError":
        from lee.measure.streaming import LocalEquivarianceError

        return LocalEquivarianceError
    raise AttributeError(f"module 'lee' has no attribute {name!r}")
