"""What a user's action must be: the identity at 0, of one kind at every call, and differentiable where its derivative is asked."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.functorch import load_formulas
from lee.errors import InputError, LeeError, reason
from lee.geometry.generators import Action, Generator
from lee.memory import is_shortage

#: Amounts at which an action that changes in steps will have changed; no multiples of each other, so that periods don't hide it.
_FAR = (0.37, -0.61, 1.0, 2.3, 7.9)
_STILL = "rewrite it so that nothing changes at t = 0, as under exp(0·X)."
_SMOOTH = "Let it be differentiable in t at 0, and use t as a tensor (no int(t), float(t), abs, round or detach)."

_Act = Callable[[Tensor, Tensor], Tensor]


def _real(z: Tensor) -> torch.dtype:
    return z.dtype.to_real() if z.is_complex() else z.dtype


def velocity_of(action: _Act, z: Tensor) -> Tensor:
    """`d/dt|₀ action(z, t)`, same shape as `z`."""
    load_formulas()
    zero = torch.zeros((), dtype=_real(z), device=z.device)
    _check_kept(action(z.clone(), zero), z)
    try:
        value, velocity = torch.func.jvp(lambda t: action(z.clone(), t), (zero,), (torch.ones_like(zero),))[:2]
    except Exception as error:
        if isinstance(error, LeeError) or is_shortage(error):
            raise
        raise InputError(
            f"An action (x, t) -> x runs, but can't be differentiated in t ({reason(error)}): compute it with torch functions."
        ) from error
    _check_kept(value, z)
    return velocity.detach()


def _check_kept(value: Any, z: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"An action (x, t) -> x must return a tensor; it returned {type(value).__name__}.")
    if value.shape != z.shape:
        raise InputError(
            f"An action (x, t) -> x must keep the shape {tuple(z.shape)}; it returned {tuple(value.shape)}."
        )


def acted(act: _Act, z: Tensor, t: float) -> Tensor:
    """`act(z, t)` on a copy and as a copy: an action may write into its input, or use the same memory for all its results.

    Raises:
        InputError: If it returns something else than a tensor of the same shape.
    """
    amount = torch.tensor(t, dtype=_real(z), device=z.device)
    with torch.no_grad():
        value = act(z.clone(), amount)
    _check_kept(value, z)
    return value.clone()


def check_actions(generators: Iterable[Generator | Action], x: Tensor, *, finite: bool = False) -> None:
    """Refuse an action on inputs (N, ...) that is not the identity at 0, or whose derivative there is not that of its values.

    Of `finite` motions no derivative is asked: they may go in steps, as whole pixels do, and leave torch.
    """
    for generator in {id(g): g for g in generators}.values():
        if isinstance(generator, Action):
            _check_action(generator, x[:2], finite)


def check_output_actions(generators: Iterable[Generator | Action], z: Tensor, *, finite: bool = False) -> None:
    """As :func:`check_actions` for what actions do to outputs (N, ...), which may be nothing."""
    for generator in {id(g): g for g in generators}.values():
        if isinstance(generator, Action) and generator.output is not None:
            _check_motion(f"The action {generator.name!r} on the output", generator.output, z[:2], finite)


def _check_action(generator: Action, x: Tensor, finite: bool) -> None:
    said, act = f"The action {generator.name!r}", generator.function
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    if (finite or not _changes(act, x)) and all(
        torch.equal(acted(act, noise, t), acted(act, noise, 0.0)) for t in _FAR
    ):
        raise InputError(f"{said} does not depend on t: it leaves the input as it is for every t.")
    _check_motion(said, act, x, finite)


def _changes(act: _Act, z: Tensor) -> bool:
    """Whether the action has a velocity at 0."""
    return bool(velocity_of(act, z).any())


def _check_motion(said: str, act: _Act, z: Tensor, finite: bool) -> None:
    still = acted(act, z, 0.0)
    eps, size = torch.finfo(z.dtype).eps, float(z.norm())
    if not float((still - z).norm()) <= 100 * eps**0.5 * size:  # also NaN
        raise InputError(f"{said} does not leave everything as it is at t = 0; {_STILL}")
    if not torch.equal(acted(act, z, 1e-2), acted(act, z, 1e-2)):
        raise InputError(
            f"{said} gives another result at every call; take its random numbers from a generator of its own."
        )
    for sign in (1, -1):  # a jump is as far after a thousandth part of the way
        far, near = (float((acted(act, z, sign * h) - still).norm()) for h in (1e-2, 1e-5))
        if near > max(0.5 * far, 100 * eps * size):
            raise InputError(
                f"{said} goes as far with t = {sign * 1e-5:g} as with {sign * 1e-2:g}: it jumps at 0, as by sign(t), ceil or "
                f"t > 0. {_SMOOTH}"
            )
    if not finite:
        _check_velocity(said, act, z, still)


def _check_velocity(said: str, act: _Act, z: Tensor, still: Tensor) -> None:
    velocity, eps, size = velocity_of(act, z), torch.finfo(z.dtype).eps, float(z.norm())
    steady = not bool(velocity.any()) and torch.equal(acted(act, z, 1e-3), still)  # in steps, or nothing for these
    if steady and any(not torch.equal(acted(act, z, t), still) for t in (1e-2, *_FAR)):
        raise InputError(
            f"{said} does not change with t near 0, but further away, as by int(t), round or floor. {_SMOOTH}"
        )
    slopes = [(acted(act, z, h) - acted(act, z, -h)) / (2 * h) for h in (1e-2, 1e-3)]
    sides = [[(acted(act, z, h) - still) / h for h in (sign * 1e-2, sign * 1e-3)] for sign in (1, -1)]
    for (far_slope, slope), what in (
        (slopes, "differences give"),
        *((side, "differences to one side give") for side in sides),
    ):
        gap, far_gap = (float((s - velocity).norm()) for s in (slope, far_slope))
        # Stairs have no velocity, and their differences are the noisier the nearer; what bends is nearer to its velocity.
        stairs = not bool(velocity.any()) and gap > far_gap
        noise_of = (0.0 if stairs else float((far_slope - slope).norm())) + eps / 1e-3 * size
        if not gap <= 0.01 * float(slope.norm()) + 3 * noise_of:
            raise InputError(
                f"{said} changes with t as torch's derivative of it does not say: at t = 0 that has norm "
                f"{float(velocity.norm()):.3g}, {what} {float(slope.norm()):.3g}. {_SMOOTH}"
            )
