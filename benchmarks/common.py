"""What the benchmarks share: interleaved timing, peak memory, the machine, files written whole."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

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


def seconds_and_peak(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and peak resident memory above the present in GB (Linux: resets and reads the kernel's high-water mark)."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _status("VmRSS"), time.perf_counter()
    run()
    return time.perf_counter() - start, (_status("VmHWM") - before) / 1e6


def _status(key: str) -> int:
    """A field of this process's memory, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    names = {line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")}
    return {
        "cpu": ", ".join(sorted(names)) or platform.processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "timm": timm.__version__, "lee": lee.__version__,
        "date": time.strftime("%Y-%m-%d"),
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
