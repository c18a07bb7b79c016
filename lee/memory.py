"""Memory: what errors say that there is none left, and freed memory that is kept for the next layer.

A stacked pass allocates and frees buffers of tens of megabytes for every layer. By default glibc maps each of them anew
and unmaps it again, so that every page faults. Other allocators, and GPUs, keep their memory anyway.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from lee.errors import reason
from lee.process.alone import alone, put_back

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
_KEEP = 2**31 - 1
_USUAL = {_TRIM: 64 * 2**20, _MMAP: 32 * 2**20}  # where glibc's own adaptation ends up after large allocations

# What allocators say that raise a plain `RuntimeError`: torch's on a CPU, CUDA's libraries, oneDNN.
_SAID = (
    "can't allocate memory",
    "cannot allocate memory",
    "could not allocate memory",
    "failed to allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",
    "could not create a memory",
    "could not create a primitive",
    "could not execute a primitive",
)

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

    def release() -> None:
        global _users
        _users -= 1
        if _users == 0:
            for option, value in _USUAL.items():
                library.mallopt(option, value)
            library.malloc_trim(0)

    with alone(), put_back(release):
        _users += 1
        if _users == 1:
            library.mallopt(_MMAP, _KEEP)
            library.mallopt(_TRIM, _KEEP)
        yield


def is_shortage(error: BaseException | None) -> bool:
    """Whether an exception, or one that it was raised from, means that there was no memory left.

    >>> is_shortage(MemoryError())
    True
    >>> is_shortage(RuntimeError("shapes don't fit"))
    False
    """
    if error is None or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return error is not None
    told = isinstance(error, RuntimeError | OSError) and any(said in str(error).lower() for said in _SAID)
    return told or is_shortage(error.__cause__)


@contextmanager
def retold(kind: type[Exception], told: str) -> Iterator[None]:
    """Raise what a user's model may raise inside as `kind(told)`, with the reason in the place of `{}`.

    Errors of our own, and those of short memory, which less at a time may help against, stay what they are.

    >>> with retold(ValueError, "It can't be done ({})."):
    ...     raise RuntimeError("no such kernel.")
    Traceback (most recent call last):
        ...
    ValueError: It can't be done (RuntimeError: no such kernel).
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("lee.") or is_shortage(error):
            raise
        raise kind(told.format(reason(error))) from error


@contextmanager
def unless_refused() -> Iterator[None]:
    """Do without what fails inside, as where a model refuses another precision; a shortage of memory is raised all the same."""
    try:
        yield
    except Exception as error:
        if is_shortage(error):
            raise
