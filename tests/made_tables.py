"""Tables of results from simulated numbers with known means, for tests of what reads tables. Never results."""

import math

import numpy as np

from lee.sweep.results import Results
from lee.sweep.table import Part, packed

BASIS = ("translation_x", "translation_y", "rotation")


def made_part(
    model: str, lee: float, error: float | None, *, family: str = "", n: int = 200, split: str = "test", seed: int = 0,
    measurement: str = "main", output: str = "probabilities", weights: str = "trained", kernel: str = "fourier",
    basis: tuple[str, ...] = BASIS, failure: str | None = None, rng: np.random.Generator | None = None,
) -> Part:  # fmt: skip
    """A task whose expected LEE is `lee` for every generator of the basis, and whose test error is about `error`."""
    rng = np.random.default_rng(0) if rng is None else rng
    spread = np.exp(
        0.7 * np.random.default_rng(seed).standard_normal(n) - 0.245
    )  # the images', the same for all models
    k = len(basis)
    parts = rng.standard_normal((n, k, 40)) * np.sqrt(lee * spread)[:, None, None]
    columns = {"image": np.arange(n), "output_square": np.full(n, 0.1), **packed(parts @ parts.transpose(0, 2, 1) / 40)}
    if error is not None:
        columns |= {"correct": np.arange(n) >= round(n * error), "confidence": np.full(n, 0.5)}
    described = {
        "model": model, "family": family, "weights": weights, "measurement": measurement, "dataset": "simulated",
        "split": split, "output": output, "kernel": kernel, "boundary": "reflect", "align_corners": False, "n": n,
        "seed": seed, "size": None, "measures": {}, "figures": {}, "weights_sha256": "w", "data_sha256": "d", "basis": list(basis),
        "error": failure, "warnings": [], "seconds": 1.0,
    }  # fmt: skip
    key = "-".join(map(str, (model, weights, measurement, split, output, kernel)))
    return Part.of(key, described, {"device": "cpu"}, columns)


def made_table(models: dict[str, tuple[float, float | None]], **options: object) -> Results:
    """Trained models by name with their LEE and test error."""
    rng = np.random.default_rng(1)
    return Results(tuple(made_part(m, lee, error, rng=rng, **options) for m, (lee, error) in models.items()))  # type: ignore[arg-type]


def factor(rng: np.random.Generator, spread: float) -> float:
    """A random factor whose logarithm has this standard deviation."""
    return math.exp(spread * float(rng.standard_normal()))
