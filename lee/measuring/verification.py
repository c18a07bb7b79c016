r"""A derivative checked against the function's own values.

No list of rules is ever complete, and what a model stops (`detach`, `no_grad`), does outside torch or differentiates in its own
way changes what every derivative of torch says, but never the function's values. So what was pushed through the model along a
tangent `v` is compared with

.. math:: \frac{f(x + h v) - f(x - h v)}{2 h}

of the *plain* function, with none of our modes and rules: in double precision on converted modules where that works, else
in the precision of the output, over a table of steps whose neighbours estimate the error (Ridders, *Accurate computation of
F'(x) and F'(x) F''(x)*, Advances in Engineering Software, 1982).

`x` is an image at a generic point, moved a little: at exact ties (max-pooling over flat, saturated areas, ReLU at zero) a
derivative is a choice among several, and all of them are right.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lee.errors import InputError, LeavesTorchWarning, VerificationError, VerificationWarning
from lee.measuring.function import Function
from lee.measuring.reference import Reference, combined, flat
from lee.memory import is_shortage
from lee.stacked import LeavesTorchError, record_fallbacks
from lee.stacked.tensor import note_fallback

TIGHT = 3e-3  # relative deviation that single precision and kinks explain; a thirtieth of it in double precision
ROUGH = 0.1  # relative deviation beyond which a number is not called verified
_NAMES = {
    "forward": "forward mode", "dual": "torch's dual numbers", "reverse": "backward passes", "differences": "central differences",
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a function is differentiated.

    Args:
        mode: `"auto"`, `"forward"`, `"dual"` (forward with torch's dual numbers alone), `"reverse"` or `"differences"`.
        step: For differences: how far an image is moved, relative to its norm; None for the dtype's own.
        double: For differences: whether the modules are converted to double precision meanwhile.
    """

    mode: str
    step: float | None = None
    double: bool = False


Push = Callable[[Tensor, Tensor, Way], Tensor | None]


@dataclass(frozen=True)
class Verification:
    """What a check has shown.

    Args:
        mode: How the number was computed, as in :class:`Way`.
        deviation: `‖p - d‖` relative to the larger of both, `p` the pushed tangent and `d` the differences.
        noise: Error of the differences, relative to them, as far as it was estimated.
        precision: Dtype in which the differences were taken.
        verified: Whether they agree as well as they can.
        note: What else there is to know.
    """

    mode: str
    deviation: float
    noise: float
    precision: str
    verified: bool
    note: str = ""

    def __str__(self) -> str:
        way = _NAMES.get(self.mode, self.mode)
        if self.verified and self.mode == "differences":
            text = f"verified: {way} of the function in {self.precision}, steady to {self.noise:.1g}"
        elif self.verified:
            text = f"verified: {way} and differences of the function in {self.precision} agree to {self.deviation:.1g}"
        else:
            text = f"not verified: {way} and differences of the function in {self.precision} are {self.deviation:.1g} apart"
        return f"{text}; {self.note}" if self.note else text

    def row(self) -> dict[str, Any]:
        """As flat columns for tables and JSON."""
        return {
            "verified": self.verified,
            "verified_mode": self.mode,
            "verified_deviation": self.deviation if math.isfinite(self.deviation) else None,
            "verified_precision": self.precision,
        }


def verified(
    function: Function, point: Tensor, value: Tensor, tangents: Callable[[Tensor], Tensor], push: Push, mode: str
) -> tuple[Way, Verification]:
    """The first way of differentiating in a mode that agrees with the function's values, and how well.

    Args:
        function: The function; see :func:`lee.measuring.look`.
        point: One image at a generic point, (1, ...), see :func:`lee.measuring.generic`.
        value: The function's value there.
        tangents: From images to K tangents (K, N, ...).
        push: From an image (1, ...), a tangent (1, 1, ...) and a way to the pushed tangent (1, 1, ...), in any dtype; None for an
            output that does not depend on the image.
        mode: `"auto"`, `"unstacked"` (all but a stacked pass), or one of the modes of :class:`Way`.

    Raises:
        VerificationError: If no way agrees.
        InputError: If no way can be taken at all.
    """
    v = combined(tangents(point))
    reference = Reference(function, point, v[0], value)
    failures: list[tuple[str, float]] = []
    errors: list[Exception] = []
    left: LeavesTorchError | None = None
    names: list[str] = []
    for way in _ways(mode, function, reference):
        if left is not None and way.mode != "differences":
            continue  # no derivative can follow; differences are exact enough, and cheaper than backward passes
        try:
            with record_fallbacks() as without_rule:
                pushed = push(point, v, way)
            names += without_rule
            if fell_back(without_rule):  # what was checked is what will be done
                way = Way("dual")
        except Exception as error:  # this way can't be taken; what the model itself raises came up above
            if is_shortage(error):
                raise
            errors.append(error)
            left = error if isinstance(error, LeavesTorchError) else left
            continue
        p = torch.zeros_like(reference.plain) if pushed is None else pushed[0]
        found = judged(reference, p, way.mode, lambda way=way: push(point, v, replace(way, double=True)))  # type: ignore[misc]
        if found is not None:
            break
        failures.append((_NAMES[way.mode], float(flat(p).norm())))
    else:
        if not failures:
            raise errors[0]
        raise _failure(reference, failures, names, mode)
    _tell(names, errors, way)
    if left is not None:
        warnings.warn(f"{left} Central differences were taken.", LeavesTorchWarning, stacklevel=5)
    if failures:
        others = " and ".join(name for name, _ in failures)
        found = replace(found, note=f"{others} disagreed with the function's values")
    if not found.verified:
        warnings.warn(f"The number is {found}.", VerificationWarning, stacklevel=5)
    return way, found


