"""Rules of matrix products and attention."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lee.stacked.registry import rule
from lee.stacked.tensor import FUNCTION_RULES, Stacked

aten = torch.ops.aten


def _linear(func: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """One matrix product for the whole stack; the bias belongs to the primal."""
    if not isinstance(x, Stacked) or isinstance(weight, Stacked) or isinstance(bias, Stacked):
        return NotImplemented
    out = F.linear(x.buffer, weight)
    if bias is not None:
        out[0] += bias
    return Stacked(out)


FUNCTION_RULES[F.linear] = _linear
rule("linear")(_linear)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b) if a.ndim == 3 else torch.mm(a, b)


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
    product = _matrix_product(aten.bmm.default if "baddbmm" in str(op) else aten.mm.default, a, b).buffer
    if alpha != 1:
        product = product * alpha
    if not isinstance(bias, Stacked):
        product[0] += beta * bias
        return Stacked(product)
    offset = bias.buffer if bias.ndim == product.ndim - 1 else bias.buffer[:, None]
    return Stacked(product.add_(offset, alpha=beta))


def _attention(
    func: Any, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Scaled dot-product attention (N, ..., L, d) with one softmax: its Jacobian is symmetric, so its backward serves.

    Fused kernels have no forward-mode derivative; this one costs two more products per tangent than the primal.
    """
    plain = attn_mask is None or (isinstance(attn_mask, Tensor) and not isinstance(attn_mask, Stacked))
    stacked = all(isinstance(v, Stacked) for v in (query, key, value))
    same = stacked and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    if not same or not plain or dropout_p or is_causal or enable_gqa:
        return NotImplemented
    lead, depth = query.shape[:-2], len(query.buffer)
    q, k, v = (t.buffer.reshape(depth, -1, *t.shape[-2:]) for t in (query, key, value))
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.bmm(q[0], k[0].mT).mul_(factor)
    if attn_mask is not None:
        bias = torch.zeros_like(scores[:1]).expand_as(scores).unflatten(0, lead) if lead else scores * 0
        shift = bias.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype is torch.bool else bias + attn_mask
        scores = scores + shift.reshape(scores.shape)
    weights = scores.softmax(-1)
    out = q.new_empty(depth, *q.shape[1:-1], v.shape[-1])
    torch.bmm(weights, v[0], out=out[0])
    for i in range(1, depth):
        moved = torch.baddbmm(torch.bmm(q[i], k[0].mT), q[0], k[i].mT, beta=factor, alpha=factor)
        turned = aten._softmax_backward_data.out(moved, weights, -1, weights.dtype, grad_input=moved)
        torch.baddbmm(torch.bmm(turned, v[0]), weights, v[i], out=out[i])
    return Stacked(out.unflatten(1, lead))


FUNCTION_RULES[F.scaled_dot_product_attention] = _attention
