"""The cost and the error of the layer-wise decomposition: exact, against the estimator that the paper describes.

For each model, for one image and translation along x, in float32, in one process and interleaved:

- (a) a plain forward pass of the image, the unit of cost;
- (b) `lee.layerwise`, which finds out how every tensor transforms and measures every module call, leaf or container: of
  that image alone, and of a batch (4 images at 224 pixels, 64 at 32), per image;
- (c) the paper's estimator (`benchmarks/paper_layerwise.py`), which knows no batches: a local derivative by double backward
  for every leaf and 100 random probes at the output, given beforehand how every tensor transforms. With plain backward
  passes, and (lean) with ones that leave out the gradients of the weights, which nobody needs.

The estimator's error is the median over leaves of its relative standard error over probes, and of its relative deviation
from the exact value of the same derivative (`kernel="authors"`, `align_corners=True`). Peak memory is that of a fresh
process per method, above the loaded model.

    python benchmarks/layerwise.py

Times on a shared machine vary: only ratios of minima from one run mean anything.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from common import main, seconds, seconds_and_peak
from paper_layerwise import Leaf, Readings, estimate
from torch import Tensor, nn

import lee
from lee import datasets, models
from lee.layers import layerwise
from lee.layers.readings import Overrides
from lee.layers.trace import trace
from lee.measure.function import untouched

MODELS = ("resnet50", "vit_small_patch16_224", "zoo/resnet-s", "zoo/vit-s", "zoo/mixer-s")
PROBES = 100
GENERATOR = lee.TRANSLATION_X


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A model in eval mode and a batch of real images: the zoo's trained ones, timm's with random weights."""
    if name.startswith("zoo/"):
        return models.load(name), datasets.load("patches", n=64, size=32).images
    images = datasets.load("photos", n=4, size=224).images
    options = {"zero_init_last": False} if name.startswith("resnet") else {}  # zeros would switch half the layers off
    model = models.load(name, seed=0, **options)
    _settle_statistics(model, images)
    return model, images


def _settle_statistics(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of batch norms by one pass: activations that grow with depth would saturate the softmax."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(images)
    model.eval()


def readings(model: nn.Module, x: Tensor) -> Readings:
    """How the tensors of every call transform, as the exact decomposition finds it."""
    with untouched(model), torch.no_grad():
        found = trace(model, x, Overrides(None))
    return {
        (t.call.path, t.call.call): ([r.representation for r in t.inputs], [r.representation for r in t.outputs])
        for t in found
    }


def exact(model: nn.Module, x: Tensor) -> object:
    """Every call of every module, with the package's defaults."""
    return layerwise(model, x, GENERATOR)


def paper(model: nn.Module, x: Tensor, known: Readings, *, lean: bool = False) -> list[Leaf]:
    """Every leaf, by random probes."""
    return estimate(model, x, GENERATOR, known, probes=PROBES, weight_gradients=not lean)


def plain(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A forward pass without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(x)

    return run


def errors(model: nn.Module, x: Tensor, known: Readings) -> dict[str, object]:
    """The estimator's errors, leaf by leaf, against the exact value of the derivative that it estimates."""
    parts = layerwise(model, x, GENERATOR, kernel="authors", align_corners=True)
    frame = parts.frame[parts.frame.kind == "leaf"]
    truth = {(r.path, r.call): r.norm2 for r in frame.itertuples()}
    floor = 1e-10 * max(truth.values())
    leaves = {(leaf.path, leaf.call): leaf for leaf in paper(model, x, known)}
    pairs = [(leaves[key], value) for key, value in truth.items() if key in leaves and value > floor]
    return {
        "leaves that contribute": len(pairs),
        "leaves": len(leaves),
        "paper: relative standard error, %": round(100 * statistics.median(p.stderr / p.norm2 for p, _ in pairs), 1),
        "paper: relative deviation, %": round(100 * statistics.median(abs(p.norm2 - v) / v for p, v in pairs), 1),
        "exact: residual of the identity": float(f"{parts.residual:.1e}"),
    }


def alone(name: str, method: str) -> float:
    """Peak resident memory above the loaded model in GB, of one method in a process of its own."""
    command = [sys.executable, __file__, "--alone", name, method]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(result.stdout.split()[-1])


def report_alone(name: str, method: str) -> None:
    """The child process of :func:`alone`."""
    model, images = build(name)
    x = images[:1]
    known = readings(model, x)
    plain(model, x)()
    runs = {
        "exact": lambda: exact(model, x),
        "exact, batch": lambda: exact(model, images),
        "paper": lambda: paper(model, x, known),
    }
    print(*seconds_and_peak(runs[method]))


def row(name: str, rounds: int) -> dict[str, object]:
    """Times, ratios, errors and peaks of one model."""
    model, images = build(name)
    x = images[:1]
    known = readings(model, x)
    best = seconds(
        {
            "forward": plain(model, x),
            "exact": lambda: exact(model, x),
            "exact, batch": lambda: exact(model, images),
            "paper": lambda: paper(model, x, known),
            "paper, lean": lambda: paper(model, x, known, lean=True),
        },
        rounds,
    )
    each = best["exact, batch"] / len(images)
    with torch.no_grad():
        classes = model(x).shape[1]
    return {
        "model": name,
        "classes": classes,
        "pixels": x.shape[-1],
        "images in the batch": len(images),
        "seconds": {k: round(v, 4) for k, v in best.items()},
        "mode": layerwise(model, x, GENERATOR).mode,
        "ms per image: forward": round(1e3 * best["forward"], 1),
        "ms per image: exact, alone": round(1e3 * best["exact"], 1),
        "ms per image: exact, batch": round(1e3 * each, 1),
        "ms per image: paper": round(1e3 * best["paper"], 1),
        "ms per image: paper, lean": round(1e3 * best["paper, lean"], 1),
        "forward passes: exact, alone": round(best["exact"] / best["forward"], 1),
        "forward passes: exact, batch": round(each / best["forward"], 1),
        "forward passes: paper": round(best["paper"] / best["forward"], 1),
        "forward passes: paper, lean": round(best["paper, lean"] / best["forward"], 1),
        "paper / exact, alone": round(best["paper"] / best["exact"], 1),
        "paper / exact, batch": round(best["paper"] / each, 1),
        "paper, lean / exact, alone": round(best["paper, lean"] / best["exact"], 1),
        "paper, lean / exact, batch": round(best["paper, lean"] / each, 1),
        **errors(model, x, known),
        "peak GB: exact, alone": round(alone(name, "exact"), 2),
        "peak GB: exact, batch": round(alone(name, "exact, batch"), 2),
        "peak GB: paper": round(alone(name, "paper"), 2),
    }


def table(rows: list[dict[str, object]], about: dict[str, object]) -> str:
    """The results as Markdown, a column per model."""
    names = [k for k in rows[0] if k not in ("model", "seconds")]
    lines = [
        "| one image, translation | " + " | ".join(str(r["model"]) for r in rows) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(str(r.get(name, "–")) for r in rows) + " |" for name in names]
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    notes = (
        f"The exact decomposition has no variance; the estimator draws {PROBES} probes. It sees leaves only, the exact one every "
        "module call and the operations between them."
    )
    title = "# The layer-wise decomposition: exact, and as the paper estimates it"
    made = "Made by `python benchmarks/layerwise.py`."
    return "\n".join([title, "", *lines, "", notes, "", f"Machine: {facts}.", "", made, ""])


if __name__ == "__main__":
    main("layerwise", __doc__.splitlines()[0], MODELS, row, table, report_alone)
