"""Follow the places of entries through a forward pass, operator by operator."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lee.layers.places.labels import Given, Guess, Places, Unknown, finite, grid
from lee.layers.places.operators import rule_of
from lee.layers.places.rules import bind, plain_name, pointwise, written

_ATTRIBUTE = "_lee_places"  # on the tensor itself, so it lives exactly as long
_GUESSES = "_lee_guesses"
Note = Callable[[Sequence[Tensor], Sequence[Tensor]], None]


def places_of(value: Any) -> Places:
    """Places of a tensor's entries as far as they have been followed; None for what does not depend on the image."""
    found = getattr(value, _ATTRIBUTE, None) if isinstance(value, Tensor) else None
    return Unknown("computed from a tensor whose representation was given") if isinstance(found, Given) else found


def given_of(value: Tensor) -> Given | None:
    """The representation that was given for a tensor and can't be followed further."""
    found = getattr(value, _ATTRIBUTE, None)
    return found if isinstance(found, Given) else None


def guesses_of(value: Any) -> tuple[Guess, ...]:
    """The guesses that the places of a tensor rest on."""
    return getattr(value, _GUESSES, ())


def label(value: Tensor, places: Places | Given, guesses: tuple[Guess, ...] = ()) -> Tensor:
    """Set the places of a tensor's entries, and the guesses that they rest on."""
    setattr(value, _ATTRIBUTE, places)
    if guesses or hasattr(value, _GUESSES):
        setattr(value, _GUESSES, guesses)
    return value


def placed_image(x: Tensor) -> Tensor:
    """A copy of one image (1, C, H, W) whose entries know their places."""
    return label(x.clone().as_subclass(Tensor), grid(*x.shape[-2:]).expand(x.shape))


class Follow(TorchDispatchMode):
    """While active, every ATen operator labels its outputs with places; see :func:`placed_image` and :func:`places_of`.

    Args:
        note: Called with the tensors that an operator reads and makes, if it reads any that depend on the image.
    """

    def __init__(self, note: Note | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.note = note
        self.steered = False  # whether values of the image may have chosen what is computed, or where

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, then work out its places."""
        kwargs = kwargs or {}
        leaves = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        labelled = [v for v in leaves if places_of(v) is not None]
        # Labels sit on tensor objects, not on memory, so a write through a view has to be carried to its base by hand (below);
        # other views of that base keep their old label. They are rare, and the sum of all parts is right all the same: a wrong
        # place moves error from one layer to another, it creates none.
        before = places_of(leaves[0]) if leaves else None
        out = func(*args, **kwargs)
        outputs = [v for v in pytree.tree_leaves(out) if isinstance(v, Tensor)]
        if labelled:
            self.steered |= _steers(func, labelled, outputs)
        if labelled and outputs:
            found = _found(func, bind(func, args, kwargs), outputs)
            guesses = _open_guesses(func, labelled, found[0], outputs[0])
            for value, places in zip(outputs, found, strict=True):
                label(value, places, guesses)
            if self.note is not None:
                self.note(labelled, outputs)
            if func._schema.is_mutable and leaves[0]._base is not None and found[0] is not before:
                base = leaves[0]._base
                label(base, written(base, places_of(base), leaves[0], found[0]))
        return out


def _steers(func: Any, read: Sequence[Tensor], made: Sequence[Tensor]) -> bool:
    """Whether an operator compares or ranks values, reads what did, or hands a number to Python."""
    # The second outputs of pooling and of `max` are indices that hardly anybody reads: they count when somebody does.
    ranks = plain_name(func) in ("topk", "sort")
    return ranks or not made or not all(v.is_floating_point() or v.is_complex() for v in (*read, made[0]))


def _found(func: Any, named: Mapping[str, Any], outputs: list[Tensor]) -> list[Places]:
    """The places of each output; those of a second output are known only where the operator moves data."""
    try:
        places: Any = rule_of(func)(func, named, places_of, outputs[0])
    except Exception as error:  # a label is never worth a failed pass; the module is then counted in its parent
        places = Unknown(f"{func}: {type(error).__name__}")
    if not isinstance(places, list | tuple):
        places = [places, *(Unknown(f"a further output of {func}") for _ in outputs[1:])]
    other = Unknown(f"{func} gave places of another shape")
    return [
        p if not isinstance(p, Tensor) or p.shape == v.shape else other for p, v in zip(places, outputs, strict=True)
    ]


def _open_guesses(func: Any, labelled: list[Tensor], found: Places, out: Tensor) -> tuple[Guess, ...]:
    """The guesses that a result rests on; combining it entry by entry with a tensor that rests on none confirms them."""
    guesses = tuple(dict.fromkeys(g for v in labelled for g in guesses_of(v)))
    if not guesses or not isinstance(found, Tensor) or not bool(finite(found).any()):
        return ()
    sure = [v for v in labelled if not guesses_of(v) and v.shape == out.shape and _has_places(v)]
    if not sure or rule_of(func) is not pointwise:
        return guesses
    for guess in guesses:
        guess.confirmed = True
    return ()


def _has_places(value: Tensor) -> bool:
    places = places_of(value)
    return isinstance(places, Tensor) and bool(finite(places).any())


def follow_nothing() -> AbstractContextManager[Any]:
    """A context inside :class:`Follow` whose operators are not followed."""
    return _disable_current_modes()


def forget(value: Tensor) -> None:
    """Take the label off a tensor that lives on."""
    for name in (_ATTRIBUTE, _GUESSES):
        if hasattr(value, name):
            delattr(value, name)
