"""Windows of a map as columns of channels, and columns added up to a map."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lee.layers.places.labels import Places, Unknown
from lee.layers.places.lattices import fit
from lee.layers.places.resampling import UNFOLD, indices
from lee.layers.places.rules import Lookup, plain_name


def window(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """A column lies in the middle of its window, as what a convolution or a pixel unshuffle makes of it."""
    source, name = named["self"], plain_name(func)
    given, image = known(source), source if name == UNFOLD else out
    if not isinstance(given, Tensor):
        return given
    if source.ndim != image.ndim - (name != UNFOLD) or image.ndim != 4:
        return Unknown(f"{name} without a batch")
    sizes = zip(image.shape[2:], *(named[k] for k in ("kernel_size", "dilation", "padding", "stride")), strict=True)
    windows = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in sizes]
    found = fit(given if name == UNFOLD else given.unflatten(-1, windows))
    if found is None:
        return Unknown(f"{name} of something that is no map")
    places = (
        found[0].resampled(*indices(name, named, image, image)).places(*(windows if name == UNFOLD else out.shape[2:]))
    )
    return (places.flatten() if name == UNFOLD else places).expand(out.shape)
