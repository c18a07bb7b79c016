"""What moves, and how: generators, sampling and warps, representations, anti-aliased operators."""

from lee.geometry.antialiasing import (
    FilteredActivation,
    aliased_derivative,
    aliased_error,
    fold,
    low_pass,
    refine,
    share_above,
)
from lee.geometry.generators import (
    AFFINE,
    BRIGHTNESS,
    CONTRAST,
    HYPERBOLIC,
    NAMED,
    PHOTOMETRIC,
    ROTATION,
    SATURATION,
    SCALE,
    SHEAR_X,
    SHEAR_Y,
    SQUEEZE,
    STRETCH_X,
    STRETCH_Y,
    TRANSLATION_X,
    TRANSLATION_Y,
    Action,
    Generator,
    bracket,
    coordinates,
    get,
)  # fmt: skip
from lee.geometry.representations import Image, Map, Representation, Scattered, Tokens, Trivial, VectorField
from lee.geometry.sampling import BOUNDARIES, KERNELS, Sampler, spatial_gradient, warp

__all__ = [
    "FilteredActivation", "aliased_derivative", "aliased_error", "fold", "low_pass", "refine", "share_above", "AFFINE",
    "BRIGHTNESS", "CONTRAST", "HYPERBOLIC", "NAMED", "PHOTOMETRIC", "ROTATION", "SATURATION", "SCALE", "SHEAR_X", "SHEAR_Y",
    "SQUEEZE", "STRETCH_X", "STRETCH_Y", "TRANSLATION_X", "TRANSLATION_Y", "Action", "Generator", "bracket", "coordinates",
    "get", "Image", "Map", "Representation", "Scattered", "Tokens", "Trivial", "VectorField", "BOUNDARIES", "KERNELS",
    "Sampler", "spatial_gradient", "warp",
]  # fmt: skip
