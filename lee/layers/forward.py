r"""Forward mode: local terms pushed to the output, one lane per call.

:math:`\partial y / \partial \varepsilon_m` with `out_m ← out_m + ε_m λ_m`, `λ_m` a call's own local term. A pass carries as many
lanes as memory allows, and is plain until the first of its calls ends.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lee.autodiff import Stacked
from lee.autodiff.messages import NoRuleError
from lee.autodiff.surroundings import stacked_pass
from lee.layers.calls import Call, Watch
from lee.layers.lanes import added, widened
from lee.layers.local import ForwardError
from lee.layers.nested import changed
from lee.layers.primals import Primals
from lee.layers.trace import Traced, hooks_of
from lee.memory import is_shortage

Run = Callable[[Tensor], Tensor]


def push(
    model: nn.Module, run: Run, x: Tensor, own: Mapping[int, list[Tensor]], found: Sequence[Traced],
    primals: Primals, lanes: int,
) -> Tensor:  # fmt: skip
    """Terms of images `x` pushed to the output by stacked forward mode, `lanes` at a time: shape `(M, *output)`.

    `own` has the local terms in the order in which their calls end; all else is as for :func:`push_together`.
    """
    parts, terms = [], list(own.items())
    for start in range(0, len(terms), lanes):
        group = {index: (lane, local) for lane, (index, local) in enumerate(terms[start : start + lanes])}
        parts.append(push_together(model, run, x, group, found, primals))
    return torch.cat(parts)


def push_together(
    model: nn.Module,
    run: Run,
    x: Tensor,
    group: Mapping[int, tuple[int, list[Tensor]]],
    found: Sequence[Traced],
    primals: Primals | None = None,
) -> Tensor:
    """Terms of images `x` pushed to the output in one stacked pass, those of one lane summed: shape `(lanes, *output)`.

    The pass is repeated from further up where a plain tensor would have to take a stacked one in place.

    Args:
        model: In eval mode.
        run: From images to the selected output.
        x: Images, (n, C, H, W).
        group: For each call its lane, from 0, and its term.
        found: All calls.
        primals: The values of another pass of these images, which this one takes.

    Raises:
        ForwardError: If the pass fails.
    """
    start: int | None = None
    lanes = 1 + max(lane for lane, _ in group.values())

    def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if primals is not None:
            primals.enter(call.index, (args, kwargs))
        return changed((args, kwargs), lambda v, _: widened(v, lanes)) if call.index == start else None

    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if primals is not None:
            primals.leave(call.index, output)
        if call.index not in group:
            return None
        lane, local = group[call.index]
        # The output of a call that calls nothing is in nobody else's hands.
        return added(output, local, lane, lanes, (args, kwargs) if found[call.index].leaf else None)

    while True:
        watch = Watch(model, before, after, hooks_of(found))
        try:
            with watch, stacked_pass():
                y = run(x.clone())  # the model may write into it
            return y.buffer[1:].clone() if isinstance(y, Stacked) else y.new_zeros(lanes, *y.shape)
        except NoRuleError as error:
            if watch.current is None or watch.current.index == start:
                raise ForwardError(f"{error}.") from error
            start = watch.current.index
        except Exception as error:
            if is_shortage(error):
                raise
            raise ForwardError(f"{type(error).__name__}: {error}.") from error
