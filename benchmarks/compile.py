"""Whether `torch.compile` makes the six affine Lie derivatives faster, after its warm-up.

For each model, in one process and interleaved, each method's minimum:

- `lee`: the stacked pass of `lee.equivariance_gram`, one image chunk with six tangents;
- `lee, compiled`: the same pass, traced to a graph of plain operators (`make_fx`) and compiled by inductor;
- `functorch` and `functorch, compiled`: `torch.func.vmap(torch.func.jvp)` over the same tangents;
- `forward` and `forward, compiled`: a pass over 7 times the images, as a measure of what there is to gain.

A warm-up is tracing and compiling without inductor's cache. What can't be compiled says so. A C++ compiler is needed.

    python benchmarks/compile.py [--models zoo/vit-s …] [--rounds 5] [--methods lee forward]

Times on a shared machine vary: only ratios of minima from one run mean anything.
"""

import argparse
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # read when torch is imported: a warm-up is one from nothing
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

import timm
import torch
from common import machine, seconds, write
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from lee import memory, models
from lee.autodiff import Stacked, workspace
from lee.geometry.generators import AFFINE
from lee.geometry.sampling import Sampler
from lee.measure.terms import infinitesimal_actions

#: Models with how many images are measured at once: as many as a CPU takes by itself of 224 pixels, more of 32.
MODELS = {"zoo/resnet-s": 32, "zoo/vit-s": 32, "resnet18": 2, "vit_tiny_patch16_224": 2}
METHODS = ("lee", "functorch", "forward")
#: From which gain on an option would be worth its warm-up.
GOAL = 1.3

Run = Callable[[Tensor], Tensor]


def eager_methods(name: str) -> tuple[dict[str, Run], Tensor]:
    """What is timed for one model, as functions of the stack (7, N, C, H, W) of images and tangents, and that stack."""
    torch.manual_seed(0)
    zoo = name.startswith("zoo/")
    model = models.load(name) if zoo else timm.create_model(name).eval()
    side = 32 if zoo else 224
    x = torch.rand(MODELS.get(name, 2), 3, side, side)
    stack = torch.cat([x[None], infinitesimal_actions(AFFINE, x, Sampler().for_image(side, side))])

    def stacked(buffer: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH), workspace(buffer[0]):
            return model(Stacked(buffer)).softmax(-1).buffer[1:]

    def functorch(buffer: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.vmap(lambda t: torch.func.jvp(lambda z: model(z).softmax(-1), (buffer[0],), (t,))[1])(
                buffer[1:]
            )

    return {"lee": stacked, "functorch": functorch, "forward": lambda buffer: model(buffer.flatten(0, 1))}, stack


def compiled(method: str, run: Run, stack: Tensor) -> Run:
    """A method compiled by inductor for stacks of this shape."""
    if method == "lee":  # the compiler can't look into a tensor subclass with rules of its own: it gets plain operators
        run = make_fx(run)(stack)
    return torch.compile(run, dynamic=False)


def warmed(method: str, run: Run, stack: Tensor) -> tuple[Run | None, dict[str, Any]]:
    """A compiled method, and what its warm-up took or why there is none."""
    start = time.perf_counter()
    try:
        ready = compiled(method, run, stack)
        result = ready(stack)
    except Exception as error:  # whatever the compiler stumbles over
        return None, {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"}
    took = time.perf_counter() - start
    expected = run(stack)
    return ready, {
        "warm-up": round(took, 1),
        "error": float(f"{float((result - expected).norm() / expected.norm()):.1e}"),
    }


def row(name: str, rounds: int, methods: Sequence[str]) -> dict[str, Any]:
    """Times of one model, compiled and not."""
    torch._dynamo.reset()
    logging.disable(logging.ERROR)  # what the compiler says of code that it then leaves alone
    runs, stack = eager_methods(name)
    chosen: dict[str, Callable[[], object]] = {}
    compiling = {}
    with torch.no_grad(), memory.kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in methods:
            chosen[method] = lambda run=runs[method]: run(stack)
            ready, compiling[method] = warmed(method, runs[method], stack)
            if ready is not None:
                chosen[f"{method}, compiled"] = lambda run=ready: run(stack)
        best = seconds(chosen, rounds)
    took = {key: round(value, 4) for key, value in best.items()}
    return {"model": name, "images": stack.shape[1], "seconds": took, "compiling": compiling}


def gain(row: Mapping[str, Any], method: str = "lee") -> float | None:
    """A method's time over that of the same, compiled; None where it can't be."""
    took = row["seconds"]
    return took[method] / took[f"{method}, compiled"] if f"{method}, compiled" in took else None


def table(rows: Sequence[Mapping[str, Any]], about: Mapping[str, object]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | images | method | ms | ms, compiled | gain | warm-up, s | deviation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        for method, told in r["compiling"].items():
            found = gain(r, method)
            cells = [r["model"], r["images"], method, f"{1e3 * r['seconds'][method]:.0f}"]
            if found is None:
                cells += ["–", "–", "–", told["failed"].replace("|", "/")]
            else:
                compiled_ms = 1e3 * r["seconds"][f"{method}, compiled"]
                cells += [f"{compiled_ms:.0f}", f"{found:.2f}", told["warm-up"], told["error"]]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    notes = (
        f"A gain above 1 is for `torch.compile`; an option would be worth its warm-up from {GOAL} on. The deviation is the "
        "relative difference between the results with and without compiling."
    )
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    made = "Made by `make bench BENCH=compile`."
    return "\n".join(
        ["# `torch.compile` and six affine Lie derivatives", "", *lines, "", notes, "", f"Machine: {facts}.", "", made, ""]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
    if compiler is None:
        raise SystemExit("torch.compile needs a C++ compiler on a CPU; there is no g++ or clang++ here.")
    facts, rows = machine() | {"compiler": Path(compiler).name}, []
    for name in given.models:
        rows.append(row(name, given.rounds, given.methods))
        print(json.dumps(rows[-1]), flush=True)
        write(given.out / "compile.json", json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
        write(given.out / "compile.md", table(rows, facts))
    print(table(rows, facts))


if __name__ == "__main__":
    main()
