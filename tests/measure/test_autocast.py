"""An ambient autocast changes no number: it is off while measuring, unless the model enters it."""

import pytest
import torch
from torch import Tensor, nn

import lee
from lee.geometry import Sampler


def test_autocast_around_a_measurement_is_off_meanwhile() -> None:
    """As a trainer of mixed precision has it on: tangents and motions were rounded to bfloat16, and passed the check."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(784, 5))
    x = torch.rand(2, 3, 16, 16)
    motions = [("rotation", 0.3), ("scale", 0.2)]

    def numbers() -> list[torch.Tensor]:
        return [
            lee.equivariance_gram(model, x, progress=False).per_image,
            torch.tensor(lee.layerwise(model, x, "rotation").total.value),
            lee.orbit(model, x[0], "rotation", torch.linspace(-0.2, 0.2, 5)).derivatives,
            lee.metrics.differences(model, x, motions).squares,
            lee.warp(x, "rotation", 0.3),
            lee.warp(x, "scale", 0.3),
            torch.stack(lee.spatial_gradient(x)),
            lee.VectorField().finite(lee.ROTATION, 0.3, x[:, :2], Sampler()),
        ]

    wanted = numbers()
    with torch.autocast("cpu", torch.bfloat16):
        found = numbers()
        assert torch.is_autocast_enabled("cpu")
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


def test_a_model_that_needs_the_autocast_around_it_is_told_to_enter_it() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.Linear(5, 3).bfloat16())

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x).float()

    model, x = Inside(), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(lee.InputError, match=r"off while measuring .*: enter it inside the model's forward"):
            lee.lie_derivative(model.net, x, "rotation")
        assert lee.lie_derivative(model, x, "rotation", verify=False).isfinite().all()
