"""Families of layers: the classes of torch and timm fall where a reader would put them."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from layer_frames import layer_frame
from torch import nn

from lee.errors import InputError
from lee.layers import layerwise
from lee.layers.families import FAMILIES, by_family, completion, families, family, moved, pooled

pytestmark = pytest.mark.xdist_group("families")  # its fixtures are made once

LEAVES = {
    "Conv2d": "convolution", "ReLU": "activation", "GELU": "activation", "GELUTanh": "activation", "SiLU": "activation",
    "BatchNorm2d": "normalisation", "BatchNormAct2d": "normalisation", "LayerNorm2d": "normalisation",
    "Linear": "linear", "MaxPool2d": "pooling", "SelectAdaptivePool2d": "pooling", "BlurPool2d": "pooling",
    "FeatureExtractor": "other", "ContractingBlock": "other", "PixelUnshuffle": "other", "NonLinear": "activation",
    "ConvertColours": "other", "ConvNormAct": "convolution", "QuickAct2d": "activation", "MyActivation": "activation",
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


def test_a_perceptron_without_places_inside_counts_as_a_whole() -> None:
    frame = layer_frame().iloc[:6].assign(type=["A", "B", "C", "D", "Mlp", "Linear"], kind=["container"] * 5 + ["leaf"])
    assert families(frame)[4] == "functional"
    assert families(frame.assign(kind=["container"] * 5 + ["merged"]))[4] == "MLP"


def test_with_the_model_a_stride_is_seen() -> None:
    model = nn.Sequential()
    model.net = timm.create_model("resnet18")
    frame = layer_frame().assign(path=["net.layer2.0.conv1"] * 10, type="Conv2d", kind="leaf")
    assert set(families(frame)) == {"convolution"}
    assert set(families(frame, model)) == {"strided convolution"}
    assert set(families(frame.assign(path="net.layer1.0.conv1"), model)) == {"convolution"}


def test_calls_end_after_what_they_have_called() -> None:
    assert completion(layer_frame()["parent"].tolist()) == [2, 3, 6, 7, 5, 8, 4, 9, 1, 0]


@pytest.fixture(scope="module")
def measured() -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """A small network decomposed over twelve images at once, and over three batches of four."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), *head).double()
        x = torch.rand(12, 3, 10, 10, dtype=torch.float64)
    return layerwise(net, x, "scale").frame, [layerwise(net, part, "scale").frame for part in x.split(4)]


def test_batches_pool_to_the_frame_of_all_images(measured: tuple[pd.DataFrame, list[pd.DataFrame]]) -> None:
    whole, parts = measured
    frame = pooled(parts)
    for column in ("norm2", "self_norm2", "share", "self_share"):
        assert frame[column].tolist() == pytest.approx(whole[column].tolist(), rel=1e-9, abs=1e-15)
    total = whole["self_norm2"].sum()
    assert frame["fraction"].tolist() == pytest.approx((whole["self_norm2"] / total).tolist(), rel=1e-9, abs=1e-15)
    assert frame["fraction_so_far"].tolist() == pytest.approx((whole["cumulative"] / total).tolist(), rel=1e-9)
    assert frame["fraction_so_far_se"].iloc[0] == pytest.approx(0, abs=1e-12)  # the model ends last, at 100 %


def test_families_sum_to_one(measured: tuple[pd.DataFrame, list[pd.DataFrame]]) -> None:
    _, parts = measured
    sums = by_family(parts, families(parts[0]).tolist())
    assert sums["family"].tolist() == [f for f in FAMILIES if f in set(sums["family"])]
    assert sums["fraction"].sum() == pytest.approx(1)
    assert sums["share"].sum() == pytest.approx(1)
    conv = parts[0]["type"].tolist().index("Conv2d")
    row = sums.set_index("family").loc["convolution"]
    assert row["share"] == pytest.approx(pooled(parts)["self_share"][conv])


def test_standard_errors_of_means_are_the_usual_ones() -> None:
    """For a mean, the jackknife gives the standard deviation over batches divided by √B."""
    random = np.random.default_rng(0)
    parts = [layer_frame().assign(norm2=lambda f: f["norm2"] * random.uniform(0.5, 2)) for _ in range(5)]
    values = np.array([part["norm2"][2] for part in parts])
    assert pooled(parts)["norm2_se"][2] == pytest.approx(values.std(ddof=1) / 5**0.5)


def test_the_error_of_a_ratio_covers_the_truth() -> None:
    """Known fractions, noisy batches: the deviation in units of its standard error has a spread of about one."""
    random = np.random.default_rng(0)
    deviations = []
    for _ in range(80):
        sizes = random.gamma(4, size=(10, 2)) * [1, 3]  # the first part is a quarter of the sum
        parts = [layer_frame().iloc[:3].assign(self_norm2=[0.0, a, b], norm2=1.0) for a, b in sizes]
        row = pooled(parts).iloc[1]
        deviations.append((row["fraction"] - 0.25) / row["fraction_se"])
    assert 0.85 < np.std(deviations) < 1.35  # Student's t with nine degrees of freedom: 1.13


def test_what_has_to_be_moved() -> None:
    one, other = layer_frame().iloc[:4], layer_frame().iloc[:4]
    one, other = one.assign(self_norm2=[0, 1, 3, 0.0]), other.assign(self_norm2=[0, 0, 6, 2.0])
    assert moved([one], [one, one.assign(self_norm2=2 * one["self_norm2"])]) == pytest.approx(0)
    assert moved([one], [other]) == pytest.approx(0.25)
    assert moved([one.assign(self_norm2=[1, 0, 0, 0.0])], [other]) == pytest.approx(1)
    with pytest.raises(InputError, match="zero"):
        moved([one], [other.assign(self_norm2=0.0)])


def test_merged_calls_stay_without_numbers() -> None:
    frame = pooled([layer_frame(), layer_frame()])
    odd = frame[frame["kind"] == "merged"].iloc[0]
    assert np.isnan(odd[["norm2", "fraction", "self_share"]].astype(float)).all()
    assert frame["fraction"].sum() == pytest.approx(1)


def test_what_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(InputError, match="two or more batches; got 1"):
        pooled([layer_frame()])
    with pytest.raises(InputError, match="not of one model"):
        pooled([layer_frame(), layer_frame().iloc[:4]])
    with pytest.raises(InputError, match="10 rows need as many labels; got 1"):
        by_family([layer_frame(), layer_frame()], ["conv"])
