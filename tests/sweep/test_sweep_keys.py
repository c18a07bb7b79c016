"""What a task is named after: nothing that a release of the package changes, so that tables outlive releases."""

import subprocess
import sys
from pathlib import Path

import pytest

from lee import sweep
from lee.sweep import Measurement, Task, results, table, tasks

OTHER_VERSION = """
import importlib.metadata
importlib.metadata.version = lambda name: "99.1.2"
from test_sweep_keys import task
print(task().key)
"""


def task() -> Task:
    way = Measurement(name="main", dataset="patches", n=3, size=12)
    return Task("mine:a", "other", way, "weights", "architecture", "data")


def test_the_key_does_not_depend_on_the_package_version() -> None:
    command = [sys.executable, "-c", OTHER_VERSION]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.stdout.split() == [task().key], done.stderr


def test_the_key_depends_on_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    before = task().key
    monkeypatch.setattr(tasks, "SCHEMA", table.SCHEMA + 1)
    assert task().key != before


@pytest.mark.parametrize(
    ("name", "model"), [("zoo", "zoo/resnet-s"), ("zoo.outputs", "zoo/vit-s"), ("ood", "zoo/vit-s")]
)
def test_the_keys_of_committed_tables_are_those_of_today(name: str, model: str) -> None:
    """Without the images, whose digests the tables have."""
    spec = sweep.load(results.folder() / f"{name}.yaml")
    stored = table.read(results.folder() / f"{name}.parquet")
    data = {(p.described["dataset"], p.described["split"]): p.described["data_sha256"] for p in stored.values()}
    keys = {
        Task(model, "", way, *tasks._digests(model, way.weights), data[way.dataset, way.split]).key
        for way in spec.measurements
    }
    assert keys == {key for key, part in stored.items() if part.described["model"] == model}
