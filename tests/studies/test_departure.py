"""Sets of images compared: ratios are those of plain means, pairs are pairs, and what isn't there is named."""

import numpy as np
import pytest

import lee
from lee import datasets, models, sweep
from lee.errors import InputError
from lee.metrics.distances import Features, features, frechet_distance
from lee.metrics.yardsticks import yardsticks
from lee.studies.departure import NAMES, Departures
from lee.sweep import results

pytestmark = pytest.mark.xdist_group("departure frame")  # its fixtures are made once

SPEC = {
    "models": ["zoo/resnet-s", "zoo/vit-s"],
    "defaults": {"n": 10,
                 "generators": ["translation_x", "translation_y", "rotation"], "output": ["probabilities", "logits", "features"],
                 "measures": {"yardsticks": {"images": 10}, "distance": {"images": 10, "dataset": "patches", "split": "test"},
                              "deviation": {}}},
    "measurements": {
        "home": {"dataset": "patches", "n": 14},
        "pale": {"dataset": "corrupt:patches/contrast/4"},
        "stones": {"dataset": "textures"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Departures:
    spec, out = sweep.parse(SPEC), tmp_path_factory.mktemp("departure") / "table.parquet"
    sweep.run(spec, out, sweep.executor(0), progress=False)
    return Departures(results.load(out), reference="zoo/vit-s")


def _lee(model: str, name: str, n: int, output: str) -> float:
    x = datasets.load(name, n=n).images
    gram = lee.equivariance_gram(
        models.load(model), x, generators=["translation_x", "translation_y"], output=output, progress=False
    )
    return gram.lee("translation_x").value + gram.lee("translation_y").value


@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_a_ratio_is_one_of_local_equivariance_errors(both: Departures, output: str) -> None:
    logs = [np.log(_lee(m, "textures", 10, output) / _lee(m, "patches", 14, output)) for m in SPEC["models"]]
    found = both.ratio("stones", "home", output)
    assert found.value == pytest.approx(np.exp(np.mean(logs)), rel=5e-3)  # tables keep 11 bits
    assert (found.models, found.n) == (2, 10)


def test_flatness_is_probabilities_over_scores(both: Departures) -> None:
    parts = [both.ratio("stones", "home", key).value for key in ("probabilities", "logits", "flatness")]
    assert parts[2] == pytest.approx(parts[0] / parts[1])


@pytest.mark.parametrize("key", ["speed", "foreign"])
def test_yardsticks_divide_means_by_means(both: Departures, key: str) -> None:
    model = models.load("zoo/vit-s")
    tables = [yardsticks(model, datasets.load(name, n=10).images) for name in ("textures", "patches")]
    stones, home = (float(t["own"].mean() / t[key].mean()) for t in tables)
    assert both.ratio("stones", "home", key, models=["zoo/vit-s"]).value == pytest.approx(stones / home, rel=1e-4)
    if key == "foreign":
        assert both.share("stones")["zoo/vit-s"] == pytest.approx(stones, rel=1e-4)


def test_size_divides_by_the_scores_mean_square(both: Departures) -> None:
    parts = []
    for name, n in (("textures", 10), ("patches", 14)):
        x = datasets.load(name, n=n).images
        size = float(models.load("zoo/resnet-s")(x).detach().double().square().mean())
        parts.append(_lee("zoo/resnet-s", name, n, "logits") / size)
    found = both.ratio("stones", "home", "size", models=["zoo/resnet-s"]).value
    assert found == pytest.approx(parts[0] / parts[1], rel=5e-3)


def test_versions_of_the_same_images_are_paired(both: Departures) -> None:
    apart, paired = (both.ratio("pale", "home", "logits", same_images=same) for same in (False, True))
    logs = [
        np.log(_lee(m, "corrupt:patches/contrast/4", 10, "logits") / _lee(m, "patches", 10, "logits"))
        for m in both.models
    ]
    assert paired.value == pytest.approx(np.exp(np.mean(logs)), rel=5e-3)
    assert apart.value != pytest.approx(paired.value, rel=1e-3)
    assert paired.n == 10


def test_features_are_divided_by_their_variance_over_the_set(both: Departures) -> None:
    parts = []
    for name, n in (("textures", 10), ("patches", 14)):
        x = datasets.load(name, n=n).images
        subject = Features(models.load("zoo/vit-s"))
        gram = lee.equivariance_gram(
            subject, x, generators=["translation_x", "translation_y"], output="logits", progress=False
        )
        error = gram.lee("translation_x").value + gram.lee("translation_y").value
        parts.append(error / float(subject(x).detach().double().var(0).mean()))
    found = both.ratio("stones", "home", "features", models=["zoo/vit-s"]).value
    assert found == pytest.approx(parts[0] / parts[1], rel=5e-3)


def test_a_comparison_has_a_row_per_set_and_yardstick(both: Departures) -> None:
    table = both.compare(["pale", "stones"], "home", NAMES)
    assert len(table) == 2 * len(NAMES)
    assert (table["low"] < table["ratio"]).all()
    assert (table["ratio"] < table["high"]).all()


def test_models_alone(both: Departures) -> None:
    table = both.per_model("stones", "home")
    assert table["model"].tolist() == ["resnet-s", "vit-s"]
    assert table["family"].tolist() == ["resnet", "vit"]
    assert np.exp(np.log(table["ratio"]).mean()) == pytest.approx(both.ratio("stones", "home").value)


def test_distances_are_from_other_images_in_the_features_of_the_reference(both: Departures) -> None:
    table = both.distances()
    model = models.load("zoo/vit-s")
    home, stones = datasets.load("patches", n=10, seed=1), datasets.load("textures", n=10)
    expected = frechet_distance(features(model, stones.images), features(model, home.images))
    assert table.loc["stones"].tolist() == pytest.approx([expected.value, expected.limit])
    assert list(table.index) == list(both.sets) == ["home", "pale", "stones"]
    assert table.loc["stones", "limit"] > table.loc["home", "limit"]


def test_other_generators_have_errors_of_their_own(both: Departures) -> None:
    turned = Departures(both.sweep, ["rotation"])
    gram = lambda name, n: lee.equivariance_gram(  # noqa: E731
        models.load("zoo/vit-s"), datasets.load(name, n=n).images, generators=["rotation"], progress=False
    )
    expected = gram("textures", 10).lee("rotation").value / gram("patches", 14).lee("rotation").value
    assert turned.ratio("stones", "home", models=["zoo/vit-s"]).value == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "stone", "base": "home"}, "Did you mean 'stones'"),
        ({"name": "stones", "base": "home", "yardstick": "sped"}, "Did you mean 'speed'"),
        ({"name": "stones", "base": "home", "models": ["zoo/vit"]}, "Did you mean 'zoo/vit-s'"),
    ],
)
def test_what_is_not_there_is_named(both: Departures, arguments: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=message):
        both.ratio(**arguments)


