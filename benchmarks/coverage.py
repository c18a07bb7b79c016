"""Every architecture family of timm: does the Lie derivative equal the finite difference, and do the layers sum to the whole?

The smallest variant of each of timm's model modules (fewest parameters, among those that classify), with random weights, at
the smallest square input that it takes, checked as `benchmarks/coverage_checks.py` says. Nothing is downloaded.

    python benchmarks/coverage.py            # what is missing, then the table
    python benchmarks/coverage.py --families vgg xcit --again
    python benchmarks/coverage.py --select   # search timm's registry for the smallest variants anew

Each model runs in a process of its own with a limit of CPU time. Each result is written at once, under a name made of the
model and the versions, so that an interrupted walk goes on where it was.
"""

import argparse
import csv
import hashlib
import io
import json
import multiprocessing
import resource
import time
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from common import machine, write
from coverage_checks import DIFFERENCE, IDENTITY, REMARKS, check, randomised, smooth_images
from torch import nn

import lee

HERE = Path(__file__).parent
STORE = HERE.parent / "_build" / "coverage"
MODELS = HERE / "coverage_models.json"
CLASSES, SIDES = 4, (32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 320, 384, 512)
OPEN = "not measured yet"
COLUMNS = ("family", "model", "parameters", "side", "calls", "merged", "mode", "layer_mode", "difference", "identity",
           "forward_s", "gram_s", "layers_s", "total_s", "verdict")  # fmt: skip


def variants(family: str) -> list[tuple[int, str]]:
    """The variants of one of timm's modules by number of parameters, built without memory."""
    found = []
    for name in timm.list_models(module=family):
        try:
            with torch.device("meta"):
                model = timm.create_model(name, num_classes=CLASSES)
        except Exception as error:
            print(f"{name} can't be built without memory: {type(error).__name__}")
            continue
        if model.num_classes == CLASSES:  # some have no head for classes
            found.append((sum(p.numel() for p in model.parameters()), name))
    return sorted(found)


def build(name: str, side: int) -> tuple[nn.Module, bool]:
    """A model with `CLASSES` scores in eval mode, and whether it was made for images of `side` pixels alone."""
    options: dict[str, Any] = {"pretrained": False, "num_classes": CLASSES}
    torch.manual_seed(0)
    try:
        return timm.create_model(name, img_size=side, **options).eval(), True
    except TypeError:  # convolutional networks take what comes
        torch.manual_seed(0)
        return timm.create_model(name, **options).eval(), False


def smallest(name: str) -> tuple[nn.Module, int]:
    """The model and the smallest side that it takes and gives finite scores for."""
    reason, model, fixed = "", None, False
    for side in SIDES:
        try:
            if model is None or fixed:
                model, fixed = build(name, side)
            with torch.no_grad():
                scores = model(torch.rand(2, 3, side, side))
            if isinstance(scores, torch.Tensor) and scores.shape == (2, CLASSES) and bool(scores.isfinite().all()):
                return model, side
            reason = f"the output is {getattr(scores, 'shape', type(scores).__name__)}"
        except Exception as error:  # timm refuses sides in many ways
            reason = f"{type(error).__name__}: {error}"
    raise RuntimeError(f"takes no images of {SIDES[0]} to {SIDES[-1]} pixels; the last reason: {reason}")


def measure(family: str, name: str) -> dict[str, Any]:
    """One row of the table."""
    start = time.process_time()
    row: dict[str, Any] = {"family": family, "model": name}
    try:
        model, side = smallest(name)
        row |= {"parameters": sum(p.numel() for p in model.parameters()), "side": side}
        report = check(randomised(model, side), smooth_images(side))
        row |= asdict(report) | {"verdict": "; ".join(report.problems) or "passed"}
    except Exception as error:
        row |= {"verdict": f"{type(error).__name__}: {error}".splitlines()[0], "trace": traceback.format_exc()}
    return row | {"total_s": time.process_time() - start}


