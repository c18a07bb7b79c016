"""Keep freed memory for the next layer instead of giving it back to the system between two operators.

A stacked pass allocates and frees buffers of tens of megabytes for every layer. By default glibc maps each of them anew
and unmaps it again, so that every page faults. Other allocators, and GPUs, keep their memory anyway.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
_KEEP = 2**31 - 1
_USUAL = {_TRIM: 64 * 2**20, _MMAP: 32 * 2**20}  # where glibc's own adaptation ends up after large allocations

_lock = threading.Lock()
_users = 0


@cache
def _glibc() -> Any:
    """The C library if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None


@contextmanager
def kept() -> Iterator[None]:
    """Keep freed memory while inside; afterwards return it, with thresholds as glibc sets them for large tensors."""
    global _users
    library = _glibc()
    if library is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            library.mallopt(_MMAP, _KEEP)
            library.mallopt(_TRIM, _KEEP)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for option, value in _USUAL.items():
                    library.mallopt(option, value)
                library.malloc_trim(0)
