"""What it costs that a measurement checks itself.

For each model, at 224 pixels with six affine generators:

- a forward pass over one image, without gradients;
- the check alone: whether the model is one function, and its derivative against differences of its values;
- `lee.equivariance_gram` over 64 images without the check.

The goals: at most 3 % of the 64 images, and at most twenty forward passes of one image.

    python benchmarks/verification.py [--models resnet50] [--rounds 3]
"""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from common import main, seconds
from torch import Tensor, nn

import lee
from lee.geometry.generators import AFFINE
from lee.measure.function import one_function
from lee.measure.pushing import Pushing
from lee.measure.terms import Terms, sampler_of

MODELS = ("resnet50", "vit_small_patch16_224", "mixer_b16_224", "convnext_tiny")
IMAGES, SIDE = 64, 224
#: The largest share of the measurement, and the largest number of forward passes of one image.
SHARE, PASSES = 0.03, 20


def check(model: nn.Module, x: Tensor) -> object:
    """The check by itself, as a measurement begins with it."""
    with one_function(model, "probabilities") as function, torch.no_grad():
        pushing = Pushing(function)
        Terms(pushing, AFFINE, sampler_of(x, "fourier", "reflect", False), None).start(x)
    return pushing.verification


def row(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of the three, and the ratios."""
    torch.manual_seed(0)
    model, x = timm.create_model(name).eval(), torch.randn(IMAGES, 3, SIDE, SIDE)

    def forward() -> object:
        with torch.no_grad():
            return model(x[:1])

    runs = {"forward": forward, "check": lambda: check(model, x)}
    best = seconds(runs, 3 * rounds)
    whole = {"whole": lambda: lee.equivariance_gram(model, x, generators=AFFINE, verify=False, progress=False)}
    best |= seconds(whole, rounds)
    ratios = {"share": best["check"] / best["whole"], "passes": best["check"] / best["forward"]}
    return {
        "model": name,
        "seconds": {k: round(v, 3) for k, v in best.items()},
        **{k: round(v, 4) for k, v in ratios.items()},
    }


def table(rows: Sequence[dict[str, Any]], about: dict[str, object]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | one forward pass, s | the check, s | 64 images, s | check / 64 images | in forward passes |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        s = r["seconds"]
        lines.append(
            f"| {r['model']} | {s['forward']:.3f} | {s['check']:.2f} | {s['whole']:.1f} | {r['share']:.1%} | {r['passes']:.1f} |"
        )
    told = ", ".join(f"{key} {value}" for key, value in about.items())
    return "\n".join(
        [
            "# What the check of a measurement costs", "", *lines, "",
            f"Six affine generators at {SIDE} pixels. The goals: at most {SHARE:.0%} of a measurement of {IMAGES} images, and at "
            f"most {PASSES} forward passes of one image.", "", f"Machine: {told}.", "",
            "Made by `make bench BENCH=verification`.", "",
        ]
    )  # fmt: skip


def alone(model: str, method: str) -> None:
    """Print what the check says of one model."""
    torch.manual_seed(0)
    print(method, check(timm.create_model(model).eval(), torch.randn(2, 3, SIDE, SIDE)))


if __name__ == "__main__":
    main("verification", "What it costs that a measurement checks itself.", MODELS, row, table, alone)