def _worker(family: str, name: str, path: Path, limit: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    write(path, json.dumps(measure(family, name), indent=1, default=float) + "\n")


def place(family: str, name: str) -> Path:
    """Where the result of a model lies: its name is a digest of what it depends on."""
    about = (family, name, CLASSES, SIDES, lee.__version__, timm.__version__, torch.__version__)
    return STORE / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.json"


def _known(family: str, name: str) -> dict[str, Any]:
    """The row of a model, also where it has not been measured with these versions."""
    path = place(family, name)
    if path.exists():
        return dict(json.loads(path.read_text()))
    return {"family": family, "model": name, "verdict": OPEN}


def walk(chosen: dict[str, str], limit: int, again: bool) -> None:
    """Measure what has no result yet; a model that failed is tried again."""
    context = multiprocessing.get_context("fork")  # torch is imported once; this process computes nothing itself
    for family, name in chosen.items():
        path = place(family, name)
        if _known(family, name)["verdict"] == "passed" and not again:
            continue
        path.unlink(missing_ok=True)
        process = context.Process(target=_worker, args=(family, name, path, limit))
        process.start()
        process.join(20 * limit)  # the limit is of CPU time, and other programs want some too
        if process.is_alive():
            process.kill()
        process.join()
        if not path.exists():
            verdict = (
                f"stopped at {limit} s of CPU time or {20 * limit} s by the clock (exit status {process.exitcode})"
            )
            write(path, json.dumps({"family": family, "model": name, "verdict": verdict}) + "\n")
        row = json.loads(path.read_text())
        print(f"{family:28} {name:36} {row.get('total_s', 0):6.1f} s  {row['verdict']}", flush=True)


def _shown(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column in ("difference", "identity"):
        return f"{value:.0e}"
    return f"{value:.2f}" if column.endswith("_s") else str(value)


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The table for programs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_shown(c, row.get(c)) for c in COLUMNS] for row in rows])
    return out.getvalue()


def as_markdown(rows: list[dict[str, Any]], about: dict[str, object]) -> str:
    """The table for people."""
    passed, left = (sum(row["verdict"] == verdict for row in rows) for verdict in ("passed", OPEN))
    title = f"# timm's architecture families: {passed} of {len(rows)} covered" + (
        f", {left} not measured yet" if left else ""
    )
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(_shown(c, row.get(c)).replace("|", "\\|") for c in COLUMNS) + " |" for row in rows]
    notes = (
        "`difference`: largest relative deviation of the Lie derivatives (a mixture of the six affine generators, contrast) "
        f"and of the nine generators' Gram matrix from central differences of the finite action, below {DIFFERENCE:g} to "
        "pass. `identity`: largest relative deviation of the sum of the layers' self terms from the whole, below "
        f"{IDENTITY:g} to pass. A row passes only if nothing is left changed. `merged`: module calls whose tensors have no "
        "representation, counted in the call around them. Two images, float64, random weights; seconds of CPU time on one "
        "thread, and `total_s` includes building the model and finding its side."
    )
    failed = [row["family"] for row in rows if row["verdict"] not in ("passed", OPEN)]
    remarks = [line for family in failed if family in REMARKS for line in (f"`{family}`: {REMARKS[family]}.", "")]
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    return "\n".join([
        title, "", notes, "", *lines, "", *remarks, f"Machine: {facts}.", "",
        "Made by `make bench BENCH=coverage`.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", help="some of timm's model modules; all by default")
    parser.add_argument("--limit", type=int, default=400, help="seconds of CPU time per model")
    parser.add_argument("--again", action="store_true", help="measure also what has passed")
    parser.add_argument("--select", action="store_true", help="search for the smallest variants anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.select:
        smallest_of = {family: variants(family)[0] for family in timm.list_modules()}
        write(MODELS, json.dumps({f: name for f, (_, name) in smallest_of.items()}, indent=1) + "\n")
    chosen = json.loads(MODELS.read_text())
    wanted = {f: n for f, n in chosen.items() if not arguments.families or f in arguments.families}
    walk(wanted, arguments.limit, arguments.again)
    rows = [_known(family, name) for family, name in chosen.items()]
    write(HERE / "coverage.csv", as_csv(rows))
    write(HERE / "coverage.md", as_markdown(rows, machine()))
    print(f"{sum(row['verdict'] == 'passed' for row in rows)} of {len(rows)} families passed")


if __name__ == "__main__":
    main()
