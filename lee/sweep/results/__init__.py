r"""Tables made by `lee sweep`, read: errors per model with standard errors, and numbers per image for paired comparisons.

Every row of a table holds the equivariance Gram matrix `G` of one model at one image, so that

.. math::
    LEE_X = \mathbb{E}_x\, c^\top G(x)\, c

is at hand for every generator `X` with coefficients `c` in the span of what was measured, and any two models can be
compared on the same images.
"""

from pathlib import Path

import pandas as pd

from lee.errors import InputError, nearest
from lee.paths import atomic_path, package_data
from lee.sweep.results.parts import KEYS, SCORES
from lee.sweep.results.table import Results
from lee.sweep.table import read

__all__ = ["load", "Results", "KEYS", "SCORES", "folder"]


def folder() -> Path:
    """The folder with the specifications and tables that come with a checkout: `data/results`."""
    return package_data() / "results"


def load(name: str | Path = "zoo") -> "Results":
    """Read a table by its name in `data/results`, or by its path; the name `zoo` is that of all `zoo.*.parquet` as well, if any.

    Args:
        name: the name of a table in `data/results`, or a path.

    Raises:
        InputError: there is no such table, it is damaged, or of another schema; says what to do.
    """
    path = Path(name)
    files = [path]
    if path.suffix != ".parquet":
        path = folder() / f"{name}.parquet"
        if not path.is_file():
            known = [found.stem for found in folder().glob("*.parquet")]
            raise InputError(
                f"There is no table {str(name)!r} in {path.parent}.{nearest(str(name), known)} "
                f"Make it with `lee sweep {name}.yaml`, or give the path of a .parquet file."
            )
        files = [path, *sorted(path.parent.glob(f"{path.stem}.*.parquet"))]
    return Results(tuple(part for file in files for part in read(file).values()))


def write_csv(frame: pd.DataFrame, path: Path, digits: int) -> pd.DataFrame:
    """Write what a study keeps beside the tables, with so many digits; return it as it was."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format=f"%.{digits}g", lineterminator="\n")
    return frame


def read_csv(file: str, maker: str) -> pd.DataFrame:
    """Read what a study keeps beside the tables, in `data/results`; without it, the error names the function that makes it."""
    path = folder() / file
    if not path.is_file():
        raise InputError(f"There is no {file} in data/results; make it with {maker}.")
    return pd.read_csv(path)
