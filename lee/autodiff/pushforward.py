"""Jacobian-vector products of a whole function: stacked where possible, by dual numbers where not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.dual import dual_leaves
from lee.autodiff.messages import ForwardModeError, note_fallback
from lee.autodiff.surroundings import random_state, stacked_pass
from lee.autodiff.tensor import Stacked
from lee.autodiff.weights import workspace
from lee.errors import LeeError, reason
from lee.memory import is_shortage
from lee.process.alone import alone


def pushforward(function: Callable[[Tensor], Any], x: Tensor, tangents: Tensor) -> tuple[Any, Tensor | None]:
    """`f(x)` and the Jacobian-vector products `J_f(x)·v_k` of K tangents, in one pass.

    Args:
        function: Any torch function of one tensor.
        x: Primal, (N, ...).
        tangents: Tangents, (K, N, ...).

    Returns:
        The output, and `(K, *output.shape)`; None in its place if the output does not depend on the input, and whatever
        the function returned if it is not a tensor (without tangents).

    Raises:
        ForwardModeError: If torch has no forward-mode derivative of a function that is used.
        LeavesTorchError: If a value that moves with the input leaves torch.

    Examples:
        >>> value, lanes = pushforward(torch.relu, torch.tensor([[-1.0, 2.0]]), torch.ones(1, 1, 2))
        >>> lanes.tolist()
        [[[0.0, 1.0]]]
    """
    with workspace(x):
        (value,), (lanes,) = push_leaves(lambda values: [function(values[0])], [x], [tangents])
    return value, lanes


def by_dual_numbers(function: Callable[[Tensor], Any], x: Tensor, tangents: Tensor) -> tuple[Any, Tensor | None]:
    """One tangent after the other with torch's dual numbers: slow, but takes everything that torch can differentiate.

    Args:
        function: Any torch function of one tensor.
        x: Primal, (N, ...).
        tangents: Tangents, (K, N, ...).

    Raises:
        ForwardModeError: For a function that torch's forward mode can't be followed through.
        LeavesTorchError: If a value that moves with the input leaves torch.
    """
    (value,), (lanes,) = _by_dual_leaves(lambda values: [function(values[0])], [x], [tangents])
    return value, lanes


def push_leaves(
    function: Callable[[list[Tensor]], list[Any]],
    primals: list[Tensor],
    tangents: list[Tensor],
    *,
    fallback: bool = True,
) -> tuple[list[Any], list[Tensor | None]]:
    """Like :func:`pushforward` for a function of several tensors with several outputs.

    Args:
        function: Takes a list of tensors and returns one.
        primals: The inputs, each (N, ...).
        tangents: One (K, N, ...) per input.
        fallback: Whether to run it on dual numbers where a stacked pass fails; otherwise that error is raised.

    Returns:
        The outputs, and the tangents of each, `(K, *output.shape)`; None where an output does not depend on the inputs.
    """
    restart = random_state(primals[0].device)
    try:
        with alone(), stacked_pass():
            stacks = [Stacked(torch.cat([p[None], t])) for p, t in zip(primals, tangents, strict=True)]
            results = function(list(stacks))
            return (
                [r.buffer[0] if isinstance(r, Stacked) else r for r in results],
                [r.buffer[1:] if isinstance(r, Stacked) else None for r in results],
            )
    except Exception as error:  # the function itself decides: it runs again, on dual numbers
        if not fallback or isinstance(error, LeeError) or is_shortage(error):
            raise
        note_fallback(f"whole function ({type(error).__name__}: {error})")
    restart()
    return _by_dual_leaves(function, primals, tangents)


def _by_dual_leaves(
    function: Callable[[list[Tensor]], list[Any]], primals: list[Tensor], tangents: list[Tensor]
) -> tuple[list[Any], list[Tensor | None]]:
    restart, lanes = random_state(primals[0].device), []
    try:
        for tangent in zip(*tangents, strict=True):
            restart()
            lanes.append(dual_leaves(function, primals, list(tangent)))
    except Exception as error:
        if isinstance(error, LeeError) or is_shortage(error):
            raise
        restart()
        with torch.no_grad():
            function([p.clone() for p in primals])  # if this fails too, it is the function's own error
        raise ForwardModeError(f"the function ({reason(error)})") from error
    values = lanes[0][0]
    moved = [[lane[1][i] for lane in lanes] for i in range(len(values))]
    return values, [
        None if all(m is None for m in ms) else torch.stack([torch.zeros_like(v) if m is None else m for m in ms])
        for v, ms in zip(values, moved, strict=True)
    ]
