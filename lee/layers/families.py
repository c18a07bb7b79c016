"""The families of layers (convolution, activation, normalisation, …), and sums over layers with standard errors.

A family is read from the class's name, so that the layers of torch, timm and of users fall into the same few groups. With
the model at hand, what reduces the resolution (a stride, a patch embedding) is told from what keeps it.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from lee.errors import InputError

__all__ = ["FAMILIES", "family", "families", "pooled", "by_family", "moved"]

Array = npt.NDArray[Any]

FAMILIES = (
    "strided convolution", "convolution", "pooling", "activation", "normalisation", "attention", "linear", "MLP",
    "functional", "other",
)  # fmt: skip
"""All families. `functional` is what a container does by itself, between the modules that it calls. An `MLP` is a perceptron
that is measured as a whole, as the one that mixes tokens: between its layers nothing has a place."""

# The first family with a fitting part of the name wins: an AttentionPool is attention, a ConvNormAct's own part is functional.
# Names are written in small letters, with words apart: `_act` is a word, as in BatchNormAct2d, and no part of FeatureExtractor.
_PARTS = {
    "attention": r"attention|attn",
    "convolution": r"conv(?!e)|patch_?embed",
    "pooling": r"pool|blur|downsample|upsample",
    "normalisation": r"norm(?!al(?!i))|layer_?scale|affine",
    "linear": r"(?<!non)(?<!non_)linear|embedding",
    "MLP": r"mlp|feed_?forward|perceptron",
    "activation": r"re_?lu|gelu|si_?lu|swish|sigmoid|tanh|elu|mish|softmax|softplus|softsign|glu|linear|_act(?:iv|_|[0-9]|$)",
    "other": r"dropout|drop_?path|identity|flatten",
}


def family(type_name: str, *, leaf: bool = True, reduces: bool = False) -> str:
    """The family of one layer.

    Args:
        type_name: Name of the module's class.
        leaf: Whether it calls no other module. What remains to a container is functional, unless it is attention.
        reduces: Whether it lowers the resolution; this tells a strided convolution from others.

    Returns:
        One of :data:`FAMILIES`.

    Examples:
        >>> family("Conv2d"), family("BatchNormAct2d"), family("Bottleneck", leaf=False), family("Conv2d", reduces=True)
        ('convolution', 'normalisation', 'functional', 'strided convolution')
    """
    words = "_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type_name).lower()
    found = next((name for name, parts in _PARTS.items() if re.search(parts, words)), "other")
    if not leaf and found != "attention":
        return "functional"
    return "strided convolution" if found == "convolution" and reduces else found


def families(frame: pd.DataFrame, model: nn.Module | None = None) -> pd.Series:
    """The family of every row of a decomposition.

    Args:
        frame: The `frame` of :func:`lee.layerwise`: columns `path`, `type` and `kind`.
        model: The model itself; then convolutions with a stride are a family of their own.

    Returns:
        Names from :data:`FAMILIES`, with the frame's index.
    """
    strided = _strided(model) if model is not None else set()
    told = frame["kind"] != "merged"
    if "norm2" in frame:
        told &= frame["norm2"] > 0
    measured = set(frame.loc[told, "parent"])
    rows = zip(range(len(frame)), frame["path"], frame["type"], frame["kind"], strict=True)
    names = [
        # A container stands for all of its calls where none of them is known to contribute anything.
        family(kind, leaf=part != "container" or row not in measured, reduces=path in strided)
        for row, path, kind, part in rows
    ]
    return pd.Series(names, index=frame.index, name="family", dtype=object)


def _strided(model: nn.Module) -> set[str]:
    """Paths of the convolutions that lower the resolution."""
    convolutions = {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)}
    return {path for path, m in convolutions.items() if any(stride > 1 for stride in m.stride)}


def pooled(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    r"""One frame from the decompositions of several batches of images, each of the same size.

    Ratios have standard errors by leaving one batch out at a time (the jackknife), as numerator and denominator come from
    the same images.

    Args:
        frames: The `frame` of :func:`lee.layerwise` for each batch; two or more.

    Returns:
        The frame of all images with `norm2`, `self_norm2`, `share`, `self_share`, and two more: `fraction`, the part
        :math:`\|v\|^2 / \sum \|v\|^2` of the sum of all self terms, and `fraction_so_far`, its running sum in the order in
        which calls end; each with its standard error `…_se`.

    Raises:
        InputError: If there are fewer than two frames, or they are not of the same model.
    """
    _check_batches(frames)
    norm2, own, share, own_share = (_column(frames, c) for c in ("norm2", "self_norm2", "share", "self_share"))
    total = norm2[:, :1]
    ended = _ended(frames[0])
    result = frames[0][["path", "type", "call", "depth", "parent", "kind"]].copy()
    found = {
        "norm2": _jackknife(lambda a: a, norm2),
        "self_norm2": _jackknife(lambda a: a, own),
        "share": _jackknife(lambda dot, whole: dot / whole, share * total, total),
        "self_share": _jackknife(lambda dot, whole: dot / whole, own_share * total, total),
        "fraction": _jackknife(lambda a: a / a.sum(), own),
        "fraction_so_far": _jackknife(lambda a: (ended @ a) / a.sum(), own),
    }
    for name, (value, error) in found.items():
        result[name], result[f"{name}_se"] = value, error
    merged = result["kind"] == "merged"
    result.loc[merged, [c for c in result.columns[6:] if not c.startswith("fraction_so")]] = np.nan
    return result


def by_family(frames: Sequence[pd.DataFrame], labels: Sequence[str]) -> pd.DataFrame:
    """Self terms summed over the calls with the same label, from the decompositions of several batches of equal size.

    Args:
        frames: As for :func:`pooled`.
        labels: One for each row, such as :func:`families` gives.

    Returns:
        A row per label in the order of :data:`FAMILIES` (others after them): `family`, `fraction` of the sum of all
        `‖v‖²`, and signed `share`, each with its standard error.

    Raises:
        InputError: As :func:`pooled`, or if there isn't a label for each row.
    """
    _check_batches(frames)
    if len(labels) != len(frames[0]):
        raise InputError(f"{len(frames[0])} rows need as many labels; got {len(labels)}.")
    present = [f for f in (*FAMILIES, *dict.fromkeys(labels)) if f in set(labels)]
    names = list(dict.fromkeys(present))
    member = np.array([[label == name for label in labels] for name in names], dtype=float)
    own, own_share, total = (_column(frames, c) for c in ("self_norm2", "self_share", "norm2"))
    total = total[:, :1]
    fraction = _jackknife(lambda a: member @ a / a.sum(), own)
    share = _jackknife(lambda dot, whole: member @ dot / whole, own_share * total, total)
    columns = {"family": names, "fraction": fraction[0], "fraction_se": fraction[1]}
    return pd.DataFrame(columns | {"share": share[0], "share_se": share[1]})


def moved(first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame]) -> float:
    r"""How much of the contributions has to be moved from layer to layer to turn those of one measurement into another's.

    The total variation distance :math:`\frac12 \sum_m |p_m - q_m|` of the fractions of :math:`\sum \|v\|^2`.

    Args:
        first: Decompositions of one model, averaged; one or more frames.
        second: Others of the same model, under another motion or on other images.

    Returns:
        0 if all layers contribute the same fraction in both, 1 if no layer contributes in both.

    Raises:
        InputError: If the frames are not of the same model, or one of the two has nothing but zeros.
    """
    frames = [*first, *second]
    _check_batches([*frames, frames[0]])
    means = [_column(part, "self_norm2").mean(0) for part in (first, second)]
    if min(mean.sum() for mean in means) <= 0:
        raise InputError("Every contribution is zero, so there are no fractions to compare.")
    return float(np.abs(means[0] / means[0].sum() - means[1] / means[1].sum()).sum() / 2)


def _check_batches(frames: Sequence[pd.DataFrame]) -> None:
    if len(frames) < 2:
        raise InputError(f"A standard error needs two or more batches; got {len(frames)}.")
    if any(frame["path"].tolist() != frames[0]["path"].tolist() for frame in frames):
        raise InputError("The frames are not of one model: their paths differ.")


def _column(frames: Sequence[pd.DataFrame], name: str) -> Array:
    """A column of every batch, (batches, rows); merged calls count as zero, as their part is in the call around."""
    return np.stack([frame[name].fillna(0.0).to_numpy(dtype=float) for frame in frames])


def _ended(frame: pd.DataFrame) -> Array:
    """Which calls have ended when another one ends, itself included: (rows, rows) of zeros and ones."""
    place = np.empty(len(frame))
    place[completion(frame["parent"].tolist())] = np.arange(len(frame))
    return (place[None, :] <= place[:, None]).astype(float)


def _jackknife(statistic: Callable[..., Array], *samples: Array) -> tuple[Array, Array]:
    """A function of means over batches, and its standard error from leaving out each batch in turn."""
    count = len(samples[0])
    value = statistic(*(s.mean(0) for s in samples))
    left = np.stack([statistic(*((s.sum(0) - s[b]) / (count - 1) for s in samples)) for b in range(count)])
    return value, np.sqrt((count - 1) / count * ((left - left.mean(0)) ** 2).sum(0))


def completion(parent: Sequence[int]) -> list[int]:
    """Rows in the order in which their calls end: what a call has called ends before it.

    Examples:
        >>> completion([-1, 0, 1, 0])
        [2, 1, 3, 0]
    """
    order: list[int] = []
    open_calls: list[int] = []
    for row, around in enumerate(parent):
        while open_calls and open_calls[-1] != around:
            order.append(open_calls.pop())
        open_calls.append(row)
    return order + open_calls[::-1]
