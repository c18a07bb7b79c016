"""Families of layers: the classes of torch and timm fall where a reader would put them."""

import pytest
import timm
from layer_frames import layer_frame
from torch import nn

from lee.families import FAMILIES, families, family

LEAVES = {
    "Conv2d": "convolution", "ReLU": "activation", "GELU": "activation", "GELUTanh": "activation", "SiLU": "activation",
    "BatchNorm2d": "normalisation", "BatchNormAct2d": "normalisation", "LayerNorm2d": "normalisation",
    "Linear": "linear", "MaxPool2d": "pooling", "SelectAdaptivePool2d": "pooling", "BlurPool2d": "pooling",
    "Identity": "other", "Dropout": "other", "MultiheadAttention": "attention", "Custom": "other",
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), LEAVES.items())
def test_leaves(name: str, expected: str) -> None:
    assert family(name) == expected


def test_what_a_container_does_itself_is_functional_unless_it_is_attention() -> None:
    frame = layer_frame()
    named = dict(zip(frame["type"], families(frame), strict=True))
    assert named["Attention"] == "attention"
    assert named["Block"] == named["Net"] == named["Wrapper"] == "functional"
    assert set(named.values()) <= set(FAMILIES)


def test_with_the_model_a_stride_is_seen() -> None:
    model = nn.Sequential()
    model.net = timm.create_model("resnet18")
    frame = layer_frame().assign(path=["net.layer2.0.conv1"] * 10, type="Conv2d", kind="leaf")
    assert set(families(frame)) == {"convolution"}
    assert set(families(frame, model)) == {"downsampling convolution"}
    assert set(families(frame.assign(path="net.layer1.0.conv1"), model)) == {"convolution"}
