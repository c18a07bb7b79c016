"""A user's code against the public interface: it runs, and `make types` reads it as strictly as `lee` itself."""

from collections.abc import Callable
from typing import assert_type

import torch
from torch import Tensor, nn

import lee


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 5)).eval()


def test_measuring_a_model_is_typed() -> None:
    images = torch.rand(3, 3, 8, 8)
    error = assert_type(lee.local_equivariance_error(model(), images, "rotation", progress=False), lee.Estimate)
    gram = assert_type(lee.equivariance_gram(model(), images, progress=False), lee.EquivarianceGram)
    same = assert_type(gram.lee(lee.ROTATION), lee.Estimate)
    assert abs(same.value - error.value) < 1e-6
    mixture = assert_type(0.5 * lee.ROTATION + lee.bracket(lee.SCALE, lee.TRANSLATION_X), lee.Generator)
    derivative = assert_type(lee.lie_derivative(model(), images, mixture), Tensor)
    assert derivative.shape == (3, 5)


def test_functions_actions_and_representations_of_one_s_own_are_typed() -> None:
    signals = torch.rand(2, 1, 16)

    def roll(x: Tensor, t: Tensor) -> Tensor:
        frequencies = torch.fft.rfftfreq(x.shape[-1]).to(x)
        return torch.fft.irfft(torch.fft.rfft(x) * torch.exp(-2j * torch.pi * frequencies * t), n=x.shape[-1])

    energy: Callable[[Tensor], Tensor] = lambda x: x.square().mean(-1)  # noqa: E731
    found = assert_type(lee.lie_derivative(energy, signals, roll, output="logits"), Tensor)
    assert found.abs().max() < 1e-5  # a shift keeps the energy of a signal
    layer, images = nn.Conv2d(3, 2, 3, padding=1), torch.rand(2, 3, 8, 8)
    derivative = lee.lie_derivative(layer, images, "rotation", output="logits", representations={"output": lee.Map()})
    assert derivative.shape == (2, 2, 8, 8)


def test_a_decomposition_is_typed() -> None:
    parts = assert_type(
        lee.layerwise(model(), torch.rand(2, 3, 8, 8), "translation_x", progress=False), lee.Decomposition
    )
    assert len(parts.tree()) > 0
