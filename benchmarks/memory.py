"""How much memory all six affine Lie derivatives need, beside a plain forward pass over 7 times the images.

For each model, 8 images at 224 pixels, each method in a fresh process (the median of several):

- the floor: one forward pass over 56 images without gradients, as a stack of an image and six tangents has 7 times its size;
- `lee.equivariance_gram` with all 8 images in one stacked pass (`chunk=8`), with as many as it takes by itself, and with one
  image per pass (`chunk=1`); also for nine generators, the affine and the photometric ones;
- a forward pass over the 8 images, for comparison.

"above" is the peak of the resident memory above what the process held before, with the model loaded and run once; "whole"
is the peak of the whole process, Python, torch and the model included. Linux only.

    python benchmarks/memory.py [--models resnet50] [--rounds 3]
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from common import main, resident_peak, seconds_and_peak
from torch import Tensor, nn

import lee
from lee.geometry.generators import AFFINE, PHOTOMETRIC

MODELS = ("resnet50", "vit_small_patch16_224")
BATCH, SIDE = 8, 224
FLOOR = "forward, 56 images"
#: What the largest of the methods may need, in floors.
GOAL = 1.5

Method = Callable[[nn.Module, Tensor], object]


def plain(times: int) -> Method:
    """A forward pass over so many times the images."""

    def run(model: nn.Module, x: Tensor) -> object:
        with torch.no_grad():
            return model(x.repeat(times, 1, 1, 1))

    return run


def gram(chunk: int | None, generators: tuple[Any, ...] = AFFINE) -> Method:
    """The Gram matrices of several generators, so many images per pass."""
    return lambda model, x: lee.equivariance_gram(model, x, generators=generators, chunk=chunk, progress=False)


METHODS: Mapping[str, Method] = {
    "forward, 8 images": plain(1),
    FLOOR: plain(7),
    "lee, chunk=8": gram(BATCH),
    "lee, as it chooses": gram(None),
    "lee, chunk=1": gram(1),
    "lee, nine generators, chunk=8": gram(BATCH, AFFINE + PHOTOMETRIC),
    "lee, nine generators, as it chooses": gram(None, AFFINE + PHOTOMETRIC),
}


def report_alone(name: str, method: str) -> None:
    """The child process of :func:`alone`."""
    torch.manual_seed(0)
    model, x = timm.create_model(name).eval(), torch.randn(BATCH, 3, SIDE, SIDE)
    with torch.no_grad():
        model(x[:1])
    took, above = seconds_and_peak(lambda: METHODS[method](model, x))
    print(took, above, resident_peak())


def alone(name: str, method: str) -> tuple[float, float, float]:
    """Seconds, and peak resident memory in GB above the loaded model and whole, of one method in a process of its own."""
    command = [sys.executable, __file__, "--alone", name, method]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    took, above, whole = map(float, result.stdout.split()[-3:])
    return took, above, whole


def row(name: str, rounds: int) -> dict[str, Any]:
    """The medians of one model."""
    found: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
    for _ in range(rounds):
        for method in METHODS:
            found[method].append(alone(name, method))
    return medians(name, found)


def medians(name: str, found: Mapping[str, list[tuple[float, float, float]]]) -> dict[str, Any]:
    """Seconds and peaks by method, from the repetitions of each."""
    parts = {
        method: dict(zip(("seconds", "above", "whole"), map(statistics.median, zip(*runs, strict=True)), strict=True))
        for method, runs in found.items()
    }
    rounds = min(map(len, found.values()))
    return {
        "model": name,
        "rounds": rounds,
        "methods": {m: {k: round(v, 3) for k, v in p.items()} for m, p in parts.items()},
    }


def ratio(row: dict[str, Any], method: str, of: str = "above") -> float:
    """A method's peak in those of the forward pass over 7 times the images."""
    return float(row["methods"][method][of] / row["methods"][FLOOR][of])


def table(rows: list[dict[str, Any]], about: dict[str, object]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | method | GB above | GB whole | above / floor | whole / floor |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        for method, p in r["methods"].items():
            ratios = f"{ratio(r, method):.2f} | {ratio(r, method, 'whole'):.2f}"
            lines.append(f"| {r['model']} | {method} | {p['above']:.2f} | {p['whole']:.2f} | {ratios} |")
    notes = (
        f"The floor is one forward pass over 56 images, 7 times the 8 that are measured; the goal is at most {GOAL} floors, "
        'also with all images in one pass. "Above" is the peak above what the process held before, the model included; "whole" is '
        f"that of the whole process. Every run had a fresh process; of {', '.join(str(r['rounds']) for r in rows)} runs per "
        "method the table holds the median."
    )
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    title = "# Memory of six affine Lie derivatives at 224 pixels, batch 8"
    return "\n".join(
        [title, "", *lines, "", notes, "", f"Machine: {facts}.", "", "Made by `make bench BENCH=memory`.", ""]
    )


if __name__ == "__main__":
    main("memory", __doc__.splitlines()[0], MODELS, row, table, report_alone)
