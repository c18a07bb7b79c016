"""Models side by side: what is read from tables and cards, and correlations over recipes, against known truths."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from made_tables import made_part, made_table

from lee.errors import InputError
from lee.models import card
from lee.models.recipes import load_specs
from lee.statistics import holm
from lee.studies.overview import correlations, facts, measure, overview
from lee.sweep.results import Results

MODELS = {"zoo/vit-s": (2.0, 0.2), "zoo/mixer-s": (3.0, 0.3), "zoo/resnet-s": (1.0, 0.1)}
SEEDED = next(name for name in load_specs() if name.endswith("-seed1"))
GENERATORS = {"translation": "translation_x", "rotation": "rotation"}


def test_facts_are_those_of_cards_and_recipes() -> None:
    found = facts(["zoo/vit-s", SEEDED, "test_vit", "torch.nn:Identity"]).set_index("model")
    assert found.loc["zoo/vit-s", "parameters"] == card("zoo/vit-s")["parameters"]
    assert found["family"].tolist() == [
        "vit",
        load_specs()[SEEDED].family,
        "vision_transformer",
        "torch.nn:Identity",
    ]
    epochs = card("zoo/vit-s")["recipe"]["epochs"]
    assert found.loc["zoo/vit-s", "training"] == f"{epochs} epochs, augmentation flip-crop, seed 0"
    assert found.loc[SEEDED, "training"].endswith("seed 1")
    assert found.loc["test_vit", "training"] == "unknown"
    assert found["short"].tolist() == ["vit-s", SEEDED[4:], "test_vit", "torch.nn:Identity"]


def test_a_table_may_be_older_than_the_zoo() -> None:
    with pytest.raises(InputError, match=r"no network 'zoo/vit-ss'\. Did you mean 'zoo/vit-s'"):
        facts(["zoo/vit-ss"])


def test_seeds_share_a_recipe() -> None:
    first = SEEDED.removesuffix("-seed1")
    assert facts([first, SEEDED, "zoo/mixer-t-5"])["recipe"].tolist() == [first[4:], first[4:], "mixer-t-5"]


def test_the_shares_of_images_are_told() -> None:
    found = facts(["zoo/mixer-t-5", "zoo/vit-t-mae", "test_vit"])
    assert found["share"].tolist()[:2] == [0.05, 1]
    assert math.isnan(found["share"][2])
    training = found["training"].tolist()
    assert ", 5% of the images, " in training[0]
    assert "epochs of masked autoencoding" in training[1]


def test_an_overview_joins_errors_and_facts() -> None:
    table = Results((
        *made_table(MODELS).parts,
        *made_table(MODELS, measurement="kernels", kernel="central", n=50).parts,
        made_part("zoo/vit-s", 9.0, 0.9, split="train"),
        made_part("zoo/vit-s", 9.0, 0.9, weights="initial"),
        made_part("zoo/vit-s", 9.0, 0.9, measurement="logits", output="logits"),
    ))  # fmt: skip
    found = overview(table, GENERATORS)
    assert len(found) == 3 * 2 * 2
    row = found[
        (found["short"] == "mixer-s") & (found["generator"] == "rotation") & (found["kernel"] == "fourier")
    ].iloc[0]
    estimate = table.gram("zoo/mixer-s", measurement="main", split="test").lee("rotation")
    assert (row["lee"], row["stderr"], row["n"]) == (estimate.value, estimate.stderr, 200)
    assert row["test_error"] == pytest.approx(0.3)
    assert row["test_error_stderr"] == pytest.approx(math.sqrt(0.3 * 0.7 / 199))
    assert set(found["n"]) == {50, 200}
    assert len(overview(table, GENERATORS, measurements=["main"])) == 3 * 2


def test_an_overview_without_classes_or_measurement() -> None:
    unlabelled = made_table({name: (lee, None) for name, (lee, _) in MODELS.items()})
    assert overview(unlabelled, GENERATORS)["test_error"].isna().all()
    with pytest.raises(InputError, match="no measurement 'other'"):
        overview(unlabelled, GENERATORS, measurements=["other"])


def simulated(rng: np.random.Generator, slope: float, recipes: int = 25) -> pd.DataFrame:
    rows = []
    for r in range(recipes):
        error, size = rng.uniform(0.1, 0.5), rng.integers(1, 9)
        for generator in ("translation", "rotation"):
            lee = math.exp(slope * error + 0.1 * rng.standard_normal())
            rows += [{"model": f"{r}.{k}", "cluster": str(r), "family": "ab"[r % 2], "size": size, "test_error": error,
                      "generator": generator, "lee": lee * (1 + 1e-3 * k)} for k in (0, 1)]  # fmt: skip
    return pd.DataFrame(rows)


def test_correlations_for_every_generator_and_choice() -> None:
    frame = simulated(np.random.default_rng(0), slope=3.0)
    found = correlations(frame, {"nothing": [], "family and size": ["family", "size"]}, resamples=300)
    assert found[["given", "generator"]].to_numpy().tolist() == [
        ["nothing", "translation"], ["nothing", "rotation"],
        ["family and size", "translation"], ["family and size", "rotation"],
    ]  # fmt: skip
    plain = found.iloc[0]
    part = frame[frame["generator"] == "translation"]
    assert plain["rho"] == pytest.approx(scipy.stats.spearmanr(part["lee"], part["test_error"]).statistic)
    assert plain["n"] == 50
    t = plain["rho"] * math.sqrt(23 / (1 - plain["rho"] ** 2))  # 25 recipes, not 50 models
    assert plain["p"] == pytest.approx(2 * scipy.stats.t.sf(t, 23))
    assert found["p_holm"].iloc[:2].tolist() == pytest.approx(holm(found["p"].iloc[:2]).tolist())
    assert (found["low"] < found["rho"]).all()
    assert (found["rho"] < found["high"]).all()


def test_unrelated_errors_are_seldom_related() -> None:
    rng, runs, alarms = np.random.default_rng(0), 150, 0
    for _ in range(runs):
        found = correlations(simulated(rng, slope=0.0, recipes=12), {"nothing": []}, resamples=100)
        alarms += bool((found["p_holm"] < 0.05).any())
    assert alarms <= scipy.stats.binom.ppf(0.9999, runs, 0.05)


def test_correlations_need_one_row_per_model() -> None:
    frame = simulated(np.random.default_rng(0), slope=1.0)
    with pytest.raises(InputError, match="Select one kernel"):
        correlations(pd.concat([frame, frame]), {"nothing": []})
    with pytest.raises(InputError, match="finite numbers"):
        correlations(frame.assign(test_error=math.nan), {"nothing": []})


def test_few_models_have_no_correlation() -> None:
    frame = simulated(np.random.default_rng(0), slope=1.0, recipes=3)
    found = correlations(frame, {"family and size": ["family", "size"]}, resamples=100)
    assert found[["rho", "p", "p_holm", "low"]].isna().all(axis=None)


def test_what_a_table_lacks_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "{models: [zoo/resnet-s], measurements: {main: {dataset: patches, n: 2, generators: [rotation]}}}"
    (tmp_path / "small.yaml").write_text(spec)
    monkeypatch.setattr("lee.sweep.results.folder", lambda: tmp_path)
    first = measure("small", tmp_path / "out")
    again = measure("small", tmp_path / "out")
    assert first.models == again.models == ("zoo/resnet-s",)
    assert again.gram("zoo/resnet-s").lee("rotation") == first.gram("zoo/resnet-s").lee("rotation")
    assert again.tasks["seconds"].tolist() == first.tasks["seconds"].tolist()


def test_chapters_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process measures, another waits; it doesn't fail."""
    inside = []

    def run(*_: object, **__: object) -> None:
        inside.append(1)
        time.sleep(0.2)
        assert len(inside) == 1
        inside.pop()

    monkeypatch.setattr("lee.sweep.load", lambda _: None)
    monkeypatch.setattr("lee.sweep.run", run)
    monkeypatch.setattr("lee.sweep.results.load", lambda path: path)
    with ThreadPoolExecutor(3) as pool:
        assert len(list(pool.map(lambda _: measure("small", tmp_path), range(3)))) == 3


