"""Sweeps: the numbers are those of the library, and the table says where they come from."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sweeps import rows, run, spec_of, workplace

import lee
from lee import datasets, metrics, models, sweep
from lee.sweep import results, table

ROUNDED = 2**-11 + 2**-22  # what rounding to 11 bits may change, and float32 itself

here = pytest.fixture(workplace)


# what is measured


def test_rows_are_what_the_library_measures(here: Path) -> None:
    run(spec_of(), here / "t.parquet")
    model, images = models.load("mine:b"), datasets.load("patches", n=3, size=12)
    gram = lee.equivariance_gram(
        model, images.images, generators=lee.geometry.generators.AFFINE, output="logits", progress=False
    )
    mine = results.load(here / "t.parquet").select(model="mine:b")
    stored = mine.gram(measurement="main", output="logits")
    assert stored.basis == gram.basis
    torch.testing.assert_close(stored.per_image, gram.per_image, rtol=ROUNDED, atol=0)
    frame = mine.select(measurement="motions").frame
    scores = model(images.images).detach().double()
    chances = scores.exp() / scores.exp().sum(1, keepdim=True)
    np.testing.assert_allclose(frame["confidence"], chances.max(1).values, rtol=ROUNDED)
    np.testing.assert_allclose(frame["output_square"], chances.square().mean(1), rtol=ROUNDED)
    assert frame["prediction"].tolist() == scores.argmax(1).tolist()
    for measure, name in ((metrics.eq_t, "eq_t"), (metrics.eq_t_frac, "eq_t_frac"), (metrics.eq_r, "eq_r")):
        assert frame[name].mean() == pytest.approx(measure(model, images.images, draws=4).value, rel=ROUNDED)
    agreed = metrics.agreement(model, images.images, shifts=4, max_shift=4, boundary="reflect", reference="image")
    assert frame["consistency"].tolist() == agreed.tolist()


def test_a_prediction_is_right_only_among_the_data_sets_own_classes(here: Path) -> None:
    ways = {"all": {"dataset": "digits", "n": 40, "size": None, "generators": ["rotation"]}}
    (here / "digits.py").write_text(
        "from torch import nn\n"
        "def net(classes, names=None):\n"
        "    made = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
        "    made.class_names = names\n"
        "    return made\n"
        "def ten(): return net(10, '0123456789')\n"
        "def reversed(): return net(11, '-9876543210')\n"
        "def unnamed(): return net(10)\n"
        "def words(): return net(10, 'zero one two three four five six seven eight nine'.split())\n"
        "def short(): return net(11, '0123456789')\n"
    )
    names = ("ten", "reversed", "unnamed", "words", "short")
    run(sweep.parse({"models": [f"digits:{name}" for name in names], "measurements": ways}), here / "t.parquet")
    frame = results.load(here / "t.parquet").frame
    ten, turned, *others = (frame[frame["model"] == f"digits:{name}"] for name in names)
    images = datasets.load("digits", n=40)
    scores = models.load("digits:ten")(images.images).detach()
    assert ten["correct"].tolist() == (scores.argmax(1) == images.labels).tolist()
    loss = -scores.log_softmax(1)[range(40), images.labels]
    np.testing.assert_allclose(ten["loss"], loss, rtol=ROUNDED)
    assert turned["correct"].tolist() == (turned["prediction"] == 10 - turned["label"]).tolist()
    for other in others:
        assert other["correct"].isna().all()
        assert other["loss"].isna().all()
        assert other["prediction"].notna().all()


def test_ten_classes_of_other_names_are_neither_right_nor_wrong(here: Path) -> None:
    """The zoo's models tell CIFAR-10's classes; digits are ten as well."""
    ways = {"d": {"dataset": "rgb:digits", "n": 3, "generators": ["rotation"], "weights": "initial"}}
    run(sweep.parse({"models": ["zoo/mixer-xs"], "measurements": ways}), here / "t.parquet")
    frame = results.load(here / "t.parquet").frame
    assert frame["label"].notna().all()
    assert frame["correct"].isna().all()
    assert frame["loss"].isna().all()


def test_the_zoo_s_stored_predictions_are_right_where_they_name_the_label() -> None:
    """What was measured before classes were compared by name, on the set that the zoo was trained on."""
    for part in results.load("zoo").parts:
        if not part.failed:
            same = [
                a == b for a, b in zip(part.rows["label"].to_pylist(), part.rows["prediction"].to_pylist(), strict=True)
            ]
            assert part.rows["correct"].to_pylist() == same


def test_features_are_what_the_classifier_reads(here: Path) -> None:
    ways = {"f": {"dataset": "patches", "n": 2, "output": "features", "weights": "initial", "generators": ["rotation"]}}
    run(sweep.parse({"models": ["zoo/vit-s", "mine:a"], "measurements": ways}), here / "t.parquet")
    found = results.load(here / "t.parquet")
    model, images = models.load("zoo/vit-s", trained=False), datasets.load("patches", n=2, size=32).images
    read = []
    model.net.head.register_forward_pre_hook(lambda _, given: read.append(given[0].detach()))
    model(images)
    part = found.select(model="zoo/vit-s").frame
    np.testing.assert_allclose(part["output_square"], read[0].double().square().mean(1), rtol=ROUNDED)
    assert "weights: trained" in found.errors["error"].item()


def test_every_model_sees_the_same_images_and_motions(here: Path) -> None:
    run(spec_of(models=["mine:a", "mine:c"]), here / "t.parquet")
    a, c = (results.load(here / "t.parquet").select(model=f"mine:{n}", measurement="motions").frame for n in "ac")
    assert a["label"].tolist() == c["label"].tolist()
    again = here / "again.parquet"
    run(spec_of(models=["mine:c", "mine:a"]), again)
    assert rows(again).equals(rows(here / "t.parquet"))


# the table


@pytest.mark.parametrize("k", [1, 2, 6, 9])
def test_packing_keeps_every_entry_and_short_bases_come_first(k: int) -> None:
    half = np.random.default_rng(k).normal(size=(4, 9, 9))
    gram = half @ half.transpose(0, 2, 1)
    columns = table.packed(gram[:, :k, :k])
    assert list(columns) == [f"gram_{i}" for i in range(k * (k + 1) // 2)]
    whole = table.packed(gram)
    assert all((columns[name] == whole[name]).all() for name in columns)
    assert (table.unpacked(np.stack(list(columns.values()), 1), k) == gram[:, :k, :k]).all()


def test_rounding_is_to_the_nearest_of_eleven_bits() -> None:
    exact = np.random.default_rng(0).normal(size=10000).astype(np.float32)
    near = table.rounded(exact)
    mantissa, exponent = np.frexp(near.astype(np.float64))
    assert (mantissa * 2**11 == np.round(mantissa * 2**11)).all()
    assert (np.abs(near - exact) <= 2.0 ** (exponent - 12)).all()
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    assert (table.rounded(odd).view(np.uint32) == odd.view(np.uint32)).all()


def test_any_reader_of_parquet_sees_the_same_numbers(here: Path) -> None:
    run(spec_of(), here / "t.parquet")
    plain, own = rows(here / "t.parquet"), results.load(here / "t.parquet").frame
    assert len(plain) == len(own) == 2 * 3 * 3
    for column in ("model", "output", "image", "confidence"):
        assert plain[column].tolist() == own[column].tolist()
    assert plain["gram_20"].notna().sum() == 12  # six generators
    assert plain["gram_0"].notna().all()


def test_provenance_is_stored_once_and_says_everything(here: Path) -> None:
    run(spec_of(), here / "t.parquet")
    found = results.load(here / "t.parquet").tasks
    model = models.load("mine:a")
    assert set(found[found["model"] == "mine:a"]["weights_sha256"]) == {lee.provenance.weights_sha256(model)}
    assert set(found["data_sha256"]) == {datasets.load("patches", n=3, size=12).sha256}
    assert set(found["torch_version"]) == {lee.provenance.versions()["torch_version"]}
    assert (found["seconds"] > 0).all()
    metadata = pq.read_schema(here / "t.parquet").metadata[b"lee.sweep"]
    assert metadata.count(b"torchvision_version") == 1


CLASSES = """
import torch
from torch import nn

