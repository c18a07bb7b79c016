"""How each kind of ATen operator hands on the places of its inputs' entries."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lee.layers.places.labels import MIXED, NONE, Places, Unknown, cells, finite, is_pooled, mean
from lee.layers.places.lattices import NEAR, fit, gathered
from lee.layers.places.resampling import NEAREST, SMOOTH, indices

Rule = Callable[[Any, Mapping[str, Any], "Lookup", Tensor], Places]
Lookup = Callable[[Any], Places]
SUMS = ("add", "sub", "rsub", "addcmul")


def bind(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names in the operator's schema."""
    names = [a.name for a in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def plain_name(func: Any) -> str:
    """The name of an operator, without the mark of in-place variants."""
    name = str(func.overloadpacket.__name__)
    return name.removesuffix("_") if func._schema.is_mutable else name


def _filled(shape: Any, mark: complex) -> Tensor:
    return torch.full((), mark, dtype=torch.complex128).expand(shape)


def constant(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """A fresh tensor takes only its shape or dtype from the input."""
    return None


def copied(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """Overwritten by another tensor, broadcast, or by a number."""
    given = known(named.get("src", named.get("value")))
    return given.expand(out.shape) if isinstance(given, Tensor) else given


def restrided(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """New strides can't be followed, unless they leave nothing but entries that are all alike."""
    given = known(named["self"])
    if isinstance(given, Tensor) and out._base is None and out.shape == given.shape:
        mixed = torch.isinf(given.real)
        if not bool(finite(given).any()) and torch.equal(mixed, mixed.flatten()[:1].expand(given.shape)):
            return given
    return Unknown(f"{plain_name(func)} sets new strides")


def move(func: Any, named: Mapping[str, Any], known: Lookup, out: Any) -> Any:
    """Data movement: the same operator moves the places. Several outputs give a list of places."""
    unknown = [p for p in map(known, pytree.tree_leaves(named)) if isinstance(p, Unknown)]
    if unknown:
        return unknown[0]
    if any(known(v) is not None for key in _INDICES for v in pytree.tree_leaves(named.get(key))):
        return Unknown(f"{plain_name(func)} takes entries from where the image says")
    if named.get("accumulate"):
        return Unknown(f"{plain_name(func)} adds to what is there")
    moved = {}
    for key, value in named.items():
        if key in _INDICES:
            moved[key] = value
        elif isinstance(value, Tensor):
            moved[key] = _or_none(known(value), value)
        elif isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            moved[key] = [_or_none(known(v), v) for v in value]
        else:
            moved[key] = value
    name = plain_name(func)
    if name in ("view", "_unsafe_view", "_reshape_alias"):
        return moved["self"].reshape(out.shape)  # the places' strides are not those of the values
    if name == "constant_pad_nd":
        moved["value"] = NONE
    if name in ("expand", "repeat") and is_pooled(moved["self"]):
        return _filled(out.shape, NONE)  # all alike wherever they are
    if name == "unbind":
        return list(moved["self"].unbind(moved.get("dim", 0)))
    return getattr(torch.ops.aten, name)(**moved)


_INDICES = ("indices", "index")


def _or_none(places: Places, like: Tensor) -> Tensor:
    return places if isinstance(places, Tensor) else _filled(like.shape, NONE)


def cover(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """Convolution, pooling, resampling: a map's regular grid gives the registered grid of the result."""
    source = next(iter(named.values()))
    given = known(source)
    if not isinstance(given, Tensor):
        return given
    at = indices(plain_name(func), named, source, out)
    around = given.shape[2:] == out.shape[2:] and set(at) == {(1.0, 0.0)} and _channels_agree(given)
    if around and (not _reads_neighbours(named) or _all_distinct(given[0, 0])):
        # Each window around its own place: in any arrangement, such as Swin's windows. Zeros and copies among the entries get
        # places of their own from their neighbours, which a regular grid tells (below).
        return given[:, :1].expand(out.shape)
    planes = given.flatten(1, 2) if out.ndim == 5 else given  # frames of an image lie where the image does
    planes = planes[:1] if _channels_agree(planes.transpose(0, 1)) else planes  # and so do channels in the batch
    found = fit(planes) if out.ndim in (4, 5) else None
    if found is not None:
        if out.shape[-2:].numel() == 1:
            return _filled(out.shape, MIXED)
        return found[0].resampled(at[-2], at[-1]).places(*out.shape[-2:]).expand(out.shape)
    if not bool(finite(given).any()):
        spread = is_pooled(given) and plain_name(func) in (*NEAREST, *SMOOTH)  # all alike wherever they are
        return _filled(out.shape, MIXED if bool(torch.isinf(given.real).any()) and not spread else NONE)
    return Unknown(f"{plain_name(func)} of something that is no map")


def _reads_neighbours(named: Mapping[str, Any]) -> bool:
    weight = named.get("weight")
    size = weight.shape[2:] if isinstance(weight, Tensor) else named.get("kernel_size", ())
    return any(k > 1 for k in (size if isinstance(size, list | tuple) else [size]))


def _all_distinct(plane: Tensor) -> bool:
    rounded = torch.view_as_real(plane.resolve_conj()).reshape(-1, 2).round(decimals=9)
    return bool(finite(plane).all()) and len(rounded.unique(dim=0)) == plane.numel()


def _channels_agree(places: Tensor) -> bool:
    return places.stride(1) == 0 or torch.equal(places.nan_to_num(), places[:, :1].nan_to_num().expand(places.shape))


def across(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """Averages over neighbouring channels, as in a response norm; over a volume they have no rule."""
    given, size = known(named["self"]), list(named["kernel_size"])
    if not isinstance(given, Tensor) or size[1:] != [1, 1] or list(named.get("stride", size)) != [1, 1, 1]:
        return given if isinstance(given, Unknown) else Unknown(f"{plain_name(func)} over a volume")
    return mean(given.unfold(-3, size[0], 1), [given.ndim])[0].squeeze(-1)


def product(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """Matrix products keep the places of the operand that is contracted over entries of one place each."""
    # A token's channels lie at one place, so `tokens @ weights` stays there; `attention @ values` is contracted over tokens, which
    # differ, and takes the place of the query's row. Where neither holds (token mixing), the mean over all places is `MIXED`.
    left, right = _operands(named)
    places = _contracted(func, left, right, known, out)
    offset = None if named["self"] is left else known(named["self"])
    if offset is None or isinstance(places, Unknown):
        return places
    summands = [p.expand(out.shape) for p in (places, offset) if isinstance(p, Tensor)]
    return _merged(summands, func) if summands else offset


def _contracted(func: Any, left: Tensor, right: Tensor, known: Lookup, out: Tensor) -> Places:
    if left.ndim == 1 or right.ndim == 1:
        return Unknown(f"{plain_name(func)} of a vector")
    a, b = known(left), known(right)
    for given in (a, b):
        if isinstance(given, Unknown):
            return given
    if a is None and b is None:
        return None
    rows = mean(a, [a.ndim - 1]) if isinstance(a, Tensor) else None
    columns = mean(b, [b.ndim - 2]) if isinstance(b, Tensor) else None
    ranked = [r for r in (rows, columns) if r is not None]
    for places, differed in ranked:
        if not differed and bool(finite(places).any()):
            return places.expand(out.shape)
    for places, differed in ranked:
        if differed:
            return places.expand(out.shape)
    return ranked[0][0].expand(out.shape)


def _operands(named: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    tensors = [v for v in named.values() if isinstance(v, Tensor)]
    return tensors[-2], tensors[-1]


def attention(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """Attention: a query's place is its result's; without one the values of all places are mixed."""
    query, value = known(named["query"]), known(named["value"])
    if isinstance(query, Unknown):
        return query
    if isinstance(query, Tensor) and (not isinstance(value, Tensor) or bool(finite(query).any())):
        return query[..., :1].expand(out.shape)
    return _filled(out.shape, MIXED) if isinstance(value, Tensor) else value


def reduction(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """Sums, means and extremes lie in the middle of what they are taken over."""
    given = known(named.get("self", named.get("x")))
    if not isinstance(given, Tensor):
        return given
    dims = named.get("dim")
    if dims is None or dims == []:
        dims = list(range(given.ndim))
    dims = [d % given.ndim for d in ([dims] if isinstance(dims, int) else dims)]
    places = mean(gathered(given), dims)[0]
    fits = places.numel() == out.numel()
    return places.reshape(out.shape) if fits else Unknown(f"{plain_name(func)} to {tuple(out.shape)}")


def gated(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """One half of the entries multiplied by the other."""
    given = known(named["self"])
    return _merged(list(given.chunk(2, named.get("dim", -1))), func) if isinstance(given, Tensor) else given


def pointwise(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """Entry by entry with broadcasting, and what keeps its input's shape and places: softmax, normalisation.

    A sum with a tensor of unknown places has those of its other summand, as behind a residual branch.
    """
    inputs = [v for v in pytree.tree_leaves(list(named.values())) if isinstance(v, Tensor)]
    labelled = [(v, p) for v in inputs if (p := known(v)) is not None]
    if not labelled:
        return None
    whole = [p for v, p in labelled if v.shape == out.shape and isinstance(p, Tensor)]
    hidden = [p for v, p in labelled if v.shape == out.shape and isinstance(p, Unknown)]
    if hidden and plain_name(func) not in SUMS:
        return hidden[0]
    if len(whole) == 1:
        return _completed(whole[0], [p for _, p in labelled if isinstance(p, Tensor)], out)
    unknown = [p for _, p in labelled if isinstance(p, Unknown)]
    if whole:
        return _merged(whole, func)
    fitting = [p for v, p in labelled if isinstance(p, Tensor) and _fits(v, out)]
    if unknown or not fitting:
        return unknown[0] if unknown else Unknown(f"{plain_name(func)} changes the shape to {tuple(out.shape)}")
    return _merged([p.expand(out.shape) for p in fitting], func)


def _fits(value: Tensor, out: Tensor) -> bool:
    try:
        return torch.broadcast_shapes(value.shape, out.shape) == out.shape
    except RuntimeError:
        return False


def _completed(places: Tensor, others: list[Tensor], out: Tensor) -> Tensor:
    """`places` where they are; entries without one take that of a broadcast operand."""
    good = finite(places)
    if bool(good.all()):
        return places
    for other in others:
        if other is not places and other.ndim <= out.ndim and bool(finite(other).any()):
            places = torch.where(finite(places), places, other.expand(out.shape))
    return places


def _merged(candidates: list[Tensor], func: Any) -> Places:
    """The places of entries that are combined: those of all, or the mean of grids that are near each other."""
    first = candidates[0]
    for other in candidates[1:]:
        if other is first:
            continue
        both = finite(first) & finite(other)
        if bool(((other - first)[both].abs() > NEAR).any()):
            between = _between(first, other, both)
            if between is None:
                return Unknown(f"{plain_name(func)} combines entries of different places")
            first = between
            continue
        marked = torch.where(finite(first) | torch.isinf(first.real), first, other)
        first = torch.where(finite(other) & ~finite(first), other, marked)
    return first


def _between(first: Tensor, other: Tensor, both: Tensor) -> Tensor | None:
    """The mean of two grids that are near each other; None where they are not.

    A network that adds a map of samples at 2i to one at 2i + 1/2, or to one that was enlarged from corner to corner, does combine
    two places in one entry, as a convolution combines those of its window, and the result lies in the middle, as a convolution's
    does. The mean is also what leaves the least squared shift; what it leaves counts as an error of the module that merges.
    """
    shift = (other - first)[both]
    if bool(((shift - shift[0]).abs() < NEAR).all()) and cells(first[both]) is not None:
        return torch.where(finite(first), first, other - shift[0]) + shift[0] / 2
    a, b = fit(first), fit(other)  # maps, also with channels of several grids
    if a is None or b is None or not (a[1] and b[1]) or not a[0].is_near(b[0]):
        return None
    return (a[0].places(*first.shape[-2:]) + b[0].places(*first.shape[-2:])).expand(first.shape) / 2


def written(base: Tensor, known: Places, view: Tensor, places: Places) -> Places:
    """Places of a tensor after `places` have been written into a view of it."""
    for given in (known, places):
        if isinstance(given, Unknown):
            return given
    stored = torch.full((max(base.untyped_storage().nbytes() // base.element_size(), 1),), NONE, dtype=torch.complex128)
    layout = base.shape, base.stride(), base.storage_offset()
    if isinstance(known, Tensor):
        stored.as_strided(*layout).copy_(known)
    stored.as_strided(view.shape, view.stride(), view.storage_offset()).copy_(_or_none(places, view))
    return stored.as_strided(*layout).clone()
