"""The family that a layer belongs to: convolution, activation, normalisation, … for grouping and colouring.

A family is read from the class's name, so that the layers of torch, timm and of users fall into the same few groups. With
the model at hand, what reduces the resolution (a stride, a patch embedding) is told from what keeps it.
"""

import pandas as pd
from torch import nn

FAMILIES = (
    "downsampling convolution", "convolution", "pooling", "activation", "normalisation", "attention", "linear",
    "functional", "other",
)  # fmt: skip
"""All families. `functional` is what a container does by itself, between the modules that it calls."""

# The first family with a fitting part wins: an AttentionPool is attention, a ConvNormAct's own part is functional.
_PARTS = {
    "attention": ("attention", "attn"),
    "convolution": ("conv", "patchembed"),
    "pooling": ("pool", "blur", "downsample", "upsample"),
    "normalisation": ("norm", "layerscale", "affine"),
    "linear": ("linear", "embedding"),
    "activation": (
        "relu", "gelu", "silu", "swish", "sigmoid", "tanh", "elu", "mish", "softmax", "softplus", "softsign", "glu", "act",
    ),
    "other": ("dropout", "droppath", "identity", "flatten"),
}  # fmt: skip


def family(type_name: str, *, leaf: bool = True, reduces: bool = False) -> str:
    """The family of one layer.

    Args:
        type_name: Name of the module's class.
        leaf: Whether it calls no other module. What remains to a container is functional, unless it is attention.
        reduces: Whether it lowers the resolution; this tells a downsampling convolution from others.

    Returns:
        One of :data:`FAMILIES`.

    Examples:
        >>> family("Conv2d"), family("BatchNormAct2d"), family("Bottleneck", leaf=False), family("Conv2d", reduces=True)
        ('convolution', 'normalisation', 'functional', 'downsampling convolution')
    """
    lower = type_name.lower()
    found = next((name for name, parts in _PARTS.items() if any(part in lower for part in parts)), "other")
    if not leaf and found != "attention":
        return "functional"
    return "downsampling convolution" if found == "convolution" and reduces else found


def families(frame: pd.DataFrame, model: nn.Module | None = None) -> pd.Series:
    """The family of every row of a decomposition.

    Args:
        frame: The `frame` of :func:`lee.layerwise`: columns `path`, `type` and `kind`.
        model: The model itself; then convolutions with a stride are a family of their own.

    Returns:
        Names from :data:`FAMILIES`, with the frame's index.
    """
    strided = _strided(model) if model is not None else set()
    rows = zip(frame["path"], frame["type"], frame["kind"], strict=True)
    names = [family(kind, leaf=part != "container", reduces=path in strided) for path, kind, part in rows]
    return pd.Series(names, index=frame.index, name="family", dtype=object)


def _strided(model: nn.Module) -> set[str]:
    """Paths of the convolutions that lower the resolution."""
    convolutions = {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)}
    return {path for path, m in convolutions.items() if any(stride > 1 for stride in m.stride)}
