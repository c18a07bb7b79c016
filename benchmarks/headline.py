"""Every headline ratio, from a short run of each benchmark: `make bench`.

Each benchmark runs in a process of its own with few models and rounds, about eleven minutes together on two cores, and
leaves its table in `_build/bench`; a benchmark run alone measures more models or rounds. On a GPU the absolute
throughput is measured too. A benchmark that fails is named, the others still run, and the exit status is 1.

    python benchmarks/headline.py [--only sweep memory] [--read benchmarks] [--out FOLDER]

Times on a shared machine vary: the ratios are of times from one run, and the load of the machine stands in the table.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import write

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
    """The default decomposition in forward passes, and against the paper's estimator."""
    for r in found["rows"]:
        yield _line(f"{r['model']}: lean estimator / default, time per image", r["paper / default, batch"])
        yield _line(f"{r['model']}: default, forward passes per image", r["forward passes: default, batch"])


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
            for of in ("above", "whole"):
                yield _line(
                    f"{r['model']}: {method} / {FLOOR}, peak {of}",
                    ratio(r, method, of),
                    "" if "nine" in method else f"≤ {GOAL}",
                )


def of_verification(found: Mapping[str, Any]) -> Iterator[Line]:
    """What the check costs, beside the measurement and in forward passes of one image."""
    from verification import PASSES, SHARE

    for r in found["rows"]:
        yield _line(f"{r['model']}: check / 64 images", r["share"], f"≤ {SHARE}")
        yield _line(f"{r['model']}: check, forward passes", r["passes"], f"≤ {PASSES}")


def of_precision(found: Mapping[str, Any]) -> Iterator[Line]:
    """What pushing tangents in bfloat16 gains."""
    for r in found["rows"]:
        yield _line(f"{r['model']}: bfloat16 / own precision, time", r["bfloat16 / own"])


def of_explorer(found: Mapping[str, Any]) -> Iterator[Line]:
    """Seconds until a step of a slider is shown."""
    for r in found["rows"]:
        for step in ("amount t", "mixture", "image"):
            yield _line(f"{r['models']}, {r['tab']}: step of {step}, s", r[step]["clock"], "≤ 0.3")


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
    "sweep": (["--rounds", "2"], of_sweep),
    "memory": (["--models", "resnet50", "--rounds", "1"], of_memory),
    "verification": (["--models", "resnet50", "--rounds", "1"], of_verification),
    "precision": (["--models", "resnet50", "--rounds", "1"], of_precision),
    "explorer": (["--rounds", "3"], of_explorer),
    "compile": (["--models", "zoo/vit-s", "--methods", "lee"], of_compile),
    "throughput": ([], of_throughput),
}


def parts(gpu: bool) -> list[str]:
    """The benchmarks to run: throughput only where there is a GPU."""
    return [name for name in PARTS if gpu or name != "throughput"]


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run a benchmark in a process of its own, and read its figures.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{name}.json"
    written.unlink(missing_ok=True)
    out = written.with_suffix(".md") if name == "explorer" else folder  # that one takes the name of its table
    subprocess.run([sys.executable, str(HERE / f"{name}.py"), *PARTS[name][0], "--out", str(out)], check=True)
    return figures(name, folder)


def figures(name: str, folder: Path) -> dict[str, Any]:
    """What a benchmark has written: its machine, and whatever else."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def lines_of(name: str, found: Mapping[str, Any]) -> list[Line]:
    """The headline of a benchmark's figures."""
    return [{"benchmark": name, **line} for line in PARTS[name][1](found)]


def table(lines: Sequence[Line], machines: Mapping[str, Mapping[str, object]], made: str) -> str:
    """The headline as Markdown, with the machine of each benchmark: one line for those that had the same."""
    rows = ["| benchmark | what | value | goal |", "|---|---|---|---|"]
    rows += [f"| {line['benchmark']} | {line['what']} | {line['value']:g} | {line['goal']} |" for line in lines]
    told: dict[str, list[str]] = {}
    for name, about in machines.items():
        told.setdefault(", ".join(f"{k} {v}" for k, v in about.items()), []).append(name)
    where = [f"Machine ({', '.join(names)}): {facts}." for facts, names in told.items()]
    notes = (
        "What the words mean is told by the tables of the same names beside this file and by the programs that make them. Ratios "
        "are of times from one run. A load says how many processes wanted a core: above the number of cores, times on the clock "
        "are those of a machine with other things to do."
    )
    return "\n\n".join(["# Headline figures", "\n".join(rows), notes, *where, f"Made by `{made}`."]) + "\n"


def run(names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The figures of each benchmark, and those that failed."""
    found, failed = {}, []
    for name in names:
        print(f"\n=== {name}", flush=True)
        try:
            found[name] = measured(name, WORK)
        except subprocess.CalledProcessError as error:
            failed.append(f"{name} (exit status {error.returncode})")
    return found, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=parts(torch.cuda.is_available()))
    parser.add_argument("--read", type=Path, help="run nothing: take the figures of the tables in this folder")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    found, failed = ({name: figures(name, given.read) for name in given.only}, []) if given.read else run(given.only)
    path = given.out / "headline.json"  # what isn't measured now is kept
    old = json.loads(path.read_text()) if path.is_file() and not given.read else {"machine": {}, "lines": []}
    machines = {
        n: found[n]["machine"] if n in found else old["machine"][n] for n in PARTS if n in {*found, *old["machine"]}
    }
    kept = {n: [line for line in old["lines"] if line["benchmark"] == n] for n in machines}
    lines = [line for n in machines for line in (lines_of(n, found[n]) if n in found else kept[n])]
    made = "make bench" if not given.read else "python benchmarks/headline.py --read benchmarks"
    print(table(lines, machines, made))
    if failed:
        print(f"Failed: {', '.join(failed)}. Nothing was written.")
        return 1
    write(path, json.dumps({"made": made, "machine": machines, "lines": lines}, indent=1) + "\n")
    write(given.out / "headline.md", table(lines, machines, made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
