"""How a model's output transforms: as its user says, or as its shape leaves no doubt."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from lee.errors import InputError, OutputWarning, check_known
from lee.geometry.representations import Image, Map, Representation, Trivial, VectorField

SHORTHAND: dict[str, Representation] = {
    "trivial": Trivial(),
    "image": Image(),
    "map": Map(),
    "map_channels_last": Map(channels_last=True),
    "vector": VectorField(),
    "covector": VectorField(covariant=True),
}

SMALL = 4  # places along an axis, of which an output may have so many without being a map

Representations = str | Representation | Mapping[str, "str | Representation"] | None


def resolve(representation: str | Representation) -> Representation:
    """A representation from its name or itself."""
    if isinstance(representation, Representation):
        return representation
    check_known("representation", representation, SHORTHAND)
    return SHORTHAND[representation]


def of_output(z: Tensor, x: Tensor, given: Representations) -> Representation:
    """The representation of a model's output `z` for input `x`, as given or where the shape leaves no doubt.

    Scores (N,) and (N, K) are trivial. A 4-dimensional output with the input's own channels, height and width is an
    image; one with the input's aspect ratio and channels first is a feature map.

    Args:
        z: Output, (N, ...).
        x: Input, (N, ...).
        given: A representation, its name, or a mapping whose key `"output"` holds either.

    Raises:
        InputError: If none is given and the shape allows several readings.
    """
    if isinstance(given, Mapping):
        unknown = set(given) - {"output"}
        if unknown:
            raise InputError(f"Unknown key {sorted(unknown)[0]!r} in `representations`; this call knows 'output' only.")
        given = given.get("output")
    if given is not None:
        return resolve(given)
    if z.ndim <= 2 or x.ndim != 4:
        return Trivial()
    if z.ndim == 4 and z.shape[2:] == (1, 1):
        return Trivial()
    if z.ndim == 4 and z.shape[1:] == x.shape[1:]:
        return Image()
    if z.ndim == 4 and z.shape[2] * x.shape[3] == z.shape[3] * x.shape[2] and not _could_be_last(z, x):
        if max(z.shape[2:]) <= SMALL < min(x.shape[2:]) / 2:
            warnings.warn(
                f"The output of shape {tuple(z.shape)} is read as maps of {z.shape[2]} × {z.shape[3]} places; say "
                "representations='trivial' where its last axes are no places, such as those of matrices, or 'map' to confirm it.",
                OutputWarning,
                stacklevel=2,
            )
        elif kind := _matrices(z, x):
            warnings.warn(
                f"The output of shape {tuple(z.shape)} is read as maps of {z.shape[2]} × {z.shape[3]} places, but looks like "
                f"{kind}; say representations='trivial' where its last axes are no places, or 'map' to confirm it.",
                OutputWarning,
                stacklevel=2,
            )
        elif x.shape[2] % z.shape[2]:
            warnings.warn(
                f"The output's {z.shape[2]} × {z.shape[3]} places are taken to cover the image of {x.shape[2]} × {x.shape[3]} "
                "pixels evenly. Say representations='map' to confirm it; where they lie otherwise, as after convolutions without "
                "padding, lee.Map(registration=lee.geometry.Registration(origin, spacing)).",
                OutputWarning,
                stacklevel=2,
            )
        return Map()
    ways = {3: "'trivial', or lee.Tokens(grid=(h, w))", 4: "'trivial', 'map', 'map_channels_last', or 'vector'"}
    if z.ndim == 3 and z.shape[1] * x.shape[3] == z.shape[2] * x.shape[2]:
        ways[3] += "; a map (N, h, w) without channels needs output=lambda o: o[:, None]"
    raise InputError(
        f"The output of shape {tuple(z.shape)} for an input of shape {tuple(x.shape)} can be read in several ways; say "
        f"how it transforms: representations={ways.get(z.ndim, 'lee.Trivial()')}."
    )


def _matrices(z: Tensor, x: Tensor) -> str:
    """What kind of matrices, one for each channel, an output looks like that no map of such images is; empty for maps."""
    if not z.is_floating_point() or torch.finfo(z.dtype).eps > 1e-5 or z.shape[2] != z.shape[3] or torch.equal(x, x.mT):
        return ""  # in half precision rounding is no small thing
    tolerance = 100 * torch.finfo(z.dtype).eps * float(z.abs().amax())
    if not float((z - z.mean((2, 3), keepdim=True)).abs().amax()) > tolerance:
        return ""  # the same at all places
    if float((z - z.mT).abs().amax()) <= tolerance:
        return "symmetric matrices, such as Gram matrices"
    sums = [(z.double().sum(axis) - 1).abs().amax() for axis in (-1, -2)]
    weights = bool((z >= 0).all()) and float(min(sums)) <= 100 * torch.finfo(z.dtype).eps
    return "weights of attention, which sum to 1 along an axis" if weights else ""


def _could_be_last(z: Tensor, x: Tensor) -> bool:
    """Whether (N, a, b, c) has the input's aspect ratio when read with channels last."""
    return z.shape[1] * x.shape[3] == z.shape[2] * x.shape[2]
