"""A name → a network ready to measure: timm's, a factory's, or one that was trained here."""

from lee.models.loading import Normalize, Normalized, build, card, input_size, load, load_weights, names, resolve

__all__ = ["load", "names", "card", "build", "load_weights", "resolve", "input_size", "Normalized", "Normalize"]
