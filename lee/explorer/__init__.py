"""The explorer: an image, its transformation under sliders, and what one or two models make of it, live.

:class:`lee.explorer.app.Explorer` is the app for a notebook; `lee explore` and `make explore` serve it as a page of its own.
What it shows is computed by :mod:`lee.explorer.measures` from a frozen :class:`lee.explorer.state.State`, without widgets.
"""

from typing import Any

from lee.explorer.measures import Measures
from lee.explorer.state import State

__all__ = ["Explorer", "Measures", "State"]


def __getattr__(name: str) -> Any:
    """`Explorer` needs ipywidgets, so it is imported on first use."""
    if name == "Explorer":
        from lee.explorer.app import Explorer

        return Explorer
    raise AttributeError(f"module 'lee.explorer' has no attribute {name!r}")
