"""Distances beside a table: of the table's own sets, in fewer dimensions than images."""

from pathlib import Path

import pytest

from lee import datasets, models, sweep
from lee.errors import InputError
from lee.metrics.distances import features, frechet_distance
from lee.studies import remoteness
from lee.sweep import results

MODEL = "zoo/mixer-xs"


def test_distances_are_those_of_the_table_s_sets(tmp_path: Path) -> None:
    spec = tmp_path / "some.yaml"
    spec.write_text(
        f"models: [{MODEL}]\ndefaults: {{seed: 0, n: 12, generators: none, output: logits, measures: "
        "{distance: {images: 12, dataset: patches, split: test, seed: 1}}}\n"
        "measurements: {near: {dataset: patches}, far: {dataset: textures}}\n"
    )
    sweep.run(sweep.load(spec), sweep.destination(spec), sweep.executor(0), progress=False)
    table, out = results.load(tmp_path / "some.parquet"), tmp_path / "some.csv"
    frame = remoteness.measure(table, MODEL, out, n=10, dimensions=3).set_index("set")
    net = models.load(MODEL)
    home, far = (
        features(net, datasets.load(name, n=10, seed=s).images) for name, s in (("patches", 1), ("textures", 0))
    )
    assert frame["limit"]["far"] == pytest.approx(frechet_distance(far, home, dimensions=3).limit, rel=1e-6)
    assert frame["distance"]["near"] < frame["distance"]["far"]
    assert out.read_text().startswith("set,distance,limit,stderr,n,dimensions\n")
    with pytest.raises(InputError, match="need more images"):
        remoteness.measure(table, MODEL, out, n=3, dimensions=3)


def test_the_committed_distances_have_errors() -> None:
    frame = remoteness.read("ood")
    assert (frame["n"] > frame["dimensions"]).all()
    assert (frame["stderr"] > 0).all()
    assert abs(frame["limit"]["test"]) < 3 * frame["stderr"]["test"]
    assert frame["limit"]["noise 5"] > frame["limit"]["noise 1"]
    with pytest.raises(InputError, match=r"no other\.distances\.csv"):
        remoteness.read("other")
