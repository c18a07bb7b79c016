"""A backward pass held against differences of the function's values, also across the motions that are measured."""

import torch
from torch import Tensor

from lee.autodiff import pullback
from lee.errors import VerificationError
from lee.measure.function import Function
from lee.measure.judgement import TIGHT
from lee.measure.reference import Reference, combined, flat, generic, weights_of
from lee.memory import unless_refused


def verify_backward(function: Function, x: Tensor, found: Tensor) -> None:
    r"""Refuse a backward pass with `⟨Jᵀw, d⟩ ≠ ⟨w, J d⟩` along a random direction `d` of an image.

    What is measured along some motions says nothing of a part of `Jᵀw` across them, such as that of a mean which none changes.

    Args:
        function: The function.
        x: One image, (1, ...).
        found: Its Lie derivatives, (K, 1, ...), whose combination is `w`.

    Raises:
        VerificationError: If they don't agree.
    """
    point, w = generic(x), combined(found, weights_of(found, None))[0]
    w = w / w.abs().amax()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x)
    reference, limit = Reference(function, point, direction, function.value(point)), TIGHT / 30
    pulled, size = _pulled(function, point, w, direction)
    for noisy in (False, True):  # the first differences in double precision are good enough for most
        slope, noise = reference.best[:2] if noisy else (reference.slope(reference.steps[0]), 0.0)
        known, noise = float((flat(w).conj() @ slope.to(flat(w).dtype)).real), 3 * noise * float(flat(w).norm())
        size = max(size, abs(known))
        if abs(pulled - known) <= (limit if x.dtype == torch.float64 else TIGHT) * size + noise:
            return
    if x.dtype != torch.float64 and function.convertible:  # kinks that rounding puts on the other side
        with unless_refused(), function.doubled():
            precise = _pulled(function, point.double(), w, direction)[0]
            if abs(precise - known) <= limit * size + noise:
                return
    raise not_backward(
        f"Along a random change of an image the backward pass gives {pulled:.3g}, and differences of the model's own values "
        f"{known:.3g} ± {noise:.2g}."
    )


def _pulled(function: Function, x: Tensor, w: Tensor, direction: Tensor) -> tuple[float, float]:
    """`⟨Jᵀw, d⟩` at an image, and its usual size for directions as long."""
    dtype = x.dtype.to_complex() if w.is_complex() else x.dtype
    gradient = flat(pullback(function, x, w.to(dtype)[None]))
    along = float(gradient @ flat(direction))
    return along, float(gradient.norm() * flat(direction).norm()) / gradient.numel() ** 0.5


def not_backward(said: str) -> VerificationError:
    """The refusal of a backward pass, for a reason."""
    return VerificationError(
        f"{said} The model's backward pass is not the derivative of its values (a detach, no_grad or custom backward?), or single "
        "precision is too coarse for it; verify=False shows the map all the same."
    )
