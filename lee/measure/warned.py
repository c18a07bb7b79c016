"""What is said of a function that is more than one, or none: each warning in one place, at the line of the user's own code."""

import sys
import warnings

from lee.errors import (
    BatchInteractionWarning,
    ConstantOutputWarning,
    LeeWarning,
    RandomFunctionWarning,
    StateWarning,
)  # fmt: skip
from lee.measure.reach import is_library


def warn_of_random() -> None:
    """Warn of a model that draws random numbers, which are held still."""
    _warn(
        "The model is random in eval mode, as it draws random numbers (dropout with training=True, noise, …): all passes share "
        "one state of them and go image by image, so the number belongs to that one draw.",
        RandomFunctionWarning,
    )


def warn_of_state() -> None:
    """Warn of a model whose calls change its next output, which start from one state."""
    _warn(
        "The model changes its own parameters, buffers or attributes while it runs, and with them its next output: every pass "
        "starts from the state that it was given in.",
        StateWarning,
    )


def warn_of_batch() -> None:
    """Warn of a model in which the images of a batch interact."""
    _warn(
        "The output for an image depends on the other images of its batch (batch statistics in eval mode?), so the "
        "number depends on `chunk`, the images per pass; chunk=1 measures each image alone.",
        BatchInteractionWarning,
    )


def warn_of_constant() -> None:
    """Warn of an output that no change of the image changes."""
    _warn(
        "The model's output does not change in any direction around these inputs: it ignores them or is saturated. "
        "That nothing changes is no evidence of learned equivariance.",
        ConstantOutputWarning,
    )


def _warn(message: str, category: type[LeeWarning]) -> None:
    """Warn at the innermost line that is not a library's: a measurement is deep in calls, and not always equally deep."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and is_library(frame.f_globals.get("__name__")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
