"""Distances of data sets from the training set, and every model's answers to motions and foreign changes (chapter 8).

    LEE_DATA=… python benchmarks/ood.py

Writes `data/results/ood_yardsticks.parquet` for the models and sets of `data/results/ood.yaml`, which `lee sweep` measures
as well. About half a minute per model on one core; needs the data sets that the specification names.
"""

import argparse
import time
from pathlib import Path

import torch

from lee import sweep
from lee.studies import departure

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", type=Path, default=ROOT / "data" / "results" / "ood.yaml")
    parser.add_argument("--out", type=Path, help="by default beside the specification, as NAME_yardsticks.parquet")
    parser.add_argument("--reference", default="zoo/resnet-s", help="the model whose features measure distances")
    parser.add_argument("--device", default="cpu", help="where the models run")
    parser.add_argument("--n", type=int, default=200, help="images of each set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out or arguments.spec.with_name(f"{arguments.spec.stem}_yardsticks.parquet")
    start = time.perf_counter()
    how = {"reference": arguments.reference, "n": arguments.n, "device": arguments.device}
    frame = departure.measure(sweep.load(arguments.spec), **how)
    departure.write(frame, out)
    print(
        f"{out}: {frame['model'].nunique()} models, {frame['measurement'].nunique()} sets, {len(frame)} rows, ", end=""
    )
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
