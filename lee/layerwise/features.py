"""The output of every module call, with the representation that moves it: what layer-wise metrics compare."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lee.layerwise.calls import Call, Watch, check_modules
from lee.layerwise.trace import Overrides, eager, tensors, trace
from lee.measuring import check_input, plain, untouched
from lee.representations import Representation, Representations


@dataclass(frozen=True)
class Feature:
    """The first output of one module call.

    Args:
        path: Dotted path of the module; empty for the model.
        call: 0 for the module's first call.
        type: Name of the module's class.
        depth: Number of calls around it.
        leaf: Whether it called no other module.
        value: The output for N images, folded along the first axis.
        representation: How it transforms; None where that is not known.
    """

    path: str
    call: int
    type: str
    depth: int
    leaf: bool
    value: Tensor
    representation: Representation | None


def features(model: nn.Module, x: Tensor, representations: Representations = None) -> list[Feature]:
    """Outputs of all module calls for images `x` (N, C, H, W), in the order in which the calls start.

    Images go through the model one by one, so that whatever a module folds into the batch axis stays in order.

    Args:
        model: Any module; left as it was.
        x: Images (N, C, H, W).
        representations: Overrides by pattern of module path, as for :func:`lee.layerwise`.

    Raises:
        InputError: As :func:`lee.layerwise`.
    """
    inner = plain(model)
    check_modules(inner)
    check_input(inner, x, image=True)
    assert isinstance(inner, nn.Module)
    with untouched(inner), torch.no_grad(), eager():
        found = trace(inner, x[:1], Overrides(representations))
        values = [_outputs(inner, image) for image in x.split(1)]
    return [
        Feature(
            t.call.path, t.call.call, t.call.type, t.call.depth, t.leaf,
            torch.cat([v[t.call.index] for v in values]), t.outputs[0].representation,
        )
        for t in found
        if t.outputs
    ]  # fmt: skip


def _outputs(model: nn.Module, image: Tensor) -> dict[int, Tensor]:
    kept: dict[int, Tensor] = {}

    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if values := tensors(output):
            kept[call.index] = values[0].clone()

    with Watch(model, after=after):
        model(image)
    return kept
