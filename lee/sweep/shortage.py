"""Where memory is short: fewer images per pass, until a task fits or not even one image does."""

import gc
from collections.abc import Iterator

import torch

#: Images per pass, at most: first as many as usual (None), then fewer.
STEPS = (None, 8, 1)


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