def test_the_speed_of_a_set_is_that_of_its_images(both: Departures) -> None:
    expected = yardsticks(models.load("zoo/vit-s"), datasets.load("textures", n=10).images)["speed"].mean()
    assert both.speed("stones") == pytest.approx(expected, rel=5e-4)


def test_an_unknown_reference_is_refused(both: Departures) -> None:
    with pytest.raises(InputError, match="Did you mean 'zoo/vit-s'"):
        Departures(both.sweep, reference="zoo/vit").distances()


def test_the_specifications_of_chapter_8_are_valid() -> None:
    fitted = sweep.load(results.folder() / "fitted.yaml")
    sets = {way.name: way.n for way in fitted.measurements}
    assert min(n for name, n in sets.items() if name != "ImageNet") >= 250
    assert {"train", "test", "lossless", "noise 5", "blur 5", "contrast 5"} <= set(sets)
    spec = sweep.load(results.folder() / "ood.yaml")
    names = [way.name for way in spec.measurements]
    assert names[:4] == ["train", "train", "test", "test"]
    assert len(spec.models) >= 10
    assert {f"{kind} {s}" for kind in ("noise", "blur", "contrast") for s in range(1, 6)} <= set(names)
    assert {way.output for way in spec.measurements if way.measures} == {"logits"}
