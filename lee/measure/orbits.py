r"""Along the orbit of an image: what an output does under finite motions, and what its derivative says of them.

The output, moved back, is a curve with the Lie derivative as its velocity at 0:

.. math:: c(t) = \rho_{out}(g_t^{-1})\, f(\rho_{in}(g_t)\, x), \qquad c(t) - c(0) = \int_0^t \dot c(s)\, ds .

For an equivariant model it stands still.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lee import memory
from lee.autodiff import workspace
from lee.autodiff.alternatives import MODES
from lee.autodiff.functorch import load_formulas
from lee.errors import InputError, check_known
from lee.geometry.generators import Action, AnyGenerator, Generator, get
from lee.geometry.outputs import Representations, of_output
from lee.geometry.representations import Image, Trivial
from lee.geometry.sampling import Sampler
from lee.measure.actions import check_actions, check_output_actions
from lee.measure.checks import Output, check_input, check_output_name
from lee.measure.derivative import Model, chunks
from lee.measure.function import one_function
from lee.measure.looking import warn_if_constant
from lee.measure.pushing import Pushing
from lee.measure.terms import infinitesimal_actions, sampler_of
from lee.statistics import Verification

HALVINGS = 12  # of the interval in which the class flips


@dataclass(frozen=True, eq=False)
class Orbit:
    """A model's output along the orbit of one image.

    Args:
        t: Amounts, ascending, with 0 among them, (T,), float64.
        outputs: The outputs, moved back: `c(t)`, (T, ...).
        derivatives: Their velocity `dc/dt`, (T, ...); at 0 the Lie derivative.
        flips: The negative and the positive amount at which the class first differs from that at 0, -inf and inf where it
            doesn't; None for an output that is not class scores.
        generator: Name of the generator.
        unit: Unit of the amounts.
        verification: What was checked of the derivative at 0; None where nothing was.
    """

    t: Tensor
    outputs: Tensor
    derivatives: Tensor
    flips: tuple[float, float] | None
    generator: str
    unit: str
    verification: Verification | None = None

    @property
    def start(self) -> int:
        """Index of the amount 0."""
        return int(self.t.abs().argmin())

    @property
    def differences(self) -> Tensor:
        """`c(t) - c(0)`, (T, ...)."""
        return self.outputs - self.outputs[self.start]

    @property
    def integrals(self) -> Tensor:
        """The derivative integrated from 0 to every amount by Simpson's rule, (T, ...), float64.

        It is what :attr:`differences` are, up to the steps between the amounts.
        """
        from scipy.integrate import cumulative_simpson

        whole = self.derivatives.cpu().to(torch.complex128 if self.derivatives.is_complex() else torch.float64)
        values = (torch.view_as_real(whole) if whole.is_complex() else whole).numpy()
        summed = torch.from_numpy(cumulative_simpson(values, x=self.t.numpy(), axis=0, initial=0.0))
        summed = torch.view_as_complex(summed.contiguous()) if whole.is_complex() else summed
        return summed - summed[self.start]

    @property
    def gap(self) -> float:
        """Largest distance of :attr:`integrals` from :attr:`differences`, relative to the largest of those."""
        known = self.integrals
        gone = self.differences.to("cpu", known.dtype)
        apart, size = (d.reshape(len(d), -1).norm(dim=1).max() for d in (known - gone, gone))
        return float(apart / size) if size > 0 else float(apart)

    @property
    def tangents(self) -> Tensor:
        """What the Lie derivative at 0 predicts, `c(0) + t L`, (T, ...)."""
        amounts = self.t.to(self.outputs).reshape(-1, *[1] * (self.outputs.ndim - 1))
        return self.outputs[self.start] + amounts * self.derivatives[self.start]

    @property
    def predicted_flips(self) -> tuple[float, float] | None:
        """The amounts of :attr:`flips` by the Lie derivative at 0 alone: where another class's tangent crosses the first's.

        They may lie beyond the amounts that were measured.
        """
        if self.flips is None:
            return None
        scores, slopes = (v[self.start].double().cpu() for v in (self.outputs, self.derivatives))
        first = int(scores.argmax())
        gain = slopes - slopes[first]
        crossings = (scores[first] - scores) / gain
        before, after = (crossings[(gain * sign > 0) & (torch.arange(len(gain)) != first)] for sign in (-1, 1))
        return float(before.max()) if len(before) else -math.inf, float(after.min()) if len(after) else math.inf


def orbit(
    model: Model,
    image: Tensor,
    generator: AnyGenerator,
    t: Tensor | Sequence[float],
    *,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
    representations: Representations = None,
    mode: str = "auto",
    chunk: int | None = None,
    verify: bool = True,
) -> Orbit:
    r"""A model's output while one image moves by finite amounts, and its derivative all along.

    Args:
        model: Any module or function of one tensor; measured in eval mode and left as it was.
        image: One image, (C, H, W) or (1, C, H, W), floating point.
        generator: A name such as `"rotation"`, a mixture or an action that has a finite motion.
        t: Three amounts or more in the generator's unit (radians, half sides, e-folds), ascending, 0 among them, (T,).
        output: As for :func:`lie_derivative`, and so are the other arguments.
        kernel: Interpolation kernel that has a finite warp.
        boundary: Boundary extension.
        align_corners: Pixel convention.
        representations: How the output transforms; it is moved back before it is compared.
        mode: How the model is differentiated.
        chunk: Images per pass.
        verify: Whether to check the function and its derivative at 0.

    Returns:
        Outputs and derivatives at every amount. The integral of the derivative is the difference of the outputs
        (`.integrals`, `.differences`, `.gap`). For class scores also where the class first flips, found by bisection
        between two amounts, and what the tangent at 0 predicts.

    Raises:
        InputError: For input that can't be measured, other amounts, and a generator without a finite motion.
        VerificationError: If no way of differentiating agrees with the function's values.

    Examples:
        >>> bright = lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], -1)
        >>> image = torch.full((1, 4, 4), 0.25, dtype=torch.float64) + 0.01 * torch.eye(4)
        >>> found = orbit(bright, image, "brightness", torch.linspace(-1, 1, 21), output="logits")
        >>> round(found.flips[1], 3), round(found.predicted_flips[1], 3)  # log(0.5 / 0.2525), and to first order
        (0.683, 0.98)
        >>> found.gap < 1e-4
        True
    """
    amounts = _amounts(t)
    check_output_name(output)
    check_known("mode", mode, MODES)
    x = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
    check_input(model, x, image=True)
    if len(x) != 1:
        raise InputError(f"An orbit is that of one image, (C, H, W); got {len(x)} images.")
    resolved = get(generator)
    check_actions([resolved], x)
    sampler = sampler_of(x, kernel, boundary, align_corners)

    def moving(some: Tensor) -> tuple[Tensor, Tensor]:  # each image depends on its own amount alone
        found = torch.func.jvp(lambda s: _moved(resolved, x, s, sampler), (some,), (torch.ones_like(some),))
        return found[0].detach(), found[1].detach()

    load_formulas()
    with memory.kept(), one_function(model, output) as function, torch.no_grad():
        pushing = Pushing(function, mode, verify)
        # A second image shows whether images interact: those of an orbit must not, they are one image.
        first = torch.cat([x, _moved(resolved, x, amounts[-1:], sampler)])
        pushing.start(first, lambda z: infinitesimal_actions([resolved], z, sampler))
        size = 1 if function.interacts else pushing.chunk(chunk)
        together = [len(part) for part in chunks(x.expand(len(amounts), *x.shape[1:]), 1, size)]
        with workspace(x):
            parts = [pushing(p, v[None]) for p, v in map(moving, amounts.split(together))]
        values, pushed = torch.cat([p[0] for p in parts]), torch.cat([p[1][0] for p in parts])
        check_output_actions([resolved], values[int(amounts.abs().argmin())][None])
        found = [
            _back(resolved, z[None], v[None], amount, x, sampler, representations)
            for z, v, amount in zip(values, pushed, amounts, strict=True)
        ]
        outputs, derivatives = (torch.cat(parts) for parts in zip(*found, strict=True))
        if not bool((outputs != outputs[:1]).any()):
            warn_if_constant(function, x)
        flips = None
        if outputs.ndim == 2 and outputs.shape[1] > 1 and not outputs.is_complex():

            def classes(some: Tensor) -> Tensor:
                points = _moved(resolved, x, some, sampler).split(size or len(some))
                scores = torch.cat([function.checked(p) for p in points])
                back = _returning(resolved, scores[:1], x, sampler, representations)
                if back is not None:  # the class of `outputs`, which are moved back
                    scores = torch.cat([back(z[None], t) for z, t in zip(scores, some, strict=True)])
                return scores.argmax(1).cpu()

            flips = _flips(classes, amounts, outputs.argmax(1).cpu(), int(amounts.abs().argmin()))
    return Orbit(amounts, outputs, derivatives, flips, resolved.name, resolved.unit, pushing.verification)


def _amounts(t: Tensor | Sequence[float]) -> Tensor:
    with memory.retold(InputError, "`t` must hold numbers ({})."):
        amounts = torch.as_tensor(t).detach().cpu()
    if amounts.is_complex():
        raise InputError("`t` must hold real numbers, not complex ones.")
    amounts = amounts.double()
    if amounts.numel() and not bool((amounts == 0).any()):  # what torch.linspace makes of 0 in single precision
        small = amounts.abs() < 1e-6 * amounts.abs().max()
        amounts = torch.where(small & (amounts.abs() == amounts.abs().min()), 0.0, amounts)
    if amounts.ndim != 1 or len(amounts) < 3 or not bool((amounts.diff() > 0).all()) or not bool((amounts == 0).any()):
        raise InputError(
            "`t` must hold three amounts or more in ascending order, with 0 among them, such as torch.linspace(-0.5, 0.5, 41); got "
            f"shape {tuple(amounts.shape)}."
        )
    return amounts


def _moved(generator: Generator | Action, x: Tensor, amounts: Tensor, sampler: Sampler) -> Tensor:
    """`ρ_in(g_t) x` of one image (1, C, H, W) for every `t` of (T,): (T, C, H, W)."""
    if isinstance(generator, Action):
        return torch.cat([generator.function(x.clone(), amount.to(x)) for amount in amounts])
    moved: Tensor = torch.func.vmap(lambda amount: Image().finite(generator, amount, x, sampler)[0])(amounts)
    return moved


def _returning(
    generator: Generator | Action, z: Tensor, x: Tensor, sampler: Sampler, given: Representations
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`ρ_out(g_t⁻¹) v` for outputs such as `z` (1, ...), from `v` and `t`; None where they stay as they are."""
    if isinstance(generator, Action):
        own = generator.output
        return None if own is None else lambda v, t: own(v.clone(), -t.to(v.real))
    representation = of_output(z, x, given)
    if isinstance(representation, Trivial):
        return None
    return lambda v, t: representation.finite(generator, -t, v, sampler)


