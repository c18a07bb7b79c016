"""The numbers of one task of a table: per image, as Gram matrices, and averaged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from lee.errors import InputError
from lee.geometry.generators import NAMED, AnyGenerator
from lee.statistics import EquivarianceGram
from lee.sweep.table import NUMBERS, SHARED, Part, unpacked, width

#: What tells the tasks of a table apart; :meth:`Results.select` chooses by these.
KEYS = ("model", "family", *(name for name in SHARED if name not in ("model", "family")))
#: Measures of every image beside the Gram matrix; `error` is 1 - `accuracy`.
SCORES = {
    "accuracy": "correct", "error": "correct", "confidence": "confidence", "loss": "loss",
    "consistency": "consistency", "eq_t": "eq_t", "eq_t_frac": "eq_t_frac", "eq_r": "eq_r",
}  # fmt: skip
#: Columns of every image, beside those of the Gram matrix.
IMAGES = [name for name in NUMBERS if name != "error"]


def keys_of(part: Part) -> dict[str, Any]:
    """The keys of a task with their values."""
    return {key: part.described[key] for key in KEYS}


def numbers_of(part: Part) -> pd.DataFrame:
    """Everything but the Gram matrices, a row per image; nulls are NaN or NA."""
    further = [name for name in part.rows.column_names if name.startswith(("absolute_", "deviation"))]
    frame: pd.DataFrame = part.rows.select([*IMAGES, *further]).to_pandas()
    return frame.assign(correct=frame["correct"].astype("boolean"))


def gram_of(part: Part) -> EquivarianceGram:
    """The Gram matrices of a part, over the generators that it names."""
    k = len(part.described["basis"])
    if k == 0:
        raise InputError(f"{part.described['model']} has no Gram matrix in this task, only figures of the whole set.")
    triangles = np.stack([part.rows[f"gram_{i}"].to_numpy() for i in range(width(k))], axis=1)
    generators = tuple(NAMED[name] for name in part.described["basis"])
    how = {key: part.described[key] for key in ("kernel", "boundary", "align_corners", "output")}
    return EquivarianceGram(torch.from_numpy(unpacked(triangles, k)), generators, **how)


def generators_of(given: AnyGenerator | Sequence[AnyGenerator] | None, gram: EquivarianceGram) -> list[AnyGenerator]:
    """The generators that were asked for; all named ones in the span if none were."""
    if given is None:
        found: list[AnyGenerator] = []
        for name in NAMED:
            try:
                gram.coefficients(name)
            except InputError:  # not in the span of what was measured
                continue
            found.append(name)
        return found
    return list(given) if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]


def values_of(gram: EquivarianceGram, generator: AnyGenerator, part: Part, relative: bool) -> "np.ndarray[Any, Any]":
    """`‖L_X f(x)‖² / dim` of each image, or `‖L_X f(x)‖² / ‖f(x)‖²`."""
    values = gram.lee_per_image(generator).numpy()
    return values / part.rows["output_square"].to_numpy().astype(np.float64) if relative else values
