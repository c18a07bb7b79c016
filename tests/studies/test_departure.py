"""The table of distances and yardsticks: the numbers are those of the functions that it is made with."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lee import datasets, models, sweep
from lee.errors import InputError
from lee.studies import departure
from lee.studies.departure.measuring import NUMBERS
from lee.studies.distances import features, frechet_distance
from lee.studies.yardsticks import yardsticks
from lee.sweep.results import folder

pytestmark = pytest.mark.xdist_group("departure frame")  # its fixtures are made once

SPEC = {
    "models": ["zoo/resnet-s", "zoo/vit-s"],
    "defaults": {"n": 500, "seed": 2},
    "measurements": {
        "home": {"dataset": "patches"},
        "stones": {"dataset": "textures"},
        "ink": {"dataset": "rgb:digits"},
    },
}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return departure.measure(sweep.parse(SPEC), reference="zoo/resnet-s", n=12, progress=False)


def test_it_has_a_row_per_model_set_and_image(frame: pd.DataFrame) -> None:
    assert len(frame) == 2 * 3 * 12
    assert not frame.duplicated(["model", "measurement", "image"]).any()
    assert frame[["own", "foreign", "speed", "square"]].gt(0).all(axis=None)
    assert (frame["weights_sha256"].nunique(), frame["data_sha256"].nunique()) == (2, 3)


def test_numbers_are_those_of_yardsticks_on_the_sweeps_images(frame: pd.DataFrame) -> None:
    x = datasets.load("textures", n=12, seed=2).images
    expected = yardsticks(models.load("zoo/vit-s"), x, seed=2)
    found = frame[(frame["model"] == "zoo/vit-s") & (frame["measurement"] == "stones")].reset_index()
    assert np.allclose(found[list(expected)], expected)


def test_distances_are_from_other_images_of_the_first_set(frame: pd.DataFrame) -> None:
    model = models.load("zoo/resnet-s")
    home, stones = datasets.load("patches", n=12, seed=3), datasets.load("textures", n=12, seed=2)
    expected = frechet_distance(features(model, stones.images), features(model, home.images))
    found = frame[frame["measurement"] == "stones"]
    assert np.allclose(found["distance"], expected.value)
    assert np.allclose(found["distance_limit"], expected.limit)
    assert (frame.loc[frame["measurement"] == "home", "distance"] > 0).all()


def test_what_is_written_is_read(frame: pd.DataFrame, tmp_path: Path) -> None:
    departure.write(frame, tmp_path / "table.parquet")
    again = departure.load(tmp_path / "table.parquet")
    assert list(again) == list(frame)
    numbers = list(NUMBERS)
    assert np.allclose(again[numbers], frame[numbers], rtol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make bench BENCH=ood"):
        departure.load(tmp_path / "none.parquet")
    pd.DataFrame({"model": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="it lacks measurement, image"):
        departure.load(tmp_path / "other.parquet")


def test_the_specification_of_chapter_8_is_valid() -> None:
    spec = sweep.load(folder() / "ood.yaml")
    names = [way.name for way in spec.measurements]
    assert names[:4] == ["train", "train", "test", "test"]
    assert len(spec.models) >= 10
    assert {f"{kind} {s}" for kind in ("noise", "blur", "contrast") for s in range(1, 6)} <= set(names)
