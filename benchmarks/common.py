"""What the benchmarks share: interleaved timing, peak memory, the machine, files written whole."""

import argparse
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

import lee


def seconds(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Smallest time of each method over interleaved rounds, after one that warms up."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def clock_and_processor(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Smallest seconds on the clock and of this process's processor time, as :func:`seconds`.

    Other work on the machine leaves the processor's time alone, nearly; waiting for a disk counts on the clock only.
    """
    best = dict.fromkeys(runs, (float("inf"), float("inf")))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            if turn:
                took = time.perf_counter() - start[0], time.process_time() - start[1]
                best[name] = (min(best[name][0], took[0]), min(best[name][1], took[1]))
    return best


def seconds_and_peak(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and peak resident memory above the present in GB (Linux: resets and reads the kernel's high-water mark).

    Freed memory that the allocator holds is given back first: what of it a run finds again would not be counted.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _status("VmRSS"), time.perf_counter()
    run()
    return time.perf_counter() - start, (_status("VmHWM") - before) / 1e6


def resident_peak() -> float:
    """Peak resident memory of this process in GB, since :func:`seconds_and_peak` or the start."""
    return _status("VmHWM") / 1e6


def _status(key: str) -> int:
    """A field of this process's memory, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def machine() -> dict[str, object]:
    """What the figures were taken on, and how many processes wanted a core in the last five minutes."""
    names = {line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")}
    return {
        "cpu": ", ".join(sorted(names)) or platform.processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "timm": timm.__version__, "lee": lee.__version__,
        "date": time.strftime("%Y-%m-%d"), "load": f"{os.getloadavg()[1]:.1f}",
    }  # fmt: skip


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main(
    name: str,
    about: str,
    models: Sequence[str],
    row: Callable[[str, int], dict[str, Any]],
    table: Callable[[list[dict[str, Any]], dict[str, object]], str],
    report_alone: Callable[[str, str], None],
) -> None:
    """The command line of a benchmark: measure, print, and write `name.json` and `name.md`.

    Args:
        name: Name of the files.
        about: First line of the help.
        models: The models by default, in the order of the table.
        row: Measures one model in so many rounds.
        table: Renders rows and the machine.
        report_alone: Measures one method of one model in this process, and prints it.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--models", nargs="+", default=list(models))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--alone", nargs=2, metavar=("MODEL", "METHOD"))
    arguments = parser.parse_args()
    if arguments.alone:
        report_alone(*arguments.alone)
        return
    facts, path = machine(), arguments.out / f"{name}.json"
    known = {r["model"]: r for r in json.loads(path.read_text())["rows"]} if path.exists() else {}
    for model in arguments.models:  # every finished model is written at once; others keep their row
        known[model] = row(model, arguments.rounds)
        print(json.dumps(known[model]), flush=True)
        rows = [known[m] for m in [*models, *sorted(set(known) - set(models))] if m in known]
        write(path, json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
        write(arguments.out / f"{name}.md", table(rows, facts))
    print(table(rows, facts))
