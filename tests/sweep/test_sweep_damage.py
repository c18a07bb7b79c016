"""A table whose bits have changed is found to be damaged, and what is lost of it is measured again."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweeps import keys, rows, run, spec_of, workplace

from lee import provenance
from lee.errors import DamageWarning, InputError
from lee.sweep import table
from lee.sweep.measures import measure
from lee.sweep.tasks import plan

place = pytest.fixture(workplace)

HELPER = "SCALE = 1.0\n\ndef scaled(x): return SCALE * x\n"
FACTORY = """
from torch import nn
import helper

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(432, 5))

    def forward(self, x):
        return helper.scaled(super().forward(x))

def net(): return Net()
"""


@pytest.mark.parametrize("seed", range(7))
def test_every_single_bit_is_found(place: Path, tmp_path: Path, seed: int) -> None:
    run(spec_of(), tmp_path / "t.parquet")
    whole, flipped = (tmp_path / "t.parquet").read_bytes(), tmp_path / "flipped.parquet"
    drawn = random.Random(seed)
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    for place_of in (len(whole), footer):
        for _ in range(100):
            bit = len(whole) * 8 - 1 - drawn.randrange(place_of * 8)
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            flipped.write_bytes(changed)
            with pytest.raises(InputError, match=r"flipped\.parquet (is|can't|has)"):
                table.read(flipped)


def test_only_what_is_lost_of_a_table_is_measured_again(place: Path, tmp_path: Path) -> None:
    spec, out = spec_of(), tmp_path / "t.parquet"
    run(spec, out)
    whole, wanted = out.read_bytes(), rows(out)
    told = whole.replace(b'"n":3', b'"n":4', 1)  # of one task
    assert told != whole
    for content, least in ((told, len(keys(out)) - 1), (whole[:-9], 0)):
        out.write_bytes(content)
        with pytest.raises(table.DamagedTable, match=r"t\.parquet is damaged"):
            table.read(out)
        with pytest.warns(DamageWarning, match=rf"damaged: {least} of its tasks are still as they were"):
            report = run(spec, out)
        assert (report.kept, report.measured) == (least, len(wanted.groupby("task")) - least)
        assert rows(out).drop(columns="error").equals(wanted.drop(columns="error"))


def test_the_key_follows_the_source_of_a_factory(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    spec, out = spec_of(models=["own:net"]), tmp_path / "t.parquet"

    def measured(helper: str, factory: str) -> int:
        for name, text in (("helper", helper), ("own", factory)):
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        return run(spec, out).measured

    tasks = measured(HELPER, FACTORY)
    assert tasks > 0
    assert measured(HELPER, FACTORY) == 0
    assert measured(HELPER, FACTORY.replace("return helper", "return -helper")) == tasks
    assert measured(HELPER.replace("1.0", "10.0"), FACTORY) == tasks  # in a module that it uses
    assert all(name.startswith("own") for name in keys(out).values())


def test_numbers_belong_to_the_source_that_runs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is edited after its import changes nothing until it is reloaded, neither what is measured nor its name."""
    import importlib
    import sys

    for name, text in (("helper", HELPER), ("own", FACTORY)):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec, out = spec_of(models=["own:net"]), tmp_path / "t.parquet"
    assert run(spec, out).measured > 0
    before = rows(out)
    (tmp_path / "own.py").write_text(FACTORY.replace("return helper", "return -3 * helper"))
    assert run(spec, out).measured == 0
    importlib.reload(sys.modules["own"])
    assert run(spec, out).measured > 0
    assert not rows(out)["gram_0"].equals(before["gram_0"])


def test_a_process_with_another_source_refuses(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name, text in (("helper", HELPER), ("own", FACTORY)):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    task = next(iter(plan(["own:net"], spec_of(models=["own:net"]).measurements)))
    assert not measure(task).failed
    assert "isn't here what it was" in measure(replace(task, architecture_sha256="another")).described["error"]


HOLDS = """
import json, pathlib, torch
class Net(torch.nn.Module):
    def __init__(self, held):
        super().__init__()
        self.linear, self.held = torch.nn.Linear(3, 10), held
        self.register_buffer("kept", torch.tensor(held["kept"]), persistent=False)
    def forward(self, x):
        return self.linear(x.mean((2, 3))) * self.held["factor"] * self.kept
def net():
    return Net(json.loads((pathlib.Path(__file__).parent / "held.json").read_text()))
def scripted():
    return torch.jit.script(Scripted(net()))
class Scripted(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.linear, self.factor = net.linear, float(net.held["factor"] * net.held["kept"])
    def forward(self, x):
        return self.linear(x.mean((2, 3))) * self.factor
"""


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning", "ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("factory", ["net", "scripted"])
def test_the_key_follows_what_a_factory_reads_and_no_state_dict_has(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "holding", raising=False)
    (tmp_path / "holding.py").write_text(HOLDS)
    spec, out = spec_of(models=[f"holding:{factory}"]), tmp_path / "t.parquet"

    def measured(factor: float, kept: float) -> int:
        (tmp_path / "held.json").write_text(json.dumps({"factor": factor, "kept": kept}))
        return run(spec, out).measured

    tasks = measured(1.0, 1.0)
    assert tasks > 0
    assert measured(1.0, 1.0) == 0
    assert measured(2.0, 1.0) == tasks  # an attribute
    assert measured(2.0, 3.0) == tasks  # a buffer that is not in the state dict


def test_installed_sources_are_left_out() -> None:
    assert provenance.sources_sha256(torch.nn.Linear.__module__, "lee.models", "json") == provenance.sources_sha256()
