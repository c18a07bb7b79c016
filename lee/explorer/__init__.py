"""The explorer: an image, its transformation under sliders, and what one or two models make of it, live.

:class:`Explorer` is the app for a notebook; `lee explore` and `make explore` serve it as a page of its own. What it shows is
computed by :class:`Measures` from a frozen :class:`State`, without widgets.
"""

from typing import Any

from lee.explorer.measures import Measures
from lee.explorer.state import State, mixture_of

__all__ = ["Explorer", "State", "Measures", "mixture_of"]


def __getattr__(name: str) -> Any:
    """`Explorer` needs ipywidgets, so it is imported on first use."""
    if name == "Explorer":
        from lee.explorer.app import Explorer

        return Explorer
    raise AttributeError(f"module 'lee.explorer' has no attribute {name!r}")
