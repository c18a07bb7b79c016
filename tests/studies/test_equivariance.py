"""The networks trained for equivariance: found by name, measured, and joined over seeds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_tables import made_part
from torch import nn

from lee import datasets, models, sweep
from lee.errors import InputError
from lee.models import recipes
from lee.studies import equivariance
from lee.sweep import results
from lee.sweep.results import Results
from lee.training import EquivariancePenalty, moved_share
from lee.training.zoo import train_zoo

pytestmark = pytest.mark.xdist_group("penalty")  # its fixtures are made once

RECIPES = """
defaults:
  input_size: [1, 8, 8]
  mean: [0.3]
  std: [0.4]
  recipe: {dataset: digits, epochs: 1, warmup_epochs: 0.5, batch_size: 64, penalty_images: 8}
families: {cnn: CNN}
models:
  small: {family: cnn, title: A small one, factory: "lee.models.equivariant:plain_cnn", arguments: {channels: [2, 3]}}
  small-1: {like: small, recipe: {penalty: 1.0}}
  small-1-seed1: {like: small-1, recipe: {seed: 1}}
  never: {like: small, recipe: {seed: 2}}
"""


NAMES = ["penalty/small", "penalty/small-1", "penalty/small-1-seed1"]


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small networks in place of the chapter's."""
    path = tmp_path / "penalty.yaml"
    path.write_text(RECIPES)
    monkeypatch.setattr(recipes, "FILES", {"penalty": str(path)})
    for name in NAMES:
        train_zoo(name, progress=False)


def test_scores_of_a_sweep_are_joined_over_seeds(networks: None, tmp_path: Path) -> None:
    way = {"n": 30, "generators": "none", "output": "logits", "measures": {"accuracy": {"images": 60}, "moved": {}}}
    sets = {"noise": {"dataset": "corrupt:digits/gaussian_noise/5"}, "clean": {"dataset": "digits"}}
    spec = {"models": NAMES[::-1], "defaults": way, "measurements": sets}
    sweep.run(sweep.parse(spec), tmp_path / "t.parquet", sweep.executor(0), progress=False)
    table = results.load(tmp_path / "t.parquet")
    frame = equivariance.scores(table)
    assert frame["name"].tolist() == [name for name in NAMES for _ in range(2)]
    assert frame["set"].tolist() == ["clean", "noise"] * 3
    assert frame["penalty"].tolist() == [0.0] * 2 + [1.0] * 4
    model, data = models.load("penalty/small"), datasets.load("digits", n=60)
    with torch.no_grad():
        correct = (model(data.images).argmax(1) == data.labels).double().mean().item()
        share = EquivariancePenalty(("translation_x", "translation_y", "rotation"), "exact")(model, data.images[:30])
    assert (frame["accuracy"][0], frame["images"][0]) == (pytest.approx(correct), 60)
    assert frame["moved"][0] == pytest.approx(share.item(), rel=1e-4)
    assert (frame["other"] > 0).all()
    assert frame["accuracy_half"][0] == pytest.approx(1.96 * (correct * (1 - correct) / 60) ** 0.5, rel=1e-3)
    se = table.select(model="penalty/small", measurement="clean").figures("moved")["moved_se"][0]
    assert frame["moved_half"][0] == pytest.approx(1.96 * se, rel=1e-3)
    joined = equivariance.summary(frame)
    assert joined["row"].tolist() == ["small", "small", "small-1", "small-1"]
    assert joined["seeds"].tolist() == [1, 1, 2, 2]
    assert joined["moved"][2] == pytest.approx(frame.loc[[2, 4], "moved"].mean())
    assert joined["accuracy_sd"].isna().tolist() == [True, True, False, False]
    with pytest.raises(InputError, match="no Gram matrix"):
        table.gram("penalty/small", measurement="clean")
    with pytest.raises(InputError, match="Did you mean 'accuracy'"):
        table.figures("acuracy")


def test_a_share_is_the_same_in_chunks_and_its_error_is_that_of_resampled_images() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5)).eval()
    x = datasets.load("digits", n=80).images
    whole = moved_share(model, x, ["rotation", "scale"], chunk=80)
    for chunk in (7, 79, 1):  # the last image alone, or each of them
        some = moved_share(model, x, ["rotation", "scale"], chunk=chunk)
        assert (some.value, some.n) == (pytest.approx(whole.value), whole.n)
    penalty = EquivariancePenalty(["rotation", "scale"], "exact")
    with torch.no_grad():
        scores, moved = penalty.terms(model, x)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(400):
        chosen = torch.from_numpy(rng.integers(0, 80, 80))
        z = scores[chosen]
        values.append(float(moved[chosen].square().sum() / (z - z.mean(0)).square().sum()))
    assert whole.stderr == pytest.approx(np.std(values), rel=0.25)


