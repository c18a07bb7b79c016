"""What was inferred about the tensors of a model, in words."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from lee.geometry.outputs import Representations
from lee.layers.calls import check_modules
from lee.layers.places import Reading
from lee.layers.readings import Overrides
from lee.layers.trace import trace
from lee.measure.checks import check_input
from lee.measure.function import untouched


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was inferred about the tensors of every module call.

    Args:
        frame: Columns `path`, `call`, `type`, `inputs`, `outputs` (representations, or `?`), `measured`, `why`.
    """

    frame: pd.DataFrame

    def __str__(self) -> str:
        rows = []
        for row in self.frame.to_dict("records"):
            indent = "  " * row["depth"]
            call = f"#{row['call'] + 1}" if row["call"] else ""
            rows.append(f"{indent}{row['path'] or '(model)'}{call} {row['type']}: {row['inputs']} → {row['outputs']}")
            rows.append(f"{indent}    {row['why']}")
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        return str(self.frame.drop(columns="depth").to_html(index=False))


def explain_representations(model: nn.Module, x: Tensor, representations: Representations = None) -> Explanation:
    """Say how the tensors of every module call transform, and why.

    Args:
        model: Any module.
        x: Images (N, C, H, W); the first is used.
        representations: Overrides by pattern of module path, as for :func:`lee.layerwise`.

    Returns:
        A table that prints readably.

    Raises:
        InputError: As :func:`lee.layerwise`.
    """
    inner = check_modules(model)
    check_input(inner, x, image=True)
    with untouched(inner), torch.no_grad():
        found = trace(inner, x[:1], overrides := Overrides(representations))
    overrides.check_used([t.call.path for t in found])
    rows = [
        {
            "path": t.call.path, "call": t.call.call, "type": t.call.type, "depth": t.call.depth,
            "inputs": ", ".join(map(_short, t.inputs)), "outputs": ", ".join(map(_short, t.outputs)),
            "measured": t.placed, "why": t.why,
        }
        for t in found
    ]  # fmt: skip
    return Explanation(pd.DataFrame(rows))


def _short(reading: Reading) -> str:
    return "?" if reading.representation is None else str(reading.representation)
