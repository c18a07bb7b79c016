"""Specifications of sweeps: lists, families, and what is refused by name."""

import math
from pathlib import Path
from typing import Any

import pytest
from sweeps import SPEC

from lee import models, sweep
from lee.errors import InputError
from lee.sweep import results


def test_lists_are_products_and_defaults_are_shared() -> None:
    spec = sweep.parse(
        {
            "models": ["zoo/*-s", "zoo/vit-s"],
            "defaults": {"dataset": "cifar10", "seed": 3},
            "measurements": {
                "x": {"weights": ["trained", "initial"], "kernel": ["fourier", "central"], "split": "train"},
                "y": [{"n": 5}, {"kernel": "authors", "align_corners": True, "seed": 4}],
            },
        }
    )
    assert spec.models == ("zoo/resnet-s", "zoo/vit-s", "zoo/mixer-s")
    assert len(spec.measurements) == 6
    assert [m.seed for m in spec.measurements] == [3, 3, 3, 3, 3, 4]
    assert {(m.weights, m.kernel) for m in spec.measurements[:4]} == {
        (w, k) for w in ("trained", "initial") for k in ("fourier", "central")
    }


def test_a_list_of_data_sets_is_as_many_measurements() -> None:
    listed, single = (
        sweep.parse({"models": ["zoo/vit-s"], "measurements": {"x": given}}).measurements
        for given in (
            {"dataset": ["patches", "digits"], "n": 3, "output": ["logits", "probabilities"]},
            [
                {"dataset": name, "n": 3, "output": o}
                for name in ("patches", "digits")
                for o in ("logits", "probabilities")
            ],
        )
    )
    assert listed == single


def test_families_choose_among_models() -> None:
    spec = sweep.parse({**SPEC, "models": ["zoo/*-s", "resnet18"], "families": ["resnet"]})
    assert spec.models == ("zoo/resnet-s", "resnet18")
    assert (sweep.family_of("zoo/mixer-s"), sweep.family_of("vit_tiny_patch16_224")) == ("mixer", "vision_transformer")


WRONG = [
    ({"model": ["zoo/*"]}, r"unknown field 'model'\. Did you mean 'models'"),
    ({"models": []}, "`models:` is missing or empty"),
    ({"measurements": {}}, "`measurements:` is missing"),
    ({"measurements": [{"dataset": "patches"}]}, "`measurements` must be a mapping"),
    ({"models": ["zoo/vit-q"]}, r"no model 'zoo/vit-q'\. Did you mean 'zoo/vit-"),
    ({"models": ["zoo/wit*"]}, r"no trained network matches 'zoo/wit\*'\. Did you mean"),
    ({"models": ["resnet81"]}, r"no model 'resnet81'\. Did you mean 'resnet"),
    ({"families": ["resnets"]}, r"family 'resnets'\. Did you mean 'resnet'"),
]
WRONG_FIELDS = [
    ({"dataset": None}, "`dataset` must be a text, not None"),
    ("patches", "measurements: `x` must be a mapping, not 'patches'"),
    ({"kernal": "central"}, r"x: unknown field 'kernal'\. Did you mean 'kernel'"),
    ({"kernel": "forier"}, r"unknown kernel 'forier'\. Did you mean 'fourier'"),
    ({"output": ["logit"]}, r"unknown output 'logit'\. Did you mean 'logits'"),
    ({"weights": "random"}, "unknown weights 'random'"),
    ({"split": "valid"}, "unknown split 'valid'"),
    ({"generators": ["rotate"]}, r"unknown generator 'rotate'\. Did you mean"),
    ({"measures": ["eq_x"]}, r"unknown field 'eq_x'\. Did you mean 'eq_"),
    ({"measures": {"eq_t": {"draw": 1}}}, r"eq_t: unknown field 'draw'\. Did you mean 'draws'"),
    ({"n": 0}, "`n` must be a number from 1, not 0"),
    ({"seed": -1}, "`seed` must be a number from 0, not -1"),
    ({"measures": ["distance"]}, "a distance from which images"),
    ({"kernel": "authors"}, "needs `align_corners: true`"),
    ({"align_corners": True, "measures": ["eq_t"]}, "a measurement of their own"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_specification_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep.parse({"models": ["zoo/*"], "measurements": {"x": {"dataset": "patches"}}, **change})


@pytest.mark.parametrize(("change", "message"), WRONG_FIELDS)
def test_a_wrong_measurement_is_refused_by_name(change: Any, message: str) -> None:
    entry = {"dataset": "patches", **change} if isinstance(change, dict) else change
    with pytest.raises(InputError, match=message):
        sweep.parse({"models": ["zoo/*"], "measurements": {"x": entry}})


def test_a_measurement_without_images_and_a_list_are_refused() -> None:
    with pytest.raises(InputError, match="Give `dataset:`, one of"):
        sweep.parse({"models": ["zoo/*"], "measurements": {"x": {"n": 3}}})
    with pytest.raises(InputError, match="expected a mapping with models, families"):
        sweep.parse(["zoo/*"])


def test_files_that_cant_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: No such file"):
        sweep.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("models: [")
    with pytest.raises(InputError, match="is not valid YAML"):
        sweep.load(tmp_path / "bad.yaml")


def test_the_zoos_own_sweep_measures_the_whole_zoo_within_its_budget() -> None:
    specs = [sweep.load(path) for path in results.folder().glob("zoo*.yaml")]
    assert all(spec.models == tuple(name for name in models.names() if name.startswith("zoo/")) for spec in specs)
    ways = [way for spec in specs for way in spec.measurements]
    found = {(m.name, m.weights, m.split, m.output, m.kernel): m for m in ways}
    assert len(found) == len(ways)
    for split in ("train", "test"):
        main = found["main", "trained", split, "probabilities", "fourier"]
        assert (main.n, set(main.measures)) == (1000, {"consistency", "eq_t", "eq_t_frac", "eq_r"})
        assert main.passes <= 28
    assert {m.kernel for m in ways} == {"fourier", "central", "authors"}
    assert math.isclose(sum(m.n or 0 for m in ways), 5500)
