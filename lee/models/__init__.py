"""A name → a network ready to measure: timm's, a factory's, or one that was trained here."""

from typing import TYPE_CHECKING, Any

from lee.models.cards import card, names

if TYPE_CHECKING:
    from lee.models.loading import Normalize, Normalized, build, input_size, load, load_weights, resolve

__all__ = ["load", "names", "card", "build", "load_weights", "resolve", "input_size", "Normalized", "Normalize"]


def __getattr__(name: str) -> Any:
    """What builds networks needs torch, so it is imported on first use: names and cards are files."""
    if name in __all__:
        from lee.models import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'lee.models' has no attribute {name!r}")
