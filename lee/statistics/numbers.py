"""Numbers of a user's, in whatever holds them: the one rule by which comparisons read them."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lee.errors import InputError
from lee.memory import retold

Array = npt.NDArray[np.float64]
Numbers = Tensor | Sequence[Any] | npt.NDArray[Any]

_SHAPES = {1: "(n,)", 2: "(m, n)"}


def numbers(given: Any, name: str, axes: Sequence[int] = (1,)) -> Array:
    """Real numbers, which errors call `name`, as an array of its own, float64, with one of these numbers of axes.

    They come as a list, nested or of tensors, an array, a column of a table, or a tensor of any real dtype, on any device. Refused
    are words, dates, complex and missing numbers, sparse tensors, and lists of several lengths.
    """
    values = _array(given, name)
    if values.ndim not in axes:
        shapes = " or ".join(_SHAPES[k] for k in axes)
        raise InputError(f"`{name}` must hold real numbers of shape {shapes}; got shape {values.shape}.")
    return values


def size_of(values: Array) -> float:
    """A power of two near the largest of finite numbers, 1 if all are 0.

    Divided by it they keep all their digits, and neither their squares nor their cubes vanish or overflow.
    """
    largest = float(np.abs(values).max(initial=0.0))
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0


def _array(given: Any, name: str) -> Array:
    said = f"`{name}` must hold real numbers, as a list, an array or a dense tensor"
    if isinstance(given, Tensor):
        dense = given.layout == torch.strided and not (given.is_nested or given.is_meta or given.is_quantized)
        if given.is_complex() or not dense:
            raise InputError(f"{said}; got a tensor of {given.dtype}, {given.layout} on {given.device}.")
        return np.array(given.detach().cpu().double().numpy())
    if isinstance(given, list | tuple):
        given = [_array(v, name) if isinstance(v, Tensor | list | tuple) else v for v in given]
    with retold(InputError, f"{said} ({{}})."):
        values = np.asarray(given)
    kind = values.dtype.kind
    if np.ma.is_masked(given) or not (
        kind in "biuf" or (kind == "O" and all(isinstance(v, Real) for v in values.flat))
    ):
        raise InputError(f"{said}; got {_told(given, values)}.")
    return np.array(values, dtype=np.float64)


def _told(given: Any, values: npt.NDArray[Any]) -> str:
    if np.ma.is_masked(given):
        return "masked ones"
    wrong = next(v for v in values.flat if not isinstance(v, Real))
    return repr(wrong.item() if isinstance(wrong, np.generic) else wrong)[:80]
