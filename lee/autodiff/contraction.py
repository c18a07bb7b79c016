"""Rules of matrix products and attention."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lee.autodiff.registry import lift, rule
from lee.autodiff.rounding import product
from lee.autodiff.tensor import FUNCTION_RULES, Stacked

aten = torch.ops.aten


def _linear(func: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """One matrix product for the whole stack; the bias belongs to the primal."""
    if not isinstance(x, Stacked) or isinstance(weight, Stacked) or isinstance(bias, Stacked):
        return NotImplemented
    out = product(F.linear, x.buffer, weight, 1)
    if bias is not None:
        out[0] += bias
    return Stacked(out)


FUNCTION_RULES[F.linear] = _linear


@rule("mm", "bmm")
def _matrix_product(op: Any, a: Any, b: Any) -> Stacked:
    if not isinstance(b, Stacked):
        if a.ndim == 2:
            return Stacked((a.buffer.flatten(0, 1) @ b).unflatten(0, a.buffer.shape[:2]))
        return Stacked(torch.stack([op(part, b) for part in a.buffer]))
    if not isinstance(a, Stacked):
        return Stacked(torch.stack([op(a, part) for part in b.buffer]))
    first, second = a.buffer, b.buffer
    out = first.new_empty(len(first), *a.shape[:-1], b.shape[-1])
    out[0] = op(first[0], second[0])
    add = torch.baddbmm if a.ndim == 3 else torch.addmm
    for k in range(1, len(first)):
        add(op(first[k], second[0]), first[0], second[k], out=out[k])
    return Stacked(out)


@rule("addmm", "baddbmm")
def _biased_product(op: Any, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    if not beta or not (isinstance(a, Stacked) or isinstance(b, Stacked)):
        return NotImplemented
    product = _matrix_product(aten.bmm.default if "baddbmm" in str(op) else aten.mm.default, a, b).buffer
    if alpha != 1:
        product = product * alpha
    if not isinstance(bias, Stacked):
        product[0] += beta * bias
        return Stacked(product)
    return Stacked(product.add_(lift(bias.buffer, product.ndim - 1), alpha=beta))


_CACHE = 2**17  # attention weights per block, so that they stay in a core's cache between five operators


def _blocks(q: Tensor, k: Tensor) -> Iterator[tuple[Any, ...]]:
    """Indices that cut stacks (S, N, h, L, d) into heads of one image, or of several where they are small."""
    heads = max(1, _CACHE // (q.shape[-2] * k.shape[-2]))
    images = max(1, heads // q.shape[2])
    for n in range(0, q.shape[1], images):
        for h in range(0, q.shape[2], heads):
            yield slice(None), slice(n, n + images), slice(h, h + heads)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, factor: float) -> Iterator[Tensor]:
    """Output and tangents of attention on stacks (S, B, L, d), one slice after the other."""
    keys = k.mT
    scores = torch.bmm(q[0], keys[0]).mul_(factor)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    yield torch.bmm(weights, v[0])
    for i in range(1, len(q)):
        moved = torch.baddbmm(torch.bmm(q[i], keys[0]), q[0], keys[i], beta=factor, alpha=factor)
        aten._softmax_backward_data.out(moved, weights, -1, weights.dtype, grad_input=moved)
        yield torch.baddbmm(torch.bmm(moved, v[0]), weights, v[i])


def _additive(mask: Any, scores: tuple[int, ...], like: Tensor) -> Tensor | None:
    """A mask, boolean or additive, as what is added to scores of shape (N, h, L, L')."""
    if mask is None:
        return None
    if mask.dtype is torch.bool:
        mask = torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(~mask, -torch.inf)
    return mask.expand(scores)


def _attention(
    func: Any, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Scaled dot-product attention (N, h, L, d) with one softmax: its Jacobian is symmetric, so its backward serves.

    Fused kernels have no forward-mode derivative; this one costs two more products per tangent than the primal.
    """
    stacked = all(isinstance(v, Stacked) and v.ndim == 4 for v in (query, key, value))
    same = stacked and query.shape[:2] == key.shape[:2] == value.shape[:2]
    if not same or isinstance(attn_mask, Stacked) or dropout_p or is_causal or enable_gqa:
        return NotImplemented
    q, k, v = query.buffer, key.buffer, value.buffer
    depth, n, h, length = q.shape[:-1]
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    bias = _additive(attn_mask, (n, h, length, k.shape[-2]), q)
    out = q.new_empty(depth, n, length, h, v.shape[-1]).transpose(2, 3)  # what models reshape next, without a copy
    for block in _blocks(q, k):
        queries, keys, values = (t[block].flatten(1, 2) for t in (q, k, v))
        shift = None if bias is None else bias[block[1:]].flatten(0, 1)
        for target, part in zip(out[block], _attend(queries, keys, values, shift, factor), strict=True):
            target.copy_(part.view(target.shape))
    return Stacked(out)


FUNCTION_RULES[F.scaled_dot_product_attention] = _attention
