r"""The two terms of a Lie derivative, `J_f(x)·(X·x)` and `X·f(x)`, for many generators at once.

No warp is differentiated: one spatial gradient of the image gives all the tangents `X_k·x`, and one stacked forward pass
(:mod:`lee.autodiff`) pushes them through the model.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lee.autodiff.functorch import load_formulas
from lee.errors import InputError, LeeError, OutputWarning, check_known, reason
from lee.geometry.generators import Action, Generator
from lee.geometry.interpolation import KERNELS
from lee.geometry.outputs import Representations, of_output
from lee.geometry.representations import Image, Map, Trivial
from lee.geometry.sampling import Sampler
from lee.measure.judgement import ZERO
from lee.measure.pushing import Pushing
from lee.measure.reference import norms
from lee.measure.warned import warn_of_constant
from lee.memory import is_shortage

#: Amounts at which an action that changes in steps will have changed; no multiples of each other, so that periods don't hide it.
_FAR = (0.37, -0.61, 1.0, 2.3, 7.9)
_STILL = "rewrite it so that nothing changes at t = 0, as under exp(0·X)."
_SMOOTH = "Let it be differentiable in t at 0, and use t as a tensor (no int(t), float(t), abs, round or detach)."


def sampler_of(x: Tensor, kernel: str, boundary: str, align_corners: bool) -> Sampler:
    """The sampler of inputs `x` (N, ...), with the field of view of images."""
    check_known("kernel", kernel, KERNELS)
    sampler = Sampler(kernel, boundary, align_corners)
    return sampler.for_image(*x.shape[-2:]) if x.ndim == 4 else sampler


_Act = Callable[[Tensor, Tensor], Tensor]


def _real(z: Tensor) -> torch.dtype:
    return z.dtype.to_real() if z.is_complex() else z.dtype


def _velocity(action: _Act, z: Tensor) -> Tensor:
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


def infinitesimal_actions(generators: Sequence[Generator | Action], x: Tensor, sampler: Sampler) -> Tensor:
    """`X_k·x` of K generators on a batch of inputs (N, ...): shape (K, N, ...).

    Args:
        generators: K generators or actions.
        x: Inputs (N, C, H, W); for actions any (N, ...).
        sampler: How samples stand for a continuous image.
    """
    named = [g for g in generators if isinstance(g, Generator)]
    moved = iter(Image().infinitesimal(named, x, sampler)) if named else iter(())
    return torch.stack([next(moved) if isinstance(g, Generator) else _velocity(g.function, x) for g in generators])


def _actions_on_output(
    generators: Sequence[Generator | Action], z: Tensor, x: Tensor, sampler: Sampler, given: Representations
) -> Tensor | None:
    """`X_k·f(x)`: shape (K, N, ...); None where every one is zero."""
    named = [g for g in generators if isinstance(g, Generator)]
    representation = of_output(z, x, given) if named else Trivial()
    if given is None and isinstance(representation, Image) and any(not g.is_spatial for g in named):
        warnings.warn(
            "The output has the shape of the image, so colours are taken to change on it as they do on the image; say "
            "representations='image' to confirm it, or 'map' where its channels are no colours, such as scores of classes.",
            OutputWarning,
            stacklevel=2,
        )
    turning = any(any(map(any, g.matrix)) for g in named)
    if given is None and type(representation) is Map and z.shape[1] == 2 and turning:
        warnings.warn(
            "The output's two channels are taken for maps of scores; say representations='map' to confirm it, or 'vector' where "
            "they are the components of one, such as a flow, which turn with the image.",
            OutputWarning,
            stacklevel=2,
        )
    if isinstance(representation, Trivial) and all(not isinstance(g, Action) or g.output is None for g in generators):
        return None
    moved = iter(representation.infinitesimal(named, z, sampler)) if named else iter(())
    parts = []
    for generator in generators:
        if isinstance(generator, Generator):
            parts.append(next(moved))
        else:
            parts.append(torch.zeros_like(z) if generator.output is None else _velocity(generator.output, z))
    return torch.stack(parts)


@dataclass
class Terms:
    """The terms of Lie derivatives of one function, chunk by chunk.

    Args:
        pushing: The function, and how it is differentiated.
        generators: K of them.
        sampler: Kernel, boundary and pixel convention, with the images' field of view.
        representations: How the output transforms, where given.
    """

    pushing: Pushing
    generators: Sequence[Generator | Action]
    sampler: Sampler
    representations: Representations
    _checked: bool = field(default=False, repr=False)
    _asked: bool = field(default=False, repr=False)

    def tangents(self, x: Tensor) -> Tensor:
        """`X_k·x`: shape (K, N, ...)."""
        return infinitesimal_actions(self.generators, x, self.sampler)

    def start(self, x: Tensor) -> None:
        """Check the user's actions and the function on the first images; nothing the second time."""
        if not self.pushing.started:
            check_actions(self.generators, x)
        self.pushing.start(x, self.tangents)

    def explain(self, error: Exception, x: Tensor) -> None:
        """Say in a sentence why the calls of these images can't be followed, unless it is the model's own complaint.

        Raises:
            LeeError: If it is to be seen from the function as a whole, or that runs.
        """
        if isinstance(error, LeeError) or is_shortage(error):
            return
        try:
            self.start(x)
            self.pushing.function.value(x[:1])
        except LeeError:
            raise
        except Exception:  # the model's own complaint, which is known already
            return
        raise InputError(
            f"The model runs, but its tensors can't be followed from call to call ({reason(error)}), so the layers can't be told "
            "apart. Measure the whole model with lee.local_equivariance_error."
        ) from error

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The output (N, ...) of one chunk, `J_f(x)·(X_k·x)` and `X_k·f(x)`, (K, N, ...) each; the last is None if zero."""
        tangents = self.tangents(x)
        value, lanes = self.pushing(x, tangents)
        if not self._checked:
            check_output_actions(self.generators, value)
            self._checked = True
        still = not bool(lanes.any()) or (self.doubtful and not self._asked)
        if still and bool(tangents.any()):
            self._warn_if_constant(x)
        return value, lanes, _actions_on_output(self.generators, value, x, self.sampler, self.representations)

    def derivatives(self, x: Tensor) -> Tensor:
        """`L_k f(x)` of one chunk: shape (K, N, ...)."""
        _, lanes, moved = self(x)
        found = lanes if moved is None else lanes - moved
        self.pushing.decide(x, self.tangents, found, moved)
        return found

    @property
    def doubtful(self) -> bool:
        """Whether the derivative was zero, up to rounding, where it was checked."""
        verification = self.pushing.verification
        return verification is not None and ZERO in verification.note

    def nothing(self, x: Tensor) -> Tensor:
        """Whose Lie derivatives are what rounding leaves of zero, (n,), see :func:`is_rounding`."""

        def derive(z: Tensor) -> Tensor:
            _, lanes, moved = self(z)
            return lanes if moved is None else lanes - moved

        return is_rounding(derive, x)

    def _warn_if_constant(self, x: Tensor) -> None:
        """Tell an exactly invariant model from one that ignores its input, by its derivative in a random direction."""
        self._asked = self._asked or self.doubtful
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        if bool(is_rounding(lambda z: self.pushing(z, direction[None])[1], x).all()):
            warn_of_constant()


def is_rounding(derive: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Whose derivatives (K, n, ...) of images (n, ...) are what rounding leaves of zero, (n,).

    They are others once the last digits of an image are. How large they are says little: what cancelled inside is not known.
    """
    first = derive(x)
    if not bool(first.any()):
        return torch.ones(len(x), dtype=torch.bool)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).to(x)
    second = derive(x * (1 + 8 * torch.finfo(x.dtype).eps * noise))
    gaps, *sizes = (norms(lanes.transpose(0, 1)) for lanes in (first - second, first, second))
    return ~(gaps < 0.3 * torch.maximum(*sizes))


