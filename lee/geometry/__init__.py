"""What moves, and how: generators, sampling and warps, representations, anti-aliased operators.

A generator is a vector field on the image plane or a change of values; a sampler turns a grid of samples into a continuous
image that can be moved and differentiated; a representation says how a tensor of a given layout moves along. Lengths are in
half sides of the image (half of its shorter side), `x` points right and `y` down.

Brackets follow the algebra of vector fields, and a wave is differentiated exactly, `∂x cos(πx) = -π sin(πx)`:

>>> import torch
>>> from lee.geometry import ROTATION, TRANSLATION_X, TRANSLATION_Y
>>> from lee.geometry import Sampler, bracket
>>> turned = bracket(ROTATION, TRANSLATION_X)
>>> turned.coefficients == TRANSLATION_Y.coefficients
True
>>> sampler = Sampler(boundary="circular")
>>> x, y = sampler.coordinates(8, 8)
>>> wave = torch.cos(torch.pi * x).expand(1, 1, 8, 8)
>>> along_x, along_y = sampler.gradient(wave)
>>> exact = -torch.pi * torch.sin(torch.pi * x)
>>> torch.allclose(along_x, exact.expand_as(wave))
True
"""

from lee.geometry.algebra import bracket, coordinates
from lee.geometry.antialiasing import (
    FilteredActivation,
    aliased_derivative,
    aliased_error,
    fold,
    harmonics,
    low_pass,
    refine,
    share_above,
)  # fmt: skip
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
    get,
)  # fmt: skip
from lee.geometry.interpolation import BOUNDARIES, KERNELS, derivative_matrix, interpolation_matrix
from lee.geometry.representations import Image, Map, Representation, Scattered, Tokens, Trivial, VectorField
from lee.geometry.sampling import Registration, Sampler
from lee.geometry.warping import spatial_gradient, warp

__all__ = [
    # generators
    "TRANSLATION_X", "TRANSLATION_Y", "ROTATION", "SCALE", "STRETCH_X", "STRETCH_Y", "SHEAR_X", "SHEAR_Y", "HYPERBOLIC",
    "SQUEEZE", "BRIGHTNESS", "CONTRAST", "SATURATION", "AFFINE", "PHOTOMETRIC", "NAMED",
    "Generator", "Action", "get", "bracket", "coordinates",
    # sampled images: derivatives and warps
    "Sampler", "Registration", "spatial_gradient", "warp", "derivative_matrix", "interpolation_matrix", "KERNELS", "BOUNDARIES",
    # how tensors transform
    "Representation", "Trivial", "Image", "Map", "Tokens", "VectorField", "Scattered",
    # aliasing
    "harmonics", "fold", "aliased_derivative", "aliased_error", "share_above", "low_pass", "refine", "FilteredActivation",
]  # fmt: skip
