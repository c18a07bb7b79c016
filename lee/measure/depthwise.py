"""Depthwise convolutions in double precision, which take most of a check's time where torch computes them.

On a CPU torch unfolds the image of every channel and multiplies one small matrix after the other: ConvNeXt-T spends two thirds
of its seconds in double precision there. The same sum is faster over all channels at once, one weight of the kernel after the
other. :class:`lee.measure.reference.Reference` holds the values of a converted function against those that it gave before.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class FastDepthwise(TorchFunctionMode):
    """While active, depthwise convolutions of images (N, C, H, W) in double precision on a CPU are sums of shifted images."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """The convolution, or whatever else is called."""
        if func is torch.conv2d and _is_fit(*args, **(kwargs or {})):
            return _shifted(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _is_fit(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> bool:  # fmt: skip
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # by vmap and others inside a model
    double = all(
        t.dtype == torch.float64 and type(t) in (Tensor, nn.Parameter) and not wrapped(t) for t in (input, weight)
    )
    return (
        double and not torch.is_grad_enabled() and input.device.type == "cpu" and input.ndim == 4
        and 1 < groups == input.shape[1] == len(weight) and not isinstance(padding, str)
    )  # fmt: skip


def _shifted(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:  # fmt: skip
    """`out[c, y, x] = bias[c] + Σ_ij weight[c, i, j] · input[c, s y + d i, s x + d j]`, as F.conv2d."""
    steps, margins, gaps = (v if isinstance(v, int) else tuple(v) for v in (stride, padding, dilation))
    (sy, sx), (py, px), (dy, dx) = ((v, v) if isinstance(v, int) else (v[0], v[-1]) for v in (steps, margins, gaps))
    kernel = weight[:, 0].permute(1, 2, 0).contiguous()[..., None, None]  # (i, j, C, 1, 1)
    x = F.pad(input, (px, px, py, py)).contiguous(memory_format=torch.channels_last)
    h = (x.shape[2] - dy * (len(kernel) - 1) - 1) // sy + 1
    w = (x.shape[3] - dx * (kernel.shape[1] - 1) - 1) // sx + 1
    out = torch.zeros(*x.shape[:2], h, w, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
    for image, target in zip(x, out, strict=True):  # one at a time stays in the cache
        for i, row in enumerate(kernel):
            for j, factor in enumerate(row):
                top, left = i * dy, j * dx
                target.addcmul_(
                    image[:, top : top + sy * (h - 1) + 1 : sy, left : left + sx * (w - 1) + 1 : sx], factor
                )
    return out if bias is None else out.add_(bias[:, None, None])
