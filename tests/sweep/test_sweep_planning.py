"""A sweep plans while it measures: models are loaded one after the other, and a terminal shows how far it is."""

import os
import pty
import re
import sys
import termios
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from sweeps import rows, run, spec_of, workplace, write_spec

import lee.models
from lee import sweep

here = pytest.fixture(workplace)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are loaded from now on, in order."""
    names: list[str] = []
    before = lee.models.load

    def load(name: str, **options: object) -> lee.models.Normalized:
        names.append(name)
        return before(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lee.models, "load", load)
    return names


def test_each_model_is_loaded_once_and_after_the_one_before_is_measured(here: Path, loaded: list[str]) -> None:
    finished: list[tuple[str, list[str]]] = []

    def watched(tasks: Iterable[sweep.Task]) -> Iterator[sweep.Result]:
        for task, content in sweep.here(tasks):
            finished.append((task.model, list(loaded)))
            yield task, content

    sweep.run(spec_of(models=["mine:a", "mine:b", "mine:c"]), here / "t.parquet", watched, progress=False)
    a, b, c = "mine:a", "mine:b", "mine:c"
    assert finished == [(a, [a])] * 3 + [(b, [a, b])] * 3 + [(c, [a, b, c])] * 3


def test_a_worker_s_results_are_kept_before_the_next_model_is_loaded(
    here: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, int] = {}
    before = lee.models.load

    def load(name: str, **options: object) -> lee.models.Normalized:
        kept.setdefault(name, len(list((here / "t.parquet.tasks").glob("*.parquet"))))
        return before(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lee.models, "load", load)
    one = {"m": {"generators": ["rotation"]}}
    spec = spec_of(models=["mine:a", "mine:b", "mine:c"], measurements=one)
    report = sweep.run(spec, here / "t.parquet", sweep.executor(1, threads=1), progress=False)
    assert report.measured == 3
    assert kept == {"mine:a": 0, "mine:b": 1, "mine:c": 2}
    run(spec, here / "whole.parquet")
    assert rows(here / "t.parquet").equals(rows(here / "whole.parquet"))


def test_an_interrupted_sweep_has_not_loaded_what_it_never_came_to(here: Path, loaded: list[str]) -> None:
    def one(tasks: Iterable[sweep.Task]) -> Iterator[sweep.Result]:
        yield next(sweep.here(tasks))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(spec_of(), here / "t.parquet", one, progress=False)
    assert loaded == ["mine:a"]
    report = run(spec_of(), here / "t.parquet")
    assert (report.measured, report.kept) == (5, 1)


def test_the_same_measurement_twice_is_one_task(here: Path) -> None:
    twice = {"m": [{"generators": ["rotation"]}, {"generators": ["rotation"]}]}
    report = run(spec_of(measurements=twice), here / "t.parquet")
    assert (report.measured, report.kept) == (2, 0)
    assert len(rows(here / "t.parquet")) == 2 * 3


def in_a_terminal(*arguments: str) -> list[str]:
    """What `lee` shows in a terminal of its own: every state of every line, in order."""
    child, terminal = pty.fork()
    if child == 0:
        from lee.cli import app

        torch.set_num_threads(1)  # threads don't survive the copying
        termios.tcsetwinsize(2, (24, 140))
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))  # not those of pytest
        try:
            app(list(arguments))
        except SystemExit as ended:
            sys.stdout.flush()
            os._exit(int(ended.code or 0))
        os._exit(99)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown.decode()
    os.close(terminal)
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[\w*", "", shown.decode()))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_terminal_shows_the_rate_and_the_remaining_time(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    write_spec(here, models=["mine:slow", "mine:Failing", "mine:slower"])
    lines = in_a_terminal("sweep", "small.yaml", "--limit", "*:slow*", "--threads", "1")
    assert any(line.startswith("mine:slow, weights:   0%") for line in lines), lines
    halfway = [line for line in lines if line.startswith("mine:slower, weights:  50%")]
    assert re.search(r"50%.*\d+/\d+ \[\d\d:\d\d<\d\d:\d\d, +[\d.]+k?pass/s\]", halfway[-1]), lines
    last = [line for line in lines if line.startswith("mine:slower, motions: 100%")][-1]
    assert re.search(r"\[\d\d:\d\d<00:00, +[\d.]+k?pass/s\]$", last), last
    assert any("6 tasks measured" in line for line in lines)
    again = in_a_terminal("sweep", "small.yaml", "--limit", "*:slow*", "--threads", "1")
    assert any("0 tasks measured" in line for line in again)
    assert not any("pass/s" in line and "?" not in line for line in again), "nothing was measured, so there is no rate"
