"""Training the networks that are missing: each model in a process of its own, one per GPU or processor core.

A process that dies takes its own model with it and no other, and that model goes on from its last epoch the
next time. On a CPU every training has one thread, so that the weights do not depend on the number of cores.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from queue import SimpleQueue

from lee.errors import InputError, nearest
from lee.models.cards import check_weights, read_card
from lee.models.recipes import Recipe, ZooSpec, load_spec, load_specs
from lee.process.children import Children, Stopped
from lee.training.zoo import destination


@dataclass(frozen=True)
class Outcome:
    """How one training ended."""

    name: str
    seconds: float  # wall time of this sitting
    error: str = ""  # empty when it ended well


def missing(
    pattern: str = "*", *, recipes: Path | None = None, out: Path | None = None, budget: str | None = None
) -> list[str]:
    """Return the models of a pattern such as `zoo/resnet-*` whose weights are missing, damaged or of another recipe.

    They come in the order of the recipe file (of all by default); the others are as for :func:`lee.training.zoo.train_zoo`.
    """
    specs = load_specs(recipes)
    chosen = [name for name in specs if fnmatchcase(name, pattern)]
    if not chosen:
        raise InputError(f"No network fits {pattern!r}.{nearest(pattern, specs)}")
    wanted = [load_spec(name, recipes, budget=budget) for name in chosen]
    return [spec.name for spec in wanted if not _current(spec, out or destination(spec))]


def _current(spec: ZooSpec, folder: Path) -> bool:
    """Whether the folder has this model, trained by exactly this recipe."""
    try:
        check_weights(spec, folder)
        card = read_card(spec, folder)
        known = ("factory", "arguments", "input_size", "mean", "std")
        made = ZooSpec(spec.name, recipe=Recipe(**card["recipe"]), **{key: card[key] for key in known})
    except (InputError, KeyError, TypeError):
        return False
    return made.digest() == spec.digest()


def train_missing(
    names: Sequence[str],
    *,
    recipes: Path | None = None,
    out: Path | None = None,
    budget: str | None = None,
    devices: Sequence[str] = ("cpu",),
    on_line: Callable[[str], None] = lambda line: None,
) -> Generator[Outcome]:
    """Train models, most urgent first, side by side, one on each device at a time; yield each outcome as it comes.

    `on_line` is called with each line that a training prints (an epoch); the others are as for :func:`lee.training.zoo.train_zoo`.
    """
    options = [("--recipes", recipes), ("--out", out), ("--budget", budget)]
    arguments = [str(part) for flag, value in options if value is not None for part in (flag, value)]
    children, free = Children(), SimpleQueue[str]()
    for device in devices:
        free.put(device)

    def train(name: str) -> Outcome:
        device, start = free.get(), time.perf_counter()
        try:
            error = _run(name, [*arguments, "--device", device], on_line, children)
        finally:
            free.put(device)
        return Outcome(name, time.perf_counter() - start, error)

    with ThreadPoolExecutor(len(devices)) as pool:  # a thread only waits for its process
        try:
            for future in as_completed([pool.submit(train, name) for name in names]):
                yield future.result()
        finally:  # also when interrupted: what is queued doesn't start, what is running is stopped
            children.stop()
            pool.shutdown(wait=False, cancel_futures=True)


def _run(name: str, arguments: list[str], on_line: Callable[[str], None], children: Children) -> str:
    """Train one model in a process of its own; return its error, or nothing."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    command = [sys.executable, "-m", "lee", "train", name, *arguments]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": environment, "bufsize": 1}
    last = ""
    try:
        with children.start(command, **how) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last = line.strip() or last
                on_line(line.rstrip())
    except Stopped:
        return "not started"
    code = process.returncode
    if code < 0:
        return f"killed by signal {-code}; it goes on from its last epoch when it is started again"
    return "" if code == 0 else last or f"ended with exit status {code}"
