"""What `lee sweep` costs beyond its measurements, and what a second worker brings.

1. Overhead: a sweep of one model in two measurements (probabilities and logits, six generators, predictions, and consistency
   under shifts) against a bare loop that computes the same numbers of the same images by the package's functions: in one
   process, interleaved, minima over rounds, on the clock and of the processor. The sweep also reads its specification,
   takes digests of weights and data, keeps each task as a file, and writes the table. The numbers are compared.
2. Workers: the sweep of all models with one and with two worker processes, and on a Dask cluster with one and with two
   workers, of one thread each. The time of worker processes includes their start; the cluster is warm.

    python benchmarks/sweep.py [--models zoo/resnet-s …] [--images 128] [--rounds 3] [--out FOLDER]

Times on a shared machine vary: only ratios of minima from one run mean anything.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import clock_and_processor, machine, write

import lee
from lee import datasets, metrics, models, sweep
from lee.geometry.generators import AFFINE
from lee.sweep import results
from lee.sweep.spec import MEASURES

MODELS = ("zoo/resnet-s", "zoo/vit-s", "zoo/mixer-s")
#: What a sweep may take, in bare loops.
GOAL = 1.05
OUTPUTS = ("probabilities", "logits")


def specification(names: Sequence[str], images: int) -> sweep.SweepSpec:
    """Two tasks for each model."""
    way = {"dataset": "patches", "n": images, "size": 32, "output": list(OUTPUTS), "generators": "affine"}
    return sweep.parse({"models": list(names), "measurements": {"main": {**way, "measures": ["consistency"]}}})


def swept(names: Sequence[str], images: int, folder: Path, executor: sweep.Executor) -> Path:
    """A sweep from nothing; the table."""
    out = folder / "sweep.parquet"
    out.unlink(missing_ok=True)
    report = sweep.run(specification(names, images), out, executor, progress=False)
    if report.failures or report.measured != len(OUTPUTS) * len(names):
        raise SystemExit(f"The sweep did not measure what it should: {report}")
    return out


def bare(names: Sequence[str], images: int) -> dict[tuple[str, str], torch.Tensor]:
    """The same measurements by a loop of a user's; the Gram matrices by model and output."""
    found = {}
    for name in names:
        model = models.load(name)
        chosen = datasets.load("patches", split="test", n=images, seed=0, size=32)
        for output in OUTPUTS:
            gram = lee.equivariance_gram(model, chosen.images, generators=AFFINE, output=output, progress=False)
            with torch.no_grad():
                scores = torch.cat([model(part) for part in chosen.images.split(64)])
            scores.softmax(1).max(1)
            draw = torch.Generator().manual_seed(0)
            metrics.agreement(model, chosen.images, random=draw, chunk=64, **MEASURES["consistency"])
            found[name, output] = gram.per_image
    return found


def compare(table: Path, expected: dict[tuple[str, str], torch.Tensor]) -> None:
    """Stop if the table holds other numbers than the loop; a table's are rounded to 16 bits."""
    frame = results.load(table)
    for (name, output), gram in expected.items():
        kept = frame.gram(name, output=output).per_image
        if not np.allclose(kept, gram, rtol=1e-3, atol=1e-4 * float(gram.abs().max())):
            raise SystemExit(f"The sweep and the loop disagree about {name}, {output}.")


def overhead(name: str, images: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Seconds of a model's two tasks in a sweep and in a bare loop."""
    found: dict[str, Any] = {}
    runs = {
        "sweep": lambda: found.update(table=swept([name], images, folder, sweep.executor())),
        "bare": lambda: found.update(grams=bare([name], images)),
    }
    best = clock_and_processor(runs, rounds)
    compare(found["table"], found["grams"])
    took = {k: {"clock": round(v[0], 4), "processor": round(v[1], 4)} for k, v in best.items()}
    return {"model": name, "tasks": len(OUTPUTS), "images": images, **took}


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """The address of a Dask cluster of processes with one thread each, which have imported what they need."""
    import distributed

    options = {"processes": True, "dashboard_address": ":0", "memory_limit": 0, "silence_logs": logging.ERROR}
    with (
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, **options) as local,
        distributed.Client(local) as client,
    ):
        client.run(_imports)
        yield local.scheduler_address


