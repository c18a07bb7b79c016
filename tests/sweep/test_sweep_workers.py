"""Worker processes on a system whose pipes are of another class, as Windows' are."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sweeps import spec_of, workplace

from lee import sweep
from lee.sweep import execution

here = pytest.fixture(workplace)


class PipeConnection:
    """No `Connection`, but one end of a pipe all the same; `wait` takes it, as it takes Windows' handles there."""

    def __init__(self, end: "Connection[Any, Any]") -> None:
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._end, name)

    def fileno(self) -> int:
        return self._end.fileno()


def test_workers_answer_through_pipes_of_another_class(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = execution._context()
    pipe = context.Pipe
    made = []

    def other(*arguments: Any) -> tuple[Any, Any]:
        mine, its = pipe(*arguments)
        made.append(PipeConnection(mine))
        return made[-1], its

    monkeypatch.setattr(context, "Pipe", other, raising=False)
    tasks = list(sweep.plan(["mine:a"], spec_of().measurements))[:2]
    found: list[sweep.Result] = []

    def work() -> None:
        found.extend(execution.processes(tasks, 1))

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), "the results were never seen"
    assert {task.key for task, _ in found} == {task.key for task in tasks}
    assert all(isinstance(content, bytes) for _, content in found)
    assert made


def test_workers_have_the_environment_of_the_moment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the first one, whose process the later ones are copies of: the network has the weights of the plan."""
    (here / "told.py").write_text("import os\nfrom mine import Net\ndef net(): return Net(int(os.environ['WIDTH']))")
    spec = spec_of(models=["told:net"], measurements={"m": {"n": 1, "generators": ["rotation"]}})
    for width in ("3", "5"):
        monkeypatch.setenv("WIDTH", width)
        report = sweep.run(spec, here / f"{width}.parquet", sweep.executor(1, threads=1), progress=False)
        assert (report.measured, report.failures) == (1, ())


def test_only_workers_with_an_answer_are_ready(here: Path) -> None:
    task = next(iter(sweep.plan(["mine:a"], spec_of().measurements)))
    crew, others = [], []
    for _ in range(3):
        mine, its = multiprocessing.Pipe()
        crew.append(execution._Worker("cpu", 1, task=task, pipe=PipeConnection(mine)))  # type: ignore[arg-type]
        others.append(its)
    crew[0].task = None
    others[0].send_bytes(b"an answer that nobody waits for")
    others[2].send_bytes(b"an answer")
    assert execution._ready(crew) == [crew[2]]
    others[1].close()  # death
    assert execution._ready(crew[:2]) == [crew[1]]
