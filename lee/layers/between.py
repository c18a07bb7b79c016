r"""Layers read between their samples: `a_m = m - m°`, what a layer's output on its grid has folded, for the layers that allow it.

What commutes with every exchange of places (non-linearities, normalisation, attention) can be applied on a finer grid; what has a
stride can be run with stride 1. See :mod:`lee.layers.aliasing`.
"""

import copy
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from lee.geometry.antialiasing import FilteredActivation, low_pass
from lee.geometry.representations import Map, Tokens, Trivial
from lee.layers.families import family
from lee.layers.trace import Traced

Layer = Callable[[Tensor], Tensor]


def readable(
    model: nn.Module, inputs: dict[int, Tensor], found: list[Traced], factor: int, boundary: str
) -> tuple[dict[int, tuple[str, Layer]], tuple[str, ...]]:
    """What can be read between its samples of the calls between places, calls around before those in them.

    Returns:
        Family and folded part `a_m` of every call that can; and names of layers that can't and might fold waves, as they are
        not affine or lower the resolution.
    """
    layers: dict[int, tuple[str, Layer]] = {}
    missed = []
    for i, h in inputs.items():
        traced, module = found[i], model.get_submodule(found[i].call.path)
        name = family(traced.call.type, leaf=traced.leaf)
        if traced.vanishes or not (traced.leaf or name == "attention") or is_inside(i, layers, found):
            continue
        given, made = traced.inputs[0].representation, traced.outputs[0].representation
        if not isinstance(given, Map | Tokens) or not isinstance(made, Map | Tokens):
            unread = traced.leaf and not isinstance(given, Trivial) and not isinstance(made, Trivial)
            if unread and not _averages(_apart(module.forward), h):
                missed.append(f"{traced.call.name} ({traced.call.type})")
            continue
        layer = _apart(module.forward if traced.leaf else module)
        if _is_affine(layer, given, made, h):
            continue
        if (strided := _with_stride(module, h, boundary)) is not None:
            layers[i] = ("strided convolution" if name == "convolution" else name), strided
        elif _exchanges(layer, given, h):
            layers[i] = name, _between(layer, given, made, factor, boundary)
        elif traced.leaf:
            missed.append(f"{traced.call.name} ({traced.call.type})")
    return layers, tuple(missed)


def _apart(function: Layer) -> Layer:
    """The function on a copy: a module may write into its input."""
    return lambda h: function(h.clone())


def _back(r: Map | Tokens, maps: Tensor) -> Tensor:
    """The layout of `r` again, of any grid, with no tokens before it."""
    if isinstance(r, Tokens):
        return maps.flatten(-2).mT
    return maps.movedim(1, -1) if r.channels_last else maps


def _exchanges(layer: Layer, r: Map | Tokens, h: Tensor) -> bool:
    """Whether a layer commutes with an exchange of all places, so that it can be applied at any."""
    if isinstance(r, Tokens) and r.prefix:
        return False
    h = h[:1]
    maps = r.maps(h)
    order = torch.randperm(maps[0, 0].numel(), generator=torch.Generator().manual_seed(0)).to(h.device)

    def exchanged(z: Tensor) -> Tensor:
        maps = r.maps(z)
        return _back(r, maps.flatten(-2)[..., order].view(maps.shape))

    y = layer(h)
    return y.shape == h.shape and _alike(layer(exchanged(h)), exchanged(y), y)


def _between(layer: Layer, given: Map | Tokens, made: Map | Tokens, factor: int, boundary: str) -> Layer:
    """`m - m°` of a layer that can be applied at any places."""
    fine = FilteredActivation(lambda maps: _like(made, maps).maps(layer(_back(given, maps))), factor, boundary)

    def folded(h: Tensor) -> Tensor:
        return layer(h) - _back(made, fine(given.maps(h)))

    return folded


def _like(r: Map | Tokens, maps: Tensor) -> Map | Tokens:
    return Tokens((maps.shape[-2], maps.shape[-1])) if isinstance(r, Tokens) else r


def _with_stride(module: nn.Module, h: Tensor, boundary: str) -> Layer | None:
    """`m - m°` of a module with a stride; None for one without, or one that stride 1 doesn't make the same at more places."""
    stride = getattr(module, "stride", None)
    steps = tuple(stride) if isinstance(stride, tuple | list) else (stride, stride)
    if len(steps) != 2 or not all(isinstance(s, int) for s in steps) or max(steps) < 2:
        return None
    dense = copy.copy(module)
    dense.__dict__["stride"] = (1, 1) if isinstance(stride, tuple | list) else 1
    y = module.forward(h[:1])
    lacking = [s * n - m for s, n, m in zip(steps, y.shape[-2:], dense.forward(h[:1]).shape[-2:], strict=True)]

    def every(z: Tensor) -> Tensor:  # continued where the module has no padding, so that the fine grid is whole, too
        found: Tensor = dense.forward(_continued(_continued(z, lacking[0], -2, boundary), lacking[1], -1, boundary))
        return found

    fine = every(h[:1])
    filters = [_low_pass(n, n / (2 * s), boundary).to(h) for n, s in zip(fine.shape[-2:], steps, strict=True)]

    def folded(z: Tensor) -> Tensor:
        value = every(z)
        return thinned(value - filters[0] @ value @ filters[1])

    for top in range(steps[0]):
        for left in range(steps[1]):
            rows, columns = slice(top, None, steps[0]), slice(left, None, steps[1])

            def thinned(z: Tensor, rows: slice = rows, columns: slice = columns) -> Tensor:
                return z[..., rows, columns][..., : y.shape[-2], : y.shape[-1]]

            thin = thinned(fine)
            if _alike(thin, y, y):
                return folded
    return None


def _continued(z: Tensor, by: int, axis: int, boundary: str) -> Tensor:
    """`by` more samples along an axis."""
    if by <= 0:
        return z
    return torch.cat([z, (z.flip(axis) if boundary == "reflect" else z).narrow(axis, 0, by)], axis)


def _low_pass(n: int, cutoff: float, boundary: str) -> Tensor:
    """The ideal low-pass along one axis as a symmetric matrix, (n, n), float64."""
    return low_pass(torch.eye(n, dtype=torch.float64).view(n, 1, 1, n), cutoff, boundary=boundary).view(n, n)


def _is_affine(layer: Layer, given: Map | Tokens, made: Map | Tokens, h: Tensor) -> bool:
    """Whether a layer is affine and keeps the number of places."""
    return _averages(layer, h[:1]) and made.maps(layer(h[:1])).shape[-2:] == given.maps(h[:1]).shape[-2:]


def _averages(layer: Layer, h: Tensor) -> bool:
    """Whether a layer gives the mean of two inputs the mean of their outputs."""
    other = h.flip(-1, -2)
    y = layer(h)
    return _alike(layer((h + other) / 2), (y + layer(other)) / 2, y)


def is_inside(index: int, layers: Collection[int], found: list[Traced]) -> bool:
    """Whether a call around this one is read as a whole."""
    around = found[index].call.parent
    while around >= 0 and around not in layers:
        around = found[around].call.parent
    return around >= 0


def _alike(a: Tensor, b: Tensor, scale: Tensor) -> bool:
    """Whether two values are the same up to single precision's rounding."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(scale.abs().max()))
