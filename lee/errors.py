"""Errors and warnings that name the input, say what was expected, and what to do about it."""

import importlib.util
import math
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "LeeError", "InputError", "VerificationError",
    "LeeWarning", "VerificationWarning", "ImageWarning", "OutputWarning", "TrainingModeWarning", "StateWarning",
    "RandomFunctionWarning", "BatchInteractionWarning", "LeavesTorchWarning", "ConstantOutputWarning",
    "DamageWarning",
]  # fmt: skip


#: The largest whole number that torch takes.
MOST = 2**63 - 1


class LeeError(Exception):
    """Base class of every error that `lee` raises on purpose."""


class InputError(LeeError, ValueError):
    """The caller's input can't be used as it is; the message says which and what to do."""


class VerificationError(LeeError):
    """No way of differentiating agrees with the function's own values; the message has both numbers."""


class LeeWarning(UserWarning):
    """Base class of every warning that `lee` gives on purpose: a number that should be read with care, and why."""


class ConstantOutputWarning(LeeWarning):
    """The derivative vanishes for a reason other than equivariance."""


class RandomFunctionWarning(LeeWarning):
    """The model is random: the number belongs to one state of the random numbers."""


class StateWarning(LeeWarning):
    """The model changes itself while it runs: the number belongs to the state that it had before."""


class BatchInteractionWarning(LeeWarning):
    """The output for an image depends on the other images of its batch, so the number depends on the chunk."""


class TrainingModeWarning(LeeWarning):
    """A module in training mode was reached through a function; it was measured in eval mode."""


class LeavesTorchWarning(LeeWarning):
    """Values that depend on the image leave torch (`.item()`, `.numpy()`), so derivatives can't follow them."""


class VerificationWarning(LeeWarning):
    """The number could not be checked against the function's own values, or only roughly."""


class OutputWarning(LeeWarning):
    """The output does not look like what was asked for: scores that are probabilities already, for example."""


class ImageWarning(LeeWarning):
    """The images do not look like what the model expects: another range, another order of axes, or no content."""


class DamageWarning(LeeWarning):
    """A file is not what was written; what is lost of it is made again."""


def reason(error: BaseException) -> str:
    """What an exception of somebody else's code says, on one line without a full stop.

    >>> reason(ValueError("no such size.")), reason(AssertionError()), reason(SystemExit(0))
    ('ValueError: no such size', 'AssertionError', 'it ended the program (sys.exit)')
    """
    if isinstance(error, SystemExit):
        return "it ended the program (sys.exit)"
    said = " ".join(str(error).split()).partition(" Traceback")[0][:300].rstrip(".")  # TorchScript's own, of many lines
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name closest to `name`, or the known names, of many the first ones.

    >>> nearest("rotatoin", ["rotation", "scale"])
    " Did you mean 'rotation'?"
    """
    names = sorted(known)
    match = get_close_matches(str(name), names, n=1, cutoff=0.5)
    if match:
        return f" Did you mean {match[0]!r}?"
    more = f" and {len(names) - 40} more" * (len(names) > 40)
    return f" Known names: {', '.join(names[:40])}{more}." if names else ""


def check_known(what: str, name: object, known: Iterable[str]) -> None:
    """Refuse a name that isn't among the known ones, of which the nearest is suggested."""
    if name not in (names := list(known)):
        raise InputError(f"Unknown {what} {name!r}.{nearest(str(name), names)}")


def check_count(name: str, value: object, least: int = 1, most: int = MOST) -> None:
    """Refuse what is no whole number from `least` to `most`; `True` is none."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= most:  # type: ignore[operator]
        up_to = f" to {most}" if most < MOST or (whole and value > most) else ""  # type: ignore[operator]
        raise InputError(f"`{name}` must be a whole number from {least}{up_to}, not {value!r}.")


def check_number(name: str, value: object, low: float, high: float = math.inf, *, least: bool = False) -> None:
    """Refuse what is no number between two others, or from the `least` one up to the other; `True` is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value < high or (least and value == low)):  # type: ignore[operator]
        above = f"above {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InputError(
            f"`{name}` must be a number {f'from {low:g} up to {high:g}' if least else above}, not {value!r}."
        )


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False: a text such as "no" would count as True."""
    if not isinstance(value, bool):
        raise InputError(f"`{name}` must be True or False, not {value!r}.")


def check_installed(what: str, extra: str, *modules: str) -> None:
    """Refuse to go on without some modules, which the extra of this package installs."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{what} needs {', '.join(missing)}. Install them where lee was cloned: pip install -e '.[{extra}]'"
        )
