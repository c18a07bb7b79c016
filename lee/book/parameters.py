"""The types of a chapter's parameters: what a profile or papermill gives, held against the chapter's own cell.

A cell of parameters says the types by annotations, `n_images: int = 64`. Papermill injects whatever it was given.
"""

import math
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from lee.errors import InputError

#: Annotation: what it takes, in words, and how papermill is given one.
KINDS: dict[str, tuple[type | tuple[type, ...], str, str]] = {
    "int": (int, "a whole number", "-p {name} 8"),
    "float": ((int, float), "a number", "-p {name} 0.5"),
    "bool": (bool, "true or false", "-p {name} true"),
    "str": (str, "a text", "-r {name} TEXT"),
    "list": (list, "a list", "-y '{name}: [...]'"),
    "dict": (dict, "a mapping", "-y '{name}: {{...}}'"),
}


def check(name: str, value: Any, annotation: str, source: str = "papermill", how: str = "") -> None:
    """Refuse a value that is not of a parameter's type, such as `list[str]`; types that are not in :data:`KINDS` take any.

    The message says who gave it, `papermill` or the profile in words, and what to do about it, which by default follows from that.
    """
    kind, _, inner = annotation.removesuffix("]").partition("[")
    kind = kind.strip()
    if kind not in KINDS:
        return
    types, words, example = KINDS[kind]
    how = how or (f"With papermill: {example.format(name=name)}." if source == "papermill" else f"Given by {source}.")
    fits = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
    if fits and not (isinstance(value, float) and not math.isfinite(value)):
        parts = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
        for place, part in parts:
            check(f"{name}[{place!r}]", part, inner.partition(",")[2] if kind == "dict" else inner, source, how)
        return
    raise InputError(f"The parameter {name} is {value!r}, and {words} ({kind}) was expected. {how}")


def check_notebook(frame: FrameType | None) -> None:
    """Check the annotated parameters of a notebook in one of whose cells a frame runs.

    Only what papermill can inject is looked at: a name that a later cell has bound to something else is no parameter any more.
    """
    given: Mapping[str, Any] = {} if frame is None else frame.f_globals
    module = sys.modules.get(str(given.get("__name__")))
    annotations = given.get("__annotations__") or getattr(module, "__annotations__", {})
    for name, annotation in annotations.items():
        value = given.get(name)
        if name in given and (value is None or isinstance(value, str | int | float | list | dict)):
            check(name, value, annotation if isinstance(annotation, str) else getattr(annotation, "__name__", ""))
