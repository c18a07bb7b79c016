"""Tangents pushed through a function, chunk after chunk, in the way that was verified on the first images."""

import warnings
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lee.autodiff import by_differences, record_fallbacks
from lee.autodiff.tensor import note_fallback
from lee.errors import InputError, LeeError, VerificationWarning, check_flag, reason
from lee.measure.checks import check_shape
from lee.measure.function import Function
from lee.measure.judgement import NOTHING, at_once
from lee.measure.looking import look, look_at_chunk, look_closer
from lee.measure.precision import COMPARED, Lowering
from lee.measure.reference import Reference, combined, generic, norms, weights_of
from lee.measure.verification import Way, doubt_of_rounding, doubt_of_steps, fell_back, push, verified
from lee.memory import is_shortage, unless_refused
from lee.statistics import Verification

Tangents = Callable[[Tensor], Tensor]
TRIED = 4  # images, until one changes
STRAY = 0.05  # of a derivative that differences may miss where they cross kinks
HELD = (
    "reverse",
    "dual",
)  # ways that ask a model's own code for its derivative, which may be another function's at other images


@dataclass
class Pushing:
    """One function, and how its derivatives are taken.

    Args:
        function: The function.
        mode: As for :func:`lee.lie_derivative`.
        verify: Whether to check the function and its derivative on the first images.
        lowering: A lower precision to push in, once the first images have shown that it may be.

    Attributes:
        way: What the check has chosen; None before the first images.
        verification: What it has shown; None before the first images, or without a check.
    """

    function: Function
    mode: str = "auto"
    verify: bool = True
    lowering: Lowering | None = None
    way: Way | None = None
    verification: Verification | None = None
    _choose: Callable[[], None] | None = field(default=None, repr=False)
    _looked_at: "weakref.ref[Tensor] | None" = field(default=None, repr=False)  # the latest chunk
    _tangents: Tangents | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_flag("verify", self.verify)

    @property
    def started(self) -> bool:
        """Whether the function was looked at."""
        return self.way is not None or self._choose is not None

    def start(self, x: Tensor, tangents: Tangents) -> None:
        """Look at the function, so that the first images that are pushed choose a way; does nothing the second time.

        Args:
            x: The first images, (N, ...).
            tangents: From images to their tangents, (K, N, ...).

        Raises:
            InputError: If the function can't be measured.
        """
        self._tangents = tangents
        if self.started:
            return
        if not self.verify:
            self.way = Way(self.mode)
            return
        points = generic(x[:3])
        try:
            value = look(self.function, points)
        except Exception as error:
            ours = isinstance(error, LeeError | Warning)  # warnings may have been made errors
            if not ours and not is_shortage(error) and self._runs_on(x):
                raise InputError(
                    f"The model runs on {len(x)} images together, but not on one to three of them ({reason(error)}). They are "
                    "measured a few at a time: pass a function that takes any number."
                ) from error
            raise
        self._choose = lambda: self._choose_at(points, value, x[:TRIED], tangents)

    def _runs_on(self, x: Tensor) -> bool:
        try:
            self.function.value(x)
        except Exception:  # then it isn't the number of images that it minds
            return False
        return True

    def _choose_at(self, points: Tensor, value: Tensor, x: Tensor, tangents: Tangents) -> None:
        """Choose a way that agrees with the function's values at a generic point near one of the first images `x`."""
        if not self.function.interacts:
            look_closer(self.function, points)
        if self.function.interacts:
            self._verify(points[:2], self.function.value(points[:2]), tangents(points[:2]), self.mode)
            return
        for i in range(len(x)):  # where nothing changes there is nothing to compare
            point = points[:1] if i == 0 else generic(x[i : i + 1])
            self._verify(point, value if i == 0 else self.function.checked(point), tangents(point), self.mode)
            if self.verification is not None and self.verification.note != NOTHING:
                return

    def chunk(self, chunk: int | None) -> int | None:
        """Images per pass: one where each must go alone."""
        return 1 if self.function.one_by_one else chunk

    def __call__(self, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """`f(x)` and `J_f(x)·v_k` (K, N, ...) of a chunk.

        Raises:
            InputError: For an output that does not depend on its input, of another shape, or not finite.
            VerificationError: If it is the first one, and no way of differentiating agrees with the function's values.
        """
        if self.function.random and len(x) > 1:
            return self._one_by_one(x, tangents)
        before = self.function.random_numbers()
        (value, lanes), names, way = self._pushed(x, tangents)
        if self.function.noticed(x, before):
            return self(x, tangents)
        if self.verification is not None and way != self.way:
            self._check_again(x, tangents)
            return self(x, tangents)
        for name in names:
            note_fallback(name)
        if lanes is None:
            raise InputError(
                "The model's output does not depend on its input, so there is no derivative to measure. If it does so by ways "
                "that torch can't follow (NumPy, detach), use mode='differences'."
            )
        check_shape(value, len(x))
        self.function.refuse(~torch.isfinite(value), "output", x)
        own = self.lowering is None or not self.lowering.stands
        if (
            self.verify and own and len(x) > 1 and not self.function.interacts
        ):  # some interact only where there are many
            if self._looked_at is None or self._looked_at() is not x:
                look_at_chunk(self.function, x, value, first=self._looked_at is None)
            self._looked_at = weakref.ref(x)
            if self.function.interacts and self.way is not None and self.way.mode == "reverse":  # wrong for such images
                self._verify_at(x, tangents, 0)
                return self(x, tangents)
        self.function.refuse(~torch.isfinite(lanes).all(0), "derivative", x)
        if self.verification is not None and way.mode in HELD and self._strays(x, tangents, lanes):
            return self(x, tangents)
        stepped = way.mode == "differences" and self.verification is not None and self.verification.verified
        doubt = doubt_of_steps(self.function, x, value, tangents, lanes, way) if stepped else ""
        halved = torch.finfo(x.dtype).eps > 1e-4 and self.function.convertible
        if halved and self._tangents and self.verification is not None and self.verification.verified:
            few = slice(COMPARED)
            exact = self._tangents(x[few].double())
            doubt = doubt or doubt_of_rounding(self.function, x[few], tangents[:, few], lanes[:, few], way, exact)
        if self.verification is not None and doubt:
            self.verification = replace(self.verification, verified=False, note=doubt)
            warnings.warn(f"The number is {self.verification}.", VerificationWarning, stacklevel=7)
        if self.verification is not None and self.verification.note == NOTHING and bool(lanes.any()):
            self._verify_at(x, tangents, int(lanes.abs().reshape(len(lanes), len(x), -1).amax((0, 2)).argmax()))
            if self.verification.note == NOTHING:
                self.verification = replace(self.verification, verified=False, note=f"{NOTHING}, but at others")
                warnings.warn(f"The number is {self.verification}.", VerificationWarning, stacklevel=7)
            return self(x, tangents)
        return value, lanes

    def _pushed(self, x: Tensor, tangents: Tensor) -> "_Pushed":
        """A chunk pushed; the first one chooses the way, and is pushed in the usual one meanwhile."""
        if self._choose is None:
            way = self.way or Way(self.mode)
            low = self.lowering if self.lowering is not None and self.lowering.stands else None
            try:
                return _push(self.function, x, tangents, way, low)
            except LeeError:  # these images take it where the way can't follow
                if not self._goes_on(x, tangents):
                    raise
            return self._pushed(x, tangents)
        tried = None
        if self.mode != "differences":  # their step is chosen at a generic point
            with unless_refused():  # another way may do
                tried = _push(self.function, x, tangents, Way("forward" if self.mode == "auto" else self.mode))
        if tried is None or not self._agrees(x, tangents, tried):
            self._choose()
        self._choose, way = None, self.way or Way(self.mode)
        return tried if tried is not None and tried[2] == way else self._pushed(x, tangents)

    def _one_by_one(self, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        pushed = [self(image, along) for image, along in zip(x.split(1), tangents.split(1, 1), strict=True)]
        return torch.cat([value for value, _ in pushed]), torch.cat([lanes for _, lanes in pushed], 1)

    def decide(self, x: Tensor, tangents: Tangents, derivatives: Tensor, moved: Tensor | None) -> None:
        """Decide by the first images whether a lower precision may be used; nothing the second time, or if none is asked for.

        Given are images (N, ...), their Lie derivatives in the own precision, and what moves of the output (K, N, ...).
        """
        low = self.lowering
        if low is None or low.stands is not None:
            return
        n, found = min(COMPARED, len(x)), None
        if self.way is not None and low.suits("forward" if self.way.mode == "auto" else self.way.mode):
            with unless_refused():  # an operator may have no such precision
                found = _push(self.function, x[:n], tangents(x[:n]), self.way, low)[0][1]
        if found is not None and moved is not None:
            found = found - moved[:, :n]
        low.judge(derivatives[:, :n], found)
        self._note_lowering()

    def _note_lowering(self) -> None:
        """Say in the verification why a lower precision was not used."""
        if self.verification is not None and self.lowering is not None and self.lowering.note:
            notes = [note for note in (self.verification.note, self.lowering.note) if note]
            self.verification = replace(self.verification, note="; ".join(notes))

    def _agrees(self, x: Tensor, tangents: Tensor, tried: "_Pushed") -> bool:
        """Whether a chunk's first image was pushed as the function's values change along one combination of its tangents.

        This asks for no pass but those of the differences. Where it doesn't agree, an exact tie may be to blame.
        """
        (value, lanes), _, way = tried
        if lanes is None or value.shape != lanes.shape[1:] or len(value) != len(x) or self.function.interacts:
            return False
        tangents, lanes = tangents[:, :1], lanes[:, :1]
        weights = weights_of(tangents, lanes)
        reference = Reference(self.function, x[:1], combined(tangents, weights)[0], value[:1])
        found = at_once(reference, combined(lanes, weights)[0], way.mode)
        if found is not None:
            self.way, self.verification = way, found
        return found is not None

    def _strays(self, x: Tensor, tangents: Tensor, lanes: Tensor) -> bool:
        """Check anew at the image whose derivative is furthest from differences, if that is far; whether another way is taken.

        A model's own rule may be another function's where others are right: a straight-through estimator beyond its range.
        """
        weights = weights_of(tangents, lanes)
        along, pushed = combined(tangents, weights), combined(lanes, weights)
        found = by_differences(self.function.value, x, along, jointly=self.function.interacts)[1]
        assert found is not None
        pushed, found = pushed[0], found[0].to(pushed)
        size = torch.maximum(norms(pushed), norms(found))
        far = norms(pushed - found) / size.clamp(min=torch.finfo(torch.float64).tiny)
        if not float(far.max()) > STRAY:
            return False
        before = self.way
        self._verify_at(x, tangents, int(far.argmax()))
        return self.way != before

    def _goes_on(self, x: Tensor, tangents: Tensor) -> bool:
        """Whether `mode="auto"` finds another way for images that the one so far can't follow."""
        before = self.way
        if self.mode != "auto" or self.verification is None or self.function.interacts:
            return False
        for i in range(len(x)):
            self._verify_at(x, tangents, i)
            if self.way != before:
                return True
        return False

    def _check_again(self, x: Tensor, tangents: Tensor) -> None:
        """These images take another way than the first ones did: it has not been checked."""
        point, mode = generic(x[:1]), "unstacked" if self.mode == "auto" else "dual"
        self._verify(point, self.function.value(point), tangents[:, :1], mode)

    def _verify_at(self, x: Tensor, tangents: Tensor, i: int) -> None:
        """Check anew near image `i` of a chunk, and another one if they interact."""
        chosen = [i, i - 1] if self.function.interacts and len(x) > 1 else [i]
        point = generic(x[chosen])
        self._verify(point, self.function.checked(point), tangents[:, chosen], self.mode)

    def _verify(self, point: Tensor, value: Tensor, along: Tensor, mode: str) -> None:
        before = self.verification
        self.way, self.verification = verified(self.function, point, value, along, mode)
        self._note_lowering()
        if before is not None and not before.verified:  # a doubt about earlier images stays one
            self.verification = before


_Pushed = tuple[tuple[Tensor, Tensor | None], list[str], Way]


def _push(function: Function, x: Tensor, tangents: Tensor, way: Way, low: Lowering | None = None) -> _Pushed:
    """What :func:`push` gives, the functions that were run without a rule, and the way that it has really taken."""
    with record_fallbacks() as names, nullcontext() if low is None else low():
        pushed = push(function, x, tangents, way)
    return pushed, names, Way("dual") if fell_back(names) and way.mode == "forward" else way
