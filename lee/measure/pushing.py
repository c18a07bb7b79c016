"""Tangents pushed through a function, chunk after chunk, in the way that was verified on the first images."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lee.autodiff import by_differences, by_dual_numbers, record_fallbacks
from lee.autodiff.alternatives import pushed
from lee.autodiff.tensor import note_fallback
from lee.errors import InputError, check_flag
from lee.measure.checks import check_shape
from lee.measure.function import Function
from lee.measure.judgement import NOTHING
from lee.measure.looking import look, look_at_chunk
from lee.measure.reference import generic
from lee.measure.verification import Way, fell_back, verified
from lee.statistics import Verification

Tangents = Callable[[Tensor], Tensor]
TRIED = 4  # images, until one changes


def push(function: Function, x: Tensor, tangents: Tensor, way: Way) -> tuple[Tensor, Tensor | None]:
    """`f(x)` and the tangents `J_f(x)·v_k` (K, N, ...), in one way of differentiating.

    Args:
        function: The function.
        x: Images, (N, ...).
        tangents: (K, N, ...).
        way: How.

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
    return by_dual_numbers(function, x, tangents) if way.mode == "dual" else pushed(function, x, tangents, way.mode)


@dataclass
class Pushing:
    """One function, and how its derivatives are taken.

    Args:
        function: The function.
        mode: As for :func:`lee.lie_derivative`.
        verify: Whether to check the function and its derivative on the first images.

    Attributes:
        way: What the check has chosen.
        verification: What it has shown; None before the first images, or without a check.
    """

    function: Function
    mode: str = "auto"
    verify: bool = True
    way: Way | None = None
    verification: Verification | None = None
    _looked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_flag("verify", self.verify)

    def start(self, x: Tensor, tangents: Tangents) -> None:
        """Look at the function, and choose a way that agrees with its values; does nothing the second time.

        Args:
            x: The first images, (N, ...).
            tangents: From images to their tangents, (K, N, ...).

        Raises:
            VerificationError: If no way agrees.
            InputError: If the function can't be measured.
        """
        if self.way is not None:
            return
        self.way = Way(self.mode)
        if not self.verify:
            return
        points = generic(x[:2])
        value = look(self.function, points)
        if self.function.interacts:
            point, value = points, self.function.value(points)
            self.way, self.verification = self._verified(point, value, tangents(point), self.mode)
            return
        for i in range(min(len(x), TRIED)):  # where nothing changes there is nothing to compare
            point = points[:1] if i == 0 else generic(x[i : i + 1])
            value = value if i == 0 else self.function.checked(point)
            self.way, self.verification = self._verified(point, value, tangents(point), self.mode)
            if self.verification.note != NOTHING:
                return

    def chunk(self, chunk: int | None) -> int | None:
        """Images per pass: one where each must meet the same random numbers."""
        return 1 if self.function.random else chunk

    def __call__(self, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """`f(x)` and `J_f(x)·v_k` (K, N, ...) of a chunk.

        Raises:
            InputError: For an output that does not depend on its input, of another shape, or not finite.
        """
        way = self.way or Way(self.mode)
        with record_fallbacks() as names:
            value, lanes = push(self.function, x, tangents, way)
        if self.verification is not None and way.mode == "forward" and fell_back(names):
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
        if self.verify and not self._looked and len(x) > 2:  # some images interact only where there are many
            look_at_chunk(self.function, x, value)
            self._looked = True
        self.function.refuse(~torch.isfinite(lanes).all(0), "derivative", x)
        return value, lanes

    def _check_again(self, x: Tensor, tangents: Tensor) -> None:
        """These images take another way than the first ones did: it has not been checked."""
        mode = "unstacked" if self.mode == "auto" else "dual"
        point = generic(x[:1])
        self.way, self.verification = self._verified(point, self.function.value(point), tangents[:, :1], mode)

    def _verified(self, point: Tensor, value: Tensor, along: Tensor, mode: str) -> tuple[Way, Verification]:
        return verified(self.function, point, value, along, lambda z, v, way: push(self.function, z, v, way)[1], mode)
