"""Tangents pushed in a lower precision, where the first images show that the numbers stay what they are.

Rounding the factors of products to the eight bits of bfloat16 is random from layer to layer, so a mean square changes by a per cent
or so; but where a model subtracts nearly equal numbers it loses more. Which of the two a model does is not to be read from its
layers: it is measured, on its first images, against the precision that it was given in.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from lee.autodiff.rounding import rounded_products
from lee.errors import InputError, check_known
from lee.process.alone import in_tf32

#: `"own"` is the precision of model and images, `"auto"` bfloat16 where the device computes faster in it.
PRECISIONS = ("own", "auto", "bfloat16", "tf32")
TOLERATED = 0.03  # relative change of a mean square
COMPARED = 4  # images


@dataclass
class Lowering:
    """A lower precision, and what the first images have shown of it.

    Args:
        name: `"bfloat16"` or `"tf32"`.
        stands: Whether it may be used; None before the first images.
        note: What was found, for the verification.
    """

    name: str
    stands: bool | None = None
    note: str = ""

    def __call__(self) -> AbstractContextManager[None]:
        """What is pushed inside is pushed in this precision."""
        return in_tf32() if self.name == "tf32" else rounded_products(torch.bfloat16)

    def suits(self, mode: str) -> bool:
        """Whether it can be had in a mode: bfloat16 is for stacks, whose primal keeps its precision."""
        return mode != "differences" if self.name == "tf32" else mode == "forward"

    def judge(self, own: Tensor, low: Tensor | None) -> None:
        """Decide by the derivatives (K, n, ...) of the first images in both precisions; None where it can't be had."""
        if low is None:
            self.stands, self.note = False, f"{self.name} can't be had with this model in this mode, so it was not used"
            return
        squares = [v.abs().double().square().flatten(1).mean(1) for v in (own, low)]
        moving = squares[0] > 1e-12 * squares[0].amax()  # rounding of a zero says nothing
        apart = float(((squares[1] - squares[0]).abs() / squares[0])[moving].amax()) if bool(moving.any()) else 0.0
        self.stands = apart <= TOLERATED
        found = f"{self.name} changes the mean squares of the first {own.shape[1]} images by up to {apart:.1%}"
        self.note = found if self.stands else f"{found}, so it was not used"


def lowering(precision: str, x: Tensor) -> Lowering | None:
    """The lower precision that is asked for with images `x` (N, ...), TF32 on a GPU only; None for their own."""
    check_known("precision", precision, PRECISIONS)
    if precision == "tf32" and x.device.type != "cuda":
        raise InputError(
            f"precision='tf32' is for GPUs of NVIDIA; the images are on {x.device}. Use 'bfloat16' or 'own'."
        )
    if precision == "own" or (precision == "auto" and not _is_fast(x.device)):
        return None
    return Lowering("bfloat16" if precision == "auto" else precision)


def _is_fast(device: torch.device) -> bool:
    """Whether a device has units for products of bfloat16. AVX-512's instructions gain nothing (benchmarks/precision.md)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
