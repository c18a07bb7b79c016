"""Sweeps that are killed: nothing that was finished is lost or measured again, and the table is the same in the end."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess as Process
from pathlib import Path

import pytest
import torch
from sweeps import rows, run, spec_of, workplace, write_spec

from lee import sweep
from lee.sweep import results

ROOT = Path(__file__).resolve().parents[2]
#: How many of the twenty runs are made: `LEE_ALL_SEEDS=1` for all of them.
SEEDS = range(20 if os.environ.get("LEE_ALL_SEEDS") else 1)
MODELS = ["mine:slow", "mine:slower", "mine:a", "mine:b"]
TASKS = 12

here = pytest.fixture(workplace)


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """`lee sweep small.yaml` in a process group of its own."""
    command = [sys.executable, "-m", "lee", "sweep", "small.yaml", "--out", "t.parquet", "--quiet", *options]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    # A shell's background job ignores Ctrl-C, and its children would too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)


def finished(folder: Path) -> dict[str, bytes]:
    """The files of finished tasks."""
    return {path.name: path.read_bytes() for path in (folder / "t.parquet.tasks").glob("*.parquet")}


def children(process: int) -> list[int]:
    """The worker processes of a process, which are copies of one that it has started."""

    def started(by: int) -> list[int]:
        command = ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(by)]
        found = subprocess.run(command, capture_output=True, text=True).stdout
        return [int(line.split()[0]) for line in found.splitlines() if "multiprocessing.forkserver" in line]

    return [worker for server in started(process) for worker in started(server)]


def gone(processes: list[int], seconds: float = 30) -> bool:
    """Whether processes end by themselves within some time."""
    until = time.monotonic() + seconds
    while any(Path(f"/proc/{p}").exists() for p in processes) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(Path(f"/proc/{p}").exists() for p in processes)


def until(condition: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until something holds, or the process ends."""
    end = time.monotonic() + seconds
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def interrupt_once(folder: Path, *options: str) -> None:
    """Kill the sweep after progress was made, then let it end; check what the kill left."""
    process = start(folder, *options)
    until(lambda: finished(folder), process)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert gone(workers), "workers outlive the sweep"
    kept = finished(folder)
    if not kept and (folder / "t.parquet").exists():  # it had come to its end before
        return
    assert kept
    process = start(folder, *options)
    assert process.wait(300) == 0
    assert not (folder / "t.parquet.tasks").exists()
    assert len(results.load(folder / "t.parquet").parts) == TASKS
    stored = {part.key: part.described["seconds"] for part in results.load(folder / "t.parquet").parts}
    for name, content in kept.items():  # the very rows that lay there, with the time they took
        (folder / "one.parquet").write_bytes(content)
        (part,) = results.load(folder / "one.parquet").parts
        assert stored[name.removesuffix(".parquet")] == part.described["seconds"]


@pytest.mark.parametrize("options", [(), ("--workers", "2", "--threads", "1")], ids=["here", "workers"])
def test_killed_sweeps_lose_only_what_was_in_flight(here: Path, options: tuple[str, ...]) -> None:
    write_spec(here, models=MODELS)
    run(spec_of(models=MODELS), here / "whole.parquet")
    interrupt_once(here, *options)
    assert rows(here / "t.parquet").equals(rows(here / "whole.parquet"))


def sweep_in_a_fork(spec: sweep.SweepSpec, out: Path) -> Process:
    """The same sweep in a copy of this process, which spares it the imports."""

    def child() -> None:
        torch.set_num_threads(1)  # threads don't survive the copying
        run(spec, out)
        os._exit(0)

    process = get_context("fork").Process(target=child)
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_moments_a_sweep_ends_with_the_same_table(here: Path, seed: int) -> None:
    spec = spec_of(models=MODELS)
    run(spec, here / "whole.parquet")
    draw, kills, kept = random.Random(seed), 0, dict[str, bytes]()
    while True:
        process = sweep_in_a_fork(spec, here / "t.parquet")
        process.join(draw.uniform(0.02, 0.4) * 1.3**kills)  # so that it ends on slow machines too
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
        left = finished(here)
        if not (here / "t.parquet").exists():
            assert kept.items() <= left.items(), "finished tasks were lost or measured again"
        kept = left
    assert process.exitcode == 0
    assert kills > 0
    assert rows(here / "t.parquet").equals(rows(here / "whole.parquet"))
    assert not list(here.glob(".*.tmp"))
    assert not (here / "t.parquet.tasks").exists()


def test_workers_measure_what_one_process_measures(here: Path) -> None:
    run(spec_of(), here / "whole.parquet")
    report = sweep.run(spec_of(), here / "t.parquet", sweep.executor(2, threads=1), progress=False)
    assert (report.measured, report.failures) == (6, ())
    assert rows(here / "t.parquet").equals(rows(here / "whole.parquet"))


def test_a_killed_worker_is_replaced_and_its_task_done_again(here: Path) -> None:
    spec = spec_of(models=["mine:slow", "mine:slower"])
    run(spec, here / "whole.parquet")
    killed: list[int] = []

    def murderous(tasks: list[sweep.Task]) -> object:
        for result in sweep.processes(tasks, 2, threads=1):
            if not killed:
                killed.extend(children(os.getpid())[:1])
                os.kill(killed[0], signal.SIGKILL)
            yield result

    report = sweep.run(spec, here / "t.parquet", murderous, progress=False)  # type: ignore[arg-type]
    assert killed
    assert (report.measured, report.failures) == (6, ())
    assert rows(here / "t.parquet").equals(rows(here / "whole.parquet"))
    assert not children(os.getpid())


def test_a_model_that_kills_its_process_becomes_a_row_with_an_error(here: Path) -> None:
    one = {"measurements": {"m": {"generators": ["rotation"]}}}
    spec = spec_of(models=["mine:Deadly", "mine:a"], **one)
    report = sweep.run(spec, here / "t.parquet", sweep.executor(1, threads=1), progress=False)
    assert report.failures == (("mine:Deadly", "m", "The worker process died 3 times (SIGKILL)."),)
    assert report.measured == 2


def test_ctrl_c_ends_the_workers_and_keeps_what_is_finished(here: Path) -> None:
    write_spec(here, models=MODELS)
    process = start(here, "--workers", "2")
    until(lambda: finished(here), process)
    workers = children(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert gone(workers)
    assert finished(here)
