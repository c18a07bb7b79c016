"""Freed memory is kept inside, given back afterwards, and nothing else changes."""

import os
import subprocess
import sys
from pathlib import Path

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
