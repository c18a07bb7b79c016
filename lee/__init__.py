"""Measure learned equivariance: Lie derivatives and the local equivariance error of torch modules.

>>> import lee, torch
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 5))
>>> lee.local_equivariance_error(model, torch.rand(4, 3, 8, 8), "rotation", progress=False).n
4
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `__getattr__` imports them when they are first used: `lee --help` needs no torch
    # isort: off
    from lee import metrics
    from lee.errors import (
        BatchInteractionWarning, ConstantOutputWarning, DamageWarning, ImageWarning, InputError, LeavesTorchWarning, LeeError,
        LeeWarning, OutputWarning, RandomFunctionWarning, StateWarning, TrainingModeWarning, VerificationError, VerificationWarning,
    )  # fmt: skip
    from lee.geometry import (
        BRIGHTNESS, CONTRAST, HYPERBOLIC, ROTATION, SATURATION, SCALE, SHEAR_X, SHEAR_Y, SQUEEZE, STRETCH_X, STRETCH_Y,
        TRANSLATION_X, TRANSLATION_Y, Action, Generator, Image, Map, Representation, Sampler, Tokens, Trivial, VectorField,
        bracket, spatial_gradient, warp,
    )  # fmt: skip
    from lee.layers import Decomposition, explain_representations, layerwise
    from lee.measure import (
        ErrorMap, Orbit, equivariance_gram, error_map, lie_derivative, local_equivariance_error, orbit, symmetry_spectrum,
    )  # fmt: skip
    from lee.measure.streaming import LocalEquivarianceError
    from lee.statistics import EquivarianceGram, Estimate

__version__ = "0.1.0"
__all__ = [  # measuring
    "local_equivariance_error", "equivariance_gram", "lie_derivative", "layerwise", "explain_representations",
    "symmetry_spectrum", "error_map", "orbit", "LocalEquivarianceError", "Estimate", "EquivarianceGram", "Decomposition",
    "ErrorMap", "Orbit", "metrics",
    # what moves, and how
    "Generator", "Action", "bracket", "TRANSLATION_X", "TRANSLATION_Y", "ROTATION", "SCALE", "STRETCH_X", "STRETCH_Y",
    "SHEAR_X", "SHEAR_Y", "HYPERBOLIC", "SQUEEZE", "BRIGHTNESS", "CONTRAST", "SATURATION", "Representation", "Image", "Map",
    "Tokens", "Trivial", "VectorField", "Sampler", "spatial_gradient", "warp",
    # errors and warnings
    "LeeError", "InputError", "VerificationError", "LeeWarning", "BatchInteractionWarning", "ConstantOutputWarning",
    "DamageWarning", "ImageWarning", "LeavesTorchWarning", "OutputWarning", "RandomFunctionWarning", "StateWarning",
    "TrainingModeWarning", "VerificationWarning",
]  # fmt: skip


_ROOMS = ("errors", "geometry", "autodiff", "statistics", "measure", "layers", "metrics")


def __getattr__(name: str) -> Any:
    """A room, or what one of them has to offer."""
    if name in _ROOMS:
        return import_module(f"lee.{name}")
    if name in __all__:
        return next(getattr(room, name) for room in map(__getattr__, _ROOMS) if name in room.__all__)
    raise AttributeError(f"module 'lee' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
