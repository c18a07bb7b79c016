"""The networks of rotated MNIST: trained, measured, and seeds joined to rows (chapter 9).

The table has a row for each trained network; networks that differ in the seed alone (`p4`, `p4-seed1`, ...) belong together.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from lee import datasets, models, provenance
from lee.errors import InputError
from lee.models import Normalized
from lee.models.cards import check_weights, read_card
from lee.models.recipes import Recipe, ZooSpec, load_specs, without_seed
from lee.paths import atomic_path
from lee.studies.turntable import measure
from lee.training import train


def _described(spec: ZooSpec, model: nn.Module) -> dict[str, Any]:
    """What every row starts with."""
    recipe = spec.recipe
    return {
        "name": spec.name,
        "row": without_seed(spec.stem),
        "title": spec.title,
        "family": spec.family,
        "seed": recipe.seed,
        "epochs": recipe.pretrain_epochs + recipe.epochs,
        "augmentation": recipe.augmentation,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def live(file: Path, names: Iterable[str] | None = None, **options: Any) -> tuple[pd.DataFrame, dict[str, Normalized]]:
    """Train networks here and now and measure each; for recipes of seconds.

    Args:
        file: a recipe file.
        names: some of its networks; all by default.
        **options: of `measure`.

    Returns:
        A table as of `read`, and the networks by name.
    """
    rows, trained = [], {}
    for name, spec in load_specs(file).items():
        if names is not None and name not in names:
            continue
        sets = [datasets.load(spec.recipe.dataset, split=split) for split in ("train", "test")]
        result = train(spec, *sets, progress=False)
        trained[name] = result.model
        rows.append(
            _described(spec, result.model) | {"minutes": result.minutes} | measure(result.model, sets[1], **options)
        )
    return pd.DataFrame(rows), trained


def update(out: Path, **options: Any) -> pd.DataFrame:
    """Measure the trained networks that a table does not have yet, or has with other weights, and write it anew.

    Args:
        out: the table, Parquet; made if it isn't there.
        **options: of `measure`.

    Returns:
        The table, in the recipe file's order; networks without weights are left out.

    Raises:
        InputError: none of the networks is trained.
    """
    known = {row["weights_sha256"]: row for row in _records(read(out))} if out.is_file() else {}
    rows: list[dict[str, Any]] = []
    for spec in load_specs().values():
        if not spec.name.startswith("rotmnist/"):
            continue
        try:
            check_weights(spec)
        except InputError:
            continue
        card = read_card(spec)
        found = known.pop(card["sha256"]) if card["sha256"] in known else None
        rows.append(found or _measured(spec, card, options))
        _write([*rows, *known.values()], out)  # what an interruption would otherwise cost
    if not rows:
        raise InputError(
            "None of the networks of rotated MNIST is trained. Train them: lee train --missing 'rotmnist/*'"
        )
    _write(rows, out)
    return pd.DataFrame(rows)


def _measured(spec: ZooSpec, card: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """One row of the table, with where its numbers come from."""
    model, test_set = models.load(spec.name), datasets.load(spec.recipe.dataset)
    made = Recipe(**card["recipe"])
    origin = {"weights_sha256": card["sha256"], "data_sha256": test_set.sha256, "device": card["device"]}
    origin |= {"commit": provenance.commit() or "", **provenance.versions()}
    described = _described(replace(spec, recipe=made), model) | {"minutes": card["minutes"]}
    return described | measure(model, test_set, **options) | origin


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as mappings."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the table in one step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False, compression="zstd")


def read(path: Path) -> pd.DataFrame:
    """Read a table that `update` wrote: a row per network, lists in `lee` and in the columns of the curves.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing or is no such table.
    """
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is no table of turned networks: {str(error).splitlines()[0]}. Make it: lee rotmnist"
        ) from error
    if not {"name", "row", "error", "lee", "change"} <= set(frame.columns):
        raise InputError(f"{path} lacks columns of a table of turned networks. Make it again: lee rotmnist")
    return frame


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Join the seeds of each row, in the frame's order.

    Args:
        frame: of :func:`read`.

    Returns:
        `row`, `title`, `seeds`, `error` and `error_sd` (standard deviation over seeds; NaN for one), `lee` and `lee_se` (mean over
        seeds and images; standard error over seeds, for one seed over images), `relative`, `quarter` (largest), `parameters`,
        `minutes` and `epochs`.
    """
    rows = []
    for row, group in frame.groupby("row", sort=False):
        values = [float(np.mean(v)) for v in group["lee"]] if len(group) > 1 else np.asarray(group["lee"].iloc[0])
        rows.append(
            {
                "row": row,
                "title": group["title"].iloc[0],
                "seeds": len(group),
                "error": group["error"].mean(),
                "error_sd": group["error"].std(),
                "lee": float(np.mean(values)),
                "lee_se": float(np.std(values, ddof=1) / len(values) ** 0.5),
                "relative": group["relative"].mean(),
                "quarter": group["quarter"].max(),
                "parameters": int(group["parameters"].iloc[0]),
                "minutes": group["minutes"].mean(),
                "epochs": int(group["epochs"].iloc[0]),
            }
        )
    return pd.DataFrame(rows)


def followed(frame: pd.DataFrame) -> pd.DataFrame:
    """The curves of all rows, averaged over seeds: `row`, `angle`, `accuracy`, `probability`, `change`.

    Args:
        frame: of :func:`read`.
    """
    parts = []
    for record in _records(frame):
        columns = {column: np.asarray(record[column]) for column in ("angle", "accuracy", "probability", "change")}
        parts.append(pd.DataFrame({"row": record["row"], **columns}))
    joined = pd.concat(parts)
    return joined.groupby(["row", "angle"], sort=False).mean().reset_index()
