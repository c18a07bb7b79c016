"""Networks measured after single epochs of their training: whose weights those are, and the curves that are read from them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file

from lee import datasets, models, sweep
from lee.errors import InputError
from lee.models import classes, recipes
from lee.paths import package_data
from lee.studies import learning, variances
from lee.sweep import results, tasks

MODEL = "zoo/mixer-xs"
SPEC = f"""
models: [{MODEL}]
defaults: {{dataset: digits, size: 32, seed: 0, weights: [initial, epoch 2, trained]}}
measurements:
  curves: {{dataset: patches, n: 5, generators: [translation_x, translation_y, rotation], output: [probabilities, features]}}
  accuracy: {{dataset: "rgb:digits", output: logits, generators: none, measures: {{accuracy: {{images: 40}}}}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the zoo in a folder of its own, whose weights after the second epoch are the initial ones."""
    folder = tmp_path_factory.mktemp("learning")
    for name in ("zoo.yaml", "mixer-xs.md", "mixer-xs.safetensors"):
        shutil.copy(package_data() / "zoo" / name, folder)
    snapshot = folder / "mixer-xs.snapshots/2.safetensors"
    snapshot.parent.mkdir()
    save_file(models.load(MODEL, trained=False).net.state_dict(), snapshot)
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder, as the one of the zoo, with names for the outputs that are those of the digits."""
    monkeypatch.setattr(recipes, "FILES", {"zoo": str(place / "zoo.yaml")})
    monkeypatch.setitem(classes.TRAINED_ON, "cifar10", datasets.load("digits", n=1).class_names)
    tasks.forget()
    yield place
    tasks.forget()


@pytest.fixture
def swept(here: Path) -> results.Results:
    """What a sweep found there; it measures once."""
    found = _swept(here, SPEC)
    assert found.errors.empty
    return found


def _swept(folder: Path, text: str, name: str = "some") -> results.Results:
    (folder / f"{name}.yaml").write_text(text)
    sweep.run(sweep.load(folder / f"{name}.yaml"), folder / f"{name}.parquet", sweep.executor(0), progress=False)
    return results.load(folder / f"{name}.parquet")


def test_curves_begin_before_training_and_end_with_the_trained_network(swept: results.Results, tmp_path: Path) -> None:
    known = variances.measure(swept.select(measurement="curves", output="features"), tmp_path / "some.variances.csv")
    curves = learning.curves(swept, known)
    last = recipes.load_spec(MODEL).recipe.epochs
    assert curves.groupby(["output", "motion"])["epoch"].apply(list).tolist() == [[0, 2, last]] * 4
    assert set(curves["split"]) == {"test"}
    assert (curves["n"] == 5).all()
    assert (curves["low"] <= curves["lee"]).all()
    assert (curves["lee"] <= curves["high"]).all()
    wide = curves.pivot(index="epoch", columns=["output", "motion"], values="lee")
    assert wide.loc[2].tolist() == wide.loc[0].tolist()
    gram = swept.gram(weights="trained", output="probabilities", measurement="curves")
    both = gram.lee("translation_x").value + gram.lee("translation_y").value
    assert wide.loc[last, ("probabilities", "translation")] == pytest.approx(both, rel=1e-6)
    variance = known.set_index("weights").loc["trained", "variance"]
    features = swept.gram(weights="trained", output="features", measurement="curves")
    assert wide.loc[last, ("features", "rotation")] == pytest.approx(
        features.lee("rotation").value / variance, rel=1e-4
    )


def test_accuracies_are_told_by_epoch(swept: results.Results) -> None:
    found = learning.accuracies(swept).set_index("epoch")
    assert (found["images"] == 40).all()
    assert found.loc[0, "accuracy"] == found.loc[2, "accuracy"]
    assert found.loc[0, ["family", "augmentation"]].tolist() == ["mixer", recipes.load_spec(MODEL).recipe.augmentation]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights: [initial, epoch 2, trained]": "weights: epoch 3"}, r"no .*3\.safetensors: train zoo/mixer-xs with"),
        (
            {"weights: [initial, epoch 2, trained]": "weights: epoch 2", MODEL: "test_resnet.r160_in1k"},
            "no weights after",
        ),
    ],
)
def test_weights_that_were_not_kept_are_told(here: Path, changed: dict[str, str], message: str) -> None:
    text = SPEC
    for old, new in changed.items():
        text = text.replace(old, new)
    errors = _swept(here, text, f"other-{len(text)}").errors["error"]  # a table for each, as the folder is shared
    assert len(errors)
    assert errors.str.contains(message).all()


@pytest.mark.parametrize("weights", ["epoch 0", "epoch x", "epoch", "last"])
def test_unknown_weights_are_refused(weights: str) -> None:
    content = {"models": [MODEL], "measurements": {"m": {"dataset": "patches", "weights": weights}}}
    with pytest.raises(InputError, match="unknown weights"):
        sweep.parse(content)


def test_the_specification_of_the_book_names_epochs_that_a_training_keeps() -> None:
    spec = sweep.load(results.folder() / "learning.yaml")
    kept = {1, 2, 3, 5, 8, 13, 21, 34, 55, 89}
    asked = {learning.epochs(spec.models[0], way.weights) for way in spec.measurements}
    assert asked - {0, recipes.load_spec(spec.models[0]).recipe.epochs} <= kept


def test_a_network_that_is_not_trained_yet_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(package_data() / "zoo" / "zoo.yaml", tmp_path)
    monkeypatch.setattr(recipes, "FILES", {"zoo": str(tmp_path / "zoo.yaml")})
    assert not [name for name in models.names() if name.startswith("zoo/")]
    assert pd.Series(list(recipes.load_specs())).str.startswith("zoo/").all()
