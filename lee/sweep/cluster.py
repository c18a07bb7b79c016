"""Tasks on a Dask cluster: any scheduler that can be reached, whatever started its workers.

Workers need this package, and the data that the specification names; they need no common file system, as the process that
runs the sweep keeps every result. On SLURM, for example, with `pip install 'lee[cluster]'`:

.. code-block:: python

    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(cores=1, processes=1, memory="8GB", walltime="02:00:00", job_extra_directives=["--gpus=1"])
    cluster.adapt(maximum_jobs=20)
    print(cluster.scheduler_address)  # lee sweep SPEC.yaml --device cuda --scheduler tcp://...
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from lee.errors import InputError
from lee.sweep.execution import Lost, Result, perform
from lee.sweep.tasks import Task

#: Seconds to wait for an answer of the scheduler.
PATIENCE = 30


def scheduled(
    tasks: Sequence[Task], address: str, *, device: str = "cpu", threads: int | None = None
) -> Iterator[Result]:
    """Measure tasks on the workers of a scheduler, as many at once as there are workers.

    Tasks of a worker that dies are done again by others, as often as the scheduler's `allowed-failures` says (3).

    Args:
        tasks: in the order in which they are started.
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.
        device: where each worker computes.
        threads: torch's threads in each worker.

    Raises:
        InputError: `distributed` isn't installed, or the scheduler can't be reached, or it is gone.
    """
    if not tasks:
        return
    client = _connected(address)
    by_key = {f"lee-{task.key}": task for task in tasks}
    try:
        for key, content in _results(client, by_key, device, threads):
            yield by_key[key], content
    finally:
        with suppress(Exception):  # a scheduler that is gone can't say goodbye
            client.close(timeout=5)


def _results(
    client: Any, tasks: dict[str, Task], device: str, threads: int | None
) -> Iterator[tuple[str, bytes | Lost]]:
    """Results as they come; each is dropped from the cluster once it is here."""
    from distributed import KilledWorker, as_completed

    futures = [
        client.submit(perform, task, device, threads, key=key, priority=-place, allow_other_workers=False)
        for place, (key, task) in enumerate(tasks.items())
    ]
    for future in as_completed(futures, loop=client.loop):
        if future.status == "cancelled" or client.status not in ("running", "connecting"):
            raise InputError(
                "The scheduler is gone. What was finished is kept: start the same sweep again with another scheduler."
            )
        try:
            content = future.result(timeout=PATIENCE)
        except KilledWorker:
            content = Lost("Every worker process that measured this died.")
        except Exception as error:  # what the worker said; `measure` itself catches what a model raises
            content = Lost(f"{type(error).__name__} on the cluster: {' '.join(str(error).split())[:300]}")
        yield future.key, content
        future.release()


def _connected(address: str) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError("A scheduler needs the package `distributed`: pip install 'lee[cluster]'.") from error
    try:
        return distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"There is no scheduler at {address!r}: {' '.join(str(error).split())[:200]}") from error
