"""Accuracy, moved shares and seconds per step of the networks that were trained for equivariance (chapter 11).

    LEE_DATA=… python benchmarks/equivariance.py

Writes `data/results/equivariance_scores.parquet` for the networks of `data/penalty/penalty.yaml` that are trained;
what `lee sweep data/results/equivariance.yaml` measures lies beside it. About 20 seconds per network on one core.
"""

import argparse
import time
from pathlib import Path

import torch

from lee import models
from lee.models.recipes import without_seed
from lee.studies import equivariance

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "results" / "equivariance_scores.parquet")
    parser.add_argument("--n", type=int, default=1000, help="images behind an accuracy")
    parser.add_argument("--n-moved", type=int, default=200, help="images behind a moved share")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start, names = time.perf_counter(), [name for name in models.names() if name.startswith("penalty/")]
    frame = equivariance.measure(names, n=arguments.n, n_moved=arguments.n_moved)
    firsts = [name for name in names if name == without_seed(name)]
    seconds = equivariance.step_seconds(firsts)
    equivariance.write(frame.assign(step_seconds=frame["row"].map(seconds)), arguments.out)
    print(f"{arguments.out}: {len(names)} networks, {len(frame)} rows, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
