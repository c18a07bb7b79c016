"""Class names: the order of a model's outputs, and a data set's classes among them."""

import timm
import torch
from torch import nn
from torchvision.models import ResNet18_Weights

from lee import models
from lee.models import classes


def test_imagenets_synsets_are_in_the_order_of_a_classifier_s_outputs() -> None:
    """torchvision lists the same thousand classes in words; synsets are sorted by their numbers."""
    from timm.data import ImageNetInfo

    synsets, words = classes.imagenet(), ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(synsets)) == len(words) == 1000
    assert list(synsets) == sorted(synsets)
    told = ImageNetInfo()
    near = [
        word.split(",")[0].lower() in told.label_name_to_description(s).lower()
        for s, word in zip(synsets, words, strict=True)
    ]
    assert sum(near) > 970  # a few words were changed since


def test_models_know_their_classes_or_nothing_is_assumed() -> None:
    net = nn.Linear(2, 2)
    assert classes.of_model("mine:net", net) == ()
    net.class_names = ["a", 1]  # type: ignore[assignment]
    assert classes.of_model("mine:net", net) == ("a", "1")
    assert classes.of_model("zoo/vit-s", nn.Identity())[:2] == ("airplane", "automobile")
    assert classes.of_model("test_vit", timm.create_model("test_vit")) == classes.imagenet()
    assert classes.of_model("test_vit", timm.create_model("test_vit", num_classes=7)) == ()
    wide = timm.create_model("test_vit", num_classes=21843)
    assert len(classes.of_model("test_vit", wide)) == 21843
    told = models.load("test_vit", num_classes=2).net
    told.pretrained_cfg["label_names"] = ["cat", "dog"]
    assert classes.of_model("test_vit", told) == ("cat", "dog")


def test_places_need_every_name_once() -> None:
    assert torch.equal(classes.places(["b"], ["a", "b"]), torch.tensor([1]))  # type: ignore[arg-type]
    assert classes.places([], ["a"]) is None
    assert classes.places(["a"], []) is None
    assert classes.places(["a"], ["a", "b", "a"]) is None