class Dark(nn.Module):
    def __init__(self, *names):
        super().__init__()
        self.class_names = names or None
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        bright = self.scale * x.mean((1, 2, 3))
        return torch.stack([bright, 1 - bright], 1)  # the second output is that of dark images

def same(): return Dark("bright", "dark")
def other(): return Dark("dark", "bright")
def more():
    net = Dark("bright", "dark", "grey")
    net.forward = lambda x: torch.cat([Dark.forward(net, x), x.mean((1, 2, 3))[:, None] * 0], 1)
    return net
def unnamed(): return Dark()
def foreign(): return Dark("cat", "dog")
"""


def test_figures_and_rows_go_by_the_names_of_the_classes(here: Path) -> None:
    """Whatever the order of the outputs, a network that answers rightly has accuracy 1, and one that doesn't, 0."""
    for name, grey in (("bright", 200), ("dark", 40)):
        (here / "light" / name).mkdir(parents=True)
        pixels = np.random.default_rng(grey).integers(grey - 30, grey + 30, (2, 12, 12, 3), np.uint8)
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(here / "light" / name / f"{i}.png")
    (here / "light_nets.py").write_text(CLASSES)
    sys.modules.pop("light_nets", None)
    how = {"dataset": "imagefolder:light", "n": 4, "size": 8, "generators": ["rotation"]}
    measures = {"accuracy": {"images": None}, "turntable": {"images": 4, "step": 90}}
    names = ["same", "more", "other", "unnamed", "foreign"]
    ways = {"light": {**how, "measures": measures}}
    out = here / "t.parquet"
    report = run(sweep.parse({"models": [f"light_nets:{name}" for name in names], "measurements": ways}), out)
    parts = {part.described["model"].partition(":")[2]: part for part in table.read(out).values()}
    for name, right in (("same", 1.0), ("more", 1.0), ("other", 0.0)):
        figures = parts[name].described["figures"]
        assert parts[name].rows["correct"].to_pylist() == [bool(right)] * 4
        assert figures["accuracy"] == {"accuracy": right, "images": 4}
        assert figures["turntable"]["accuracy"] == [right] * 3
        sure = parts[name].rows["confidence"].to_numpy().mean()
        told = figures["turntable"]["probability"][0]
        assert told == pytest.approx(sure, rel=ROUNDED) if right else told < 0.5
    assert {failure[0] for failure in report.failures} == {"light_nets:unnamed", "light_nets:foreign"}
    assert all("`class_names`" in failure[2] for failure in report.failures)
