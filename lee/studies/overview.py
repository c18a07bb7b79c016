"""All models of a table side by side: errors of equivariance, test errors, and what the models' cards say."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock

from lee import sweep
from lee.errors import InputError
from lee.geometry.generators import AnyGenerator
from lee.models import imagenet
from lee.models.recipes import has_recipe, load_spec, without_seed
from lee.statistics import Estimate, holm, rank_correlation
from lee.sweep import results
from lee.sweep.results import Results

UNKNOWN = "unknown"


def facts(models: Sequence[str]) -> pd.DataFrame:
    """What is known of models without running them.

    Args:
        models: Names that `lee.models.load` knows.

    Returns:
        A row for each: `model`, `short` (without a prefix), `family`, `recipe` (the same without a seed),
        `parameters`, `share` of the training images that was used (NaN if unknown), and `training` in words: passes over the
        images, augmentation, share of the images, seed.

    Raises:
        InputError: If there is no such network.
    """
    rows = []
    for name in models:
        short, spec = name.rpartition("/")[2], load_spec(name) if has_recipe(name) else None
        family, training = (spec.family, _training(spec.recipe)) if spec else (sweep.family_of(name), UNKNOWN)
        row = {"model": name, "short": short, "family": family, "recipe": without_seed(short)}
        share = spec.recipe.fraction if spec else math.nan
        rows.append({**row, "parameters": _parameters(name), "share": share, "training": training})
    return pd.DataFrame(rows)


def _training(recipe: Any) -> str:
    told = [f"{recipe.epochs} epochs", f"augmentation {recipe.augmentation}"]
    told += [f"{recipe.fraction:.0%} of the images"] if recipe.fraction < 1 else []
    told += [f"after {recipe.pretrain_epochs} epochs of masked autoencoding"] if recipe.pretrain_epochs else []
    return ", ".join([*told, f"seed {recipe.seed}"])


def _parameters(name: str) -> int:
    """Number of parameters, from the recipe or from timm; the network is built without memory."""
    import timm

    from lee.models import build

    with torch.device("meta"):
        if has_recipe(name):
            net: torch.nn.Module = build(load_spec(name))
        elif imagenet.is_packaged(name) or timm.is_model(name):
            net = timm.create_model(imagenet.describe(name).architecture if imagenet.is_packaged(name) else name)
        else:
            return 0
    return sum(p.numel() for p in net.parameters())


def overview(
    table: Results,
    generators: Mapping[str, AnyGenerator | Sequence[AnyGenerator]],
    *,
    measurements: Sequence[str] = ("main", "kernels"),
) -> pd.DataFrame:
    """Every trained model under every generator and kernel, with its test error and the facts of :func:`facts`.

    Args:
        table: Tasks of a sweep.
        generators: Generators under the names that they get; of a list, such as the translations along both axes, the errors are
            added.
        measurements: Those whose test images, probabilities and trained weights are taken. The first gives the test errors.

    Returns:
        A row for each model, kernel and generator: the columns of :func:`facts`, `kernel`, `generator`, `lee` with `stderr` and its
        95 % interval from `low` to `high`, `n`, of the first measurement `test_error` with `test_error_stderr`, `test_low` and
        `test_high`, and `confidence`, NaN where classes are unknown, and `cluster`:
        models of one name share a recipe or, as the table's tasks with initial weights say, began with the same weights.

    Raises:
        InputError: If the first measurement is not in the table.
    """
    present = [m for m in measurements if (table.tasks["measurement"] == m).any()]
    if measurements[0] not in present:
        raise InputError(f"The table has no measurement {measurements[0]!r} to read test errors from.")
    keys = {"weights": "trained", "split": "test", "output": "probabilities"}
    chosen = table.select(measurement=present, **keys)
    parts = [Results((part,)) for part in chosen.parts if not part.failed]
    rows = pd.DataFrame([_error(part, name, given) for name, given in generators.items() for part in parts])
    scores = table.select(measurement=measurements[0], **keys).scores()
    scores = scores.rename(columns={"error": "test_error", "error_stderr": "test_error_stderr"})
    numbers = scores[["test_error", "test_error_stderr", "n"]].to_numpy(dtype=float).tolist()
    ends = [Estimate(error, stderr, int(n)).interval() for error, stderr, n in numbers]
    scores["test_low"], scores["test_high"] = zip(*ends, strict=True)
    scores = scores[["model", "test_error", "test_error_stderr", "test_low", "test_high", "confidence"]]
    known = facts([str(name) for name in scores["model"]])
    known["cluster"] = known["model"].map(clusters(table, known))
    return rows.merge(known, on="model").merge(scores, on="model")


def _error(part: Results, name: str, given: AnyGenerator | Sequence[AnyGenerator]) -> dict[str, Any]:
    """One task's summed error under the generators that share a name."""
    gram, task = part.gram(), part.tasks.iloc[0]
    several = list(given) if isinstance(given, list | tuple) else [given]
    found = gram.lee(several[0])  # type: ignore[arg-type]
    if len(several) > 1:
        found = Estimate.of(torch.stack([gram.lee_per_image(one) for one in several]).sum(0))  # type: ignore[arg-type]
    low, high = found.interval()
    return {"model": task["model"], "kernel": task["kernel"], "generator": name, "lee": found.value,
            "stderr": found.stderr, "low": low, "high": high, "n": found.n}  # fmt: skip


