"""What a command starts ends with it, however it ends; and after Ctrl-C nothing more is started."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from lee.process.children import Children, Stopped

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


class Family:
    """A command and all that carries its mark."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> "Family":
        """Start `python …` in the folder, as a group of its own that hears Ctrl-C."""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{self.folder}", "OMP_NUM_THREADS": "1", "MARK": self.mark}
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with (self.folder / "out").open("wb") as out:
                self.process = subprocess.Popen(
                    [sys.executable, *command], cwd=self.folder, env=environment, start_new_session=True,
                    stdout=out, stderr=subprocess.DEVNULL,
                )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)
        return self

    def members(self, having: str = "") -> list[int]:
        """The processes with the mark whose command has some words."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"MARK={self.mark}".encode() not in (path / "environ").read_bytes():
                    continue
                if (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z" and (
                    having.encode() in (path / "cmdline").read_bytes().replace(b"\0", b" ")
                ):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def wait_for(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.05)

    def end(self, number: signal.Signals, seconds: float = 20) -> None:
        """Send a signal to the command alone (Ctrl-C: to its group); all of its family has to end."""
        assert self.process is not None
        (os.killpg if number == signal.SIGINT else os.kill)(self.process.pid, number)
        self.process.wait(60)
        self.wait_for(lambda: not self.members(), seconds)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    found = Family(tmp_path)
    yield found
    for process in found.members():  # of a test that failed
        os.kill(process, signal.SIGKILL)
    if found.process is not None:
        found.process.wait()


def started(folder: Path, name: str) -> Callable[[], bool]:
    return lambda: (folder / name).exists()


KILLED, INTERRUPTED = signal.SIGKILL, signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, KILLED, INTERRUPTED])
def test_a_command_takes_its_children_and_theirs_with_it(family: Family, number: signal.Signals) -> None:
    (family.folder / "child.py").write_text(
        "import pathlib, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('there').touch()\ntime.sleep(600)\n"
    )
    script = "import sys; from lee.process.children import Children\nwith Children().start([sys.executable, 'child.py']): pass"
    family.start("-c", script)
    family.wait_for(started(family.folder, "there"))
    family.end(number)


def test_a_child_is_heard_and_its_end_is_told() -> None:
    children = Children()
    code = "import sys; print('said'); sys.exit(3)"
    with children.start([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "said\n"
    assert process.returncode == 3
    killing = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with children.start([sys.executable, "-c", killing]) as process:
        pass
    assert process.returncode == -signal.SIGKILL
    began = time.monotonic()
    with pytest.raises(KeyError), children.start([sys.executable, "-c", "import time; time.sleep(600)"]):
        raise KeyError
    assert time.monotonic() - began < 30
    children.stop()
    with pytest.raises(Stopped), children.start([sys.executable, "-c", ""]):
        pass


RECIPES = {
    "defaults": {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]},
    "models": {
        name: {"factory": "slow:build", "recipe": {"dataset": "digits", "epochs": 9, "batch_size": 64}}
        for name in ("one", "two", "three", "four")
    },
}
SLOW = """
import pathlib, time, os
from torch import nn
class Slow(nn.Sequential):
    def forward(self, x):
        pathlib.Path(f"at-work-{os.getpid()}").touch()
        time.sleep(60)
        return super().forward(x)
def build(): return Slow(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.parametrize("number", [KILLED, INTERRUPTED])
def test_a_fleet_ends_with_its_command_and_starts_nothing_more(family: Family, number: signal.Signals) -> None:
    (family.folder / "slow.py").write_text(SLOW)
    (family.folder / "mine.yaml").write_text(yaml.safe_dump(RECIPES))
    family.start("-m", "lee", "train", "--missing", "*", "--recipes", "mine.yaml", "--workers", "2")
    family.wait_for(lambda: len(list(family.folder.glob("at-work-*"))) == 2)
    family.end(number)
    assert len(list(family.folder.glob("at-work-*"))) == 2


def test_workers_of_a_sweep_end_with_it_in_the_middle_of_a_task(family: Family) -> None:
    (family.folder / "slow.py").write_text(SLOW.replace("Linear(64, 10)", "Linear(192, 10)"))
    spec = {"models": ["slow:build"], "measurements": {"x": {"dataset": ["patches", "textures"], "n": 2, "size": 8}}}
    (family.folder / "mine.yaml").write_text(yaml.safe_dump(spec))
    family.start("-m", "lee", "sweep", "mine.yaml", "--workers", "2", "--quiet")
    family.wait_for(lambda: len(list(family.folder.glob("at-work-*"))) == 2)
    family.end(KILLED)


@pytest.mark.parametrize("number", [KILLED, INTERRUPTED])
def test_the_kernels_of_a_book_end_with_it(family: Family, number: signal.Signals) -> None:
    book = family.folder / "book"
    (book / "profiles").mkdir(parents=True)
    (book / "profiles" / "quick.yaml").write_text("description: none\n")
    for name in ("_toc.yml", "_config.yml"):
        (family.folder / name).write_text("")
    for chapter in ("01_a", "02_b"):
        mark = f"import pathlib, time; pathlib.Path({str(family.folder)!r}, 'there-{chapter}').touch(); time.sleep(600)"
        nbformat.write(new_notebook(cells=[new_code_cell(mark)]), book / f"{chapter}.ipynb")
    family.start("-m", "lee", "book", "--workers", "1")
    family.wait_for(started(family.folder, "there-01_a"))
    assert family.members("ipykernel")
    family.end(number)
    assert not (family.folder / "there-02_b").exists()


def test_the_kernels_of_the_explorer_end_with_it(family: Family) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    family.start("-m", "lee", "explore", "--port", str(port), "--no-browser")
    family.wait_for(lambda: "token=" in (family.folder / "out").read_text())
    address = (family.folder / "out").read_text().split()[0]

    def load() -> None:
        with suppress(OSError, http.client.HTTPException):  # it is killed meanwhile
            urllib.request.urlopen(address, timeout=120).read()

    visit = threading.Thread(target=load)
    visit.start()
    family.wait_for(lambda: family.members("ipykernel"))
    family.end(KILLED)
    visit.join()
