"""How far the sets of a table lie from the training images, with errors: Fréchet distances in a few dimensions, beside the table.

A sweep's own distances are in all dimensions of a network's features, often more than there are images. Here are those along the
leading principal axes of the training images' features, with standard errors over images.
"""

from pathlib import Path

import pandas as pd

from lee.errors import InputError
from lee.metrics.distances import features, frechet_distance
from lee.models import input_size
from lee.sweep.results import Results, read_csv, write_csv
from lee.sweep.tasks import images_of, model_of


def measure(table: Results, reference: str, path: Path, *, n: int = 200, dimensions: int = 32) -> pd.DataFrame:
    """Measure the distance of every set from the training images, and write them as CSV; needs the network and the images.

    Args:
        table: a table whose measurements are sets of images, with the measure `distance`, which says what they are compared with.
        reference: the model in whose features distances are taken.
        path: the file to write.
        n: images of each set, more than `dimensions`.
        dimensions: principal axes of the training images' features.

    Returns:
        A row per set: `set`, squared `distance` as it is, extrapolated `limit` with its `stderr` over images, `n`, `dimensions`.

    Raises:
        InputError: the table has no such measure of the reference, or fewer images than dimensions were asked for.
    """
    if n <= dimensions:
        raise InputError(f"{dimensions} dimensions need more images than that, not {n}.")
    tasks = [part.described for part in table.select(model=reference, output="logits").parts if not part.failed]
    if lacking := [task["measurement"] for task in tasks if "distance" not in task["measures"]]:
        raise InputError(f"The measurement {lacking[0]!r} doesn't say from which images distances are taken.")
    model, homes, rows = model_of(reference, "trained", "cpu"), {}, []
    side = input_size(model)
    for task in tasks:
        how = task["measures"]["distance"]
        key = how["dataset"], how["split"], how["seed"]
        if key not in homes:
            homes[key] = features(model, images_of(how["dataset"], how["split"], n, how["seed"], side).images)
        here = images_of(task["dataset"], task["split"], n, task["seed"], task["size"] or side).images
        found = frechet_distance(features(model, here), homes[key], dimensions=dimensions)
        numbers = {"distance": found.value, "limit": found.limit, "stderr": found.stderr}
        rows.append({"set": task["measurement"], **numbers, "n": n, "dimensions": dimensions})
    return write_csv(pd.DataFrame(rows), path, 5)


def read(name: str) -> pd.DataFrame:
    """The distances that belong to a table of `data/results`, indexed by the set; as :func:`measure` returns them.

    Args:
        name: of the table, such as `ood`.

    Raises:
        InputError: there are none.
    """
    return read_csv(f"{name}.distances.csv", "lee.studies.remoteness.measure").set_index("set")
