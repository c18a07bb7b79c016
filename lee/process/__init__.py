"""What belongs to the whole process, and so to one thread at a time; and the processes that it starts, which end with it."""

from lee.process.alone import alone, check_device, computed_once, ordinary, put_back
from lee.process.children import Children, Stopped

__all__ = ["alone", "put_back", "ordinary", "computed_once", "check_device", "Children", "Stopped"]
