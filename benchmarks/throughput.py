"""Images per second: plain forward passes, and Lie derivatives, per generator and for all at once.

Absolute figures, for planning a sweep: they belong to the machine that the table names. On a GPU the peak of its memory stands
beside them. Ratios to the floor are those of `benchmarks/derivative.py`.

    python benchmarks/throughput.py [--device cuda] [--models resnet50 …] [--batch 64] [--rounds 3] [--out FOLDER]
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from common import machine, seconds, write
from torch import Tensor, nn

import lee
from lee.geometry.generators import AFFINE, PHOTOMETRIC

MODELS = ("resnet50", "vit_small_patch16_224", "convnext_tiny")
SIDE = 224
SETS = {"one generator": AFFINE[:1], "six generators": AFFINE, "nine generators": AFFINE + PHOTOMETRIC}


def synchronised(run: Callable[[], object], device: str) -> Callable[[], object]:
    """The run, until the device has finished it."""

    def wait() -> None:
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return wait


def row(name: str, device: str, batch: int, rounds: int) -> dict[str, Any]:
    """Images per second of one model; generators × images per second where there are several generators."""
    torch.manual_seed(0)
    model, x = timm.create_model(name).eval().to(device), torch.randn(batch, 3, SIDE, SIDE, device=device)
    runs = {"forward": _forward(model, x)} | {key: _gram(model, x, chosen) for key, chosen in SETS.items()}
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    best = seconds({key: synchronised(run, device) for key, run in runs.items()}, rounds)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None
    found = {"model": name, "batch": batch, "images per second": {k: round(batch / v, 2) for k, v in best.items()}}
    return found | ({} if peak is None else {"peak GB": round(peak, 2)})


def _forward(model: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> Tensor:
        with torch.no_grad():
            out: Tensor = model(x)
        return out

    return run


def _gram(model: nn.Module, x: Tensor, generators: Sequence[lee.Generator]) -> Callable[[], object]:
    return lambda: lee.equivariance_gram(model, x, generators=generators, verify=False, progress=False)


def table(rows: Sequence[dict[str, Any]], about: dict[str, object]) -> str:
    """The results as Markdown."""
    peak = any("peak GB" in r for r in rows)
    columns = ["forward", *SETS]
    head = ["model", "batch", *columns, *(f"{key}: images × generators" for key in list(SETS)[1:])]
    lines = [f"| {' | '.join(head + ['peak GB'] * peak)} |", "|---" * (len(head) + peak) + "|"]
    for r in rows:
        rate = r["images per second"]
        cells = [f"{rate[key]:.1f}" for key in columns]
        cells += [f"{rate[key] * len(chosen):.1f}" for key, chosen in list(SETS.items())[1:]]
        lines.append(f"| {' | '.join([r['model'], str(r['batch']), *cells, *[str(r.get('peak GB', '–'))] * peak])} |")
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    made = "Made by `make bench BENCH=throughput`."
    return "\n".join(
        ["# Images of 224 pixels per second", "", *lines, "", f"Machine: {facts}.", "", made, ""]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=64 if gpu else 8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    rows = [row(name, given.device, given.batch, given.rounds) for name in given.models]
    facts: dict[str, object] = machine() | {"device": given.device}
    if given.device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(given.device)
    write(given.out / "throughput.json", json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    write(given.out / "throughput.md", table(rows, facts))
    print(table(rows, facts))


if __name__ == "__main__":
    main()