def test_a_list_of_generators_adds_their_errors() -> None:
    table = made_table(MODELS)
    both = overview(table, {"translation": ["translation_x", "translation_y"]}, measurements=["main"]).set_index(
        "model"
    )
    per_image = table.per_image("translation_x") + table.per_image("translation_y")
    for name in MODELS:
        assert both.loc[name, "lee"] == pytest.approx(per_image[name].mean())
        assert both.loc[name, "stderr"] == pytest.approx(per_image[name].std(ddof=1) / math.sqrt(200))


def test_clusters_share_a_recipe_or_initial_weights_directly_or_through_others() -> None:
    first = SEEDED.removesuffix("-seed1")
    names = dict.fromkeys(("zoo/vit-t", "zoo/vit-t-5", first, SEEDED, "zoo/mixer-s"), (1.0, 0.1))
    digests = {"zoo/vit-t": "a", "zoo/vit-t-5": "b", first: "c", SEEDED: "b", "zoo/mixer-s": "d"}
    begun = [made_part(name, 1.0, None, weights="initial") for name in names]
    for part in begun:
        part.described["weights_sha256"] = digests[part.described["model"]]
    frame = overview(Results((*made_table(names).parts, *begun)), GENERATORS, measurements=["main"])
    cluster = frame.drop_duplicates("model").set_index("model")["cluster"]
    assert cluster["zoo/vit-t-5"] == cluster[SEEDED] == cluster[first]
    assert cluster.nunique() == 3
    alone = overview(made_table(names), GENERATORS, measurements=["main"])  # nothing is known of their beginnings
    assert alone["cluster"].nunique() == 4
