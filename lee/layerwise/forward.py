r"""Forward mode: local derivatives pushed to the output, one lane per call.

:math:`v_m = \partial y / \partial \varepsilon_m` with `out_m ← out_m + ε_m Λ_m`. A pass carries as many lanes as memory allows,
and is plain until the first of its calls ends.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from lee.layerwise.calls import Call, Watch
from lee.layerwise.local import Local
from lee.stacked import Stacked
from lee.stacked.tensor import NoRuleError

Run = Callable[[Tensor], Tensor]


class ForwardError(Exception):
    """A stacked pass fails where a plain one does not."""


def _changed(output: Any, change: Callable[[Tensor, int], Tensor]) -> Any:
    """`output` with `change(tensor, i)` in place of its floating-point tensors."""
    place = iter(range(10**6))
    return pytree.tree_map(
        lambda v: change(v, next(place)) if isinstance(v, Tensor) and v.is_floating_point() else v, output
    )


def _widened(value: Tensor, lanes: int) -> Tensor:
    """A stack with zero tangents; one that is a stack already stays."""
    if isinstance(value, Stacked):
        return value
    buffer = value.new_zeros(1 + lanes, *value.shape)
    buffer[0] = value
    return Stacked(buffer)


def _with_lane(value: Tensor, part: Tensor, lane: int, lanes: int) -> Tensor:
    """A stack like `value` with `part` added to one of its tangents; `value` stays, for others may hold it."""
    stack = Stacked(value.buffer.clone()) if isinstance(value, Stacked) else _widened(value, lanes)
    assert isinstance(stack, Stacked)
    stack.buffer[1 + lane] += part
    return stack


def push(model: nn.Module, run: Run, x: Tensor, found: Sequence[Local], lanes: int) -> Tensor:
    """`v_m` of every call for images `x` by stacked forward mode, `lanes` at a time: shape `(M, *output)`."""
    parts = []
    for start in range(0, len(found), lanes):
        group = {local.index: (lane, local) for lane, local in enumerate(found[start : start + lanes])}
        parts.append(_forward_group(model, run, x, group))
    return torch.cat(parts)


def _forward_group(model: nn.Module, run: Run, x: Tensor, group: dict[int, tuple[int, Local]]) -> Tensor:
    """One stacked pass; it is repeated from further up where a plain tensor would have to take a stacked one in place."""
    start: int | None = None
    while True:
        watch = Watch(model, _stacking(start, len(group)), _injecting(group))
        try:
            with watch, sdpa_kernel(SDPBackend.MATH):
                y = run(x.clone())  # the model may write into it
            return y.buffer[1:].clone() if isinstance(y, Stacked) else y.new_zeros(len(group), *y.shape)
        except NoRuleError as error:
            if watch.current is None or watch.current.index == start:
                raise ForwardError(f"{error}.") from error
            start = watch.current.index
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ForwardError(f"{type(error).__name__}: {error}.") from error


def _stacking(start: int | None, lanes: int) -> Callable[..., Any]:
    """A hook that gives the inputs of call `start` their lanes, all zero, so that everything in it is stacked."""

    def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return _changed((args, kwargs), lambda v, _: _widened(v, lanes)) if call.index == start else None

    return before


def _injecting(group: dict[int, tuple[int, Local]]) -> Callable[..., Any]:
    """A hook that adds the local derivative of a call to its own lane."""

    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if call.index not in group:
            return None
        lane, local = group[call.index]
        return _changed(output, lambda v, i: _with_lane(v, local.parts[i], lane, len(group)))

    return after
