"""Jacobian-vector products of a whole function: stacked where possible, by dual numbers where not."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._ops import OpOverloadPacket
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lee.errors import LeeError
from lee.stacked.convolution import workspace
from lee.stacked.tensor import ForwardModeError, Stacked, load_formulas, name_of, note_fallback


class _Complete(TorchFunctionMode):
    """While active, a function without a forward-mode derivative is named, also where torch would pass over it in silence."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function.

        Raises:
            ForwardModeError: If torch has no formula for it, or it is a foreign operator that drops the tangents.
        """
        try:
            out = func(*args, **(kwargs or {}))
        except (RuntimeError, NotImplementedError) as error:
            if "forward AD" in str(error):
                raise ForwardModeError(name_of(func)) from error
            raise
        if _is_foreign(func) and any(map(_is_dual, _leaves((args, kwargs)))) and not all(map(_is_dual, _leaves(out))):
            raise ForwardModeError(str(func))
        return out


@contextmanager
def _followed() -> Iterator[None]:
    """Run a function on dual numbers inside; what can't be followed is named."""
    try:
        with sdpa_kernel(SDPBackend.MATH), _Complete(), _eager():
            yield
    except NotImplementedError as error:
        if "forward mode AD" not in str(error):
            raise
        raise ForwardModeError("a custom autograd function") from error


def _is_foreign(func: Any) -> bool:
    """Whether a function is an operator of another library, such as torchvision's."""
    return isinstance(func, OpOverloadPacket) and not func._qualified_op_name.startswith(("aten::", "prims::"))


def _leaves(value: Any) -> list[Tensor]:
    return [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor) and v.dtype.is_floating_point]


def _is_dual(value: Tensor) -> bool:
    return forward_ad.unpack_dual(value).tangent is not None


@contextmanager
def _eager() -> Iterator[None]:
    """Run what `torch.compile` made as plain Python: the compiler can't look into stacked tensors and dual numbers."""
    if "torch._dynamo" not in sys.modules:  # so nothing is compiled, and its import is slow
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def by_dual_numbers(function: Callable[[Tensor], Any], x: Tensor, tangents: Tensor) -> tuple[Any, Tensor | None]:
    """One tangent after the other with torch's dual numbers: slow, but takes everything that torch can differentiate.

    Raises:
        ForwardModeError: For a function that torch's forward mode can't be followed through.
    """
    load_formulas()
    lanes, value = [], None
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it has no forward-mode derivative
    try:
        for tangent in tangents:
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(x.clone(), tangent.contiguous())
                with _followed():
                    result = function(dual)
                if not isinstance(result, Tensor):
                    return result, None
                value, lane = forward_ad.unpack_dual(result)
                if lane is None:
                    return value, None
                value, lane = value.clone(), lane.clone()
            lanes.append(lane)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return value, torch.stack(lanes)


def pushforward(function: Callable[[Tensor], Any], x: Tensor, tangents: Tensor) -> tuple[Any, Tensor | None]:
    """`f(x)` and the Jacobian-vector products `J_f(x)·v_k` of K tangents, in one pass.

    Args:
        function: Any torch function of one tensor.
        x: Primal, (N, ...).
        tangents: Tangents, (K, N, ...).

    Returns:
        The output, and its tangents `(K, *output.shape)`; None in their place if the output is not a tensor, or does not
        depend on `x`.

    Examples:
        >>> value, lanes = pushforward(torch.relu, torch.tensor([[-1.0, 2.0]]), torch.ones(1, 1, 2))
        >>> lanes.tolist()
        [[[0.0, 1.0]]]
    """
    with torch.no_grad():
        try:
            with sdpa_kernel(SDPBackend.MATH), workspace(x), _eager():
                result = function(Stacked(torch.cat([x[None], tangents])))
                if isinstance(result, Stacked):
                    return result.buffer[0], result.buffer[1:]
                return result, None
        except (torch.OutOfMemoryError, LeeError):
            raise
        except Exception as error:  # the function itself decides: it runs again, on dual numbers
            note_fallback(f"whole function ({type(error).__name__}: {error})")
        return by_dual_numbers(function, x, tangents)


def push_leaves(
    function: Callable[[list[Tensor]], list[Tensor]], primals: list[Tensor], tangents: list[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Like :func:`pushforward` for a function of several tensors with several outputs.

    Args:
        function: Takes a list of tensors and returns one.
        primals: The inputs, each (N, ...).
        tangents: One (K, N, ...) per input.

    Returns:
        The outputs, and the tangents of each, `(K, *output.shape)`; None where an output does not depend on the inputs.
    """
    with torch.no_grad():
        try:
            with sdpa_kernel(SDPBackend.MATH), _eager():
                stacks = [Stacked(torch.cat([p[None], t])) for p, t in zip(primals, tangents, strict=True)]
                results = function(list(stacks))
                return (
                    [r.buffer[0] if isinstance(r, Stacked) else r for r in results],
                    [r.buffer[1:] if isinstance(r, Stacked) else None for r in results],
                )
        except (torch.OutOfMemoryError, LeeError):
            raise
        except Exception as error:
            note_fallback(f"whole function ({type(error).__name__}: {error})")
        lanes = [_dual_leaves(function, primals, [t[k] for t in tangents]) for k in range(len(tangents[0]))]
    values = lanes[0][0]
    moved = [[lane[1][i] for lane in lanes] for i in range(len(values))]
    return values, [
        None if all(m is None for m in ms) else torch.stack([m if m is not None else torch.zeros_like(v) for m in ms])
        for v, ms in zip(values, moved, strict=True)
    ]


def _dual_leaves(
    function: Callable[[list[Tensor]], list[Tensor]], primals: list[Tensor], tangents: list[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    load_formulas()
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(p.clone(), t.contiguous()) for p, t in zip(primals, tangents, strict=True)]
        with _followed():
            results = function(duals)
        parts = [forward_ad.unpack_dual(r) for r in results]
        return [p.primal.clone() for p in parts], [None if p.tangent is None else p.tangent.clone() for p in parts]
