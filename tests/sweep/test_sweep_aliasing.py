"""The share of aliasing as a figure of a sweep, and what the committed tables say of it."""

from pathlib import Path

import pytest

from lee import datasets, models, sweep
from lee.layers import aliased_part
from lee.sweep import results

MODEL = "zoo/mixer-xs"


def test_a_sweep_keeps_the_shares_of_families_with_their_intervals(tmp_path: Path) -> None:
    spec = tmp_path / "some.yaml"
    spec.write_text(
        f"models: [{MODEL}]\nmeasurements: {{main: {{dataset: patches, seed: 0, n: 4, generators: none, "
        "measures: {aliasing: {images: 3, generators: [rotation], factor: 2}}}}\n"
    )
    sweep.run(sweep.load(spec), sweep.destination(spec), sweep.executor(0), progress=False)
    (row,) = results.load(tmp_path / "some.parquet").figures("aliasing").to_dict("records")
    images = datasets.load("patches", n=4, size=32, seed=0).images[:3]
    expected = aliased_part(models.load(MODEL), images, ["rotation"], factor=2).frame
    for column in ("family", "n"):
        assert list(row[column]) == expected[column].tolist()
    for column in ("share", "low", "high", "norm2"):
        assert list(row[column]) == pytest.approx(expected[column].tolist(), rel=1e-4)
    assert row["n"][-1] == 3


def test_the_committed_tables_leave_no_layer_out() -> None:
    figures = results.load("aliasing").figures("aliasing")
    assert {"zoo/resnet-t", "zoo/vit-t", "zoo/mixer-t", "imagenet/efficientnet-lite0"} <= set(figures["model"])
    for row in figures.itertuples():
        assert row.family[-1] == "all"
        assert sum(row.share[:-1]) == pytest.approx(row.share[-1], abs=1e-9)
        assert row.low[-1] < row.share[-1] < row.high[-1]
        assert len(row.left_out) == 0
