"""How long the explorer takes for each step of a slider, through the widgets, for models of the zoo.

Each row drives the app without a browser: a control gets a new value, and the time is taken until everything that it
changes is shown. Every value is new, so nothing comes from the explorer's memory but what that slider leaves unchanged.
Beside the time on the clock stands the processor's time, which other work on the machine leaves alone, and its ratio to a
plain forward pass of the same models over one image.

    python benchmarks/explorer.py [--rounds 5] [--out benchmarks/explorer.md]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
from common import machine, write

from lee.explorer import State
from lee.explorer.app import Explorer
from lee.explorer.tabs import TABS

PAIRS = [("zoo/resnet-s",), ("zoo/vit-s",), ("zoo/mixer-s",), ("zoo/resnet-s", "zoo/vit-s")]
GOAL = 0.3  # seconds
STEPS = ("amount t", "mixture", "image")
TABS_TOO = ("Along the orbit", "Layers")  # measured with two models; the curves' tab is open at the start


def steps(app: Explorer) -> dict[str, Callable[[], None]]:
    """A new value of a control per call, by what moves."""
    values = (_cycle(0.025, 19), _cycle(0.05, 18), count(1))
    controls = (app.control["t"], app.mixture[0], app.control["index"])

    def move(control: object, values: Iterator[float]) -> Callable[[], None]:
        return lambda: setattr(control, "value", next(values))

    return {name: move(*both) for name, *both in zip(STEPS, controls, values, strict=True)}


def _cycle(step: float, most: int) -> Iterator[float]:
    return (round(step * (k % most + 1), 6) for k in count())


def timed(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds on the clock and of the processor, after one round that warms up."""
    clock, processor = [], []
    for turn in range(rounds + 1):
        start = time.perf_counter(), time.process_time()
        run()
        if turn:
            clock.append(time.perf_counter() - start[0])
            processor.append(time.process_time() - start[1])
    return statistics.median(clock), statistics.median(processor)


def measured(models: tuple[str, ...], tab: str, rounds: int) -> dict[str, object]:
    """The row of one or two models in one tab."""
    app = Explorer(State(models=models))
    app.tabs.selected_index = tuple(TABS).index(tab)
    networks = [(app.measures.model(app.state, k), app.measures.image(app.state, k)) for k in range(len(models))]
    with torch.no_grad():
        forward = timed(lambda: [network(image) for network, image in networks], 4 * rounds)[1]
    row: dict[str, object] = {"models": " and ".join(models), "tab": tab, "forward": forward}
    for name, step in steps(app).items():
        clock, processor = timed(step, rounds)
        for part in ("status", tab):
            if "alert" in app.shown[part].value:
                raise SystemExit(app.shown[part].value)
        row[name] = {"clock": clock, "processor": processor, "forwards": processor / forward}
    return row


def table(rows: list[dict[str, object]], facts: dict[str, object], rounds: int) -> str:
    """The result as Markdown."""
    titles = " | ".join(f"{name}: s, of the processor, forward passes" for name in STEPS)
    lines = [f"| models | tab | {titles} |", "|---" * (len(STEPS) + 2) + "|"]
    for row in rows:
        cells = (f"{c['clock']:.2f}, {c['processor']:.2f}, {c['forwards']:.0f}" for c in map(row.get, STEPS))
        lines.append(f"| {row['models']} | {row['tab']} | {' | '.join(cells)} |")
    about = (
        f"Medians of {rounds} steps. A step of `t` moves one image and, in the tab of the curves, needs its derivative; one of the "
        "mixture all that the open tab shows, and one to another image its Gram matrix too. The goal is "
        f"{GOAL} s for a step of a slider on 2 cores that have nothing else to do. The load says how many processes wanted a core "
        "during this run: far above the number of cores, the seconds on the clock say more about the other processes than about "
        "the explorer."
    )
    told = ", ".join(f"{k} {v}" for k, v in facts.items())
    parts = [
        "# The explorer",
        *[""],
        *lines,
        "",
        about,
        "",
        f"Machine: {told}.",
        "",
        "Made by `make bench BENCH=explorer`.",
        "",
    ]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    chosen = [(models, "Curves") for models in PAIRS] + [(PAIRS[-1], tab) for tab in TABS_TOO]
    rows = [measured(models, tab, arguments.rounds) for models, tab in chosen]
    facts = machine() | {"load": f"{os.getloadavg()[1]:.1f}"}
    text = table(rows, facts, arguments.rounds)
    print(text)
    write(arguments.out, text)
    write(arguments.out.with_suffix(".json"), json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
