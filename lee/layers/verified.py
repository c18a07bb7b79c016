"""Passes of images whose parts sum to the verified total: where they don't, in another mode or in double precision."""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from lee.errors import InputError, VerificationError, VerificationWarning
from lee.layers.passes import Pass, Setting, measure_pass
from lee.layers.trace import Traced
from lee.measure.reference import generic
from lee.measure.terms import Terms
from lee.memory import unless_refused
from lee.statistics import Verification

MANY = 1000  # units in the last place of the largest part, up to which a sum of parts may be rounding


class Measuring:
    """Passes of images, each of them checked.

    Args:
        setting: What stays the same.
        verify: Whether anything is checked.
    """

    def __init__(self, setting: Setting, verify: bool) -> None:
        self.setting, self.verify = setting, verify
        self.verification: Verification | None = None
        self._precise = False  # once single precision is too little
        self._modes: dict[str, float] = {}  # how far parts are from the total, by mode: the worst pass
        self._warned = False

    def turn_to(self, terms: Terms, found: list[Traced]) -> None:
        """Go on with another batch."""
        self.setting = replace(self.setting, terms=terms, sampler=terms.sampler, found=found, parents=parents_of(found))

    def __call__(self, x: Tensor, lanes: int) -> Pass:
        """Decompose images `x` (n, C, H, W).

        Raises:
            VerificationError: If the parts don't sum to the total.
        """
        measured = (self._in_double(x, lanes) if self._precise else None) or measure_pass(self.setting, x, lanes)
        if self.verify:
            if not is_sum(measured.relative_gap, x.dtype):
                measured = self._mended(measured, x, lanes)
            self._note(measured)
        self.setting = replace(self.setting, deflation=measured.deflation)
        return measured if self._precise else self._without_rounding(measured, x)

    def _without_rounding(self, measured: Pass, x: Tensor) -> Pass:
        """The pass with nothing to share out where rounding alone is left of the parts' sum."""
        terms, moments = self.setting.terms, measured.moments
        least = (MANY * torch.finfo(x.dtype).eps) ** 2 * moments.norm2.amax(1)
        odd = (moments.total > 0) & (terms.doubtful | (moments.total <= least))
        if not bool(odd.any()):
            return measured
        odd[odd.clone()] = terms.nothing(x[odd.to(x.device)])
        zeroed = {n: getattr(moments, n).masked_fill(odd[:, None], 0) for n in ("dot", "self_dot")}
        return replace(measured, moments=replace(moments, total=moments.total.masked_fill(odd, 0), **zeroed))

    def _mended(self, measured: Pass, x: Tensor, lanes: int) -> Pass:
        """The pass again, in a mode that is no fault of the model's, and in double precision where rounding decides too much."""
        if measured.mode not in self._modes:
            mode = verified_mode(self.setting, x, lanes, measured.mode)
            if mode != measured.mode:
                self.setting = replace(self.setting, mode=mode)
                measured = measure_pass(self.setting, x, lanes)
        if not is_sum(measured.relative_gap, x.dtype) and not self._precise:
            precise = self._in_double(x, lanes)
            if precise is not None and precise.relative_gap < measured.relative_gap:
                self._precise = is_sum(precise.relative_gap, x.dtype)
                measured = precise
        if not is_sum(measured.relative_gap, x.dtype) and not self._warned:
            self._warned = True
            warnings.warn(
                f"The parts of the model sum to its Lie derivative to {measured.relative_gap:.0%} only at these images, and much "
                "better near them: some operations are at a kink there, such as a ReLU of exactly 0, and have no derivative.",
                VerificationWarning,
                stacklevel=6,
            )
        return measured

    def _in_double(self, x: Tensor, lanes: int) -> Pass | None:
        """The pass in double precision; None where the model has none."""
        function, found = self.setting.terms.pushing.function, None
        if x.dtype != torch.float64 and function.convertible:
            with unless_refused(), function.doubled():
                found = measure_pass(self.setting, x.double(), max(1, lanes // 2))
        return found

    def _note(self, measured: Pass) -> None:
        self._modes[measured.mode] = max(self._modes.get(measured.mode, 0.0), measured.relative_gap)
        of_total = self.setting.terms.pushing.verification
        if of_total is not None:
            note = f"the parts sum to it to {max(self._modes.values()):.1g}" + " in double precision" * self._precise
            self.verification = replace(of_total, note=f"{of_total.note}; {note}" if of_total.note else note)


def is_sum(gap: float, dtype: torch.dtype) -> bool:
    """Whether a relative gap is what rounding, and kinks that it puts on the other side, leave."""
    return gap <= (1e-4 if dtype == torch.float64 else 0.01)


def verified_mode(setting: Setting, x: Tensor, lanes: int, first: str) -> str:
    """The first mode whose parts sum to the verified total at a generic image.

    Parts that don't agree in the images' own precision are added up in double precision, which tells kinks that fall on the
    other side of a rounding from a fault. `first` is the mode that was taken for the images; all else as for :func:`measure_pass`.

    Raises:
        VerificationError: If the parts sum to the total in no mode.
        InputError: If no mode can be taken.
    """
    point, tried, reasons = generic(x[:1]), [], []
    function = setting.terms.pushing.function
    others = ("forward",) if function.interacts else ("forward", "reverse")
    modes = [first, *(m for m in others if m != first)] if setting.mode == "auto" else [setting.mode]
    for mode in modes:
        one = replace(setting, mode=mode, random=torch.Generator().manual_seed(0))
        try:
            gap = measure_pass(one, point, lanes).relative_gap
            if gap > 0.01 and x.dtype != torch.float64 and function.convertible:
                with unless_refused(), function.doubled():  # a model may insist on a precision of its own
                    gap = min(gap, measure_pass(one, point.double(), lanes).relative_gap)
        except InputError as error:
            reasons.append(error)
            continue
        if is_sum(gap, x.dtype):
            return mode
        tried.append(f"{gap:.2g} in mode={mode!r}")
    if tried:
        raise VerificationError(
            f"The parts of the model don't sum to its Lie derivative: relative to it they are off by {', '.join(tried)}. A module "
            "call does something that its inputs and outputs don't show (values kept from call to call, random numbers, gradients "
            "stopped on the way); verify=False shows the numbers all the same."
        )
    raise reasons[0]


def parents_of(found: list[Traced]) -> list[int]:
    """The nearest measured call around each; -1 for the model, -2 for calls that are counted in their parent."""
    parents = []
    for traced in found:
        above = traced.call.parent
        while above > 0 and not found[above].placed:
            above = found[above].call.parent
        parents.append(above if traced.placed or traced.call.parent < 0 else -2)
    return parents
