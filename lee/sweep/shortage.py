"""Where memory is short: fewer images per pass, until a task fits or not even one image does."""

import gc
from collections.abc import Iterator

import torch

#: Images per pass, at most: first as many as usual (None), then fewer.
STEPS = (None, 8, 1)
#: What allocators say that raise a plain `RuntimeError`: torch's on a CPU, CUDA's libraries, oneDNN.
_SAID = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",
    "could not create a memory",
    "could not create a primitive",
    "could not execute a primitive",
)


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


def steps_from(chunk: int | None) -> Iterator[int | None]:
    """A limit on the images per pass, then the smaller ones of :data:`STEPS`."""
    yield chunk
    yield from (step for step in STEPS if step is not None and (chunk is None or step < chunk))


def step(failures: int) -> int | None:
    """The limit on images per pass for a task whose process has died so many times."""
    return STEPS[min(failures, len(STEPS) - 1)]


def release() -> None:
    """Give memory that nobody uses any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
