"""Depthwise convolutions of the check against torch's own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import lee
from lee.measure.depthwise import FastDepthwise


class Convolutions(TorchDispatchMode):
    """Counts those that torch computes."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def pair(run: Any) -> tuple[Tensor, Tensor, int]:
    """What a function gives with and without the mode, and how many convolutions torch computes with it."""
    with torch.no_grad():
        expected = run()
        with Convolutions() as seen, FastDepthwise():
            return run(), expected, seen.count


@pytest.mark.parametrize(
    "settings",
    [{}, {"padding": 3}, {"stride": 2, "padding": (1, 0)}, {"dilation": (1, 2), "padding": 2}, {"stride": (3, 2)}],
)
@pytest.mark.parametrize("biased", [True, False])
def test_a_depthwise_convolution_is_a_sum_of_shifted_images(settings: dict[str, Any], biased: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 11, 9).double(), torch.randn(5, 1, 3, 4).double()
    bias = torch.randn(5).double() if biased else None
    found, expected, convolutions = pair(lambda: F.conv2d(x, weight, bias, groups=5, **settings))
    assert convolutions == 0
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        ((2, 4, 6, 6), (8, 1, 3, 3), 4),
        ((2, 4, 6, 6), (4, 2, 3, 3), 2),
        ((2, 1, 6, 6), (1, 1, 3, 3), 1),
        ((4, 6, 6), (4, 1, 3, 3), 4),
    ],
)
def test_other_convolutions_are_torchs_own(x: tuple[int, ...], weight: tuple[int, ...], groups: int) -> None:
    images, kernel = torch.randn(x).double(), torch.randn(weight).double()
    found, expected, convolutions = pair(lambda: F.conv2d(images, kernel, None, padding="same", groups=groups))
    assert convolutions == 1
    assert torch.equal(found, expected)


def test_a_vmap_inside_a_model_keeps_torchs_own() -> None:
    x, weight = torch.randn(3, 2, 4, 6, 6).double(), torch.randn(4, 1, 3, 3).double()
    found, expected, _ = pair(lambda: torch.vmap(lambda z: F.conv2d(z, weight, None, groups=4))(x))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_a_depthwise_network_is_verified_in_double_precision() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Conv2d(6, 6, 5, groups=6, padding=2), nn.GELU()).eval()
    found = lee.equivariance_gram(
        lambda z: model(z).mean((2, 3)), torch.rand(2, 3, 16, 16), output="logits", progress=False
    )
    assert found.verification is not None
    assert found.verification.verified
    assert found.verification.precision == "float64"
