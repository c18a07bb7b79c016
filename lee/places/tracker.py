"""Follow the places of entries through a forward pass, operator by operator."""

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lee.places.labels import Given, Places, Unknown, grid
from lee.places.rules import RULES, bind, pointwise, written

_ATTRIBUTE = "_lee_places"  # on the tensor itself, so it lives exactly as long


def places_of(value: Any) -> Places:
    """Places of a tensor's entries as far as they have been followed; None for what does not depend on the image."""
    found = getattr(value, _ATTRIBUTE, None) if isinstance(value, Tensor) else None
    return Unknown("computed from a tensor whose representation was given") if isinstance(found, Given) else found


def given_of(value: Tensor) -> Given | None:
    """The representation that was given for a tensor and can't be followed further."""
    found = getattr(value, _ATTRIBUTE, None)
    return found if isinstance(found, Given) else None


def label(value: Tensor, places: Places | Given) -> Tensor:
    """Set the places of a tensor's entries."""
    setattr(value, _ATTRIBUTE, places)
    return value


def placed_image(x: Tensor) -> Tensor:
    """A copy of one image (1, C, H, W) whose entries know their places."""
    return label(x.clone(), grid(*x.shape[-2:]).expand(x.shape))


class Follow(TorchDispatchMode):
    """While active, every ATen operator labels its outputs with places."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, then work out its places."""
        kwargs = kwargs or {}
        leaves = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        labelled = any(places_of(v) is not None for v in leaves)
        before = places_of(leaves[0]) if leaves else None
        out = func(*args, **kwargs)
        if not labelled:
            return out
        named = bind(func, args, kwargs)
        rule = RULES.get(func.overloadpacket.__name__.removesuffix("_"), pointwise)
        outputs = [v for v in pytree.tree_leaves(out) if isinstance(v, Tensor)]
        try:
            found = rule(func, named, places_of, outputs[0] if outputs else out)
        except Exception as error:  # a label is never worth a failed pass; the module is then counted in its parent
            found = Unknown(f"{func}: {type(error).__name__}")
        if rule in (RULES["view"],) and isinstance(found, list | tuple):
            for value, places in zip(outputs, found, strict=True):
                label(value, places)
            return out
        for value in outputs[:1]:
            label(value, found if _fits(found, value) else Unknown(f"{func} gave places of another shape"))
        for value in outputs[1:]:
            label(value, Unknown(f"a further output of {func}"))
        if func._schema.is_mutable and leaves and leaves[0]._base is not None and found is not before:
            base = leaves[0]._base
            label(base, written(base, places_of(base), leaves[0], places_of(leaves[0])))
        return out


def _fits(places: Places, value: Tensor) -> bool:
    return not isinstance(places, Tensor) or places.shape == value.shape


def follow_nothing() -> AbstractContextManager[Any]:
    """A context inside :func:`follow` whose operators are not followed."""
    return _disable_current_modes()


def follow() -> Follow:
    """A context in which places are followed; see :func:`placed_image` and :func:`places_of`."""
    return Follow()
