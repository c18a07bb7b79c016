"""A name → images in [0, 1], with licence and checksum."""

from lee.datasets.corruptions import Corruption
from lee.datasets.embedded import MEMBERS as EMBEDDED
from lee.datasets.loading import DERIVED, LOCAL, ImageSet, check, describe, load, names, verify

__all__ = ["load", "ImageSet", "Corruption", "names", "check", "describe", "verify", "EMBEDDED", "LOCAL", "DERIVED"]