def fell_back(names: Sequence[str]) -> bool:
    """Whether a stacked pass gave up and the whole function was run on torch's dual numbers."""
    return any(name.startswith("whole function (") for name in names)


def _tell(names: Sequence[str], errors: Sequence[Exception], way: Way) -> None:
    """Hand on which functions had no rule, and why another way was taken."""
    for name in names:
        note_fallback(name)
    if errors and way.mode in ("reverse", "differences"):
        note_fallback(
            f"whole function by {'backward passes' if way.mode == 'reverse' else _NAMES[way.mode]} ({errors[0]})"
        )


def _ways(mode: str, function: Function, reference: Reference) -> Iterator[Way]:
    if mode == "reverse" and function.interacts:
        raise InputError(
            "mode='reverse' needs an output that depends on its own image alone; the images of a batch interact here. Use "
            "mode='forward'."
        )
    if mode in ("auto", "forward"):
        yield Way("forward")
    if mode in ("auto", "forward", "unstacked", "dual"):
        yield Way("dual")
    if mode == "reverse" or (mode in ("auto", "unstacked") and not function.interacts):
        yield Way("reverse")
    if mode in ("auto", "unstacked", "differences"):
        yield Way("differences", reference.best[2], reference.double)


def judged(reference: Reference, p: Tensor, mode: str, in_double: Callable[[], Tensor | None]) -> Verification | None:
    """Whether a pushed tangent agrees with the differences; None if it does not.

    Args:
        reference: The differences.
        p: The pushed tangent, of the output's shape.
        mode: How it was pushed.
        in_double: Pushes it again in double precision, to tell rounding from a fault.
    """
    again = cache(lambda: _in_double(in_double))
    own = torch.finfo(p.dtype).eps if p.is_floating_point() or p.is_complex() else 1e-7
    pushed, precise = flat(p), reference.dtype == torch.float64
    precision = str(reference.dtype).removeprefix("torch.")
    tight = TIGHT if own > 1e-12 else TIGHT / 30
    if mode != "differences" and bool(pushed.any()):
        for step in reference.steps:
            slope = reference.slope(step)
            deviation = _relative(pushed, slope)
            rounded = precise and own > 1e-12 and deviation <= ROUGH
            if deviation <= tight or (rounded and _agrees_in_double(slope, 0.0, again)):
                return Verification(mode, deviation, 0.0, precision, True)
            if deviation > 1:
                break  # a fault, or rounding of a constant: the whole table tells
    slope, noise, _ = reference.best
    gap, scale = float((pushed - slope).norm()), max(float(pushed.norm()), float(slope.norm()))
    if not math.isfinite(gap):
        return None
    if gap == 0:
        return Verification(mode, 0.0, 0.0, precision, True)
    deviation, noisy = (gap / scale, noise / scale) if scale > 0 else (0.0, 0.0)
    noted = f"the differences' own noise is {noisy:.0%}"
    if gap <= tight * scale + 3 * noise and noise <= 0.3 * scale:
        return Verification(mode, deviation, noisy, precision, True, noted if noisy > ROUGH else "")
    # Zero up to rounding, that of the differences themselves included.
    small = own**0.5 * reference.response + (10 * reference.rounding(reference.best[2]) if mode == "differences" else 0)
    if gap <= small and noise <= max(small, 0.01 * reference.response):
        return Verification(mode, 0.0, 0.0, precision, True, "zero beside the response to other changes")
    if gap <= 3 * noise:
        return Verification(mode, deviation, noisy, precision, False, noted)
    if precise and own > 1e-12 and _agrees_in_double(slope, 3 * noise + 1e-8 * reference.response, again):
        single = str(p.dtype).removeprefix("torch.")
        good = deviation <= ROUGH
        note = "" if good else f"{single} is too coarse for this model: measure in double precision"
        return Verification(mode, deviation, noisy, precision, good, note)
    return None


def _in_double(push: Callable[[], Tensor | None]) -> Tensor | None:
    """What is pushed in double precision, flat; None where that can't be done."""
    try:
        pushed = push()
    except Exception:  # whatever a user's model may raise when it meets another dtype
        return None
    return None if pushed is None else flat(pushed)


def _agrees_in_double(slope: Tensor, noise: float, push: Callable[[], Tensor | None]) -> bool:
    """Whether what is pushed in double precision agrees with a slope: then the rule is right, and the rest is rounding."""
    found = push()
    if found is None:
        return False
    return float((found - slope).norm()) <= TIGHT * max(float(slope.norm()), float(found.norm())) + noise


def _failure(
    reference: Reference, failures: Sequence[tuple[str, float]], names: Sequence[str], mode: str
) -> VerificationError:
    slope, noise, _ = reference.best
    tried = ", ".join(f"{size:.3g} by {name}" for name, size in failures)
    unruled = list(dict.fromkeys(names))
    ruled = f" Functions that were run without a rule: {'; '.join(unruled[:5])}." if unruled else ""
    advice = (
        "Use mode='auto' or mode='differences'"
        if mode in ("forward", "reverse")
        else "Measure in double precision (.double())"
    )
    return VerificationError(
        f"The derivative of this model could not be verified. Along a random combination of the motions its norm is {tried}, but "
        f"central differences of the function's own values give {float(slope.norm()):.3g} ± {noise:.2g}.{ruled} {advice}, or pass "
        "verify=False to see the number all the same."
    )


def _relative(a: Tensor, b: Tensor) -> float:
    scale = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / scale if scale > 0 else 0.0