def check_actions(generators: Iterable[Generator | Action], x: Tensor) -> None:
    """Refuse an action on inputs (N, ...) that is not the identity at 0, or whose derivative there is not that of its values."""
    for generator in {id(g): g for g in generators}.values():
        if isinstance(generator, Action):
            _check_action(generator, x[:2])


def check_output_actions(generators: Iterable[Generator | Action], z: Tensor) -> None:
    """As :func:`check_actions` for what actions do to outputs (N, ...), which may be nothing."""
    for generator in {id(g): g for g in generators}.values():
        if isinstance(generator, Action) and generator.output is not None:
            _check_motion(f"The action {generator.name!r} on the output", generator.output, z[:2])


def _check_action(generator: Action, x: Tensor) -> None:
    said, act = f"The action {generator.name!r}", generator.function
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    if not _changes(act, x) and all(torch.equal(acted(act, noise, t), acted(act, noise, 0.0)) for t in _FAR):
        raise InputError(f"{said} does not depend on t: it leaves the input as it is for every t.")
    _check_motion(said, act, x)


def _changes(act: _Act, z: Tensor) -> bool:
    """Whether the action has a velocity at 0."""
    return bool(_velocity(act, z).any())


def _check_motion(said: str, act: _Act, z: Tensor) -> None:
    velocity, still = _velocity(act, z), acted(act, z, 0.0)
    eps, size = torch.finfo(z.dtype).eps, float(z.norm())
    if not float((still - z).norm()) <= 100 * eps**0.5 * size:  # also NaN
        raise InputError(f"{said} does not leave everything as it is at t = 0; {_STILL}")
    if not torch.equal(acted(act, z, 1e-2), acted(act, z, 1e-2)):
        raise InputError(
            f"{said} gives another result at every call; take its random numbers from a generator of its own."
        )
    steady = not bool(velocity.any()) and torch.equal(acted(act, z, 1e-3), still)  # in steps, or nothing for these
    if steady and any(not torch.equal(acted(act, z, t), still) for t in (1e-2, *_FAR)):
        raise InputError(
            f"{said} does not change with t near 0, but further away, as by int(t), round or floor. {_SMOOTH}"
        )
    for sign in (1, -1):  # a jump is as far after a thousandth part of the way
        far, near = (float((acted(act, z, sign * h) - still).norm()) for h in (1e-2, 1e-5))
        if near > max(0.5 * far, 100 * eps * size):
            raise InputError(
                f"{said} goes as far with t = {sign * 1e-5:g} as with {sign * 1e-2:g}: it jumps at 0, as by sign(t), ceil or "
                f"t > 0. {_SMOOTH}"
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
