"""Convolutions: run once on the whole stack, in the layout that suits the machine, with BatchNorm folded in.

A two-dimensional convolution is *deferred*: it runs when something reads its output. If that something is a BatchNorm in
eval mode, the normalisation's scale goes into the weights first and the stack is passed over once instead of twice. No
graph has to be known for this and the model is never touched; folded weights live in the
:func:`lee.autodiff.workspace` of one measurement.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lee.autodiff import passes
from lee.autodiff.registry import lift, rule
from lee.autodiff.rounding import product
from lee.autodiff.tensor import FUNCTION_RULES, Stacked
from lee.autodiff.weights import Workspace, current_workspace


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution of a stack (S, N, C, H, W) that has not run yet."""

    # Deferring is right as long as nobody can tell: the output is described (`like`) without being computed, whoever reads a
    # value computes it, and before anything is written in place into one of `sources` it is computed first
    # (`Pass.before_write`). Weights that the model swaps by `.data = …` are covered by keeping the old memory (`weight`).
    # It stops where something reads memory behind torch's back, such as a raw pointer taken before.
    space: Workspace
    x: Tensor
    owner: Tensor  # the model's own weight
    weight: Tensor  # its memory as it was, should the model assign to `.data`
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    folded: Tensor | None = None  # the weight that is used, with a BatchNorm's scale in it
    primal: Tensor | None = None  # slice 0 of the output, if another pass has computed it

    @property
    def sources(self) -> list[Tensor]:
        """Whose memory must not change before the convolution runs."""
        parts = (self.x, self.weight if self.folded is None else None, self.bias)
        return [p for p in parts if p is not None]

    @property
    def like(self) -> SimpleNamespace:
        """Shape, strides, dtype and device of an output that doesn't exist yet, (N, C', H', W')."""
        n, sizes = self.x.shape[1], []
        for axis in (0, 1):
            reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            sizes.append((self.x.shape[3 + axis] + 2 * self.padding[axis] - reach) // self.stride[axis] + 1)
        c, (h, w) = self.weight.shape[0], sizes
        strides = (c * h * w, 1, w * c, c) if self.space.channels_last else (c * h * w, h * w, w, 1)
        return SimpleNamespace(shape=(n, c, h, w), stride=lambda: strides, dtype=self.x.dtype, device=self.x.device)

    def run(self) -> Tensor:
        """The output's stack; the bias belongs to the primal alone."""
        form = torch.channels_last if self.space.channels_last else torch.contiguous_format
        weight = self._prepared(form) if self.folded is None else self.folded
        flat = self.x.flatten(0, 1).contiguous(memory_format=form)
        n = self.x.shape[1] if self.groups == 1 else len(flat)  # narrow groups gain nothing from rounding
        out = product(
            lambda z, w: F.conv2d(z, w, None, self.stride, self.padding, self.dilation, self.groups), flat, weight, n
        )
        out = out.contiguous(memory_format=form).unflatten(0, self.x.shape[:2])
        if self.primal is not None:
            out[0] = self.primal
        elif self.bias is not None:
            out[0] += self.bias[:, None, None]
        return out

    def _prepared(self, form: torch.memory_format) -> Any:
        if not self.space.channels_last:
            return self.weight
        return self.space.prepared(self.owner, (self.weight,), None, lambda: self.weight.contiguous(memory_format=form))


def _deferred(job: Convolution, state: passes.Pass) -> Stacked:
    result = Stacked(None, job)
    state.deferred.add(result)
    return result


@rule("convolution")
def _convolution(
    op: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
) -> Any:  # fmt: skip
    if not isinstance(x, Stacked) or isinstance(weight, Stacked) or isinstance(bias, Stacked):
        return NotImplemented
    space, state = current_workspace(), passes.current()
    if transposed or x.ndim != 4 or space is None or state is None:
        flat = x.buffer.flatten(0, 1)
        out = op(flat, weight, None, stride, padding, dilation, transposed, extra, groups).unflatten(
            0, x.buffer.shape[:2]
        )
        if bias is not None:
            out[0] += bias.reshape(-1, *[1] * (x.ndim - 2))
        return Stacked(out)
    steps, margins, gaps = ((v[0], v[-1]) for v in (stride, padding, dilation))
    bias = bias if bias is None else bias.detach()
    job = Convolution(space, x.buffer, weight, weight.detach(), bias, steps, margins, gaps, groups)
    return _deferred(job, state)


def _affine(mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm that uses its running statistics."""
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _batch_norm(
    func: Any, x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """BatchNorm with running statistics is affine; behind a deferred convolution it changes that one's weights."""
    if training or mean is None or not isinstance(x, Stacked):
        return NotImplemented
    if any(isinstance(v, Stacked) for v in (mean, var, weight, bias)):
        return NotImplemented
    state, job = passes.current(), x.deferred
    if state is None or job is None or job.folded is not None:
        scale, shift = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in _affine(mean, var, weight, bias, eps))
        out = x.buffer * lift(scale[None, None], x.ndim)
        out[0] += shift
        return Stacked(out)

    # s·(W * x + b − mean) + shift = (s·W) * x + s·b + …: equal up to rounding, and the stack is passed over once. `job` stays as
    # it is: if something reads the convolution's own output too (a skip connection before the norm), both run, which costs
    # time and changes no number. A second BatchNorm behind a folded one is computed as it stands (`job.folded`), since its
    # weights would have to be kept per pair of norms; training statistics depend on the stack, so they are never folded.
    def fold() -> tuple[Tensor, Tensor, Tensor]:
        scale, shift = _affine(mean, var, weight, bias, eps)
        form = torch.channels_last if job.space.channels_last else torch.contiguous_format
        return (job.weight * scale[:, None, None, None]).contiguous(memory_format=form), scale, shift

    sources = tuple(v for v in (job.weight, mean, var, weight, bias) if v is not None)
    kind = (eps, weight is None, bias is None)
    folded, scale, shift = job.space.prepared(job.owner, sources, kind, fold)
    bias = shift if job.bias is None else shift + scale * job.bias
    return _deferred(replace(job, folded=folded, bias=bias, primal=None), state)


FUNCTION_RULES[F.batch_norm] = _batch_norm
FUNCTION_RULES[torch.batch_norm] = lambda func, x, weight, bias, mean, var, training, momentum, eps, *_: _batch_norm(
    func, x, mean, var, weight, bias, training, momentum, eps
)


@rule(
    "native_batch_norm",
    "cudnn_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
)
def _native_batch_norm(op: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Any:
    training, _, eps = rest if len(rest) == 3 else (False, *rest)
    result = _batch_norm(op, x, mean, var, weight, bias, training, 0.0, eps)
    if result is NotImplemented:
        return result
    empty = result.new_empty(0)
    return (result, empty, empty, *([empty] if "cudnn" in str(op) else []))
