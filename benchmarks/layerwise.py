"""The cost and the error of the layer-wise decomposition: the default, and the estimator that the paper describes.

For each model, for translation along x, in float32, in one process and interleaved, in seconds of the processor:

- (a) a plain forward pass of an image, the unit of cost;
- (b) `lee.layerwise` with its defaults, which finds out how every tensor transforms, checks itself, and measures every module
  call, leaf or container: of one image, and of a batch (8 images of 224 pixels, 2 where weights are
  random, 64 of 32 pixels), per image. In mode "deflated" the
  batch is measured with a tolerance of 1 % / √n, so that each image is known as well as one alone is;
- (c) the paper's estimator (`benchmarks/paper_layerwise.py`) in its leanest form, without the gradients of the weights, which
  knows no batches: a local derivative by double backward for every leaf and 100 random probes at the output, given beforehand
  how every tensor transforms.

An estimator's error is the median over leaves of its relative standard error over probes, and of its relative deviation from
the exact value of the derivative that it estimates (the paper's: `kernel="authors"`, `align_corners=True`). Peak memory is that
of a fresh process per method, above the loaded model.

    python benchmarks/layerwise.py

Times on a shared machine vary: only ratios of minima from one run mean anything.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from common import clock_and_processor, main, seconds_and_peak
from paper_layerwise import Leaf, Readings, estimate
from torch import Tensor, nn

import lee
from lee import datasets, models
from lee.layers import Decomposition, layerwise
from lee.layers.readings import Overrides
from lee.layers.trace import trace
from lee.measure.function import untouched

TRAINED = "imagenet/efficientnet-lite0"
MODELS = (TRAINED, "resnet50", "vit_small_patch16_224", "zoo/resnet-s", "zoo/vit-s", "zoo/mixer-s")
PROBES = 100
TOLERANCE = 0.01  # of one image
GENERATOR = lee.TRANSLATION_X


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A model in eval mode and a batch of real images: trained ones of the zoo and of ImageNet, timm's with random weights."""
    if name.startswith("zoo/"):
        return models.load(name), datasets.load("patches", n=64, size=32).images
    if name == TRAINED:
        return models.load(name).eval(), datasets.load("photos", n=8, size=224).images
    images = datasets.load("photos", n=2, size=224).images
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


def ours(model: nn.Module, x: Tensor) -> Decomposition:
    """Every call of every module, with the package's defaults and each image as well known as one alone."""
    return layerwise(model, x, GENERATOR, tolerance=TOLERANCE / len(x) ** 0.5)


def paper(model: nn.Module, x: Tensor, known: Readings, probes: int = PROBES) -> list[Leaf]:
    """Every leaf, by random probes."""
    return estimate(model, x, GENERATOR, known, probes=probes)


def plain(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A forward pass without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(x)

    return run


def errors(model: nn.Module, x: Tensor, default: Decomposition, leaves: Sequence[Leaf]) -> dict[str, object]:
    """The errors of both for one image, leaf by leaf, against the exact value of the derivative that each estimates."""
    truth = _leaves(layerwise(model, x, GENERATOR, kernel="authors", align_corners=True, tolerance=0).frame)
    known = {(leaf.path, leaf.call): leaf for leaf in leaves}
    pairs = [(known[key], value) for key, value in truth.items() if key in known]
    frame, found = default.frame, _leaves(default.frame)
    estimated = default.mode == "deflated"
    norms = _leaves(layerwise(model, x, GENERATOR, tolerance=0).frame) if estimated else found
    spread = frame.set_index(["path", "call"]).probe_se if estimated else dict.fromkeys(norms, 0.0)
    return {
        "leaves that contribute": len(pairs),
        "leaves": len(leaves),
        "paper: relative standard error, %": _percent(p.stderr / p.norm2 for p, _ in pairs),
        "paper: relative deviation, %": _percent(abs(p.norm2 - v) / v for p, v in pairs),
        "default: relative standard error, %": _percent(spread[key] / v for key, v in norms.items()),
        "default: relative deviation, %": _percent(abs(found[key] - v) / v for key, v in norms.items() if key in found),
        "default: residual of the identity": float(f"{default.residual:.1e}"),
    }


def _leaves(frame: pd.DataFrame) -> dict[tuple[str, int], float]:
    """`norm2` of the leaves that contribute."""
    rows = frame[frame.kind == "leaf"]
    return {(r.path, r.call): r.norm2 for r in rows.itertuples() if r.norm2 > 1e-10 * rows.norm2.max()}


def _percent(values: Iterable[float]) -> float:
    """The median, in per cent to two digits."""
    return float(f"{100 * statistics.median(values):.2g}")


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
        "default, batch": lambda: ours(model, images),
        "paper": lambda: paper(model, x, known, probes=2),  # one after the other: the peak is that of any number
    }
    print(*seconds_and_peak(runs[method]))


