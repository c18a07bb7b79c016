"""Which rule hands on the places of which ATen operator; `test_places_operators.py` holds every entry to what it does."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lee.layers.places.labels import Places, Unknown
from lee.layers.places.resampling import (
    ADAPTIVE,
    CONVOLUTIONS,
    FOLD,
    NEAREST,
    PADS,
    SHUFFLES,
    SMOOTH,
    UNFOLD,
    WINDOWS,
)
from lee.layers.places.rules import (
    Lookup,
    Rule,
    across,
    attention,
    constant,
    copied,
    cover,
    gated,
    move,
    plain_name,
    pointwise,
    product,
    reduction,
    restrided,
)
from lee.layers.places.windows import window

#: Data movement: the operator itself moves the places.
MOVES = (
    "view", "_unsafe_view", "_reshape_alias", "permute", "transpose", "t", "expand", "squeeze", "unsqueeze", "slice",
    "select", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unbind", "cat", "stack", "flip",
    "roll", "rot90", "index", "_unsafe_index", "index_select", "gather", "take", "repeat", "constant_pad_nd", "unfold",
    "diagonal", "channel_shuffle", "native_channel_shuffle", "reflection_pad1d", "replication_pad1d", "slice_scatter",
    "select_scatter", "diagonal_scatter", "index_put", "index_copy",
)  # fmt: skip
#: Entry by entry, but without torch's tag that says so.
ENTRYWISE = (
    "alias", "detach", "lift_fresh", "_to_copy", "hardswish", "log_sigmoid_forward", "_prelu_kernel", "rrelu_with_noise",
    "native_dropout", "masked_fill", "tril", "triu", "_conj", "complex", "polar", "rsub", "floor_divide",
)  # fmt: skip
#: Every entry keeps its place; the others enter through a statistic that does not depend on their order.
NORMALISING = (
    "_softmax", "_log_softmax", "_safe_softmax", "native_layer_norm", "native_group_norm", "native_batch_norm",
    "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_with_update", "_batch_norm_no_update",
    "cudnn_batch_norm", "miopen_batch_norm", "_fused_rms_norm",
)  # fmt: skip
GRIDS = (*CONVOLUTIONS, *WINDOWS, *ADAPTIVE, *NEAREST, *SMOOTH, *PADS, *SHUFFLES)
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot")
REDUCTIONS = (
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "logsumexp", "prod", "median",
    "linalg_vector_norm", "norm",
)  # fmt: skip
FACTORIES = (
    "new_ones", "new_zeros", "new_full", "new_empty", "new_empty_strided", "zeros_like", "ones_like", "full_like",
    "empty_like", "rand_like", "randn_like", "zero",
)  # fmt: skip
ATTENTION = (
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip


def unknown(func: Any, named: Mapping[str, Any], known: Lookup, out: Tensor) -> Places:
    """What has no rule: its result depends on the image, but nothing says how."""
    return Unknown(f"{plain_name(func)} is followed by no rule")


RULES: dict[str, Rule] = {
    **dict.fromkeys((*ENTRYWISE, *NORMALISING), pointwise), **dict.fromkeys(MOVES, move), **dict.fromkeys(GRIDS, cover),
    **dict.fromkeys(FACTORIES, constant), **dict.fromkeys(PRODUCTS, product),
    **dict.fromkeys(REDUCTIONS, reduction), **dict.fromkeys(ATTENTION, attention), "as_strided": restrided,
    "copy": copied, "fill": copied, "glu": gated, "avg_pool3d": across, UNFOLD: window, FOLD: window,
}  # fmt: skip


@cache
def rule_of(func: Any) -> Rule:
    """The rule of an operator: torch's own tag says whether it works entry by entry, the tested lists here say the rest."""
    name = plain_name(func)
    if func.namespace != "aten":
        return pointwise if torch.Tag.pointwise in func.tags else unknown
    # The in-place variants of pointwise operators are often not tagged themselves.
    variant = getattr(getattr(torch.ops.aten, name, None), func._overloadname, func)
    return pointwise if torch.Tag.pointwise in variant.tags else RULES.get(name, unknown)
