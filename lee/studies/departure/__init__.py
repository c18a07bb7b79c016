"""Sets of images that depart from a training set: how far they lie, and what becomes of a local equivariance error there.

`measure` adds to a sweep what :mod:`lee.sweep` does not measure, `load` and `write` keep it, and :class:`Departures` reads
both tables together.
"""

from lee.studies.departure.comparing import NAMES, Departures
from lee.studies.departure.measuring import load, measure, write

__all__ = ["Departures", "NAMES", "measure", "load", "write"]
