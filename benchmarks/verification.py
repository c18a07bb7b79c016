"""What it costs that a measurement checks itself.

For each model, at 224 pixels with six affine generators:

- a forward pass over one image, without gradients;
- `lee.equivariance_gram` over two images with the check and without it: what is between them is the check, whether the model is
  one function and its derivative that of its values;
- `lee.equivariance_gram` over 64 images without the check.

The goals: at most 3 % of the 64 images, and at most twenty forward passes of one image. The seconds are those of the
processor, which other work on the machine hardly changes.

    python benchmarks/verification.py [--models resnet50] [--rounds 3]
"""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from common import clock_and_processor, main
from torch import Tensor, nn

import lee
from lee.geometry.generators import AFFINE

MODELS = ("resnet50", "vit_small_patch16_224", "mixer_b16_224", "convnext_tiny")
IMAGES, SIDE = 64, 224
#: Images of a short measurement with and without the check: one stacked pass.
FEW = 2
#: The largest share of the measurement, and the largest number of forward passes of one image.
SHARE, PASSES = 0.03, 20


def network(name: str) -> nn.Module:
    """A network of timm with random weights, those of its classifier included: timm's Mixer starts with a constant output."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    nn.init.trunc_normal_(model.get_classifier().weight, std=0.02)
    return model


def gram(model: nn.Module, x: Tensor, verify: bool) -> lee.EquivarianceGram:
    """Six generators measured, checked or not."""
    return lee.equivariance_gram(model, x, generators=AFFINE, verify=verify, progress=False)


def row(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of the processor, and the ratios."""
    model, x = network(name), torch.randn(IMAGES, 3, SIDE, SIDE)

    def forward() -> object:
        with torch.no_grad():
            return model(x[:1])

    runs = {
        "forward": forward,
        "checked": lambda: gram(model, x[:FEW], True),
        "unchecked": lambda: gram(model, x[:FEW], False),
    }
    best = {k: v for k, (_, v) in clock_and_processor(runs, 3 * rounds).items()}
    best["check"] = best["checked"] - best["unchecked"]
    best["whole"] = clock_and_processor({"whole": lambda: gram(model, x, False)}, rounds)["whole"][1]
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
            f"Six affine generators at {SIDE} pixels, seconds of the processor. The goals: at most {SHARE:.0%} of a measurement of "
            f"{IMAGES} images, and at most {PASSES} forward passes of one image.", "", f"Machine: {told}.", "",
            "Made by `make bench BENCH=verification`.", "",
        ]
    )  # fmt: skip


def alone(model: str, method: str) -> None:
    """Print what the check says of one model."""
    print(method, gram(network(model), torch.randn(FEW, 3, SIDE, SIDE), True).verification)


if __name__ == "__main__":
    main("verification", "What it costs that a measurement checks itself.", MODELS, row, table, alone)
