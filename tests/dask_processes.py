"""A Dask cluster of forked processes on the loopback interface, which can be killed one by one and cost no imports."""

import asyncio
import os
import time
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import dask
import distributed
import torch

FORK = get_context("fork")
#: Seconds that a sweep of a second may take on a machine with other things to do.
LONG = 240


class Forked:
    """A process that runs a function in a copy of this one, and ends with it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.process: ForkProcess = FORK.Process(target=self._run, args=(function, *arguments), daemon=True)
        self.process.start()

    @staticmethod
    def _run(function: Callable[..., Any], *arguments: Any) -> None:
        torch.set_num_threads(1)  # threads don't survive the copying
        warnings.simplefilter("ignore")  # such as that a busy disk is slow, which pytest makes an error
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
        function(*arguments)
        os._exit(0)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.join()

    @property
    def exitcode(self) -> int | None:
        """None while it runs."""
        return self.process.exitcode


def _scheduler(file: Path, failures: int) -> None:
    async def main() -> None:
        dask.config.set({"distributed.scheduler.allowed-failures": failures})
        options = {"host": "127.0.0.1", "port": 0, "dashboard": False}
        async with distributed.Scheduler(**options) as scheduler:
            file.with_suffix(".tmp").write_text(scheduler.address)
            file.with_suffix(".tmp").rename(file)
            await scheduler.finished()

    asyncio.run(main())


def _worker(address: str) -> None:
    async def main() -> None:
        options = {"nthreads": 1, "host": "127.0.0.1", "memory_limit": 0, "dashboard": False}
        async with distributed.Worker(address, **options) as worker:
            await worker.finished()

    asyncio.run(main())


class Cluster:
    """A scheduler and workers.

    Args:
        folder: where the scheduler writes its address.
        workers: how many there are at first.
        failures: how many workers may die of a task before the scheduler gives it up.
    """

    def __init__(self, folder: Path, workers: int = 2, failures: int = 3) -> None:
        file = folder / "scheduler"
        self.scheduler = Forked(_scheduler, file, failures)
        until(file.exists, self.scheduler)
        self.address = file.read_text()
        file.unlink()
        self.workers = [Forked(_worker, self.address) for _ in range(workers)]

    def replace(self, place: int) -> None:
        """Kill a worker; another takes its place."""
        self.workers[place].kill()
        self.workers[place] = Forked(_worker, self.address)

    def close(self) -> None:
        """Kill them all."""
        for forked in (*self.workers, self.scheduler):
            forked.kill()


def until(condition: Callable[[], object], process: Forked, seconds: float = 120) -> None:
    """Wait until something holds, or the process ends."""
    end = time.monotonic() + seconds
    while process.exitcode is None and not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
