r"""A derivative checked against the function's own values.

No list of rules is ever complete, and what a model stops (`detach`, `no_grad`), does outside torch or differentiates in its own
way changes what every derivative of torch says, but never the function's values. So what was pushed through the model along a
tangent `v` is compared with

.. math:: \frac{f(x + h v) - f(x - h v)}{2 h}

of the *plain* function, with none of our modes and rules: in double precision on converted modules where that works, else
in the precision of the output, over a table of steps whose neighbours estimate the error (Ridders, *Accurate computation of
F'(x) and F'(x) F''(x)*, Advances in Engineering Software, 1982).

`x` is an image at a generic point, moved a little: at exact ties (max-pooling over flat, saturated areas, ReLU at zero) a
derivative is a choice among several, and all of them are right. Where the first image itself passes, as it does without ties,
what was pushed for it anyway has been checked, and none of this is needed (:mod:`lee.measure.pushing`).
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lee.autodiff import LeavesTorchError, by_differences, by_dual_numbers, record_fallbacks
from lee.autodiff.alternatives import pushed as by_mode
from lee.autodiff.tensor import note_fallback
from lee.errors import InputError, LeavesTorchWarning, LeeError, VerificationError, VerificationWarning, reason
from lee.measure.function import Function
from lee.measure.judgement import DENSE, ROUGH, judged, steady
from lee.measure.reference import Reference, combined, flat, norms, weights_of
from lee.memory import is_shortage, unless_refused
from lee.process.alone import computed_once
from lee.statistics.verification import NAMES, Verification


@dataclass(frozen=True)
class Way:
    """How a function is differentiated.

    Args:
        mode: `"auto"`, `"forward"`, `"dual"` (forward with torch's dual numbers alone), `"reverse"` or `"differences"`.
        step: For differences: how far an image is moved, relative to its norm; None for the dtype's own.
        double: Whether the modules are converted to double precision meanwhile.
    """

    mode: str
    step: float | None = None
    double: bool = False


def push(function: Function, x: Tensor, tangents: Tensor, way: Way) -> tuple[Tensor, Tensor | None]:
    """`f(x)` and the tangents `J_f(x)·v_k` (K, N, ...) of images (N, ...), None where the output does not depend on them.

    Raises:
        InputError: If the function can't be differentiated in this way.
    """
    if way.mode == "differences":
        if way.double:
            lanes = by_differences(
                function.in_double, x.double(), tangents.double(), way.step, jointly=function.interacts
            )[1]
            return function.value(x), lanes
        return by_differences(function.value, x, tangents, way.step, jointly=function.interacts)
    if way.double:
        with function.doubled():
            return push(function, x.double(), tangents.double(), Way(way.mode))
    return by_dual_numbers(function, x, tangents) if way.mode == "dual" else by_mode(function, x, tangents, way.mode)


class _Trial:
    """Ways of differentiating tried at one generic point, along one combination of the tangents."""

    def __init__(self, function: Function, point: Tensor, value: Tensor, along: Tensor) -> None:
        self.function, self.point, self.value, self.along = function, point, value, along
        self._weights: Tensor | None = None

    def pushed(self, way: Way) -> Tensor:
        """The combination of what is pushed along each tangent; zero for an output that does not depend on the image."""
        lanes = push(self.function, self.point, self.along, way)[1]
        if lanes is None:
            return torch.zeros_like(self.value)
        if self._weights is None:  # the first lanes that there are
            self._weights = weights_of(self.along, lanes)
        return combined(lanes, self._weights)[0]

    @computed_once
    def reference(self) -> Reference:
        """The differences along the same combination."""
        if self._weights is None:
            self._weights = weights_of(self.along, None)
        return Reference(self.function, self.point, combined(self.along, self._weights)[0], self.value)


def verified(function: Function, point: Tensor, value: Tensor, along: Tensor, mode: str) -> tuple[Way, Verification]:
    """The first way of differentiating in a mode that agrees with the function's values, and how well.

    Args:
        function: The function; see :func:`lee.measure.looking.look`.
        point: One image at a generic point, (1, ...), see :func:`lee.measure.reference.generic`, or two that interact.
        value: The function's value there.
        along: K tangents there, (K, 1, ...).
        mode: `"auto"`, `"unstacked"` (all but a stacked pass), or one of the modes of :class:`Way`.

    Raises:
        VerificationError: If no way agrees.
        InputError: If no way can be taken at all.
    """
    trial = _Trial(function, point, value, along)
    failures: list[tuple[str, float]] = []
    errors: list[Exception] = []
    left: LeavesTorchError | None = None
    names: list[str] = []
    for way in _ways(mode, trial):
        if left is not None and way.mode != "differences":
            continue  # no derivative can follow; differences are exact enough, and cheaper than backward passes
        if way.mode == "differences":
            found = steady(trial.reference)
        else:
            try:
                with record_fallbacks() as without_rule:
                    p = trial.pushed(way)
            except Exception as error:  # this way can't be taken; what the model itself raises came up above
                if is_shortage(error):
                    raise
                errors.append(error)
                left = error if isinstance(error, LeavesTorchError) else left
                continue
            names += without_rule
            if fell_back(without_rule):  # what was checked is what will be done
                way = Way("dual")
            found = judged(trial.reference, p, way.mode, lambda way=way: trial.pushed(replace(way, double=True)))  # type: ignore[misc]
            if found is None or (failures and not found.verified):  # doubts don't outweigh another way's fault
                found = None
                failures.append((NAMES[way.mode], float(flat(p).norm())))
        if found is not None:
            break
    else:
        if not failures and errors and mode not in ("auto", "unstacked"):
            raise _untaken(errors[0])
        raise _failure(trial.reference, failures, names, mode)
    _tell(names, errors, way)
    if left is not None:
        warnings.warn(f"{left} Central differences were taken.", LeavesTorchWarning, stacklevel=9)
    if failures:
        others = ", ".join(name for name, _ in failures)
        note = f"{others} disagreed with the function's values"
        found = replace(found, note=f"{found.note}; {note}" if found.note else note)
    if not found.verified:
        warnings.warn(f"The number is {found}.", VerificationWarning, stacklevel=9)
    return way, found


def _untaken(error: Exception) -> Exception:
    """Why no way could be taken, in a sentence."""
    if isinstance(error, LeeError):
        return error
    found = InputError(
        f"The model runs, but can't be differentiated in this mode ({reason(error)}). Use mode='auto' or 'differences'."
    )
    found.__cause__ = error
    return found


def fell_back(names: Sequence[str]) -> bool:
    """Whether a stacked pass gave up and the whole function was run on torch's dual numbers."""
    return any(name.startswith("whole function (") for name in names)


def _tell(names: Sequence[str], errors: Sequence[Exception], way: Way) -> None:
    """Hand on which functions had no rule, and why another way was taken."""
    for name in names:
        note_fallback(name)
    if errors and way.mode in ("reverse", "differences"):
        note_fallback(f"whole function by {NAMES[way.mode]} ({errors[0]})")


def _ways(mode: str, trial: _Trial) -> Iterator[Way]:
    interacts = trial.function.interacts
    if mode == "reverse" and interacts:
        raise InputError(
            "mode='reverse' needs an output that depends on its own image alone; the images of a batch interact here. Use "
            "mode='forward'."
        )
    if mode in ("auto", "forward"):
        yield Way("forward")
    if mode in ("auto", "forward", "unstacked", "dual"):
        yield Way("dual")
    backward = mode == "reverse" or (mode in ("auto", "unstacked") and not interacts)
    dense = trial.value[0].numel() > DENSE and mode != "reverse"  # one pass for each entry of the output
    if backward and not dense:
        yield Way("reverse")
    if mode in ("auto", "unstacked", "differences"):
        yield Way("differences", trial.reference.best[2], trial.reference.double)
    if backward and dense:
        yield Way("reverse")


def _failure(
    reference: Reference, failures: Sequence[tuple[str, float]], names: Sequence[str], mode: str
) -> VerificationError:
    slope, noise, _ = reference.best
    tried = f"its norm is {', '.join(f'{size:.3g} by {name}' for name, size in failures)}, but " if failures else ""
    unruled = list(dict.fromkeys(names))
    ruled = f" Functions that were run without a rule: {'; '.join(unruled[:5])}." if unruled else ""
    insisted = mode in ("forward", "reverse")
    advice = "Use mode='auto' or mode='differences'" if insisted else "Measure in double precision (.double())"
    if why := reference.narrowing:
        advice = f"{why[0].upper()}{why[1:]}, so differences by small steps are noise: let it keep the precision of its input"
    return VerificationError(
        f"The derivative of this model could not be verified. Along a random combination of the motions {tried}central "
        f"differences of the function's own values give {float(slope.norm()):.3g} ± {noise:.2g}.{ruled} {advice}, or pass "
        "verify=False to see the number all the same."
    )


def doubt_of_rounding(function: Function, x: Tensor, tangents: Tensor, lanes: Tensor, way: Way, exact: Tensor) -> str:
    """Why derivatives in half precision are no number where those in double precision are another; empty where they agree.

    One image may keep its digits where others lose them, and a rounded tangent is one along another motion.

    Args:
        function: The function.
        x: The images, (N, ...).
        tangents: K tangents, (K, N, ...).
        lanes: What was pushed along them, (K, N, ...).
        way: How.
        exact: The tangents in double precision.
    """
    weights, found = weights_of(tangents, lanes), None
    with unless_refused(), function.doubled():
        found = push(function, x.double(), combined(exact, weights), way)[1]
    if found is None:
        return ""
    pushed, wanted = flat(combined(lanes, weights)), flat(found)
    gap, size = float((pushed - wanted).norm()), max(float(pushed.norm()), float(wanted.norm()))
    name = str(x.dtype).removeprefix("torch.")
    return f"{name} is {gap / size:.0%} off: measure in single precision" if gap > ROUGH * size else ""


def doubt_of_steps(function: Function, x: Tensor, value: Tensor, tangents: Tensor, lanes: Tensor, way: Way) -> str:
    """Why differences of a chunk are no number where those with twice the step are another; empty where they agree.

    On stairs two steps may agree by chance at the one image that was checked.

    Args:
        function: The function.
        x: The images, (N, ...).
        value: Its value for them.
        tangents: K tangents, (K, N, ...).
        lanes: Their differences, (K, N, ...).
        way: How these were taken.
    """
    weights = weights_of(tangents, None)  # by their own sizes: what hardly changes the output would be noise, enlarged
    along = combined(tangents, weights)
    eps = max(torch.finfo(v.dtype).eps for v in ((lanes,) if way.double else (x, value)))
    step, tiny = eps**0.375 if way.step is None else way.step, torch.finfo(torch.float64).tiny
    found = push(function, x, along, replace(way, step=2 * step))[1]
    assert found is not None
    first, second = flat(combined(lanes, weights)), flat(found)
    gap, size = float((first - second).norm()), max(float(first.norm()), float(second.norm()))
    if gap <= ROUGH * size:
        return ""
    # Beside the response to other changes a derivative may be zero, and its differences the rounding of what cancels inside.
    random = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float32).to(x)
    sizes = (norms(along[0]) / norms(random)).to(x).reshape(-1, *[1] * (x.ndim - 1))
    response = push(function, x, (random * sizes)[None], way)[1]
    assert response is not None
    steps = (step * norms(x) / norms(along[0]).clamp(min=tiny)).clamp(min=tiny)
    rounding = eps * (float((norms(value) / steps).norm()) + float(flat(response).norm()) / step)
    return (
        f"differences with twice the step are {gap / size:.0%} off at other images"
        if gap > ROUGH * size + 10 * rounding
        else ""
    )
