"""The command `lee sweep`: a specification in, a table out, and an exit code that tells of failures."""

from pathlib import Path
from typing import Any

import pytest
from sweeps import SPEC, workplace, write_spec
from typer.testing import CliRunner, Result

from lee.cli import app
from lee.sweep import results

here = pytest.fixture(workplace)


def lee(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_sweep_goes_beside_its_specification_and_is_done_once(here: Path) -> None:
    path = write_spec(here)
    first = lee("sweep", path)
    assert first.exit_code == 0, first.output
    assert "6 tasks measured" in first.stdout
    assert "0 failed" in first.stdout
    assert results.load(here / "small.parquet").models == ("mine:a", "mine:b")
    again = lee("sweep", path, "--threads", 1)
    assert "0 tasks measured" in again.stdout
    assert "6 there already" in again.stdout


def test_of_several_specifications_one_without_data_is_passed_over(here: Path) -> None:
    good, other = write_spec(here), here / "other.yaml"
    other.write_text(good.read_text().replace("dataset: patches", "dataset: imagefolder:nowhere"))
    found = lee("sweep", other, good)
    assert found.exit_code == 2, found.output
    assert f"{other} can't be measured here: imagefolder:nowhere" in found.stdout
    assert "6 tasks measured" in found.stdout
    assert lee("sweep", good, good).exit_code == 0
    twin = good.with_suffix(".yml")
    twin.write_text(good.read_text())
    assert "both be written to" in " ".join(lee("sweep", good, twin).stderr.split())
    assert "2 specifications" in lee("sweep", good, other, "--out", here / "t.parquet").stderr


def test_failures_are_shown_and_give_exit_code_1(here: Path) -> None:
    path, out = write_spec(here, models=["mine:a", "mine:Failing"]), here / "elsewhere" / "t.parquet"
    assert lee("sweep", path, "--out", out, "--limit", "*:a").exit_code == 0
    failed = lee("sweep", path, "--out", out)
    assert failed.exit_code == 1
    assert "always" in failed.stdout
    assert "3 tasks measured" in failed.stdout
    assert "3 failed" in failed.stdout
    assert "3 tasks measured" in lee("sweep", path, "--out", out, "--retry").stdout


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"model": []}, (), "unknown field 'model'. Did you mean 'models'?"),
        ({}, ("--out", "t.csv"), "use .parquet"),
        ({}, ("--limit", "mine:x"), "No model of the sweep matches 'mine:x'."),
        ({}, ("--device", "cuda:99"), "The device 'cuda:99' can't be used"),
    ],
)
def test_wrong_input_ends_in_a_sentence(
    here: Path, change: dict[str, Any], options: tuple[str, ...], message: str
) -> None:
    refused = lee("sweep", write_spec(here, **change), *options)
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted(p.name for p in here.glob("*.parquet*")) == []


def test_a_missing_specification_is_named(here: Path) -> None:
    refused = lee("sweep", here / "none.yaml")
    assert refused.exit_code == 2
    assert "none.yaml can't be read: No such file" in refused.stderr


def test_without_a_specification_the_zoo_is_measured(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "folder", lambda: here)
    write_spec(here, models=["mine:c"]).rename(here / "zoo.yaml")
    assert lee("sweep", "--quiet").exit_code == 0
    assert results.load("zoo").models == ("mine:c",)


def test_workers_give_the_same_table(here: Path) -> None:
    path = write_spec(here, measurements={"m": SPEC["measurements"]["main"]})
    assert lee("sweep", path, "--workers", 1, "--out", "w.parquet").exit_code == 0
    assert lee("sweep", path).exit_code == 0
    tables = [results.load(here / name) for name in ("w.parquet", "small.parquet")]
    assert tables[0].frame.equals(tables[1].frame)
