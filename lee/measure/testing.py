r"""Assertions for tests: a function commutes with a finite transformation, within a tolerance.

The Lie derivative measures how far a function is from equivariance under small motions. Where a network is built to
commute with a transformation exactly, a test should say so, and say by how much it fails:

.. math::
    \delta(f, g) = \max |f(\rho_{in}(g)\, x) - \rho_{out}(g)\, f(x)| \,/\, \max |f(x)|.

A constant that is added to `f` makes this smaller, and `f` no more equivariant. So an assertion also asks how large the difference
is beside how far the outputs of different images are apart, unless it is rounding.

The idea of shipping such an assertion is e3nn's (M. Geiger & T. Smidt, e3nn: Euclidean Neural Networks, 2022).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lee.errors import InputError
from lee.measure.function import untouched

Map = Callable[[Tensor], Tensor]
#: Up to how many units in the last place of the largest output a difference counts as rounding.
ROUNDING = 100


def equivariance_deviation(function: Map, x: Tensor, action: Map, output_action: Map | None = None) -> float:
    """Return `max |f(g x) - g f(x)| / max |f(x)|` over a batch.

    Args:
        function: `f`: a module (run in eval mode and left as it was) or a function of one tensor.
        x: inputs (N, ...).
        action: how the transformation acts on inputs.
        output_action: how it acts on outputs; None if it leaves them alone, which makes `f` invariant.

    Raises:
        InputError: an output that isn't finite, is zero everywhere or doesn't depend on the input (a single one is compared
            with noise), so that the figure would mean nothing; outputs of different shapes; or what returns no tensor.
    """
    return _differences(function, x, action, output_action)[0]


def _differences(function: Map, x: Tensor, action: Map, output_action: Map | None) -> tuple[float, float]:
    """`max |f(g x) - g f(x)|` relative to `max |f(x)|`, and to how far images' outputs are apart; there zero if rounding."""
    with untouched(function), torch.no_grad():
        value = _tensor("f", function(x.clone())).clone()
        moved = _tensor("f", function(_tensor("action", action(x.clone())).clone())).clone()
        others = value[1:] if len(value) > 1 else _tensor("f", function(_noise(x)))
    wanted = value if output_action is None else _tensor("output_action", output_action(value.clone()))
    if moved.shape != wanted.shape:
        raise InputError(
            f"f(g x) has the shape {tuple(moved.shape)} and g f(x) the shape {tuple(wanted.shape)}; "
            "check how the transformation acts on outputs."
        )
    if not (torch.isfinite(value).all() and torch.isfinite(moved).all()):
        raise InputError("The output contains NaN or infinity, so it can't be compared.")
    gap, size, apart = (float(v.abs().max()) for v in (moved - wanted, value, others - value[:1]))
    if size == 0 or apart == 0:
        raise InputError(
            "The output is the same for all inputs: that is equivariant for no good reason. Use other inputs."
        )
    rounding = ROUNDING * torch.finfo(value.dtype).eps * size
    return gap / size, gap / apart if gap > rounding else 0.0


def _noise(x: Tensor) -> Tensor:
    """What tells a single input apart: noise in its range."""
    low, high = x.amin(), x.amax()
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return low + torch.where(high > low, high - low, 1) * noise


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        told = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"`{name}` must return a tensor of floating-point numbers; it returned {told}.")
    return value


def assert_equivariant(
    function: Map, x: Tensor, action: Map, output_action: Map | None = None, *, tolerance: float = 1e-5
) -> float:
    """Assert that `f(g x) = g f(x)` up to `tolerance` times the largest output; return the deviation.

    Beyond rounding the difference must be as small beside how far the outputs of different inputs are apart: most of an output may
    be a constant.

    Args:
        function: As for :func:`equivariance_deviation`, and so are the next three.
        x: inputs (N, ...).
        action: how the transformation acts on inputs.
        output_action: how it acts on outputs; None for an invariant function.
        tolerance: the largest deviation that passes.

    Raises:
        AssertionError: The deviation is larger; the message gives both figures.
        InputError: As for :func:`equivariance_deviation`.

    >>> blur = torch.nn.AvgPool2d(3, 1, 1)
    >>> x = torch.rand(2, 1, 8, 8)
    >>> turn = lambda z: z.rot90(1, (2, 3))
    >>> assert_equivariant(blur, x, turn, turn) < 1e-6
    True
    """
    deviation, beside = _differences(function, x, action, output_action)
    if not max(deviation, beside) <= tolerance:
        kind = "invariant" if output_action is None else "equivariant"
        name = type(function).__name__ if isinstance(function, torch.nn.Module) else "The function"
        apart = f", {beside:.2e} of how far outputs are apart" if deviation <= tolerance else ""
        raise AssertionError(
            f"{name} is not {kind}: it deviates by {deviation:.2e} of its largest output{apart}; {tolerance:.0e} was allowed."
        )
    return deviation


def assert_invariant(function: Map, x: Tensor, action: Map, *, tolerance: float = 1e-5) -> float:
    """Assert that `f(g x) = f(x)`: :func:`assert_equivariant` with an output that stays as it is.

    Args:
        function: a module or a function of one tensor.
        x: inputs (N, ...).
        action: how the transformation acts on inputs.
        tolerance: the largest deviation that passes.

    Raises:
        AssertionError: The deviation is larger; the message gives both figures.
        InputError: As for :func:`equivariance_deviation`.
    """
    return assert_equivariant(function, x, action, tolerance=tolerance)
