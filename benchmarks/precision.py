"""What it gains to push tangents in bfloat16, and what that changes.

For each model, at 224 pixels with six affine generators and sixteen images, four per pass:

- a float32 forward pass over 7 images for each image, without gradients: the floor of float32;
- `lee.equivariance_gram` in the model's own precision, and with `precision="bfloat16"`, with the comparison on the first images.

The seconds are those of the processor, which other work on the machine hardly changes. Networks have timm's untrained weights but
for `imagenet/…`; what bfloat16 changes is the largest relative change of a generator's error over all images.

    python benchmarks/precision.py [--models resnet50] [--rounds 3]
"""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from common import clock_and_processor, main
from torch import Tensor, nn

import lee
from lee import models
from lee.geometry.generators import AFFINE

MODELS = ("resnet50", "vit_small_patch16_224", "imagenet/efficientnet-lite0")
IMAGES, CHUNK, SIDE = 16, 4, 224


def load(name: str) -> nn.Module:
    """A model in eval mode."""
    torch.manual_seed(0)
    return models.load(name) if "/" in name else timm.create_model(name).eval()


def gram(model: nn.Module, x: Tensor, precision: str) -> lee.EquivarianceGram:
    """Six generators measured in a precision, from logits: untrained probabilities hardly move."""
    how: dict[str, Any] = {"generators": AFFINE, "chunk": CHUNK, "output": "logits", "progress": False}
    return lee.equivariance_gram(model, x, precision=precision, **how)


def row(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of the processor, the ratios, and what the check said."""
    model, x = load(name), torch.randn(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found: dict[str, lee.EquivarianceGram] = {}

    def floor() -> None:
        with torch.no_grad():
            for part in x.split(CHUNK):
                model(part.repeat(1 + len(AFFINE), 1, 1, 1))

    def measured(precision: str) -> None:
        found[precision] = gram(model, x, precision)

    runs = {"floor": floor, "own": lambda: measured("own"), "bfloat16": lambda: measured("bfloat16")}
    best = {k: v for k, (_, v) in clock_and_processor(runs, rounds).items()}
    own, low = (found[k].matrix.diagonal() for k in ("own", "bfloat16"))
    verification = found["bfloat16"].verification
    return {
        "model": name,
        "seconds": {k: round(v, 3) for k, v in best.items()},
        "bfloat16 / own": round(best["bfloat16"] / best["own"], 3),
        "bfloat16 / floor": round(best["bfloat16"] / best["floor"], 3),
        "change": round(float(((low - own).abs() / own).amax()), 4),
        "said": "" if verification is None else verification.note,
    }


def table(rows: Sequence[dict[str, Any]], about: dict[str, object]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | own precision, s | bfloat16, s | bfloat16 / own | bfloat16 / floor | largest change | what the check said |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        s = r["seconds"]
        lines.append(
            f"| {r['model']} | {s['own']:.1f} | {s['bfloat16']:.1f} | {r['bfloat16 / own']:.2f} | {r['bfloat16 / floor']:.2f} | "
            f"{r['change']:.1%} | {r['said']} |"
        )
    told = ", ".join(f"{key} {value}" for key, value in about.items())
    return "\n".join(
        [
            "# What bfloat16 gains", "", *lines, "",
            f"Six affine generators of logits at {SIDE} pixels, {IMAGES} images of noise, {CHUNK} per pass, seconds of the "
            "processor. The floor is a float32 forward pass over 7 times as many images.", "", f"Machine: {told}.", "",
            "Made by `make bench BENCH=precision`.", "",
        ]
    )  # fmt: skip


def alone(model: str, method: str) -> None:
    """Print what the check says of one model."""
    print(method, gram(load(model), torch.randn(CHUNK, 3, SIDE, SIDE), "bfloat16").verification)


if __name__ == "__main__":
    main("precision", "What it gains to push tangents in bfloat16.", MODELS, row, table, alone)
