"""Workers with little memory or several GPUs: tasks that don't fit are measured with fewer images per pass."""

import signal
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import run, spec_of, workplace

from lee import sweep
from lee.sweep import devices, shortage

here = pytest.fixture(workplace)
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

HUNGRY = """
from mine import Net

class Insatiable(Net):
    def forward(self, x): raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
"""

ONE = {"m": {"n": 10, "generators": ["rotation"], "discrete": ["consistency", "eq_t"]}}


@pytest.fixture
def hungry(here: Path) -> Path:
    (here / "hungry.py").write_text(HUNGRY)
    return here


def test_what_never_fits_is_a_row_with_its_error(hungry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int | None] = []
    before = sweep.measuring._limited
    monkeypatch.setattr("lee.sweep.measuring._limited", lambda *given: (tried.append(given[-1]), before(*given))[1])
    report = run(spec_of(models=["hungry:Insatiable"], measurements=ONE), hungry / "t.parquet")
    assert "ALLOC_FAILED" in report.failures[0][2]
    assert tried == list(shortage.STEPS)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_short_memory_are_known(error: Exception, short: bool) -> None:
    assert shortage.is_shortage(error) is short
    wrapped = ValueError("it can't be measured")
    wrapped.__cause__ = error
    assert shortage.is_shortage(wrapped) is short


def test_the_real_allocator_s_error_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert shortage.is_shortage(caught.value)


# GPUs, of which this machine needs none


def test_each_worker_process_has_a_gpu_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.spread("cuda", 5) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert devices.spread("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert devices.spread("cpu", 2) == ["cpu", "cpu"]
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
    assert devices.spread("cuda", 2) == ["cuda", "cuda"]


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
