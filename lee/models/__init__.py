"""A name → a network ready to measure: timm's, a factory's, or one that was trained here."""

from lee.models.loading import (
    Normalize,
    Normalized,
    build,
    card,
    has_weights,
    input_size,
    load,
    load_weights,
    names,
    resolve,
)

__all__ = [
    "Normalize",
    "Normalized",
    "build",
    "card",
    "has_weights",
    "input_size",
    "load",
    "load_weights",
    "names",
    "resolve",
]
