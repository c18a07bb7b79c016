"""Every headline ratio, from a short run of each benchmark: `make bench`.

Each benchmark runs in a process of its own with few models and rounds, about a quarter of an hour together on two cores, and
leaves its table in `_build/bench`; the committed tables beside this file are those of longer runs. On a GPU the absolute
throughput is measured too. A benchmark that fails is named, the others still run, and the exit status is 1.

    python benchmarks/headline.py [--only sweep memory] [--out FOLDER]

Times on a shared machine vary: the ratios are of times from one run, and the load of the machine stands in the table.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import machine, write

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "_build" / "bench"

Line = dict[str, Any]


def _line(what: str, value: float, goal: str = "") -> Line:
    return {"what": what, "value": float(f"{value:.3g}"), "goal": goal}


def of_derivative(found: Mapping[str, Any]) -> Iterator[Line]:
    """Six Lie derivatives in forward passes over as many images, and against the paper's recipe and functorch."""
    for r in found["rows"]:
        yield _line(f"{r['model']}: time / 7 forward passes", r["lee / floor in the user's layout"], "≤ 1.3")
        yield _line(f"{r['model']}: double backward / lee, time", r["paper / lee"])
        yield _line(f"{r['model']}: double backward / lee, memory", r["peak paper / lee"])
        yield _line(f"{r['model']}: vmap(jvp) / 7 forward passes", r["functorch / floor"])


def of_layerwise(found: Mapping[str, Any]) -> Iterator[Line]:
    """The exact decomposition in forward passes, and against the paper's estimator."""
    for r in found["rows"]:
        yield _line(f"{r['model']}: estimator / exact, time per image", r["paper / exact, batch"])
        yield _line(f"{r['model']}: lean estimator / exact, time per image", r["paper, lean / exact, batch"])
        yield _line(f"{r['model']}: exact, forward passes per image", r["forward passes: exact, batch"])


def of_sweep(found: Mapping[str, Any]) -> Iterator[Line]:
    """The overhead of a task, and two workers against one."""
    from sweep import GOAL, ratios

    for what, value in ratios(found["rows"], found["runs"]).items():
        goal = "at best 2" if "workers" in what else f"≤ {GOAL}" if "loop" in what else ""
        yield _line(what, value, goal)


def of_memory(found: Mapping[str, Any]) -> Iterator[Line]:
    """Peaks in those of a forward pass over 7 times the images."""
    from memory import FLOOR, GOAL, ratio

    for r in found["rows"]:
        for method in (m for m in r["methods"] if m.startswith("lee")):
            goal = f"≤ {GOAL}" if method == "lee, chunk=8" else ""
            yield _line(f"{r['model']}: {method} / {FLOOR}, peak above", ratio(r, method), goal)


def of_explorer(found: Mapping[str, Any]) -> Iterator[Line]:
    """Seconds until a step of a slider is shown."""
    for r in found["rows"]:
        for step in ("amount t", "mixture", "image"):
            yield _line(f"{r['models']}: step of {step}, s", r[step]["clock"], "≤ 0.3")


def of_compile(found: Mapping[str, Any]) -> Iterator[Line]:
    """What compiling the stacked pass gains, and its warm-up."""
    from compile import GOAL, gain

    for r in found["rows"]:
        for method, told in r["compiling"].items():
            value = gain(r, method)
            if value is None:
                continue
            yield _line(f"{r['model']}: {method}, gain by torch.compile", value, f"an option from {GOAL} on")
            yield _line(f"{r['model']}: {method}, warm-up, s", told["warm-up"])


def of_throughput(found: Mapping[str, Any]) -> Iterator[Line]:
    """Images per second on a GPU."""
    for r in found["rows"]:
        for what, value in r["images per second"].items():
            yield _line(f"{r['model']}: {what}, images per second", value)


#: What each benchmark is run with here, and its headline.
PARTS: dict[str, tuple[list[str], Callable[[Mapping[str, Any]], Iterator[Line]]]] = {
    "derivative": (["--models", "resnet50", "vit_small_patch16_224", "--rounds", "1"], of_derivative),
    "layerwise": (["--models", "zoo/resnet-s", "zoo/vit-s", "--rounds", "1"], of_layerwise),
    "sweep": (["--images", "192", "--rounds", "2"], of_sweep),
    "memory": (["--models", "resnet50", "--rounds", "1"], of_memory),
    "explorer": (["--rounds", "3"], of_explorer),
    "compile": (["--models", "zoo/vit-s", "--methods", "lee"], of_compile),
    "throughput": ([], of_throughput),
}


def parts(gpu: bool) -> list[str]:
    """The benchmarks to run: throughput only where there is a GPU."""
    return [name for name in PARTS if gpu or name != "throughput"]


def measured(name: str, folder: Path) -> list[Line]:
    """Run a benchmark in a process of its own, and read its headline.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{name}.json"
    written.unlink(missing_ok=True)
    out = written.with_suffix(".md") if name == "explorer" else folder  # that one takes the name of its table
    subprocess.run([sys.executable, str(HERE / f"{name}.py"), *PARTS[name][0], "--out", str(out)], check=True)
    return list(PARTS[name][1](json.loads(written.read_text())))


def table(lines: Sequence[Line], about: Mapping[str, object]) -> str:
    """The headline as Markdown."""
    rows = ["| benchmark | what | value | goal |", "|---|---|---|---|"]
    rows += [f"| {line['benchmark']} | {line['what']} | {line['value']:g} | {line['goal']} |" for line in lines]
    notes = (
        "One short run of each benchmark; what the words mean, and longer runs, are in the tables of the same names beside this "
        "file. Ratios are of times from one run. The load says how many processes wanted a core: above the number of cores, times "
        "on the clock are those of a machine with other things to do."
    )
    facts = ", ".join(f"{k} {v}" for k, v in about.items())
    return "\n".join(
        ["# Headline figures", "", *rows, "", notes, "", f"Machine: {facts}.", "", "Made by `make bench`.", ""]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=parts(gpu))
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    began, failed, lines = time.perf_counter(), [], []
    load = os.getloadavg()[0]
    for name in given.only:
        print(f"\n=== {name}", flush=True)
        try:
            lines += [{"benchmark": name, **line} for line in measured(name, WORK)]
        except subprocess.CalledProcessError as error:
            failed.append(f"{name} (exit status {error.returncode})")
    facts = machine() | {"load before": f"{load:.1f}", "minutes": round((time.perf_counter() - began) / 60, 1)}
    if gpu:
        facts["gpu"] = torch.cuda.get_device_name()
    if failed:
        print(table(lines, facts), f"Failed: {', '.join(failed)}. Nothing was written.", sep="\n")
        return 1
    write(given.out / "headline.json", json.dumps({"machine": facts, "lines": lines}, indent=1) + "\n")
    write(given.out / "headline.md", table(lines, facts))
    print(table(lines, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