def _imports() -> None:
    import lee.sweep.cluster  # noqa: F401


def workers(names: Sequence[str], images: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Seconds of the whole sweep by executor and number of workers."""
    with ExitStack() as stack:
        addresses = {number: stack.enter_context(cluster(number)) for number in (1, 2)}
        runs: dict[str, Callable[[], object]] = {"in process, all threads": _run(names, images, folder)}
        for number, address in addresses.items():
            runs[f"processes: {number}"] = _run(names, images, folder, workers=number, threads=1)
            runs[f"dask: {number}"] = _run(names, images, folder, scheduler=address, threads=1)
        best = {name: float("inf") for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - start)
    return [{"run": name, "seconds": round(value, 3)} for name, value in best.items()]


def _run(names: Sequence[str], images: int, folder: Path, **options: Any) -> Callable[[], object]:
    return lambda: swept(names, images, folder, sweep.executor(**options))


def ratios(rows: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The headline: sweep / bare of all models together, ms per task beyond the loop, and one worker / two workers."""
    tasks = sum(row["tasks"] for row in rows)
    sums = {(way, of): sum(row[way][of] for row in rows) for way in ("sweep", "bare") for of in ("clock", "processor")}
    took = {run["run"]: run["seconds"] for run in runs}
    found = {
        "sweep / bare loop, clock": sums["sweep", "clock"] / sums["bare", "clock"],
        "sweep / bare loop, processor": sums["sweep", "processor"] / sums["bare", "processor"],
        "overhead per task, ms of the processor": 1e3
        * (sums["sweep", "processor"] - sums["bare", "processor"])
        / tasks,
    }
    for kind in ("processes", "dask"):
        if f"{kind}: 2" in took:
            found[f"{kind}: 1 worker / 2 workers"] = took[f"{kind}: 1"] / took[f"{kind}: 2"]
    return {key: round(value, 3) for key, value in found.items()}


def table(rows: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]], about: dict[str, object]) -> str:
    """The results as Markdown."""
    lines = ["| model | of | s per task, sweep | s per task, bare loop | sweep / bare loop |", "|---|---|---|---|---|"]
    for r in rows:
        for of in ("clock", "processor"):
            swept, loop = r["sweep"][of], r["bare"][of]
            each = f"{swept / r['tasks']:.2f} | {loop / r['tasks']:.2f}"
            lines.append(f"| {r['model']} | {of} | {each} | {swept / loop:.3f} |")
    more = ["| the sweep of all models | s |", "|---|---|", *(f"| {r['run']} | {r['seconds']:.1f} |" for r in runs)]
    head = [f"- {name}: **{value}**" for name, value in ratios(rows, runs).items()]
    images = rows[0]["images"]
    notes = (
        f"A task takes {images} images of 32 pixels, six generators, predictions and the consistency under four shifts. Both "
        f"columns are minima over interleaved rounds of one process; the goal is a ratio of at most {GOAL}. Other work on the "
        "machine disturbs the clock more than the processor's time. The time of worker "
        "processes includes their start (Python imports torch in each); Dask's workers are there already. "
        "Workers have one thread each."
    )
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    made = "Made by `make bench BENCH=sweep`."
    parts = ["# Sweeps", "", *head, "", *lines, "", *more, "", notes, "", f"Machine: {facts}.", "", made, ""]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = []
        for model in given.models:
            rows.append(overhead(model, given.images, given.rounds, folder))
            print(json.dumps(rows[-1]), flush=True)
        runs = workers(given.models, given.images, max(1, given.rounds - 1), folder)
    facts = machine()
    write(given.out / "sweep.json", json.dumps({"machine": facts, "rows": rows, "runs": runs}, indent=1) + "\n")
    write(given.out / "sweep.md", table(rows, runs, facts))
    print(table(rows, runs, facts))


if __name__ == "__main__":
    main()