def clusters(table: Results, known: pd.DataFrame) -> dict[str, str]:
    """Which networks count as one: the first of those that a model shares a recipe or its initial weights with.

    Args:
        table: Tasks of a sweep; those with initial weights say which models began with the same.
        known: Rows of :func:`facts`.

    Returns:
        A name for each model; models that share something directly or through others have the same.
    """
    tasks = table.tasks[table.tasks["weights"] == "initial"]
    began = dict(zip(tasks["model"], tasks["weights_sha256"], strict=True))
    cluster: dict[str, str] = {}
    for model, recipe in zip(known["model"], known["recipe"], strict=True):
        same = {cluster[m] for m, r in zip(known["model"], known["recipe"], strict=True) if m in cluster
                and (r == recipe or (model in began and began[model] == began.get(m)))}  # fmt: skip
        first = min(same, default=model)
        cluster = {m: first if c in same else c for m, c in cluster.items()} | {model: first}
    return cluster


def correlations(
    frame: pd.DataFrame,
    given: Mapping[str, Sequence[str]],
    *,
    against: str = "test_error",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of the local equivariance error with another column over models, for each generator.

    Models of one `cluster` (:func:`clusters`) are resampled together, and count as one for the p-value.

    Args:
        frame: Rows of :func:`overview` for one kernel.
        given: Columns held fixed, under a name for each choice; an empty list holds none.
        against: The other column.
        level: Coverage of the intervals.
        resamples: Resamples of the bootstrap over clusters.
        seed: Seed of the resamples.

    Returns:
        A row for each generator and choice: `generator`, `given`, `rho`, `low`, `high`, `p`, `n`, and `p_holm`, corrected over the
        generators of one choice, which are read together. NaN where there are too few clusters for the covariates.

    Raises:
        InputError: If the frame holds several rows of one model and generator, or numbers are missing.
    """
    if frame.duplicated(["model", "generator"]).any():
        raise InputError("Select one kernel first: a model has several rows of one generator.")
    rows = []
    for label, columns in given.items():
        for generator, part in frame.groupby("generator", sort=False):
            row = {"generator": generator, "given": label, "n": len(part)}
            if part["cluster"].nunique() < 3 + sum(_freedom(part[column]) for column in columns):
                rows.append(row | dict.fromkeys(("rho", "low", "high", "p"), math.nan))
                continue
            found = rank_correlation(
                part["lee"].to_numpy(), part[against].to_numpy(), level, given=part[list(columns)] if columns else None,
                clusters=part["cluster"].tolist(), resamples=resamples, seed=seed,
            )  # fmt: skip
            rows.append(row | {"rho": found.value, "low": found.low, "high": found.high, "p": found.p})
    table = pd.DataFrame(rows)
    known = table["p"].notna()
    for label in given:
        these = known & (table["given"] == label)
        table.loc[these, "p_holm"] = holm(table.loc[these, "p"].to_numpy())
    return table


def _freedom(column: "pd.Series[Any]") -> int:
    """Degrees of freedom that a covariate takes."""
    return 1 if pd.api.types.is_numeric_dtype(column) else column.nunique() - 1


def measure(name: str, folder: Path, *, workers: int = 0, device: str = "cpu") -> Results:
    """Measure what a sweep of `data/results` asks for and its table in another folder lacks, and read that table.

    Chapters that are executed beside each other take turns, and the second finds what the first has measured.

    Args:
        name: Of the specification, without `.yaml`; those whose names go on after a dot belong to it.
        folder: Where the table goes.
        workers: Worker processes; 0 for none.
        device: `cpu`, `cuda`, …

    Raises:
        InputError: As for :func:`lee.sweep.load` and :func:`lee.sweep.run`.
    """
    specs = [results.folder() / f"{name}.yaml", *sorted(results.folder().glob(f"{name}.*.yaml"))]
    with FileLock(folder / f".{name}.turn"):
        for path in specs:
            out = sweep.destination(folder / path.name)
            sweep.run(sweep.load(path), out, sweep.executor(workers, device=device), prune=True, progress=False)
    return results.load(folder / f"{name}.parquet")
