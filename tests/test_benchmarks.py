"""The benchmarks' own arithmetic, and that each committed table is that of the committed figures. Nothing is timed here."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = (
    "derivative",
    "layerwise",
    "sweep",
    "memory",
    "compile",
    "explorer",
    "verification",
    "precision",
    "headline",
    "throughput",
)
COMMITTED = [name for name in NAMES if (FOLDER / f"{name}.json").exists()]

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a benchmark as its command line does, by its bare name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = dict(sys.modules)

    def imported(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield imported
    for name in (*NAMES, "common", "paper_layerwise"):
        if name not in before:
            sys.modules.pop(name, None)


def committed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def rendered(module: Any, name: str, content: dict[str, Any], text: str) -> str:
    """The table of a file of figures."""
    if name == "sweep":
        return str(module.table(content["rows"], content["runs"], content["machine"]))
    if name == "headline":
        return str(module.table(content["lines"], content["machine"], content["made"]))
    if name == "explorer":
        (rounds,) = re.findall(r"Medians of (\d+) steps", text)
        return str(module.table(content["rows"], content["machine"], int(rounds)))
    return str(module.table(content["rows"], content["machine"]))


@pytest.mark.parametrize("name", COMMITTED)
def test_each_committed_table_is_that_of_its_figures(name: str, load: Load) -> None:
    text = (FOLDER / f"{name}.md").read_text()
    assert text == rendered(load(name), name, committed(name), text)


@pytest.mark.parametrize("name", COMMITTED)
def test_each_table_says_on_what_machine(name: str) -> None:
    machine = committed(name)["machine"]
    for about in machine.values() if name == "headline" else [machine]:
        assert {"cpu", "cores", "threads", "torch", "date"} <= set(about)
        assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", about["date"])


def test_every_benchmark_of_the_headline_is_committed() -> None:
    """Throughput belongs to a GPU, which not every machine has."""
    assert set(COMMITTED) >= set(NAMES) - {"throughput"}


@pytest.mark.parametrize("name", [n for n in COMMITTED if n not in ("headline", "throughput")])
def test_the_headline_of_each_benchmark_is_finite_and_named_once(name: str, load: Load) -> None:
    lines = load("headline").lines_of(name, committed(name))
    assert lines
    assert all(line["value"] > 0 and line["value"] < 1e6 for line in lines)
    assert len({line["what"] for line in lines}) == len(lines)


def test_the_headline_runs_throughput_on_a_gpu_only(load: Load) -> None:
    headline = load("headline")
    assert set(headline.parts(gpu=True)) - set(headline.parts(gpu=False)) == {"throughput"}
    assert set(headline.PARTS) == set(NAMES) - {"headline"}


def test_the_headline_keeps_to_the_options_of_each_benchmark(load: Load) -> None:
    """What it passes is known to the benchmark: an unknown option would only show after the others have run."""
    for name, (arguments, _) in load("headline").PARTS.items():
        source = (FOLDER / f"{name}.py").read_text() + (FOLDER / "common.py").read_text()
        for option in (a for a in arguments if a.startswith("--")):
            assert f'add_argument("{option}"' in source, (name, option)


def test_a_failing_benchmark_is_named_and_nothing_is_written(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    headline = load("headline")

    def measured(name: str, folder: Path) -> dict[str, Any]:
        if name == "memory":
            raise subprocess.CalledProcessError(3, [name])
        return {"machine": {"cores": 2}, **committed("sweep")}

    monkeypatch.setattr(headline, "measured", measured)
    monkeypatch.setattr(sys, "argv", ["headline.py", "--only", "memory", "sweep", "--out", str(tmp_path)])
    assert headline.main() == 1
    assert "memory (exit status 3)" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["headline.py", "--only", "sweep", "--out", str(tmp_path)])
    assert headline.main() == 0
    ratio = load("sweep").ratios(committed("sweep")["rows"], [])["sweep / bare loop, clock"]
    assert f"| sweep | sweep / bare loop, clock | {ratio:.3g} | ≤ 1.05 |" in (tmp_path / "headline.md").read_text()


def test_the_ratios_of_sweeps(load: Load) -> None:
    """Two models of two tasks, 10 s by loops and 10.4 s of the processor by sweeps: 4 % more, 100 ms for each of four tasks."""

    def took(clock: float, processor: float) -> dict[str, float]:
        return {"clock": clock, "processor": processor}

    rows = [
        {"model": "a", "tasks": 2, "images": 9, "sweep": took(5.0, 4.2), "bare": took(4.0, 4.0)},
        {"model": "b", "tasks": 2, "images": 9, "sweep": took(6.0, 6.2), "bare": took(6.0, 6.0)},
    ]
    whole = {"in process, all threads": 9, "processes: 1": 12.0, "processes: 2": 8.0, "dask: 1": 9.0, "dask: 2": 5.0}
    runs = [{"run": name, "seconds": value} for name, value in whole.items()]
    sweep = load("sweep")
    assert sweep.ratios(rows, runs) == {
        "sweep / bare loop, clock": 1.1,
        "sweep / bare loop, processor": 1.04,
        "overhead per task, ms of the processor": 100.0,
        "processes: 1 worker / 2 workers": 1.5,
        "dask: 1 worker / 2 workers": 1.8,
    }
    assert "| a | processor | 2.10 | 2.00 | 1.050 |" in sweep.table(rows, runs, {"cores": 2})


def test_the_sweep_of_the_benchmark_measures_what_its_loop_does(load: Load, tmp_path: Path) -> None:
    sweep = load("sweep")
    expected = sweep.bare(["zoo/vit-t"], 2)
    table = sweep.swept(["zoo/vit-t"], 2, tmp_path, sweep.sweep.executor())
    sweep.compare(table, expected)
    expected["zoo/vit-t", "logits"] *= 1.01
    with pytest.raises(SystemExit, match="disagree about zoo/vit-t, logits"):
        sweep.compare(table, expected)


def test_the_ratios_of_memory(load: Load) -> None:
    memory = load("memory")
    runs = {memory.FLOOR: [(1.0, 2.0, 3.0), (2.0, 2.5, 3.5), (9.0, 2.0, 3.0)], "lee, chunk=8": [(1.0, 1.0, 1.5)]}
    row = memory.medians("a", runs)
    assert row["methods"][memory.FLOOR] == {"seconds": 2.0, "above": 2.0, "whole": 3.0}
    assert memory.ratio(row, "lee, chunk=8") == 0.5
    assert memory.ratio(row, "lee, chunk=8", "whole") == 0.5


def test_the_peak_of_memory_sees_what_is_freed_again(load: Load) -> None:
    """A tensor of 200 MB that is gone when the run ends."""
    common = load("common")
    took, above = common.seconds_and_peak(lambda: torch.ones(50_000_000).sum())
    assert took > 0
    assert 0.19 < above < 0.3
    assert common.resident_peak() > above


def test_the_gain_of_compiling(load: Load) -> None:
    compile_ = load("compile")
    row = {
        "model": "a",
        "images": 2,
        "seconds": {"lee": 0.3, "lee, compiled": 0.2, "functorch": 0.5},
        "compiling": {"lee": {"warm-up": 9.0, "error": 1e-7}, "functorch": {"failed": "RuntimeError: no | such thing"}},
    }
    assert compile_.gain(row) == pytest.approx(1.5)
    assert compile_.gain(row, "functorch") is None
    text = compile_.table([row], {"cores": 2})
    assert "| a | 2 | lee | 300 | 200 | 1.50 | 9.0 | 1e-07 |" in text
    assert "| a | 2 | functorch | 500 | – | – | – | RuntimeError: no / such thing |" in text


def test_the_traced_pass_gives_the_derivatives_of_the_stacked_one(load: Load) -> None:
    """What is compiled is the graph of plain operators: the same numbers, before any compiler."""
    from torch.fx.experimental.proxy_tensor import make_fx

    methods, stack = load("compile").eager_methods("zoo/vit-t")
    with torch.no_grad():
        expected = methods["lee"](stack[:, :1])
        traced = make_fx(methods["lee"])(stack[:, :1])
        found, functorch = traced(stack[:, :1]), methods["functorch"](stack[:, :1])
    assert not any("Stacked" in str(node.target) for node in traced.graph.nodes)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(functorch, expected, rtol=1e-3, atol=1e-5)


def test_throughput_in_images_and_generators(load: Load) -> None:
    throughput = load("throughput")
    rate = {"forward": 70.0, "one generator": 35.0, "six generators": 10.0, "nine generators": 7.0}
    rows = [{"model": "a", "batch": 4, "images per second": rate}]
    assert "| a | 4 | 70.0 | 35.0 | 10.0 | 7.0 | 60.0 | 63.0 |" in throughput.table(rows, {"cores": 2})
    on_gpu = throughput.table([rows[0] | {"peak GB": 1.25}], {"cores": 2})
    assert "| 63.0 | 1.25 |" in on_gpu
    found = throughput.row("test_vit", "cpu", 1, 1)
    assert set(found["images per second"]) == set(rate)
    assert all(value > 0 for value in found["images per second"].values())
    assert "peak GB" not in found
