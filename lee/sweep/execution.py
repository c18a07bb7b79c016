"""Where tasks run: in this process, or in worker processes that are replaced when they die.

An executor is a function from tasks to an iterator of `(task, content of its file)`, in any order.
It draws a task when it can start it, as that may mean to fetch a model. It writes nothing: whoever runs the sweep keeps
each result as it comes.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from lee.process.alone import alone, devices, processors
from lee.sweep.measures import STEPS, failed, measure
from lee.sweep.table import encode
from lee.sweep.tasks import Task

#: How often a task is tried when the process that measures it dies, each time with fewer images per pass.
ATTEMPTS = len(STEPS)
#: A task and the content of its file.
Result = tuple[Task, bytes]
#: What measures tasks and yields their results as they come.
Executor = Callable[[Iterable[Task]], Iterator[Result]]


def perform(task: Task, device: str = "cpu", threads: int | None = None, chunk: int | None = None) -> bytes:
    """Measure a task and return the content of its file: what every executor does, wherever it runs.

    Threads of one process wait for each other: warnings and torch's number of threads belong to the process. Without `threads`
    there are as many as before, without a `chunk` as many images per pass as usual.
    """
    with alone(), _threads(threads):
        return encode([measure(task, device, chunk)])


def lost(task: Task, message: str, device: str) -> bytes:
    """The content of the file of a task whose processes died."""
    return encode([failed(task, message, device)])


def here(tasks: Iterable[Task], *, device: str = "cpu", threads: int | None = None) -> Iterator[Result]:
    """Measure tasks in this process, one after the other.

    Args:
        tasks: in the order in which they are measured.
        device: where to compute.
        threads: torch's threads; None for as many as before.
    """
    for task in tasks:
        yield task, perform(task, device, threads)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch use so many threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number or before)
        yield
    finally:
        torch.set_num_threads(before)


def processes(
    tasks: Iterable[Task], workers: int, *, device: str = "cpu", threads: int | None = None
) -> Iterator[Result]:
    """Measure tasks in worker processes.

    A worker that dies (killed, or out of memory) is replaced, and its task is tried again with fewer images per pass, up to
    three times in all. Workers end when this process does, however it ends.

    Args:
        tasks: in the order in which they are started.
        workers: how many processes.
        device: where they compute; `cuda` gives them the machine's GPUs in turn.
        threads: torch's threads in each; None shares the processors among them.

    Raises:
        InputError: there is to be no worker.
    """
    places = devices(device, workers)
    share = threads or max(1, processors() // workers)
    waiting, again, attempts = iter(tasks), deque[Task](), Counter[str]()
    crew = [_Worker(one, share) for one in places]
    try:
        while True:
            for worker in crew:
                task = None if worker.task else again.popleft() if again else next(waiting, None)
                if task is not None:
                    worker.start(task, STEPS[attempts[task.key]])
                    attempts[task.key] += 1
            if not any(worker.task for worker in crew):
                return
            for worker in _ready(crew):
                task, content = worker.finish()
                if content is not None:
                    yield task, content
                elif attempts[task.key] < ATTEMPTS:
                    again.append(task)
                else:
                    yield task, lost(task, f"The worker process died {ATTEMPTS} times ({worker.death}).", device)
    finally:
        for worker in crew:
            worker.end()


@dataclass
class _Worker:
    """A process with a pipe to it, started when it gets its first task and again after its death."""

    device: str
    threads: int
    task: Task | None = None
    death: str = ""
    pipe: "Connection[Any, Any] | None" = None
    process: Any = field(default=None, repr=False)

    def start(self, task: Task, chunk: int | None) -> None:
        """Give the worker a task, with a limit on the images per pass."""
        self.task = task
        if self.process is None or not self.process.is_alive():
            self._spawn()
        assert self.pipe is not None
        with suppress(OSError):  # it died just now: `finish` will see it
            self.pipe.send((task, chunk))

    def finish(self) -> tuple[Task, bytes | None]:
        """The task and its result; None if the process has died."""
        assert self.task is not None
        assert self.pipe is not None
        task, self.task = self.task, None
        try:
            return task, self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.death = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            self.process = None
            return task, None

    def _spawn(self) -> None:
        context = _context()
        if self.pipe is not None:
            self.pipe.close()
        self.pipe, its = context.Pipe()
        arguments = (its, dict(os.environ), self.device, self.threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        its.close()

    def end(self) -> None:
        """End the process: at once if it is at work, by itself if it waits."""
        if self.pipe is not None:
            self.pipe.close()
        if self.process is None:
            return
        if self.task is None:
            self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _context() -> Any:
    """How workers are made: as copies of a process that has made the imports; elsewhere than on Linux it isn't safe to copy."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *{"timm"} & sys.modules.keys()])  # the tasks' models are known by now
    return context


def _ready(crew: Sequence[_Worker]) -> list[_Worker]:
    """Wait for workers that have a result or have died.

    The pipes are told apart as objects, not by their class, which on Windows is another one.
    """
    busy: dict[Any, _Worker] = {worker.pipe: worker for worker in crew if worker.task is not None}
    return [busy[pipe] for pipe in wait(list(busy))]


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, then end at once, in the middle of a task."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _serve(pipe: "Connection[Any, Any]", environment: dict[str, str], device: str, threads: int) -> None:
    """What a worker does: a task in, its file's content out, until the pipe is closed."""
    os.environ.clear()  # it is what it was when the first worker started
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            task, chunk = pipe.recv()
            pipe.send_bytes(perform(task, device, threads, chunk))