def _back(
    generator: Generator | Action,
    z: Tensor,
    pushed: Tensor,
    amount: Tensor,
    x: Tensor,
    sampler: Sampler,
    given: Representations,
) -> tuple[Tensor, Tensor]:
    """`ρ_out(g_t⁻¹) z` of one output (1, ...) that changes by `pushed` per unit of `t`, and its velocity."""
    action = _returning(generator, z, x, sampler, given)
    if action is None:
        return z, pushed
    value, velocity = torch.func.jvp(action, (z, amount), (pushed.to(z.dtype), torch.ones_like(amount)))[:2]
    return value, velocity


def _flips(classes_at: Callable[[Tensor], Tensor], amounts: Tensor, classes: Tensor, start: int) -> tuple[float, float]:
    """The first amounts below and above 0 with another class than at 0, by bisection on both sides at once."""
    changed, found = classes != classes[start], [-math.inf, math.inf]
    before, after = (side.nonzero().flatten().tolist() for side in (changed[:start], changed[start:]))
    ends = [(0, before[-1] + 1, before[-1])] if before else []
    ends += [(1, start + after[0] - 1, start + after[0])] if after else []
    if ends:
        sides, inner, outer = zip(*ends, strict=True)
        same, other = amounts[list(inner)], amounts[list(outer)]
        for _ in range(HALVINGS):
            middle = (same + other) / 2
            beyond = classes_at(middle) != classes[start]
            same, other = torch.where(beyond, same, middle), torch.where(beyond, middle, other)
        for side, amount in zip(sides, other.tolist(), strict=True):
            found[side] = amount
    return found[0], found[1]
