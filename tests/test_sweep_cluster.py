"""Sweeps on a Dask cluster: what is refused before and on the workers."""

from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import spec_of, workplace

from lee import sweep
from lee.errors import InputError

pytest.importorskip("distributed")

here = pytest.fixture(workplace)


def test_other_weights_on_a_worker_are_refused(here: Path) -> None:
    task = next(sweep.plan(["mine:a"], spec_of().measurements))
    assert sweep.measure(task).described["error"] is None
    for change, message in (({"weights_sha256": "0"}, "weights of mine:a"), ({"data_sha256": "0"}, "patches isn't")):
        assert message in sweep.measure(replace(task, **change)).described["error"]


def test_no_scheduler_and_two_kinds_of_workers_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lee.sweep.cluster.PATIENCE", 1)
    with pytest.raises(InputError, match=r"There is no scheduler at 'tcp://127\.0\.0\.1:9'"):
        sweep.run(spec_of(), here / "t.parquet", sweep.executor(scheduler="tcp://127.0.0.1:9"), progress=False)
    with pytest.raises(InputError, match="Give either a number of workers"):
        sweep.executor(2, scheduler="tcp://127.0.0.1:9")
