"""What was checked of each task stays with it; tables from before it are read, and written, as they are."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from sweeps import run, spec_of, workplace

from lee.sweep import results, table

here = pytest.fixture(workplace)


def test_every_row_says_whether_and_how_its_derivative_was_checked(here: Path) -> None:
    report = run(spec_of(models=["mine:a", "mine:Failing"]), here / "t.parquet")
    assert {model for model, _, _ in report.failures} == {"mine:Failing"}
    rows = pd.read_parquet(here / "t.parquet").groupby("model", observed=True)
    good, failing = rows.get_group("mine:a"), rows.get_group("mine:Failing")
    assert good["verified"].all()
    assert (good["verified_deviation"] < 1e-3).all()
    assert set(good["verified_mode"]) == {"forward"}
    assert failing["verified"].isna().all()
    tasks = results.load(here / "t.parquet").select(model="mine:a").tasks
    assert tasks["verified"].all()
    assert set(tasks["verified_precision"]) == {"float64"}
    assert not any("verified" in name for name in results.load(here / "t.parquet").provenance())


def test_a_table_from_before_the_check_is_read_and_written_as_it_is(here: Path) -> None:
    path = results.folder() / "zoo.parquet"
    parts = table.read(path)
    assert not any("verified" in part.described for part in parts.values())
    table.write(table.encode(parts.values()), here / "again.parquet")
    assert pq.read_schema(here / "again.parquet").equals(pq.read_schema(path), check_metadata=True)


def test_old_and_new_tasks_stand_in_one_table(here: Path) -> None:
    run(spec_of(), here / "t.parquet")
    new = table.read(here / "t.parquet")
    old = dict(list(table.read(results.folder() / "zoo.parquet").items())[:2])
    table.write(table.encode([*old.values(), *new.values()]), here / "both.parquet")
    again = table.read(here / "both.parquet")
    assert {key: part.described for key, part in again.items()} == {
        key: part.described for key, part in {**old, **new}.items()
    }
    frame = pd.read_parquet(here / "both.parquet")
    assert set(frame["task"][frame["verified"].isna()]) == set(old)
    assert set(frame["task"][frame["verified"].fillna(False).astype(bool)]) == set(new)
