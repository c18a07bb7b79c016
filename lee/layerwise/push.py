r"""Local derivatives pushed to the output: :math:`v_m = \partial y / \partial \varepsilon_m` with `out_m ← out_m + ε_m Λ_m`.

Forward mode takes one lane per call, and a pass for as many lanes as memory allows; a pass is plain until the first of
its calls. Reverse mode takes one vector-Jacobian product per output, probes one per random direction.
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
from lee.stacked.tensor import note_fallback

Run = Callable[[Tensor], Tensor]


class BackwardError(Exception):
    """The model's backward pass can't be used: it fails, or it isn't the derivative of its forward pass."""


def _changed(output: Any, change: Callable[[Tensor, int], Tensor]) -> Any:
    """`output` with `change(tensor, i)` in place of its floating-point tensors."""
    place = iter(range(10**6))
    return pytree.tree_map(
        lambda v: change(v, next(place)) if isinstance(v, Tensor) and v.is_floating_point() else v, output
    )


def _with_lane(value: Tensor, part: Tensor, lane: int, lanes: int) -> Tensor:
    """A stack like `value` with `part` added to one of its tangents; `value` stays, for others may hold it."""
    if isinstance(value, Stacked):
        buffer = value.buffer.clone()
    else:
        buffer = value.new_zeros(1 + lanes, *value.shape)
        buffer[0] = value
    buffer[1 + lane] += part
    return Stacked(buffer)


def forward(model: nn.Module, run: Run, x: Tensor, found: Sequence[Local], lanes: int) -> Tensor:
    """`v_m` of every call for images `x` by stacked forward mode, `lanes` at a time: shape (M, *output)."""
    parts = []
    for start in range(0, len(found), lanes):
        group = {local.index: (lane, local) for lane, local in enumerate(found[start : start + lanes])}
        parts.append(_forward_group(model, run, x, group))
    return torch.cat(parts)


def _forward_group(model: nn.Module, run: Run, x: Tensor, group: dict[int, tuple[int, Local]]) -> Tensor:
    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if call.index not in group:
            return None
        lane, local = group[call.index]
        return _changed(output, lambda v, i: _with_lane(v, local.parts[i], lane, len(group)))

    try:
        with Watch(model, after=after), sdpa_kernel(SDPBackend.MATH):
            y = run(x)
        if isinstance(y, Stacked):
            return y.buffer[1:].clone()
        return y.new_zeros(len(group), *y.shape)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no rule and no fallback for something inside: one call after the other, in reverse
        note_fallback(f"whole model ({type(error).__name__}: {error})")
    order = [local for _, local in sorted(group.values(), key=lambda pair: pair[0])]
    return reverse(model, run, x, order, torch.zeros_like(x))[0]


def _with_epsilon(
    model: nn.Module, run: Run, x: Tensor, found: Sequence[Local], tangent: Tensor
) -> tuple[Tensor, Tensor]:
    """The output with a graph, and the `ε` (n, M + 1) that it depends on; the last one moves the input along `tangent`."""
    n = len(x)
    epsilon = torch.zeros(n, len(found) + 1, dtype=x.dtype, device=x.device, requires_grad=True)
    place = {local.index: m for m, local in enumerate(found)}

    def perturbed(value: Tensor, part: Tensor, m: int) -> Tensor:
        images = part.reshape(n, -1) * epsilon[:, m, None]  # a batch is folded image after image
        return value + images.reshape(part.shape)

    def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        m = place.get(call.index)
        return None if m is None else _changed(output, lambda v, i: perturbed(v, found[m].parts[i], m))

    with torch.enable_grad(), Watch(model, after=after):
        return run(perturbed(x, tangent, -1)), epsilon


def reverse(model: nn.Module, run: Run, x: Tensor, found: Sequence[Local], tangent: Tensor) -> tuple[Tensor, Tensor]:
    """`v_m` of every call by one vector-Jacobian product per output dimension.

    Returns:
        Shape (M, *output), and the derivative along `tangent` of the input in the same mode, of the output's shape.

    Raises:
        BackwardError: If the model has no backward pass.
    """
    y, epsilon = _with_epsilon(model, run, x, found, tangent)
    seeds = torch.eye(y[0].numel()).to(y).reshape(-1, 1, *y.shape[1:])
    columns = torch.stack([_pulled_back(y, seed, epsilon) for seed in seeds], -1).transpose(0, 1)
    pushed = columns.reshape(len(found) + 1, *y.shape)
    return pushed[:-1], pushed[-1]


def probes(
    model: nn.Module, run: Run, x: Tensor, found: Sequence[Local], tangent: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Inner products `⟨g_p, v_m⟩` with directions (P, *output).

    Returns:
        Shape (M, N, P), and those of the derivative along `tangent`, (N, P).

    Raises:
        BackwardError: If the model has no backward pass.
    """
    y, epsilon = _with_epsilon(model, run, x, found, tangent)
    products = torch.stack([_pulled_back(y, g, epsilon) for g in directions], -1).transpose(0, 1)
    return products[:-1], products[-1]


def _pulled_back(y: Tensor, cotangent: Tensor, epsilon: Tensor) -> Tensor:
    if not y.requires_grad:
        return torch.zeros_like(epsilon)
    try:
        (gradient,) = torch.autograd.grad(y, epsilon, cotangent.expand(y.shape), retain_graph=True, allow_unused=True)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BackwardError(str(error)) from error
    return torch.zeros_like(epsilon) if gradient is None else gradient
