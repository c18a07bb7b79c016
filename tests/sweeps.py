"""Small sweeps for the tests: networks of a few numbers on embedded images, in a folder of their own."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from lee import sweep
from lee.sweep import results, tasks

FACTORIES = """
import os, signal, time
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=4, classes=5, seconds=0.0):
        head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, classes))
        super().__init__(nn.Conv2d(3, width, 3, stride=2), nn.GELU(), *head)
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return super().forward(x)

def a(): return Net()
def b(): return Net(6)
def c(): return Net(3, 7)
def slow(): return Net(seconds=0.02)
def slower(): return Net(5, seconds=0.02)

def unbuildable(): raise RuntimeError("no such part")

class Failing(Net):
    def forward(self, x): raise ValueError("this network\\nalways fails")

class Undefined(Net):
    def forward(self, x): return super().forward(x) / 0

class Deadly(Net):
    def forward(self, x): os.kill(os.getpid(), signal.SIGKILL)
"""

SPEC: dict[str, Any] = {
    "models": ["mine:a", "mine:b"],
    "defaults": {"dataset": "patches", "n": 3, "size": 12},
    "measurements": {
        "main": {"output": ["probabilities", "logits"], "generators": "affine"},
        "motions": {"generators": ["rotation"], "measures": ["eq_t", "eq_t_frac", "eq_r", "consistency"]},
    },
}


def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fixture: a folder with the factories of `mine.py`, which is on the path."""
    (tmp_path / "mine.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    tasks.forget()
    yield tmp_path
    tasks.forget()
    sys.modules.pop("mine", None)


def spec_of(**changes: Any) -> sweep.SweepSpec:
    return sweep.parse({**SPEC, **changes})


def write_spec(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}))
    return path


def run(spec: sweep.SweepSpec, out: Path, **options: Any) -> sweep.Report:
    return sweep.run(spec, out, sweep.executor(), progress=False, **options)


def rows(path: Path) -> pd.DataFrame:
    """Every number of a table, the Gram matrices included."""
    return pd.read_parquet(path)


def keys(path: Path) -> Mapping[str, str]:
    """Model and key of every task of a table."""
    frame = results.load(path).tasks
    return dict(zip(frame["key"], frame["model"], strict=True))
