"""Errors that name the input, say what was expected, and what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches


class LeeError(Exception):
    """Base class of every error that `lee` raises on purpose."""


class InputError(LeeError, ValueError):
    """The caller's input can't be used as it is; the message says which and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name closest to `name`, or the list of known names.

    >>> nearest("rotatoin", ["rotation", "scale"])
    " Did you mean 'rotation'?"
    """
    names = sorted(known)
    match = get_close_matches(str(name), names, n=1, cutoff=0.5)
    if match:
        return f" Did you mean {match[0]!r}?"
    return f" Known names: {', '.join(names)}." if names else ""