def row(name: str, rounds: int) -> dict[str, object]:
    """Times, ratios, errors and peaks of one model."""
    model, images = build(name)
    x = images[:1]
    known = readings(model, x)
    last: dict[str, Any] = {}
    runs: dict[str, Callable[[], object]] = {
        "forward": plain(model, x),
        "default": lambda: last.update(default=ours(model, x)),
        "default, batch": lambda: last.update(batch=ours(model, images)),
        "paper": lambda: last.update(paper=paper(model, x, known)),
    }
    best = {method: processor for method, (_, processor) in clock_and_processor(runs, rounds).items()}
    each = best["default, batch"] / len(images)
    with torch.no_grad():
        classes = model(x).shape[1]
    return {
        "model": name,
        "weights": "trained" if "/" in name else "random",
        "classes": classes,
        "pixels": x.shape[-1],
        "images in the batch": len(images),
        "seconds": {k: round(v, 4) for k, v in best.items()},
        "mode": last["default"].mode,
        "ms per image: forward": round(1e3 * best["forward"], 1),
        "ms per image: default, alone": round(1e3 * best["default"], 1),
        "ms per image: default, batch": round(1e3 * each, 1),
        "ms per image: paper": round(1e3 * best["paper"], 1),
        "forward passes: default, alone": round(best["default"] / best["forward"], 1),
        "forward passes: default, batch": round(each / best["forward"], 1),
        "forward passes: paper": round(best["paper"] / best["forward"], 1),
        "paper / default, alone": round(best["paper"] / best["default"], 1),
        "paper / default, batch": round(best["paper"] / each, 1),
        **errors(model, x, last["default"], last["paper"]),
        "default, batch: relative standard error, %": _in_batch(last["batch"]),
        "peak GB: default, batch": round(alone(name, "default, batch"), 2),
        "peak GB: paper": round(alone(name, "paper"), 2),
    }


def _in_batch(found: Decomposition) -> float:
    """The median over leaves of the relative standard error over probes of one image, from that of the mean over all of them."""
    rows = found.frame[(found.frame.kind == "leaf") & (found.frame.norm2 > 1e-10 * found.frame.norm2.max())]
    return _percent(rows.probe_se / rows.norm2 * found.n**0.5) if found.mode == "deflated" else 0.0


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
        f"The paper's estimator draws {PROBES} probes, in its leanest form, and sees leaves only; the default sees every module "
        "call and the operations between them, finds out how tensors transform, and checks itself. Modes forward and reverse are "
        "exact: their standard error is 0, and what deviates is rounding. Mode deflated aims at "
        f"{TOLERANCE:.0%} for one image. Random weights spread the probabilities evenly over the classes, so that there is nothing "
        "to deflate, and the default stays exact. Times are seconds of the processor, on one thread."
    )
    title = "# The layer-wise decomposition: the default, and as the paper estimates it"
    made = "Made by `python benchmarks/layerwise.py`."
    return "\n".join([title, "", *lines, "", notes, "", f"Machine: {facts}.", "", made, ""])


if __name__ == "__main__":
    main("layerwise", __doc__.splitlines()[0], MODELS, row, table, report_alone)
