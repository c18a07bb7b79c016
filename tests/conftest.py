"""What every test may rely on: one thread per worker, the same seed, no request that leaves the machine."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # workers share the cores


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """The files under version control, as they lie in the working tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Seed torch for each test, and give back the state that the test found."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` keeps a traceback for each absent kind of device
        yield


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines: whatever the tests need is installed or in the repository."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        remote = isinstance(address, tuple) and str(address[0]) not in ("127.0.0.1", "::1", "localhost")
        if remote:
            raise OSError(f"The tests run offline, but something tried to reach {address[0]}.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
