"""Workers with little memory or several GPUs: tasks that don't fit are measured with fewer images per pass."""

import signal
import sys
import tempfile
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sweeps import run, spec_of, workplace

from lee import memory, sweep
from lee.process.alone import devices as spread
from lee.sweep import devices, measures, results

here = pytest.fixture(workplace)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems don't limit a process's growth")
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

HUNGRY = """
import multiprocessing, os, resource, signal
from pathlib import Path
import torch
from mine import Net

class Roomy(Net):
    '''Takes 300 MB of working space for each image, as wide layers do, and touches none of it.'''
    def forward(self, x):
        space = torch.empty(len(x), 300, 2**20, dtype=torch.uint8)  # eight: too much for what is left of the heap
        return super().forward(x)

def limited():
    '''In a worker, the system lets the process grow by 1500 MB from now on: not by what eight images take.'''
    unlimited = resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    if multiprocessing.parent_process() is not None and unlimited:
        grown = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (grown + 1500 * 2**20, resource.RLIM_INFINITY))
    return Roomy()

class Greedy(Net):
    '''In a worker, dies as the system's memory killer lets it, unless there are few images.'''
    def forward(self, x):
        if len(x) > 8 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

class Insatiable(Net):
    def forward(self, x): raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
"""

FEWER = "Memory was short: measured with at most {} images per pass."
ONE = {"m": {"n": 10, "generators": ["rotation"], "measures": ["consistency", "eq_t"]}}


@pytest.fixture
def hungry(here: Path) -> Path:
    (here / "hungry.py").write_text(HUNGRY)
    return here


def check(made: Path, whole: Path, notes: dict[str, int]) -> None:
    """All went well with so many images per pass, and the numbers are those of a process without limits."""
    found, expected = results.load(made), results.load(whole)
    told = dict(zip(found.tasks["model"], found.tasks["warnings"], strict=True))
    assert told == {model: [FEWER.format(limit)] for model, limit in notes.items()}
    assert not any(len(warnings) for warnings in expected.tasks["warnings"])
    for model in notes:
        mine, its = found.gram(model).per_image, expected.gram(model).per_image
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-3 * float(its.max()))
        mine, its = (table.select(model=model).frame for table in (found, expected))
        assert mine["prediction"].tolist() == its["prediction"].tolist()
        assert mine["consistency"].tolist() == its["consistency"].tolist()
        for column in ("confidence", "output_square", "eq_t"):
            np.testing.assert_allclose(mine[column], its[column], rtol=1e-3)


@linux
def test_workers_of_little_memory_measure_fewer_images_at_once(hungry: Path) -> None:
    """One worker is refused memory by the system; another is killed as soon as it takes many images."""
    spec = spec_of(models=["hungry:limited", "hungry:Greedy"], measurements=ONE)
    run(spec, hungry / "whole.parquet")  # this process has no limit
    report = sweep.run(spec, hungry / "t.parquet", sweep.executor(1, threads=1), progress=False)
    assert report.failures == ()
    check(hungry / "t.parquet", hungry / "whole.parquet", {"hungry:limited": 1, "hungry:Greedy": 8})


@linux
def test_dask_workers_of_little_memory_measure_image_by_image(hungry: Path) -> None:
    pytest.importorskip("distributed")
    from dask_processes import LONG, Cluster, Forked

    spec = spec_of(models=["hungry:Greedy", "hungry:limited"], measurements=ONE)
    run(spec, hungry / "whole.parquet")
    cluster = Cluster(hungry, workers=3, failures=1)
    try:
        executor = sweep.executor(scheduler=cluster.address, threads=1)
        process = Forked(partial(sweep.run, spec, hungry / "t.parquet", executor, progress=False))
        process.process.join(LONG)
        assert process.exitcode == 0
        check(hungry / "t.parquet", hungry / "whole.parquet", {"hungry:limited": 1, "hungry:Greedy": 1})
        assert sum(worker.exitcode is None for worker in cluster.workers) == 1  # two died of the greedy one
    finally:
        cluster.close()


def test_what_never_fits_is_a_row_with_its_error(hungry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int | None] = []
    before = sweep.measures._limited
    monkeypatch.setattr("lee.sweep.measures._limited", lambda *given: (tried.append(given[-1]), before(*given))[1])
    report = run(spec_of(models=["hungry:Insatiable"], measurements=ONE), hungry / "t.parquet")
    assert "ALLOC_FAILED" in report.failures[0][2]
    assert tried == list(measures.STEPS)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("its data is not allocated yet: call mutable_data() to actually allocate memory"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_short_memory_are_known(error: Exception, short: bool) -> None:
    assert memory.is_shortage(error) is short
    wrapped = ValueError("it can't be measured")
    wrapped.__cause__ = error
    assert memory.is_shortage(wrapped) is short


def test_the_real_allocator_s_error_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_shortage(caught.value)


# GPUs, of which this machine needs none


def test_each_worker_process_has_a_gpu_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert spread("cuda", 5) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert spread("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert spread("cpu", 2) == ["cpu", "cpu"]
    given: list[str] = []

    def worker(device: str, threads: int) -> Any:
        given.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr("lee.sweep.execution._Worker", worker)
    tasks = list(sweep.plan(["mine:a"], spec_of().measurements))
    with pytest.raises(KeyboardInterrupt):
        next(iter(sweep.processes(tasks, 2, device="cuda")))
    assert given == ["cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert spread("cuda", 2) == ["cuda", "cuda"]


def take(folder: str, answer: Any) -> None:
    """In a process of its own: what device it gets; it holds on to that until it is killed."""
    tempfile.tempdir = folder
    torch.cuda.device_count = lambda: 2
    answer.put([devices.own("cpu"), devices.own("cuda"), devices.own("cuda")])
    signal.pause()


def test_processes_that_don_t_know_each_other_take_different_gpus(tmp_path: Path) -> None:
    context = get_context("fork")
    answers = context.SimpleQueue()
    started = []

    def another() -> str:
        started.append(context.Process(target=take, args=(str(tmp_path), answers), daemon=True))
        started[-1].start()
        cpu, one, again = answers.get()
        assert (cpu, one) == ("cpu", again)
        return str(one)

    try:
        assert [another(), another(), another()] == ["cuda:0", "cuda:1", "cuda"]  # the third shares
        started[0].kill()
        started[0].join()
        assert another() == "cuda:0"  # the system gave it back
    finally:
        for process in started:
            process.kill()
            process.join()
