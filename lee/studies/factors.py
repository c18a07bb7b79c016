r"""Architecture against training: how much of the differences between networks is either's.

Networks fill a table of architectures by recipes. With :math:`y_{ar}` the logarithm of the mean error of architecture `a` trained
by recipe `r`, averaged over its trainings, the sum of squares about the mean falls into three exactly (analysis of variance
without replication),

.. math::
    \sum_{ar} (y_{ar} - \bar y)^2 = R \sum_a (\bar y_a - \bar y)^2 + A \sum_r (\bar y_r - \bar y)^2
        + \sum_{ar} (y_{ar} - \bar y_a - \bar y_r + \bar y)^2 ,

and the parts divided by the whole are the shares of the architecture, of the recipe, and of what neither explains by itself. Two
kinds of chance enter: the images, drawn with replacement, the same for all networks, and the seeds, whose spread
:math:`\sigma_e` is known from recipes that were trained several times. It is drawn, too: :math:`\sigma_e^2 \nu / \chi^2_\nu`,
then a normal number of this variance for every training.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lee.errors import InputError
from lee.models.recipes import without_seed
from lee.statistics import Spread

Array = npt.NDArray[np.float64]
PARTS = ("architecture", "recipe", "neither alone")


def shares(
    per_image: pd.DataFrame,
    table: Mapping[str, Mapping[str, str]],
    spread: Spread,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Shares of architecture and recipe in the variance of the logarithm of the mean error, with intervals over images and seeds.

    Args:
        per_image: A row for each image, a column for each model, such as `Results.per_image` gives.
        table: Architecture → recipe → model; the same recipes for each architecture. Other seeds of a model join in.
        spread: Spread between seeds of the logarithms, from :func:`lee.studies.comparisons.spread_of`.
        level: Coverage of the intervals (percentiles).
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        A row for each of :data:`PARTS` with `share`, `low`, `high`, and `n` images; and a row `"recipe over architecture"` with the
        ratio of the two standard deviations in place of a share.

    Raises:
        InputError: If the table is not full, has a single row or column, or names a model that is not there.

    Examples:
        >>> images = pd.DataFrame({"a1": [1.0, 2.0], "a2": [2.0, 4.0], "b1": [4.0, 8.0], "b2": [8.0, 16.0]})
        >>> known = Spread(1e-9, 1e-9, 1e-9, 1.0, 1.0, 1.0, 1.0, df=6, groups=3, n=9)
        >>> found = shares(images, {"a": {"1": "a1", "2": "a2"}, "b": {"1": "b1", "2": "b2"}}, known)
        >>> found["share"].round(3).tolist()  # factors of 4 and of 2
        [0.8, 0.2, 0.0, 0.5]
    """
    names = _names(table)
    columns = [[m for m in per_image.columns if without_seed(m) == without_seed(name)] for row in names for name in row]
    if missing := [name for row in names for name in row if name not in per_image.columns]:
        raise InputError(
            f"The numbers per image lack {missing[0]}, which the table of architectures and recipes names."
        )
    values = [per_image[c].to_numpy(dtype=float) for c in columns]
    shape, n = (len(names), len(names[0])), len(per_image)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = rng.integers(n, size=n)
        within = spread.within * np.sqrt(spread.df / rng.chisquare(spread.df))
        logs = [np.log(v[chosen].mean(0)) + within * rng.standard_normal(v.shape[1]) for v in values]
        drawn.append(_parts(np.array([y.mean() for y in logs]).reshape(shape)))
    found = _parts(np.array([np.log(v.mean(0)).mean() for v in values]).reshape(shape))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    rows = zip([*PARTS, "recipe over architecture"], found, low, high, strict=True)
    return pd.DataFrame([{"part": p, "share": v, "low": a, "high": b, "n": n} for p, v, a, b in rows])


def _names(table: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    recipes = list(next(iter(table.values()), {}))
    if len(table) < 2 or len(recipes) < 2 or any(set(row) != set(recipes) for row in table.values()):
        raise InputError("Give two architectures or more, each with the same two recipes or more.")
    return [[row[recipe] for recipe in recipes] for row in table.values()]


def _parts(y: Array) -> Any:
    """Shares of rows, columns and their interaction, and the ratio of the standard deviations of columns and rows."""
    gap = y - y.mean()
    rows, columns = gap.mean(1, keepdims=True), gap.mean(0, keepdims=True)
    squares = np.array([np.broadcast_to(z, y.shape).var() for z in (rows, columns, gap - rows - columns)])
    return np.append(squares / squares.sum(), np.sqrt(squares[1] / squares[0]))
