"""Variances of outputs beside a table: measured on the table's own networks and images, and used as the unit of errors."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from made_tables import made_table

from lee import datasets, models, sweep
from lee.errors import InputError
from lee.studies import variances
from lee.sweep import results

MODEL = "zoo/mixer-xs"


def swept(folder: Path, output: str) -> results.Results:
    spec = folder / "some.yaml"
    spec.write_text(
        f"models: [{MODEL}]\ndefaults: {{dataset: patches, size: 32, seed: 0, generators: [translation_x, translation_y]}}\n"
        f"measurements: {{main: {{n: 6, output: {output}}}}}\n"
    )
    out = sweep.destination(spec)
    sweep.run(sweep.load(spec), out, sweep.executor(0), progress=False)
    return results.load(folder / "some.parquet")


@pytest.mark.parametrize("output", ["logits", "features"])
def test_variances_are_those_of_the_table_s_images(tmp_path: Path, output: str) -> None:
    table = swept(tmp_path, output)
    (row,) = variances.measure(table, tmp_path / "some.variances.csv").to_dict("records")
    x, model = datasets.load("patches", n=6, size=32, seed=0).images, models.load(MODEL)
    with torch.no_grad():
        maps = model.net.forward_features(model.normalize(x))
        value = model(x) if output == "logits" else model.net.forward_head(maps, pre_logits=True)
    assert row["variance"] == pytest.approx(float(value.double().var(0).mean()), rel=1e-5)
    assert (row["model"], row["output"], row["n"]) == (MODEL, output, 6)
    found = variances.relative(table, pd.read_csv(tmp_path / "some.variances.csv"), ["translation_x", "translation_y"])
    gram = table.gram()
    absolute = gram.lee_per_image("translation_x") + gram.lee_per_image("translation_y")
    assert found[MODEL].to_numpy() == pytest.approx(absolute.numpy() / row["variance"], rel=1e-4)


def test_variances_of_other_tasks_are_not_taken() -> None:
    table = made_table({"a": (1.0, 0.1), "b": (2.0, 0.2)})
    known = pd.DataFrame({"key": table.tasks["key"], "variance": [2.0, 4.0]})
    ratio = variances.relative(table, known, ["rotation"]) / table.per_image("rotation")
    assert ratio.mean().tolist() == pytest.approx([0.5, 0.25])
    with pytest.raises(InputError, match="lack b"):
        variances.relative(table, known.iloc[:1], ["rotation"])
    with pytest.raises(InputError, match=r"no other\.variances\.csv"):
        variances.read("other")
