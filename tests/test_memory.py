"""Freed memory is kept inside, given back afterwards, and nothing else changes."""

import sys
from pathlib import Path

import pytest
import torch

import lee
from lee import memory


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux") or memory._glibc() is None, reason="only glibc needs this")
def test_memory_is_kept_inside_and_returned_afterwards() -> None:
    size = 200 * 2**20
    before = resident()
    with memory.kept(), memory.kept():  # nesting changes nothing
        block = torch.ones(size // 4)
        del block
        inside = resident()
    assert inside - before > size // 2
    assert resident() - before < size // 2
    assert memory._users == 0


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
