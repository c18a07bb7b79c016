"""Where memory is short: fewer images per pass, until a task fits or not even one image does."""

from collections.abc import Iterator

#: Images per pass, at most: first as many as usual (None), then fewer.
STEPS = (None, 8, 1)


def steps_from(chunk: int | None) -> Iterator[int | None]:
    """A limit on the images per pass, then the smaller ones of :data:`STEPS`."""
    yield chunk
    yield from (step for step in STEPS if step is not None and (chunk is None or step < chunk))
