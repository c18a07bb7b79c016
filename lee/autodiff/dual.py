"""Jacobian-vector products of a whole function by torch's dual numbers: one tangent after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lee.autodiff.functorch import answers, check_formula, load_formulas, writes_first
from lee.autodiff.messages import ForwardModeError, LeavesTorchError, name_of, short
from lee.autodiff.surroundings import eager
from lee.autodiff.tensor import LEAVING, has_tangents, tensors_of
from lee.process.alone import alone

#: What torch reads as a number, even where a tensor is given.
NUMBERS = frozenset({"alpha", "beta", "value", "fill_value"})
#: What makes a tensor of numbers.
FACTORIES = frozenset({"as_tensor", "full", "full_like", "new_full", "new_tensor", "scalar_tensor", "tensor"})


class _Complete(TorchFunctionMode):
    """While active, a function that forward mode can't follow is named, also where torch would pass over it in silence."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function.

        Raises:
            ForwardModeError: If torch has no formula for it, or it drops the tangents.
            LeavesTorchError: If it takes a moving value out of torch.
        """
        name, kwargs = short(name_of(func)), kwargs or {}
        moving = [t for t in tensors_of((args, kwargs)) if _tangent(t) is not None]
        if moving:
            _refuse(func, name, moving, kwargs)
        try:
            if torch.is_inference_mode_enabled():  # there, torch differentiates nothing
                with torch.inference_mode(False), torch.no_grad():
                    out = _run(func, name, args, kwargs)
            else:
                out = _run(func, name, args, kwargs)
        except (RuntimeError, NotImplementedError) as error:
            if "forward AD" in str(error):
                raise ForwardModeError(name) from error
            raise
        if moving and _drops(func, name, args, kwargs, out) and any(map(_is_moving, moving)):
            raise LeavesTorchError(name) if name in FACTORIES else ForwardModeError(name)
        return out


def _refuse(func: Any, name: str, moving: list[Tensor], kwargs: Any) -> None:
    """Functions that make something of the values which torch doesn't see.

    Raises:
        ForwardModeError: If torch's formula is missing or wrong.
        LeavesTorchError: If the values leave torch.
    """
    numbers = [v for k, v in kwargs.items() if k in NUMBERS and isinstance(v, Tensor)]
    if name == "data" and func.__name__ == "__set__" and any(map(_is_moving, moving)):
        raise ForwardModeError(name)
    check_formula(name, kwargs)
    if (name in LEAVING and any(map(_is_moving, moving))) or any(map(_is_moving, numbers)):
        raise LeavesTorchError(name)


def _run(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """The function; `detach` keeps the tangent, which belongs to the value whatever backward passes should see."""
    if name == "detach_":
        return args[0]
    if name == "detach" or (name == "data" and func.__name__ == "__get__"):
        parts = forward_ad.unpack_dual(args[0])
        if parts.tangent is not None:
            return forward_ad.make_dual(parts.primal.detach(), parts.tangent.detach())
    return func(*args, **kwargs)


def _tangent(value: Any) -> Tensor | None:
    return forward_ad.unpack_dual(value).tangent if isinstance(value, Tensor) and has_tangents(value) else None


def _is_moving(value: Tensor) -> bool:
    tangent = _tangent(value)
    return tangent is not None and bool(tangent.any())


def _drops(func: Any, name: str, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether a function of dual numbers returned something that depends on them, but has no tangent."""
    found = tensors_of([out])
    if any(v.is_quantized for v in found) or (name == "view" and not all(map(has_tangents, found))):
        return True
    silent = [has_tangents(v) and _tangent(v) is None for v in found]
    if not any(silent) or writes_first(func) or "empty" in name or kwargs.get("out") is not None:
        return False
    leaves, tree = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if _tangent(leaf) is not None]

    def run(*values: Tensor) -> list[Tensor]:
        filled = list(leaves)
        for place, value in zip(places, values, strict=True):
            filled[place] = value.clone()
        positional, named = pytree.tree_unflatten(filled, tree)
        return tensors_of([func(*positional, **named)])

    parts = [forward_ad.unpack_dual(leaves[i]) for i in places]
    changes = answers(run, [p.primal for p in parts], [p.tangent for p in parts])
    return len(changes) != len(silent) or any(a and b for a, b in zip(silent, changes, strict=True))


@contextmanager
def _followed() -> Iterator[None]:
    """Run a function on dual numbers inside; what can't be followed is named."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it has no forward-mode derivative
    try:
        with sdpa_kernel(SDPBackend.MATH), eager(), _Complete():
            yield
    except NotImplementedError as error:
        if "forward mode AD" not in str(error):
            raise
        raise ForwardModeError("a custom autograd function") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def dual_leaves(
    function: Callable[[list[Tensor]], list[Any]], primals: list[Tensor], tangents: list[Tensor]
) -> tuple[list[Any], list[Tensor | None]]:
    """A function's outputs, and their tangents along one tangent of its inputs; None where there is none.

    Raises:
        ForwardModeError: For a function that torch's forward mode can't be followed through.
    """
    load_formulas()
    with alone(), torch.inference_mode(False), torch.no_grad(), forward_ad.dual_level():
        duals = [forward_ad.make_dual(p.clone(), t.clone()) for p, t in zip(primals, tangents, strict=True)]
        with _followed():
            results = function(duals)
        parts = [forward_ad.unpack_dual(r) if isinstance(r, Tensor) else (r, None) for r in results]
        return [v.clone() if isinstance(v, Tensor) else v for v, _ in parts], [
            None if t is None else t.clone() for _, t in parts
        ]
