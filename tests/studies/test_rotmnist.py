"""The networks of rotated MNIST: measured here or by a sweep, and how seeds are joined."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lee import datasets, models, sweep
from lee.errors import InputError
from lee.models import recipes
from lee.models.recipes import load_specs
from lee.statistics import Estimate
from lee.studies import rotmnist
from lee.sweep import results
from lee.training.zoo import train_zoo

RECIPES = """
defaults:
  input_size: [1, 12, 12]
  mean: [0.1]
  std: [0.3]
  recipe: {dataset: rotated-digits, epochs: 1, warmup_epochs: 0.5, batch_size: 64}
families: {cnn: CNN}
models:
  small: {family: cnn, title: A small one, factory: "lee.models.equivariant:plain_cnn", arguments: {channels: [2, 3]}}
  small-seed1: {like: small, recipe: {seed: 1}}
  never: {like: small, recipe: {seed: 2}}
"""
FEW = {"n": 8, "n_turned": 3, "degrees": (0, 30, 90)}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rotmnist.yaml"
    path.write_text(RECIPES)
    monkeypatch.setattr(recipes, "FILES", {"rotmnist": str(path)})
    for name in ("rotmnist/small", "rotmnist/small-seed1"):
        train_zoo(name, progress=False)
    return path


def test_loaded_networks_are_the_trained_ones(file: Path) -> None:
    one, other = (models.load(f"rotmnist/{name}") for name in ("small", "small-seed1"))
    assert not one.training
    assert any((a != b).any() for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with pytest.raises(InputError, match="Did you mean 'rotmnist/small'"):
        models.load("rotmnist/smal")
    with pytest.raises(InputError, match="never"):
        models.load("rotmnist/never")


def test_a_table_of_a_sweep_says_what_live_networks_say(file: Path, tmp_path: Path) -> None:
    measures = {"accuracy": {}, "turntable": {"images": 3, "step": 90}}
    way = {"dataset": "rotated-digits", "n": 8, "seed": None, "generators": ["rotation"], "measures": measures}
    spec = {"models": ["rotmnist/small-seed1", "rotmnist/small"], "measurements": {"main": way}}
    sweep.run(sweep.parse(spec), tmp_path / "t.parquet", sweep.executor(0), progress=False)
    table = results.load(tmp_path / "t.parquet")
    found = rotmnist.measured(table)
    assert found["name"].tolist() == ["rotmnist/small", "rotmnist/small-seed1"]
    assert found["minutes"][0] >= 0
    few = {"n": 8, "n_turned": 3, "degrees": (0, 90, 180)}
    expected = rotmnist.measure(models.load("rotmnist/small"), datasets.load("rotated-digits"), **few)
    for column in ("error", "tested", "relative", "quarter", "angle", "accuracy", "probability", "change"):
        assert found[column][0] == pytest.approx(expected[column], rel=1e-4), column
    assert found["lee"][0] == pytest.approx(expected["lee"], rel=1e-3)


def test_live_networks_are_trained_and_measured(file: Path) -> None:
    frame, networks = rotmnist.live(file, ["small", "never"], **FEW)
    assert frame["name"].tolist() == list(networks) == ["small", "never"]
    assert frame["parameters"][0] == sum(p.numel() for p in networks["small"].parameters())
    assert len(rotmnist.followed(frame)) == 2 * 3


def test_seeds_are_joined() -> None:
    same = {"title": "t", "relative": 1.0, "parameters": 5, "minutes": 2.0, "epochs": 3, "tested": 10**12}
    rows = [
        {"row": "a", "error": 0.1, "lee": [1.0, 3.0], "quarter": 0.5, **same},
        {"row": "b", "error": 0.3, "lee": [1.0, 2.0, 3.0, 6.0], "quarter": 0.0, **same},
        {"row": "a", "error": 0.2, "lee": [3.0, 5.0], "quarter": 0.25, **same},
    ]
    found = rotmnist.summary(pd.DataFrame(rows)).set_index("row")
    assert found.index.tolist() == ["a", "b"]
    assert found.loc["a", ["seeds", "error", "lee", "quarter"]].tolist() == [2, pytest.approx(0.15), 3.0, 0.5]
    within = math.log(2) / 2**0.5  # of both measures: 0.1 and 0.2, 2 and 4
    half = stats.t.ppf(0.975, 1) * within / np.array([2, 1]) ** 0.5
    assert (found["error_high"] / found["error"]).to_numpy() == pytest.approx(np.exp(half))
    assert (found["error"] / found["error_low"]).to_numpy() == pytest.approx(np.exp(half))
    for mean, low, high, (image_low, image_high), over_seeds in zip(
        found["lee"],
        found["lee_low"],
        found["lee_high"],
        [_over_images([2.0, 4.0]), _over_images([1.0, 2.0, 3.0, 6.0])],
        half,
        strict=True,
    ):
        assert math.log(high / mean) == pytest.approx(math.hypot(math.log(image_high / mean), over_seeds))
        assert low == pytest.approx(
            mean * math.exp(-math.hypot(math.log(mean / image_low), over_seeds)) if image_low > 0 else 0
        )


def _over_images(numbers: list[float]) -> tuple[float, float]:
    return Estimate.of(torch.tensor(numbers)).interval()


def test_one_training_has_intervals_over_images() -> None:
    same = {"title": "t", "relative": 1.0, "parameters": 5, "minutes": 2.0, "epochs": 3, "quarter": 0.5, "tested": 500}
    lee = np.exp(np.random.default_rng(0).standard_normal(200))
    found = rotmnist.summary(pd.DataFrame([{"row": "a", "error": 0.1, "lee": lee, **same}])).iloc[0]
    assert [found["lee_low"], found["lee_high"]] == pytest.approx(_over_images(lee))
    wilson = stats.binomtest(50, 500).proportion_ci(method="wilson")
    assert [found["error_low"], found["error_high"]] == pytest.approx([wilson.low, wilson.high], rel=0.02)


@pytest.mark.parametrize(("file", "dataset"), [("rotmnist.yaml", "rotmnist"), ("digits.yaml", "rotated-digits")])
def test_committed_recipes_hold_every_row(file: str, dataset: str) -> None:
    specs = load_specs(recipes.recipe_file("rotmnist").parent / file)
    rows = {recipes.without_seed(name) for name in specs}
    assert rows == {"cnn", "cnn-rotate", "vit", "vit-rotate", "vit-mae", "p4", "steerable", "ti"}
    assert {spec.recipe.dataset for spec in specs.values()} == {dataset}
    if dataset == "rotmnist":
        assert all(
            {s.recipe.seed for n, s in specs.items() if recipes.without_seed(n) == row} == {0, 1, 2} for row in rows
        )
        assert load_specs(recipes.recipe_file("rotmnist"), budget="full").keys() == specs.keys()
