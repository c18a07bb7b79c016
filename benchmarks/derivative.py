"""The cost of all six affine Lie derivatives, as ratios measured in one run.

For each model, at 224 pixels and batch 8, in one process and interleaved:

- (a) the floor: a plain forward pass over 7 times the images, as seven passes or as one, in the user's layout and in
  channels last;
- `lee`: `equivariance_gram` with the six affine generators (its check is timed in `benchmarks/verification.py`);
- (b) the paper's recipe (Figure 3): double backward through a differentiable sampler, one generator at a time (once, in a
  process of its own, because of its memory);
- (c) `torch.func.vmap(torch.func.jvp)` over the same six tangents.

Peak memory is that of a fresh process per method, above the loaded model. That of `lee` counts a copy of the parameters, by which
they are put back bit by bit should the model change them.

    python benchmarks/derivative.py

Times on a shared machine vary: only ratios of minima from one run mean anything.
"""

import subprocess
import sys
from collections.abc import Callable

import timm
import torch
from common import main, seconds, seconds_and_peak
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import lee
from lee.geometry.generators import AFFINE
from lee.geometry.sampling import Sampler
from lee.measure.terms import infinitesimal_actions

MODELS = ("resnet50", "vit_small_patch16_224", "mixer_b16_224", "convnext_tiny")
BATCH, SIDE = 8, 224


def bilinear(x: Tensor, matrix: Tensor) -> Tensor:
    """Warp (N, C, H, W) by a 2 × 3 matrix, twice differentiable in it, reflecting at the border (align_corners=True)."""
    h, w = x.shape[-2:]
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    points = torch.stack([xs, ys, torch.ones_like(xs)], -1).to(x) @ matrix.mT
    u, v = (points[..., 0] + 1) / 2 * (w - 1), (points[..., 1] + 1) / 2 * (h - 1)
    left, top = u.detach().floor(), v.detach().floor()
    out = x.new_zeros(())
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (u - left if dx else 1 + left - u) * (v - top if dy else 1 + top - v)
            column = (w - 1 - (w - 1 - (left + dx).abs()).abs()).long()
            row = (h - 1 - (h - 1 - (top + dy).abs()).abs()).long()
            out = out + x[:, :, row, column] * weight
    return out


def paper(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Six Lie derivatives of the probabilities by double backward, one after the other."""
    results = []
    for generator in AFFINE:
        (a, b), (c, d) = generator.matrix
        direction = torch.tensor([[a, b, generator.offset[0]], [c, d, generator.offset[1]]])
        eye = torch.eye(2, 3)

        def moved(t: Tensor, direction: Tensor = direction, eye: Tensor = eye) -> Tensor:
            return model(bilinear(x, eye + t * direction)).softmax(-1)

        with sdpa_kernel(SDPBackend.MATH):
            results.append(torch.autograd.functional.jvp(moved, torch.zeros(1), torch.ones(1))[1])
    return results


def functorch(model: nn.Module, x: Tensor) -> Tensor:
    """Six Jacobian-vector products by `vmap(jvp)`."""
    tangents = infinitesimal_actions(AFFINE, x, Sampler())
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        return torch.func.vmap(lambda t: torch.func.jvp(lambda z: model(z).softmax(-1), (x,), (t,))[1])(tangents)


def ours(model: nn.Module, x: Tensor) -> lee.EquivarianceGram:
    """The Gram matrix of the six generators, without the check, which is that of a larger measurement."""
    return lee.equivariance_gram(model, x, generators=AFFINE, verify=False, progress=False)


def build(name: str) -> tuple[nn.Module, Tensor]:
    """An untrained model (the cost doesn't depend on its weights) without in-place activations, and random images."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # double backward and functorch need this; the others don't care
    nn.init.normal_(model.get_classifier().weight, std=0.02)  # a Mixer starts with zeros there: a constant function
    return model, torch.randn(BATCH, 3, SIDE, SIDE)


def methods(name: str) -> dict[str, Callable[[], object]]:
    """Everything that is timed for one model."""
    model, x = build(name)
    last = build(name)[0].to(memory_format=torch.channels_last)
    x_last, wide = x.contiguous(memory_format=torch.channels_last), x.repeat(7, 1, 1, 1)
    wide_last = wide.contiguous(memory_format=torch.channels_last)

    def plain(net: nn.Module, images: Tensor, times: int) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                for _ in range(times):
                    net(images)

        return run

    return {
        "forward": plain(model, x, 1),
        "seven passes": plain(model, x, 7),
        "one pass over 56": plain(model, wide, 1),
        "seven passes, channels last": plain(last, x_last, 7),
        "one pass over 56, channels last": plain(last, wide_last, 1),
        "lee": lambda: ours(model, x),
        "functorch": lambda: functorch(model, x),
    }


def alone(name: str, method: str) -> tuple[float, float]:
    """Seconds, and peak resident memory above the loaded model in GB, of one method in a process of its own."""
    command = [sys.executable, __file__, "--alone", name, method]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    took, peak = result.stdout.split()[-2:]
    return float(took), float(peak)


def report_alone(name: str, method: str) -> None:
    """The child process of :func:`alone`."""
    model, x = build(name)
    with torch.no_grad():
        model(x)
    print(*seconds_and_peak(lambda: {"lee": ours, "paper": paper}[method](model, x)))


def row(name: str, rounds: int) -> dict[str, object]:
    """Times, ratios and peaks of one model."""
    best = seconds(methods(name), rounds)
    floor = min(best["seven passes"], best["one pass over 56"])
    floor_last = min(best["seven passes, channels last"], best["one pass over 56, channels last"])
    memory = {method: alone(name, method) for method in ("lee", "paper")}
    best["paper"] = memory["paper"][0]
    return {
        "model": name,
        "seconds": {k: round(v, 3) for k, v in best.items()},
        "lee / floor in the user's layout": round(best["lee"] / floor, 2),
        "lee / floor in channels last": round(best["lee"] / floor_last, 2),
        "functorch / floor": round(best["functorch"] / floor, 2),
        "paper / lee": round(best["paper"] / best["lee"], 1),
        "lee in forward passes": round(best["lee"] / best["forward"], 1),
        "paper in forward passes": round(best["paper"] / best["forward"], 1),
        "peak GB lee": round(memory["lee"][1], 2),
        "peak GB paper": round(memory["paper"][1], 2),
        "peak paper / lee": round(memory["paper"][1] / memory["lee"][1], 1),
    }


EXPLAINED = (
    "The floor is a plain forward pass over 7 times the images, as one pass or as seven; *paper* is double backward through a "
    "sampler, one generator at a time; *functorch* is `vmap(jvp)` over the same tangents. Peaks are of a fresh process, above the "
    "loaded model. Times are minima of one run, so that only their ratios mean anything."
)


def table(rows: list[dict[str, object]], about: dict[str, object]) -> str:
    """The results as Markdown."""
    columns = [k for k in rows[0] if k not in ("model", "seconds")]
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += ["| " + " | ".join(str(r[c]) for c in ["model", *columns]) + " |" for r in rows]
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    title = "# Six affine Lie derivatives at 224 pixels, batch 8"
    return "\n".join(
        [
            title,
            "",
            *lines,
            "",
            EXPLAINED,
            "",
            f"Machine: {facts}.",
            "",
            "Made by `python benchmarks/derivative.py`.",
            "",
        ]
    )


if __name__ == "__main__":
    main("derivative", __doc__.splitlines()[0], MODELS, row, table, report_alone)
