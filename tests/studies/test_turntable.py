"""Networks on a turntable: curves and tangents against finite turns and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lee
from lee import datasets
from lee.datasets import ImageSet
from lee.datasets.rotated import turn
from lee.errors import InputError
from lee.metrics import turntable
from lee.models.equivariant import group_cnn
from lee.studies import rotmnist


def blobs(n: int = 3, side: int = 28) -> Tensor:
    """Smooth spots, dark at the border: (n, 1, side, side), float64."""
    line = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = line[:, None], line
    spots = [(-3.0, 2.0, 2.2), (4.0, 1.0, 2.5), (0.0, -4.0, 2.0), (2.0, 4.0, 2.3)][:n]
    return torch.stack([torch.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * s**2)) for r, c, s in spots])[:, None]


def linear(side: int = 28) -> nn.Module:
    torch.manual_seed(0)
    smooth = nn.functional.avg_pool2d(torch.randn(4, 1, side + 8, side + 8), 9, 1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 4)).double()
    net[1].weight.data = smooth.flatten(1).double()
    return net.eval()


def test_turned_images_turn_clockwise_and_quarter_turns_are_exact() -> None:
    x = blobs()
    orbit = turntable.turned(x, [0, 90, 180, 270, 30, -45])
    for k in range(4):
        assert torch.equal(orbit[k], x.rot90(-k, (2, 3)))
    for row, angle in ((4, 30), (5, -45)):
        bilinear = turn(x, torch.full((3,), -math.radians(angle), dtype=torch.float64))
        error = (orbit[row] - bilinear)[:, :, 5:-5, 5:-5].abs()  # corners bring in what lies outside, each in its way
        assert error.max() < 2 / (8 * 2.0**2)  # the error of linear interpolation on two axes
        assert (orbit[row] - x)[:, :, 5:-5, 5:-5].abs().max() > 0.3


def test_near_zero_the_change_is_the_squared_angle_times_lee() -> None:
    x, model, degrees = blobs(), linear(), [0.0, 0.2]
    found = turntable.curves(model, turntable.turned(x, degrees), torch.tensor([0, 1, 2]), degrees)
    expected = lee.local_equivariance_error(model, x, "rotation", progress=False).value * math.radians(0.2) ** 2
    assert found["change"][1] == pytest.approx(expected, rel=0.02)
    assert found["change"][0] == 0
    probabilities = model(x).softmax(-1).detach()
    assert found["probability"][0] == pytest.approx(float(probabilities.diagonal().mean()))
    assert found["accuracy"][0] == pytest.approx(float((probabilities.argmax(1) == torch.arange(3)).double().mean()))


def test_curves_need_the_image_itself_first() -> None:
    with pytest.raises(InputError, match="0, not 5"):
        turntable.curves(linear(), blobs()[None], torch.zeros(3).long(), [5])


def test_the_tangent_touches_the_curve() -> None:
    frame = turntable.tangent(linear(), blobs()[0], 2, [-0.1, 0, 0.1])
    difference = (frame["probability"][2] - frame["probability"][0]) / 0.2
    assert frame["slope"].nunique() == 1
    assert frame["slope"][0] == pytest.approx(difference, rel=1e-4)
    assert abs(difference) > 1e-5


def test_measure_finds_errors_and_quarter_turns() -> None:
    data = datasets.load("digits", n=40, size=28)
    torch.manual_seed(0)
    network = group_cnn(fields=(2, 3, 3, 3)).eval()
    found = rotmnist.measure(network, data, n=16, n_turned=4, degrees=(0, 45, 90))
    with torch.no_grad():
        assert found["error"] == pytest.approx(float((network(data.images).argmax(1) != data.labels).double().mean()))
    assert found["quarter"] < 1e-5
    assert found["change"][2] < 1e-10 < found["change"][1]
    assert np.shape(found["lee"]) == (16,)
    one = lee.local_equivariance_error(network, data.images[:16], "rotation", progress=False)
    assert np.mean(found["lee"]) == pytest.approx(one.value)
    derivative = lee.lie_derivative(network, data.images[:16], "rotation", output="logits")
    with torch.no_grad():
        spread = network(data.images[:16]).var(0, correction=0).mean()
    assert found["relative"] == pytest.approx(float(derivative.square().mean() / spread), rel=1e-4)
    unlabelled = ImageSet("x", data.images, None, (), "", "", "")
    with pytest.raises(InputError, match="no labels"):
        rotmnist.measure(network, unlabelled)
