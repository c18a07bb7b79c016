"""Jacobian-vector products where torch has no forward mode: by backward passes, and by differences of the function itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.messages import ForwardModeError, LeavesTorchError, note_fallback
from lee.autodiff.pushforward import pushforward
from lee.autodiff.surroundings import gradients
from lee.errors import InputError
from lee.memory import retold

MODES = ("auto", "forward", "reverse", "differences")
Pushed = tuple[Any, Tensor | None]


def pushed(function: Callable[[Tensor], Any], x: Tensor, tangents: Tensor, mode: str = "auto") -> Pushed:
    """As :func:`lee.autodiff.pushforward`, in one of these modes.

    - `"forward"`: stacked forward mode, exact;
    - `"reverse"`: one backward pass per entry of an image's output, exact;
    - `"differences"`: central differences; the step moves an image by 1e-6 of its norm in double precision, 3e-3 in single;
    - `"auto"`: forward, and reverse where torch has no forward-mode derivative of something in the function; differences where
      values leave torch.

    Raises:
        ForwardModeError: In mode `"forward"`, where torch has no formula.
        InputError: If there is no backward pass where one is needed.
    """
    if mode in ("reverse", "differences"):
        return (by_backward if mode == "reverse" else by_differences)(function, x, tangents)
    try:
        return pushforward(function, x, tangents)
    except LeavesTorchError:  # a backward pass can't follow either
        if mode == "forward":
            raise
        return by_differences(function, x, tangents)
    except ForwardModeError as error:
        if mode == "forward":
            raise
        note_fallback(f"whole function by backward passes ({error})")
    return by_backward(function, x, tangents)


def by_backward(function: Callable[[Tensor], Any], x: Tensor, tangents: Tensor) -> Pushed:
    """`f(x)` and `J_f(x)·v_k` by one backward pass per entry of an image's output: exact, and the same for any number of tangents.

    As :func:`lee.autodiff.pushforward`, but the output for an image must depend on that image alone.

    Raises:
        InputError: If the function has no backward pass either.

    Examples:
        >>> by_backward(torch.square, torch.tensor([[3.0]]), torch.ones(1, 1, 1))[1].tolist()
        [[[6.0]]]
    """
    with gradients():
        leaf = x.detach().clone().requires_grad_()
        value = function(leaf.clone())  # the function may write into it
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value, None
        if value.ndim == 0 or len(value) != len(x):
            return value.detach(), torch.zeros_like(value.detach())[None]  # the caller refuses the shape
        entries = value.reshape(len(x), -1).unbind(1)
        columns = [_gradient(e.sum(), leaf, "Use mode='differences', in double precision.") for e in entries]
    moved = [torch.einsum("knd,nd->kn", tangents.flatten(2), c.flatten(1)) for c in columns]
    return value.detach(), torch.stack(moved, -1).reshape(len(tangents), *value.shape)


def pullback(function: Callable[[Tensor], Any], x: Tensor, cotangents: Tensor) -> Tensor:
    """`J_f(x)ᵀ w_k` of K cotangents, by one pass with gradients and K backward passes.

    Args:
        function: Any torch function of one tensor.
        x: Primal, (N, ...).
        cotangents: `(K, *output.shape)`; inner products of complex ones are real parts.

    Returns:
        Shape (K, N, ...).

    Raises:
        InputError: If the function has no backward pass, or its output depends on `x` in no way that one can follow.

    Examples:
        >>> pullback(torch.square, torch.tensor([[3.0]]), torch.ones(1, 1, 1)).tolist()
        [[[6.0]]]
    """
    with gradients():
        leaf = x.detach().clone().requires_grad_()
        with retold(InputError, "The model fails where gradients are switched on ({}). They are needed here."):
            value = function(leaf.clone())
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise InputError("The model's output depends on its input in no way that a backward pass can follow.")
        sums = [(value * w.conj()).real.sum() if value.is_complex() else (value * w).sum() for w in cotangents]
        return torch.stack([_gradient(s, leaf, "It is needed here.") for s in sums])


def _gradient(entry: Tensor, leaf: Tensor, advice: str) -> Tensor:
    with retold(InputError, "The model has no backward pass ({}). " + advice):
        (gradient,) = torch.autograd.grad(entry, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient


def by_differences(
    function: Callable[[Tensor], Any],
    x: Tensor,
    tangents: Tensor,
    relative: float | None = None,
    *,
    jointly: bool = False,
) -> Pushed:
    r"""`f(x)` and :math:`(f(x + h v_k) - f(x - h v_k)) / 2h`, which asks nothing of the function but its values.

    The step moves an image by :math:`\epsilon^{3/8}` of its norm, `ε` the precision of the input or of the output, whichever is
    coarser (an engine in single precision may be fed with double): a millionth in double precision, where the error is of
    that size too, and 0.3 % in single precision, where it is some per cent for networks with kinks such as ReLU.

    Args:
        function: Any function of one tensor; it may write into its input, and use the same memory for all its outputs.
        x: Primal, (N, ...).
        tangents: Tangents, (K, N, ...).
        relative: Another step, relative to the norm of an image.
        jointly: Whether all images are moved by the same `h`, as they must be where they interact.

    Returns:
        As :func:`lee.autodiff.pushforward`.

    Examples:
        >>> x = torch.tensor([[3.0]], dtype=torch.float64)
        >>> round(by_differences(torch.square, x, torch.ones_like(x)[None])[1].item(), 6)
        6.0
    """
    with torch.no_grad():
        value = function(x.clone())
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            return value, None
        value = value.clone()
        eps = max(torch.finfo(x.dtype).eps, torch.finfo(value.dtype).eps)
        step = (eps**0.375 if relative is None else relative) * _sizes(x)
        lanes = []
        for tangent in tangents:
            size = tangent.flatten(1).norm(dim=1)
            h = torch.where(size > 0, step / size, 1)
            h = h.amin().expand_as(h) if jointly else h
            by = h.reshape(-1, *[1] * (x.ndim - 1)) * tangent
            difference = function(x + by).clone() - function(x - by)
            wide = (2 * h).reshape(-1, *[1] * (difference.ndim - 1)).to(difference.dtype)
            lanes.append(difference / wide if len(difference) == len(x) else difference)
    return value, torch.stack(lanes)


def _sizes(x: Tensor) -> Tensor:
    """Norms of images (N, ...); of black ones a small number."""
    sizes = x.flatten(1).norm(dim=1)
    return torch.where(sizes > 0, sizes, 1e-3)
