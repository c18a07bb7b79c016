"""Tangents that are added to the outputs of module calls inside a stacked pass."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from lee.autodiff import Stacked
from lee.layers.nested import changed, tensors


def widened(value: Tensor, lanes: int) -> Stacked:
    """A stack of `value` with zero tangents; one that is a stack already stays."""
    if isinstance(value, Stacked):
        return value
    buffer = value.new_zeros(1 + lanes, *value.shape)
    buffer[0] = value
    return Stacked(buffer)


def added(output: Any, parts: list[Tensor], lane: int, lanes: int, held: Any = None) -> Any:
    """`output` with `parts` added to one of its tangents.

    Args:
        output: What a module returned.
        parts: One tensor per floating-point output.
        lane: Which tangent.
        lanes: How many there are, where the output has none yet.
        held: Everything that may share the output's memory and must not change, such as the module's inputs; None stands
            for anything, so that the output is copied first.
    """
    taken = {_memory(v) for v in tensors(held)} if held is not None else set()

    def add(value: Tensor, i: int) -> Tensor:
        fresh = not isinstance(value, Stacked) or (held is not None and _memory(value) not in taken)
        stack = widened(value, lanes) if fresh else Stacked(widened(value, lanes).buffer.clone())
        buffer = stack.buffer
        with _disable_current_modes():  # our own write, into memory that nobody else reads
            buffer[1 + lane] += parts[i]
        return stack

    return changed(output, add)


def _memory(value: Tensor) -> int:
    return (value.buffer if isinstance(value, Stacked) else value).untyped_storage().data_ptr()
