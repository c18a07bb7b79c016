"""Freed memory is kept inside, given back afterwards, and nothing else changes."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import lee
from lee import memory


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


FRESH = """
import torch
from lee import memory
from test_memory import resident

size, before = 200 * 2**20, resident()
with memory.kept(), memory.kept():  # nesting changes nothing
    block = torch.ones(size // 4)
    del block
    inside = resident()
assert inside - before > size // 2, (inside, before)
assert resident() - before < size // 2
assert memory._users == 0
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or memory._glibc() is None, reason="only glibc needs this")
def test_memory_is_kept_inside_and_returned_afterwards() -> None:
    """In a process of its own: one that has run other tests may have that much free memory at hand already."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    done = subprocess.run([sys.executable, "-c", FRESH], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_exception_passes_and_restores() -> None:
    with pytest.raises(KeyError), memory.kept():
        raise KeyError
    assert memory._users == 0


@pytest.mark.skipif(memory._glibc() is None, reason="only glibc needs this")
def test_measurements_run_inside() -> None:
    users: list[int] = []

    def model(x: torch.Tensor) -> torch.Tensor:
        users.append(memory._users)
        return x.mean((2, 3))

    lee.equivariance_gram(model, torch.rand(1, 3, 8, 8), progress=False)
    lee.lie_derivative(model, torch.rand(1, 3, 8, 8), "scale")
    assert len(users) > 1
    assert set(users) == {1}


def test_the_copies_of_parameters_are_gone_when_memory_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise as much memory as the parameters take would stay with the process."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 379)).eval()
    inside: list[int] = []
    returned: list[int] = []

    def count(found: list[int]) -> None:
        alive = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (379, 192)]
        found.append(len(alive))

    model.register_forward_hook(lambda *_: count(inside))
    library = SimpleNamespace(mallopt=lambda *_: None, malloc_trim=lambda _: count(returned))
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    lee.equivariance_gram(model, torch.rand(2, 3, 8, 8), progress=False)
    assert min(inside) >= 1
    assert returned == [0]


def test_a_shortage_is_no_refusal() -> None:
    with memory.unless_refused():
        raise TypeError("no double precision")
    with pytest.raises(MemoryError), memory.unless_refused():
        raise MemoryError
