"""Whether a derivative agrees with differences of the function's own values, as well as both can."""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from lee.measure.reference import Reference, flat
from lee.statistics import Verification

TIGHT = 3e-3  # relative deviation that single precision and kinks explain; a thirtieth of it in double precision
NOTHING = "nothing changes at the image that was checked"
ZERO = "zero beside the response to other changes"
DENSE = 256  # entries of an output for which differences come before as many backward passes
ROUGH = 0.1  # relative deviation beyond which a number is not called verified


def steady(reference: Reference) -> Verification | None:
    """Whether the differences themselves are a number; None if they are noise alone."""
    slope, noise, step = reference.best
    scale = float(slope.norm())
    precision = str(reference.dtype).removeprefix("torch.")
    small = 1e-8 * reference.response + 10 * reference.rounding(step)
    if max(noise, scale) <= small:
        return Verification("differences", 0.0, 0.0, precision, True)
    noisy = noise / scale if scale > 0 else math.inf
    if noisy > 1:
        return None
    return Verification(
        "differences", noisy, noisy, precision, noisy <= ROUGH, reference.narrowing if noisy > ROUGH else ""
    )


def at_once(reference: Reference, p: Tensor, mode: str) -> Verification | None:
    """Whether a pushed tangent agrees with the first differences in double precision; None says that more must be looked at.

    Args:
        reference: The differences.
        p: The pushed tangent, of the output's shape.
        mode: How it was pushed.
    """
    if reference.dtype != torch.float64 or not bool(p.any()):
        return None
    deviation = _relative(flat(p), reference.slope(reference.steps[0]))
    return Verification(mode, deviation, 0.0, "float64", True) if deviation <= _precision(p)[1] else None


def judged(reference: Reference, p: Tensor, mode: str, in_double: Callable[[], Tensor | None]) -> Verification | None:
    """Whether a pushed tangent agrees with the differences; None if it does not.

    Args:
        reference: The differences.
        p: The pushed tangent, of the output's shape.
        mode: How it was pushed.
        in_double: Pushes it again in double precision, to tell rounding from a fault.
    """
    again = cache(lambda: _in_double(in_double))
    own, tight = _precision(p)
    pushed, precise = flat(p), reference.dtype == torch.float64
    precision = str(reference.dtype).removeprefix("torch.")
    if bool(pushed.any()):
        for step in reference.steps:
            slope = reference.slope(step)
            deviation = _relative(pushed, slope)
            rounded = precise and own > 1e-12 and deviation <= ROUGH
            if deviation <= tight or (rounded and _agrees_in_double(slope, 0.0, again)):
                return Verification(mode, deviation, 0.0, precision, True)
            # Of a probability near 1 little is left at small steps, and a steep function bends at larger ones.
            noisy = reference.rounding(step) / max(float(pushed.norm()), float(slope.norm()))
            if deviation <= min(ROUGH, noisy) and noisy <= 0.3:
                return Verification(mode, deviation, noisy, precision, True)
            if deviation > 1:
                break  # a fault, or rounding of a constant: the whole table tells
    elif not any(bool(reference.slope(step).any()) for step in (reference.steps[0], max(reference.steps))):
        # No rounding and no stairs: the rest of the table would be zeros.
        return Verification(mode, 0.0, 0.0, precision, True, NOTHING)
    slope, noise, _ = reference.best
    gap, scale = float((pushed - slope).norm()), max(float(pushed.norm()), float(slope.norm()))
    if not math.isfinite(gap):
        return None
    if scale == 0:
        return Verification(mode, 0.0, 0.0, precision, True, NOTHING)
    deviation, noisy = gap / scale, noise / scale
    if gap <= min(tight * scale + 3 * noise, 0.3 * scale) and noise <= 0.3 * scale:
        noted = _noise(reference, noisy) if noisy > ROUGH else ""
        return Verification(mode, deviation, noisy, precision, deviation <= ROUGH, noted)
    # Zero up to rounding, that of the tangent and of the differences included. Where these are precise they tell a zero from a
    # small number, of which the own precision may leave nothing.
    least = 10 * reference.rounding(reference.best[2])
    small = own**0.5 * reference.response + least
    zero = not precise or float(slope.norm()) <= max(1e-8, 4 * own) * reference.response + least
    if zero and gap <= small and noise <= max(small, 0.01 * reference.response):
        return Verification(mode, 0.0, 0.0, precision, True, ZERO)
    if gap <= 3 * noise and bool(pushed.any()):  # an exact zero beside stairs is no number
        return Verification(mode, deviation, noisy, precision, False, _noise(reference, noisy))
    if precise and own > 1e-12 and _agrees_in_double(slope, 3 * noise + 1e-8 * reference.response, again):
        single = str(p.dtype).removeprefix("torch.")
        good = deviation <= ROUGH
        note = "" if good else f"{single} is too coarse for this model: measure in double precision"
        return Verification(mode, deviation, noisy, precision, good, note)
    return None


def _noise(reference: Reference, noisy: float) -> str:
    """How noisy differences are, relative to themselves, and why, where that is known."""
    why = reference.narrowing
    return f"the differences' own noise is {noisy:.0%}" + (f", as {why}" if why else "")


def _precision(p: Tensor) -> tuple[float, float]:
    """Rounding of a pushed tangent's dtype, and the relative deviation that it explains."""
    own = torch.finfo(p.dtype).eps if p.is_floating_point() or p.is_complex() else 1e-7
    return own, TIGHT if own > 1e-12 else TIGHT / 30


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


def _relative(a: Tensor, b: Tensor) -> float:
    scale = max(float(a.norm()), float(b.norm()))
    return 0.0 if scale == 0 else float((a - b).norm()) / scale  # NaN agrees with nothing