def simulated() -> Results:
    """Two networks and one of a second seed, on two sets; the penalised one has half the error."""
    rng = np.random.default_rng(0)
    errors = {"resnet": 2.0, "resnet-1": 1.0, "resnet-seed1": 2.0, "vit-1": 1.0}
    parts = [
        made_part(f"penalty/{name}", lee, 0.3, measurement=place, rng=rng)
        for place in ("clean", "noise")
        for name, lee in errors.items()
    ]
    return Results(tuple(parts))


def test_errors_of_a_sweep_are_per_pixel_and_summed_over_generators() -> None:
    found = dict(equivariance._by_set(simulated(), ("translation_x", "translation_y", "rotation")))
    assert list(found) == ["clean", "noise"]
    # A pixel is 1/16 half side; a turn moves the pixels of a square by the root of 2/3 of an angle, root mean square.
    assert found["clean"]["penalty/resnet"].mean() == pytest.approx(2.0 / 256 * (1 + 1 + 3 / 2), rel=0.15)


def test_gaps_pair_networks_of_one_seed_image_by_image() -> None:
    table, motions = simulated(), ("translation_x", "rotation")
    found = equivariance.gaps(table, "resnet-1", "resnet", motions)
    assert found["set"].tolist() == ["clean", "noise"]
    assert found["seed"].tolist() == [0, 0]
    for place, values in equivariance._by_set(table, motions):
        means, change = values.mean(), found.set_index("set")["change"][place]
        assert change == pytest.approx(means["penalty/resnet-1"] / means["penalty/resnet"] - 1, rel=1e-4)
    assert ((found["low"] < -0.5) & (found["high"] > -0.5)).any()
    assert (found["high"] < -0.3).all()
    assert (found["low"] > -1).all()
    assert equivariance.gaps(table, "vit-1", "vit", ("rotation",)).empty
    assert equivariance.gaps(table, "vit-1", "vit", ("rotation",), by_seed=False).empty


def test_gaps_of_joined_seeds_lie_between_those_of_each() -> None:
    rng, sizes = np.random.default_rng(1), {"vit": 2.0, "vit-1": 1.0, "vit-seed1": 2.0, "vit-1-seed1": 0.5}
    table = Results(tuple(made_part(f"penalty/{name}", lee, 0.3, rng=rng) for name, lee in sizes.items()))
    each = equivariance.gaps(table, "vit-1", "vit", ("rotation",))
    joined = equivariance.gaps(table, "vit-1", "vit", ("rotation",), by_seed=False)
    assert each["seed"].tolist() == [0, 1]
    assert joined["seed"].tolist() == [-1]
    assert joined["change"][0] == pytest.approx(((1 + each["change"]).prod()) ** 0.5 - 1, rel=1e-6)


def test_rows_have_names_for_people_and_an_order() -> None:
    rows = equivariance.ordered(["vit-10", "resnet-filtered", "vit", "resnet-0.1", "resnet", "vit-0.1", "resnet"])
    assert rows == ["resnet", "resnet-0.1", "resnet-filtered", "vit", "vit-0.1", "vit-10"]
    assert [equivariance.base_of(row) for row in rows] == ["resnet"] * 3 + ["vit"] * 3
    assert equivariance.label("resnet") == "ResNet, as it is"
    assert equivariance.label("vit-10") == "ViT, penalty 10"


def test_costs_are_told_beside_the_plain_network_and_seeds_are_counted() -> None:
    steps = pd.Series({"resnet-1": 0.3, "resnet": 0.1, "vit-1": 0.2})
    cards = pd.DataFrame(
        {"row": ["resnet-1", "resnet-1", "resnet", "vit-1"], "parameters": [5, 5, 5, 7], "epochs": 2, "seed": [0, 1, 0, 0],
         "images": 50_000}
    )  # fmt: skip
    told = equivariance.costs(steps, cards)
    assert told.index.tolist() == ["resnet", "resnet-1", "vit-1"]
    assert told["seeds"].tolist() == [1, 2, 1]
    assert told["ms per step"].tolist() == pytest.approx([100, 300, 200])
    assert told["times as long"].tolist() == pytest.approx([1, 3, float("nan")], nan_ok=True)
    assert told["seconds per epoch"].tolist() == pytest.approx([39.0, 117.0, 78.0])
