"""Processor seconds per training step of the networks that were trained for equivariance (chapter 11).

    LEE_DATA=… python benchmarks/training.py

Writes `data/results/step_seconds.json`, a number for each row of networks. About a minute on one core.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lee import datasets, models
from lee.models.recipes import load_specs, without_seed
from lee.sweep import results
from lee.training import train

OUT = results.folder() / "step_seconds.json"


def step_seconds(names: Sequence[str], *, steps: int = 4, repeats: int = 3) -> dict[str, float]:
    """Processor seconds per training step of recipes, the least of several short trainings in turn, by name.

    Args:
        names: such as `penalty/resnet-1`; they need not be trained.
        steps: of each short training.
        repeats: how often each is timed.
    """
    specs = load_specs()
    found: dict[str, list[float]] = {name: [] for name in names}
    for name in [*names] * repeats:
        recipe = replace(specs[name].recipe, epochs=1, warmup_epochs=0.0, fraction=1.0)
        data = datasets.load(recipe.dataset, split="train", n=steps * recipe.batch_size)
        few = datasets.load(recipe.dataset, n=2)
        start = time.process_time()
        train(replace(specs[name], recipe=recipe), data, few, progress=False)
        found[name].append((time.process_time() - start) / steps)
    return {name: min(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in models.names() if name.startswith("penalty/") and name == without_seed(name)]
    seconds = {name.removeprefix("penalty/"): value for name, value in step_seconds(names).items()}
    arguments.out.write_text(json.dumps(seconds, indent=2) + "\n")
    print(f"{arguments.out}: {len(seconds)} rows")


if __name__ == "__main__":
    main()
