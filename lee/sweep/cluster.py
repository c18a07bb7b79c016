"""Tasks on a Dask cluster: any scheduler that can be reached, whatever started its workers.

Workers need this package, and the data and weights that the specification names, which they load themselves (`LEE_DATA`,
`LEE_WEIGHTS`, the network) and compare with those of the process that runs the sweep. They need no common file system, as
that process keeps every result. Workers may come and go while it runs. By hand, with `pip install -e '.[cluster]'`:

.. code-block:: shell

    dask scheduler                                    # prints its address
    dask worker tcp://10.0.0.1:8786 --nthreads 1      # on as many machines as there are
    lee sweep SPEC.yaml --scheduler tcp://10.0.0.1:8786

On SLURM, :mod:`dask_jobqueue` submits the workers as jobs, here up to twenty with a GPU each:

.. code-block:: python

    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(cores=1, processes=1, memory="16GB", walltime="02:00:00", job_extra_directives=["--gpus=1"])
    cluster.adapt(maximum_jobs=20)
    print(cluster.scheduler_address)  # lee sweep SPEC.yaml --device cuda --scheduler tcp://...
    input("Enter ends the cluster.")

`print(cluster.job_script())` shows what is submitted; the partition, account and environment of a site go into
`queue=`, `account=` and `job_script_prologue=`.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from lee.errors import InputError
from lee.sweep import devices
from lee.sweep.execution import Result, lost, perform
from lee.sweep.measures import STEPS
from lee.sweep.tasks import Task

#: Seconds to wait for an answer of the scheduler.
PATIENCE = 30


def scheduled(
    tasks: Iterable[Task], address: str, *, device: str = "cpu", threads: int | None = None
) -> Iterator[Result]:
    """Measure tasks on the workers of a scheduler, as many at once as there are workers.

    Tasks of a worker that dies are done again by others, as often as the scheduler's `allowed-failures` says (3), and then
    as often once more with single images per pass, as workers mostly die of short memory.

    Args:
        tasks: in the order in which they are started.
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.
        device: where each worker computes; with `cuda` on a machine with several GPUs, each takes one of its own.
        threads: torch's threads in each worker.

    Raises:
        InputError: `distributed` isn't installed, or the scheduler can't be reached, or it is gone.
    """
    drawn = iter(tasks)
    first = next(drawn, None)
    if first is None:
        return
    client = _connected(address)
    try:
        yield from _results(client, chain([first], drawn), device, threads)
    finally:
        with suppress(Exception):  # a scheduler that is gone can't say goodbye
            client.close(timeout=5)


def there(task: Task, device: str, threads: int | None, chunk: int | None) -> bytes:
    """What a worker does: :func:`lee.sweep.execution.perform` on a device of its own."""
    return perform(task, devices.own(device), threads, chunk)


def _results(client: Any, tasks: Iterable[Task], device: str, threads: int | None) -> Iterator[Result]:
    """Results as they come; each is dropped from the cluster once it is here."""
    from distributed import as_completed

    known: dict[str, tuple[Task, int, int | None]] = {}
    pending = as_completed(loop=client.loop)

    def submit(task: Task, place: int, chunk: int | None) -> None:
        key = f"lee-{task.key}" + ("" if chunk is None else f"-{chunk}")
        known[key] = task, place, chunk
        pending.add(client.submit(there, task, device, threads, chunk, key=key, priority=-place))

    def finish() -> Iterator[Result]:
        future = next(pending)
        task, place, chunk = known[future.key]
        try:
            content = _outcome(future)
        except TimeoutError:  # its worker died before the result was here: it is measured again
            pending.add(future)
            return
        if content is None and chunk is None:
            submit(task, place, STEPS[-1])
        else:
            if not isinstance(content, bytes):
                content = lost(task, content or "Every worker process that measured this died.", device)
            yield task, content
        future.release()

    for place, task in enumerate(tasks):
        submit(task, place, None)
        while pending.has_ready():
            yield from finish()
    while not pending.is_empty():
        yield from finish()


def _outcome(future: Any) -> bytes | str | None:
    """What became of a task: the content of its file, what the worker said, or None if every worker died of it.

    A `TimeoutError` says that the scheduler is there, but has lost the result; an `InputError`, that it is gone.
    """
    from distributed import KilledWorker

    if future.status == "error":  # `measure` itself catches what a model raises
        error = future.exception(timeout=PATIENCE)
        if isinstance(error, KilledWorker):
            return None
        return f"{type(error).__name__} on the cluster: {' '.join(str(error).split())[:300]}"
    try:
        content: bytes = future.result(timeout=PATIENCE)
    except Exception as error:  # mostly cancelled, as the connection was lost
        if isinstance(error, TimeoutError) and future.client.status == "running":
            raise
        raise InputError(
            "The scheduler is gone. What was finished is kept: start the same sweep again, with another scheduler if need be."
        ) from error
    return content


def _connected(address: str) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError("A scheduler needs the package `distributed`: pip install distributed.") from error
    try:
        return distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"There is no scheduler at {address!r}: {' '.join(str(error).split())[:200]}") from error
