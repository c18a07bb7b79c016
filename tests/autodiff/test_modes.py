"""Models that torch's forward mode can't follow: named, and measured by backward passes or differences instead."""

import pytest
import torch
from cases import build, images, relative
from torch import Tensor, nn
from torchvision.ops import DeformConv2d, roi_align

import lee
from benchmarks.coverage_checks import central_difference
from lee.autodiff import ForwardModeError, by_dual_numbers, pushforward, record_fallbacks
from lee.errors import InputError


class Crops(nn.Module):
    """Scores of a crop: `roi_align` drops tangents without a word, in functorch and in dual numbers alike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU()), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        boxes = [x.new_tensor([[3.0, 5.0, 20.0, 28.0]])] * len(x)
        return self.head(roi_align(self.conv(x), boxes, 4, aligned=True).flatten(1))


class Deformed(nn.Module):
    """A deformable convolution whose offsets are computed from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets, self.conv = nn.Conv2d(3, 18, 3, padding=1), DeformConv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x, self.offsets(x).tanh()).tanh().mean((2, 3)))


class Distances(nn.Module):
    """Scores from distances: torch has no forward-mode formula for `cdist`, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.rand(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(x.mean((2, 3)).square(), self.centres)


class Doubled(torch.autograd.Function):
    """Twice the square, with a backward pass and no `jvp`."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(2 * x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 4 * x * gradient


class Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(x).mean((2, 3))  # type: ignore[no-any-return]


MODELS = {"roi_align": Crops, "deform_conv2d": Deformed, "cdist": Distances}


def model_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().double().eval()


@pytest.mark.parametrize("name", MODELS)
def test_what_forward_mode_cannot_follow_is_measured_by_backward_passes(name: str) -> None:
    model, x = model_of(name), images(3)
    with record_fallbacks() as names:
        found = lee.lie_derivative(model, x, "rotation", output="logits")
    assert any("backward passes" in n and name in n for n in names)
    known = central_difference(model, x, lee.ROTATION, step=1e-7)  # within all kinks
    assert float(known.norm()) > 0
    assert relative(found, known) < 1e-4
    assert relative(lee.lie_derivative(model, x, "rotation", output="logits", mode="differences"), found) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_forward_mode_names_what_it_cannot_follow(name: str) -> None:
    model, x = model_of(name), images(1)
    with pytest.raises(ForwardModeError, match=f"no forward-mode derivative of {name}.*mode='reverse'"):
        lee.lie_derivative(model, x, "rotation", output="logits", mode="forward")
    for way in (pushforward, by_dual_numbers):
        with torch.no_grad(), pytest.raises(ForwardModeError, match=name):
            way(model, x, x[None])


def test_the_gram_matrix_of_backward_passes_is_that_of_forward_mode() -> None:
    model, x = build("cnn"), images(3)
    forward, reverse, differences = (
        lee.equivariance_gram(model, x, mode=mode, progress=False).per_image
        for mode in ("forward", "reverse", "differences")
    )
    assert relative(reverse, forward) < 1e-12
    assert relative(differences, forward) < 1e-6


def test_a_function_of_the_users_without_a_forward_formula() -> None:
    x = images(2)
    with pytest.raises(ForwardModeError, match="custom autograd function"), torch.no_grad():
        by_dual_numbers(Custom(), x, x[None])
    found = lee.lie_derivative(Custom(), x, "brightness", output="logits", mode="reverse")
    torch.testing.assert_close(found, 4 * x.square().mean((2, 3)))  # d/dt 2 (e^t x)²


def test_a_model_outside_torch_is_measured_by_differences() -> None:
    """`mean((e^t x)³)` has the velocity `3 mean(x³)`."""

    def cubes(x: Tensor) -> Tensor:
        return torch.from_numpy((x.detach().numpy() ** 3).mean((2, 3)))

    x = images(2)
    with pytest.warns(lee.LeavesTorchWarning, match="numpy"):
        found = lee.lie_derivative(cubes, x, "brightness", output="logits")
    torch.testing.assert_close(found, 3 * x.pow(3).mean((2, 3)), rtol=1e-8, atol=0)
    assert found.verification.mode == "differences"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="mode='differences'"):
        lee.lie_derivative(cubes, x, "brightness", output="logits", mode="reverse", verify=False)


def test_a_model_without_any_derivative_says_what_to_do() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            return torch.cdist(x.flatten(2), x.flatten(2) + 1).mean(2)

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
            raise NotImplementedError("no gradient here")

    with pytest.raises(InputError, match=r"no backward pass \(NotImplementedError: no gradient here\).*differences"):
        lee.lie_derivative(Broken.apply, images(1), "rotation", output="logits", mode="reverse")
    found = lee.lie_derivative(Broken.apply, images(1), "rotation", output="logits")
    assert found.verification.mode == "differences"  # type: ignore[attr-defined]


def test_a_constant_output_of_a_foreign_operator_is_no_reason_to_refuse() -> None:
    """A mask has no derivative in either direction: it stays a constant."""
    x = images(2)
    found = lee.lie_derivative(
        lambda z: z.mean((2, 3)) * (z > 0.5).double().mean((2, 3)), x, "brightness", output="logits"
    )
    torch.testing.assert_close(found, x.mean((2, 3)) * (x > 0.5).double().mean((2, 3)))


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'reverse'"):
        lee.local_equivariance_error(build("cnn"), images(1), "rotation", mode="revers", progress=False)


@pytest.mark.parametrize("name", MODELS)
def test_layers_of_such_a_model_sum_to_the_whole(name: str) -> None:
    model, x = model_of(name), images(2)
    parts = lee.layerwise(model, x, "rotation", output="logits")
    assert parts.mode == "reverse"
    assert parts.residual < 1e-10
    assert parts.frame.self_share.sum() == pytest.approx(1, abs=1e-10)
    whole = lee.local_equivariance_error(model, x, "rotation", output="logits", progress=False)
    assert parts.total.value == pytest.approx(whole.value, rel=1e-10)
    with pytest.raises(InputError, match="mode='reverse'"):
        lee.layerwise(model, x, "rotation", output="logits", mode="forward")
