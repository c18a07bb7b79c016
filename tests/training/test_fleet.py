"""Missing networks: which they are, that they train side by side, and that a kill changes nothing."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lee import datasets, models
from lee.errors import InputError
from lee.models.cards import read_card
from lee.models.recipes import load_specs
from lee.paths import file_sha256
from lee.process.alone import devices
from lee.training import train
from lee.training.fleet import missing, train_missing
from lee.training.zoo import publish, train_zoo

FILE: dict[str, Any] = {
    "families": {"cnn": "CNN"},
    "defaults": {
        "input_size": [1, 8, 8],
        "mean": [0.5],
        "std": [0.5],
        "recipe": {"dataset": "digits", "epochs": 2, "batch_size": 64, "lr": 0.02},
        "budgets": {"full": {"epochs": 3}},
    },
    "models": {
        "one": {
            "family": "cnn",
            "factory": "lee.models.architectures:resnet",
            "arguments": {"channels": [4, 4, 4, 4], "in_chans": 1},
        },
        "two": {"like": "one", "recipe": {"seed": 1}},
        "long": {"like": "one", "recipe": {"epochs": 8}},
        "wrong": {"like": "one", "recipe": {"dataset": "nonesuch"}},
    },
}


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    file = tmp_path / "zoo.yaml"
    file.write_text(yaml.safe_dump(FILE, sort_keys=False))
    return file


def test_a_training_that_could_not_be_stored_does_not_begin(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lee.training.zoo.train", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(InputError, match=r"The checkpoint .*below/one.checkpoint.pt can't be written: Not a directory"):
        train_zoo("one", recipes=recipes, out=recipes / "below", progress=False)


def test_no_network_is_missing() -> None:
    """Each model's weights are those of its card, and the card's recipe is the one in the file."""
    assert set(missing()).isdisjoint(models.names())
    assert [name for name in missing() if not name.startswith("fitted/")] == []  # these take hours each


def test_missing_names_models_without_weights_with_other_recipes_or_with_damage(recipes: Path) -> None:
    assert missing(recipes=recipes) == ["one", "two", "long", "wrong"]
    assert missing("t*", recipes=recipes) == ["two"]
    train_zoo("one", recipes=recipes, progress=False)
    assert missing("[ot]*", recipes=recipes) == ["two"]
    assert missing("one", recipes=recipes, budget="full") == ["one"]
    changed = yaml.safe_load(recipes.read_text())
    changed["models"]["one"]["title"] = "Another title"
    recipes.write_text(yaml.safe_dump(changed, sort_keys=False))
    assert missing("one", recipes=recipes) == []
    changed["models"]["one"]["arguments"]["channels"] = [8, 4, 4, 4]
    recipes.write_text(yaml.safe_dump(changed, sort_keys=False))
    assert missing("one", recipes=recipes) == ["one"]
    recipes.write_text(yaml.safe_dump(FILE, sort_keys=False))
    weights = recipes.parent / "one.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert missing("one", recipes=recipes) == ["one"]
    with pytest.raises(InputError, match=r"No network fits 'tow'. Did you mean 'two'"):
        missing("tow", recipes=recipes)


def test_a_failing_training_stops_no_other_and_its_error_is_told(recipes: Path) -> None:
    lines: list[str] = []
    outcomes = {
        outcome.name: outcome.error
        for outcome in train_missing(
            ["wrong", "one", "two"], recipes=recipes, devices=["cpu", "cpu"], on_line=lines.append
        )
    }
    assert outcomes["one"] == outcomes["two"] == ""
    assert "There is no data set 'nonesuch'" in outcomes["wrong"]
    assert any(line.startswith("one: supervised epoch 2/2, loss") for line in lines)
    assert missing(recipes=recipes) == ["long", "wrong"]
    digests = {name: file_sha256(recipes.parent / f"{name}.safetensors") for name in ("one", "two")}
    assert digests["one"] != digests["two"]
    # Trained again elsewhere, in this process: the same bytes.
    train_zoo("one", recipes=recipes, out=recipes.parent / "again", progress=False)
    assert file_sha256(recipes.parent / "again" / "one.safetensors") == digests["one"]


def test_an_interruption_stops_what_runs_and_starts_nothing_more(recipes: Path) -> None:
    lines: list[str] = []
    outcomes = train_missing(["wrong", "long", "one"], recipes=recipes, on_line=lines.append)
    assert next(outcomes).name == "wrong"
    outcomes.close()  # type: ignore[attr-defined]  # as Ctrl-C does
    assert not any(line.startswith(("one:", "long: supervised epoch 8")) for line in lines)
    assert missing(recipes=recipes) == ["one", "two", "long", "wrong"]


def test_a_training_killed_on_the_way_ends_with_the_same_weights(recipes: Path) -> None:
    train_zoo("long", recipes=recipes, out=recipes.parent / "whole", progress=False)
    command = [sys.executable, "-m", "lee", "train", "long", "--recipes", str(recipes)]
    checkpoint = recipes.parent / "long.checkpoint.pt"
    process = subprocess.Popen([*command, "--quiet"], stdout=subprocess.PIPE)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    assert process.poll() is None, "the training was over before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (outcome,) = train_missing(["long"], recipes=recipes)
    assert outcome.error == ""
    assert not checkpoint.exists()
    found, wanted = (file_sha256(folder / "long.safetensors") for folder in (recipes.parent, recipes.parent / "whole"))
    assert found == wanted


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices("cpu", 3) == ["cpu"] * 3
    assert set(devices("cpu")) == {"cpu"}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices("cuda") == ["cuda:0", "cuda:1"]
    assert devices("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices("cuda:1") == ["cuda:1"]
    with pytest.raises(InputError, match="`workers` must be a whole number from 1, not 0"):
        devices("cpu", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "cn"}, "unknown family 'cn'. Did you mean 'cnn'"),
        ({"like": "noe"}, "no model 'noe' to be like. Did you mean 'one'"),
        ({"like": "two"}, "leads in a circle"),
    ],
)
def test_families_and_likes_are_checked(recipes: Path, change: dict[str, str], message: str) -> None:
    content = yaml.safe_load(recipes.read_text())
    content["models"]["two" if "like" in change else "one"].update(change)
    recipes.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message):
        missing(recipes=recipes)


@pytest.mark.parametrize("name", ["other/one", "..", "", "x y", "a\nb", "a/", ".hidden"])
def test_names_are_those_of_files_of_their_own(recipes: Path, name: str) -> None:
    content = yaml.safe_load(recipes.read_text())
    content["models"][name] = {"like": "one"}
    recipes.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="and no other model's"):
        missing(recipes=recipes)


def test_an_unknown_budget_is_refused(recipes: Path) -> None:
    with pytest.raises(InputError, match=r"there is no budget 'ful'. Did you mean 'full'"):
        missing(recipes=recipes, budget="ful")


def test_the_smallest_zoo_model_trains_twice_to_identical_weights(tmp_path: Path) -> None:
    """By its own recipe in all but length: one epoch of 1280 images."""
    if not os.environ.get("LEE_DATA"):
        pytest.skip("LEE_DATA is not set")
    spec = min(load_specs().values(), key=lambda spec: read_card(spec)["parameters"] if "zoo/" in spec.name else 1e9)
    spec = replace(spec, recipe=replace(spec.recipe, epochs=1, warmup_epochs=0.5, fraction=1.0))
    train_set, test_set = datasets.load("cifar10", n=1280, split="train"), datasets.load("cifar10", n=200)
    digests = set()
    for sitting in ("first", "second"):
        torch.rand(3)  # the global random state is not the recipe's
        result = train(spec, train_set, test_set, progress=False)
        publish(spec, result, test_set, tmp_path / sitting)
        digests.add(file_sha256(tmp_path / sitting / f"{spec.stem}.safetensors"))
    assert len(digests) == 1
