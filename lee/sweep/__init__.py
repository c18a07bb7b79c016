"""Sweeps: many models measured on the same images, resumable task by task, into one Parquet table.

`load` reads a specification (YAML), `run` measures what its table lacks; :mod:`lee.sweep.results` reads the table. A task is a
model, its weights and one way of measuring it; one Gram matrix per image gives every generator at once.
"""

from functools import partial
from pathlib import Path

from lee.errors import InputError
from lee.process.alone import check_device
from lee.sweep.cluster import scheduled
from lee.sweep.execution import Executor, Result, here, processes
from lee.sweep.measures import measure
from lee.sweep.running import Report, run
from lee.sweep.spec import MEASURES, Measurement, SweepSpec, load, parse
from lee.sweep.subjects import expand, family_of
from lee.sweep.tasks import Task, plan

__all__ = [
    # what to measure
    "SweepSpec", "Measurement", "MEASURES", "load", "parse", "expand", "family_of",
    # the tasks and their numbers
    "Task", "plan", "measure",
    # running them
    "run", "Report", "executor", "destination", "here", "processes", "scheduled", "Executor", "Result",
]  # fmt: skip


def executor(
    workers: int = 0, *, scheduler: str | None = None, device: str = "cpu", threads: int | None = None
) -> Executor:
    """The executor for a number of worker processes of this machine; 0 for none, in this process.

    Args:
        workers: how many processes.
        scheduler: address of a Dask scheduler, whose workers are used instead.
        device: where tasks are computed.
        threads: torch's threads per process.

    Raises:
        InputError: there is no such device here, or both workers and a scheduler are asked for.
    """
    if scheduler is not None:
        if workers:
            raise InputError("Give either a number of workers of this machine or a scheduler, which has its own.")
        return partial(scheduled, address=scheduler, device=device, threads=threads)
    check_device(device)
    if workers == 0:
        return partial(here, device=device, threads=threads)
    return partial(processes, workers=workers, device=device, threads=threads)


def destination(spec: Path) -> Path:
    """Where the table of a specification goes unless told otherwise: beside it, as `.parquet`.

    Args:
        spec: the file of the specification.
    """
    return spec.with_suffix(".parquet")
