"""Errors of any output of a network in one unit: how much that output varies between images.

LEE of logits or features grows with their scale, which no symmetry fixes. Divided by the output's variance over the same images,
averaged over its entries, it says how fast a small motion changes the output in comparison with another image. The variance isn't
in a sweep's table, which holds squares only; :func:`measure` makes a small table beside it, `NAME.variances.csv`, a row per task.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from lee.errors import InputError
from lee.geometry.generators import AnyGenerator
from lee.measure.checks import select
from lee.metrics.distances import Features
from lee.models import input_size
from lee.sweep.results import Results, read_csv, write_csv
from lee.sweep.tasks import images_of, model_of

COLUMNS = ("key", "model", "weights", "output", "n", "variance")
CHUNK = 125


def measure(table: Results, path: Path) -> pd.DataFrame:
    """Measure the variance of every task's output, and write it as CSV; needs the networks and the images.

    Args:
        table: The tasks, of one or several outputs.
        path: The file to write.

    Returns:
        A row per task: `key` of the task, `model`, `weights`, `output`, `n` images, and `variance` over images (with n - 1),
        averaged over the output's entries.

    Raises:
        InputError: If a network or images can't be had, or are others than those of the table.
    """
    rows = [_row(Results((part,))) for part in table.parts if len(part.rows) and not part.failed]
    return write_csv(pd.DataFrame(rows, columns=list(COLUMNS)), path, 6)


def _row(one: Results) -> tuple[object, ...]:
    task = one.parts[0].described
    model = model_of(task["model"], task["weights"], "cpu")
    size = task["size"] or input_size(model)
    x = images_of(task["dataset"], task["split"], one.images, task["seed"], size).images
    subject = Features(model).eval() if task["output"] == "features" else model.eval()
    with torch.no_grad():
        value = torch.cat([subject(part) for part in x.split(CHUNK)]).double()
    value = select(value, "logits" if task["output"] == "features" else task["output"]).flatten(1)
    known = one.per_image_of("output_square").to_numpy().mean()
    if not abs(float(value.square().mean()) / known - 1) < 1e-3:
        raise InputError(f"{task['model']} or {task['dataset']} isn't here what it was when the table was made.")
    variance = float(value.var(0).mean())
    return one.parts[0].key, task["model"], task["weights"], task["output"], len(x), variance


def read(name: str) -> pd.DataFrame:
    """The variances that belong to a table of `data/results`, as :func:`measure` returns them.

    Args:
        name: of the table, such as `zoo`.

    Raises:
        InputError: If there are none.
    """
    return read_csv(f"{name}.variances.csv", "lee.studies.variances.measure")


def relative(table: Results, variances: pd.DataFrame, generators: Sequence[AnyGenerator]) -> pd.DataFrame:
    """Summed LEE of the generators in units of the output's variance: a row per image, a column per model.

    Args:
        table: One task per model.
        variances: From :func:`measure` or :func:`read`.
        generators: Those whose errors are added, such as the translations along both axes.

    Raises:
        InputError: If the variance of a task is missing, or as for `Results.per_image`.
    """
    known = variances.set_index("key")["variance"]
    keys = table.tasks.set_index("model")["key"]
    total = table.per_image(list(generators))
    if lacking := [name for name in total.columns if keys[name] not in known.index]:
        raise InputError(f"The variances lack {lacking[0]} as it is in the table; measure them again.")
    return total.div(known[keys[list(total.columns)]].to_numpy(), axis=1)
