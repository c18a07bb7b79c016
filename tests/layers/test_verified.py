"""The numbers of a decomposition are those that were checked: parts that sum to the verified total, or a word on why not."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import images
from torch import Tensor, nn

import lee
from lee.layers import layerwise, verified
from lee.layers.passes import Pass


class Around(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Net(nn.Module):
    """Nearly invariant to circular shifts, with scores that a constant dominates."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(c, 6, 3, padding=1, padding_mode="circular") for c in (3, 6))
        self.act, self.head = nn.GELU(), nn.Linear(6, 10)
        with torch.no_grad():
            self.head.bias += offset * torch.randn(10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.second(self.act(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize("offset", [1.0, 300.0])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_constant_in_the_output_decides_nothing(mode: str, offset: float) -> None:
    """A term below the rounding of the output's size was dropped from a container, whose parts were counted twice then."""
    model, x = Around(Net(offset)).eval(), images(3).float()
    x = torch.fft.ifft2(torch.fft.fft2(x) * (torch.fft.fftfreq(x.shape[-1]).abs() < 0.3)).real
    options: dict[str, Any] = {"boundary": "circular", "output": "logits", "mode": mode}
    single = layerwise(model, x, "translation_x", **options)
    double = layerwise(copy.deepcopy(model).double(), x.double(), "translation_x", **options)
    total = lee.local_equivariance_error(model, x, "translation_x", boundary="circular", output="logits")
    assert float(single.total.value) == pytest.approx(float(total.value), rel=1e-2)
    assert single.residual < 0.01
    torch.testing.assert_close(
        torch.tensor(single.frame.self_share), torch.tensor(double.frame.self_share), rtol=0, atol=0.02
    )


def _apart(monkeypatch: pytest.MonkeyPatch, is_apart: Callable[[Tensor], bool]) -> None:
    """Passes of some images whose parts are said not to sum to their total."""
    original = verified.measure_pass

    def measured(setting: Any, x: Tensor, lanes: int) -> Pass:
        found = original(setting, x, lanes)
        return replace(found, gap=found.moments.total * 0.1) if is_apart(x) else found

    monkeypatch.setattr(verified, "measure_pass", measured)


def test_parts_that_sum_in_double_precision_alone_are_those_of_double_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = Net(0.0).eval(), images(2).float()
    exact = layerwise(copy.deepcopy(model).double(), x.double(), "rotation", chunk=1)
    _apart(monkeypatch, lambda x: x.dtype == torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = layerwise(model, x, "rotation", chunk=1)
    assert found.residual < 1e-9
    assert "in double precision" in str(found.verification)
    torch.testing.assert_close(torch.tensor(found.frame.norm2), torch.tensor(exact.frame.norm2), rtol=1e-5, atol=0)


def test_parts_that_sum_only_near_the_images_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were printed as verified, with how well they sum at another point and in another precision."""
    x = images(2).float()
    _apart(monkeypatch, lambda seen: any(torch.equal(seen.float(), x[i : i + len(seen)]) for i in range(2)))
    with pytest.warns(lee.VerificationWarning, match="to 32% only at these images") as told:
        found = layerwise(Net(0.0).eval(), x, "rotation", chunk=1)
    assert len([w for w in told if "parts of the model" in str(w.message)]) == 1
    assert "the parts sum to it to 0.3" in str(found.verification)


class Noisy(nn.Module):
    """Draws between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.second((h + torch.randn_like(h)).tanh())


@pytest.mark.filterwarnings("ignore::lee.RandomFunctionWarning")
def test_a_call_that_is_run_again_draws_the_same_numbers() -> None:
    """In forward mode it drew the next ones, and the parts did not sum to the total."""
    torch.manual_seed(0)
    model, x = nn.Sequential(Noisy(), Noisy()).double(), images(2, 8, 8)
    forward, reverse = (
        layerwise(model, x, "rotation", mode=mode, output="logits", representations="map")
        for mode in ("forward", "reverse")
    )
    assert forward.residual < 1e-9
    torch.testing.assert_close(torch.tensor(forward.frame.norm2), torch.tensor(reverse.frame.norm2), rtol=1e-9, atol=0)


def test_what_is_drawn_is_a_constant() -> None:
    """It was taken for something that depends on the image, as another image met other random numbers."""

    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.randn(x.shape[2:], dtype=x.dtype)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drawing = Drawing()

        def forward(self, x: Tensor) -> Tensor:
            return x * self.drawing(x)

    told = lee.explain_representations(Masked(), images(1), representations="map").frame.set_index("path")
    assert "does not depend on the image" in told.loc["drawing", "why"]
