"""The discrete measures hold a model and an action to what the derivative holds them to: one function, the identity at 0."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import images
from torch import Tensor, nn

import lee
from lee import metrics
from lee.errors import InputError
from lee.metrics import distances, turntable

SMALL = [("rotation", 1e-6)]  # so that what is left of an error is far below any other change


class Net(nn.Module):
    """Class scores, with something done to its features on the way."""

    def __init__(self, between: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 5)
        self.between = between if between is not None else nn.Identity()
        self.double().eval()

    def forward_features(self, x: Tensor) -> Tensor:
        return F.gelu(self.second(self.between(F.gelu(self.first(x)))))

    def forward_head(self, h: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = h.mean((2, 3))
        return pooled if pre_logits else self.last(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class Noise(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h + 0.3 * torch.randn_like(h)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        return h * (1 + 0.1 * self.calls)


class OverBatch(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h - h.mean(0, keepdim=True)


class Endless(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h / 0


def dropping(h: Tensor) -> Tensor:
    return F.dropout(h, 0.3, training=True)


MEASURES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "consistency": lambda net, x: metrics.consistency(net, x, shifts=2),
    "eq_t": lambda net, x: metrics.eq_t(net, x, draws=2),
    "eq_t_frac": lambda net, x: metrics.eq_t_frac(net, x, draws=2),
    "eq_r": lambda net, x: metrics.eq_r(net, x, draws=2),
    "sampled": lambda net, x: metrics.sampled_invariance(net, x, "scale", radius=0.1, draws=2),
    "module": lambda net, x: metrics.layer_errors(net, x, SMALL),
    "features": lambda net, x: metrics.layer_errors(net, x, SMALL, scope="features"),
    "range": metrics.output_range,
    "distances": distances.features,
    "curves": lambda net, x: turntable.curves(net, turntable.turned(x, [0, 30]), torch.arange(len(x)), [0, 30]),
    "tangent": lambda net, x: turntable.tangent(net, x[0], 1, [0, 30]),
    "figures": lambda net, x: turntable.figures(net, x, torch.arange(len(x)), degrees=[0, 30]),
}


@pytest.mark.filterwarnings("ignore:The number is not verified")
@pytest.mark.parametrize("name", MEASURES)
def test_a_model_that_is_more_than_one_function_is_said_so_or_refused(name: str) -> None:
    measure, x = MEASURES[name], images(4, 12, 12)
    for between in (Noise(), dropping):
        state = torch.random.get_rng_state()
        with pytest.warns(lee.RandomFunctionWarning):
            measure(Net(between), x)
        assert torch.equal(state, torch.random.get_rng_state())
    counting = Net(Counter())
    with pytest.warns(lee.StateWarning):
        measure(counting, x)
    assert counting.between.calls == 0
    with pytest.raises(InputError, match="NaN or infinity on its way"):
        measure(Net(nn.Sequential(Endless(), nn.Hardtanh())), x)  # finite at the end


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "tangent"])  # of one image
def test_images_that_interact_are_said(name: str) -> None:
    with pytest.warns(lee.BatchInteractionWarning):
        MEASURES[name](Net(OverBatch()), images(4, 12, 12))


@pytest.mark.filterwarnings("ignore::lee.errors.RandomFunctionWarning", "ignore::lee.errors.StateWarning")
@pytest.mark.parametrize("scope", metrics.layers.SCOPES)
@pytest.mark.parametrize("between", [Noise(), dropping, Counter()])
def test_errors_of_layers_are_those_of_one_draw(between: Any, scope: str) -> None:
    """Between two draws, or two counts, features differ by some per cent; a tiny rotation of one changes them by 1e-6."""
    table = metrics.layer_errors(Net(between), images(4, 12, 12), SMALL, scope=scope)
    measured = table["mean"].dropna()
    assert len(measured) >= 3
    assert measured.max() < 1e-9


def test_the_errors_of_a_layer_that_counts_are_those_of_one_that_does_not() -> None:
    x, motions = images(3, 12, 12), metrics.rotations(2)
    with pytest.warns(lee.StateWarning):
        found = metrics.layer_errors(Net(Counter()), x, motions)
    same = metrics.layer_errors(Net(Scaled()), x, motions)
    torch.testing.assert_close(torch.tensor(found["mean"]), torch.tensor(same["mean"]), equal_nan=True)


class Scaled(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h * 1.1


def test_nan_of_a_later_or_a_moved_image_is_refused() -> None:
    x = images(4, 12, 12)
    broken = Net(lambda h: torch.where(h.mean() < -1, h, h))
    broken.second.register_forward_hook(lambda m, a, h: h / (h != h.amax((1, 2, 3), keepdim=True)))
    with pytest.raises(InputError, match="NaN"):
        metrics.layer_errors(broken, x, SMALL, scope="features")
    aside = Aside(float(x[3].sum()))
    with pytest.raises(InputError, match="module aside gives NaN"):
        metrics.layer_errors(aside, x, SMALL, scope="features", chunk=1)


class Aside(nn.Module):
    """Maps of which one, that the output does not show, is NaN for an image of a certain sum."""

    def __init__(self, total: float) -> None:
        super().__init__()
        self.total, self.aside = total, nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        bad = (x.sum((1, 2, 3), keepdim=True) - self.total).abs() < 1e-6
        self.aside(torch.where(bad, torch.nan, x))
        return x.clone()


@pytest.mark.parametrize("name", MEASURES)
def test_inside_inference_mode_it_is_the_same_number(name: str) -> None:
    measure, net, x = MEASURES[name], Net(), images(3, 12, 12)
    expected = measure(net, x)
    with torch.inference_mode():
        found = measure(net, x)
    assert str(found) == str(expected)


# ---- actions --------------------------------------------------------------------------------------------------------


def gain(z: Tensor, t: Tensor) -> Tensor:
    return z * t.exp()


def gain_in_place(z: Tensor, t: Tensor) -> Tensor:
    return z.mul_(t.exp())


def test_an_action_that_writes_into_its_input_has_the_numbers_of_one_that_does_not() -> None:
    net, x = Net(), images(3, 12, 12)
    for own, pure in (
        (gain_in_place, gain),
        (lee.Action(gain, "gain", gain_in_place), lee.Action(gain, "gain", gain)),
    ):
        found, expected = (
            metrics.sampled_invariance(net, x, a, radius=0.5, draws=4, output="logits") for a in (own, pure)
        )
        assert found.value == expected.value
        assert torch.equal(x, images(3, 12, 12))


ACTIONS = {
    "another image at 0": lambda z, t: z + 0.5 + t,
    "a jump": lambda z, t: z * (1 + 0.3 * t.sign()),
    "another shape": lambda z, t: z[..., 1:],
    "no tensor": lambda z, t: None,
    "random": lambda z, t: z + t * torch.randn_like(z),
    "without t": lambda z, t: z * 1.0,
}


@pytest.mark.parametrize("name", ACTIONS)
def test_what_is_no_action_is_refused_as_by_the_derivative(name: str) -> None:
    x = images(3, 12, 12)
    with pytest.raises(InputError, match="action") as known:
        lee.local_equivariance_error(Net(), x, ACTIONS[name], progress=False)
    with pytest.raises(InputError, match="action") as found:
        metrics.sampled_invariance(Net(), x, ACTIONS[name], radius=1e-6)
    assert str(found.value) == str(known.value)
    if name != "without t":  # which an output may be
        with pytest.raises(InputError, match="action"):
            metrics.differences(Net(), x, [(lee.Action(gain, "mine", ACTIONS[name]), 0.1)], output="logits")


@pytest.mark.parametrize(
    "action",
    [
        lambda z, t: torch.roll(z, int(t), -1),
        lambda z, t: (z * 255 * (1 + t / 10)).round() / 255,
        lambda z, t: torch.from_numpy(np.roll(z.numpy(), int(t), -1)),
    ],
)
def test_a_finite_motion_needs_no_derivative(action: Any) -> None:
    net, x = Net(), images(3, 12, 12)
    x = (x * 255).round() / 255
    found = metrics.differences(net, x, [(action, 2.0)], output="logits").per_image
    with torch.no_grad():
        wanted = (net(action(x, torch.tensor(2.0))) - net(x)).square().mean(1)
    assert torch.allclose(found, wanted.double(), rtol=1e-5)


def test_an_action_that_changes_the_shape_further_away_is_refused() -> None:
    with pytest.raises(InputError, match="must keep the shape"):
        metrics.differences(Net(), images(2, 12, 12), [(lambda z, t: gain(z, t)[..., int(t > 20) :], 21.0)])


def test_layers_have_no_action_of_a_user() -> None:
    with pytest.raises(InputError, match="says nothing of hidden layers"):
        metrics.layer_errors(Net(), images(2, 12, 12), [("rotation", 0.1), (gain, 0.3)])


class Sloped(nn.Module):
    """What a gradient that it takes itself says of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        z = x.clone().requires_grad_()
        return torch.autograd.grad(self.conv(z).square().sum(), z)[0].mean((2, 3))


def test_layers_of_a_model_that_differentiates_itself_are_refused() -> None:
    with pytest.raises(InputError, match="differentiates inside itself"):
        metrics.layer_errors(Sloped(), images(2, 12, 12), SMALL)
    assert metrics.eq_r(Sloped(), images(2, 12, 12), output="logits").value > 0


# ---- turns ----------------------------------------------------------------------------------------------------------


def test_images_that_are_not_square_keep_their_shape() -> None:
    x = images(2, 12, 18)
    found = turntable.turned(x, [0, 90, 180, -270])
    assert found.shape == (4, 2, 3, 12, 18)
    assert torch.equal(found[2], x.rot90(2, (2, 3)))
    torch.testing.assert_close(found[1], lee.warp(x, "rotation", math.pi / 2))
    torch.testing.assert_close(found[1], found[3])
    square = images(2, 12, 12)
    assert torch.equal(turntable.turned(square, [90])[0], square.rot90(-1, (2, 3)))
    assert turntable.figures(Net(), x, torch.arange(2), degrees=[0, 90])["quarter"] > 0


@pytest.mark.parametrize("degrees", [[], [0, math.nan], [0, math.inf]])
def test_angles_are_finite(degrees: list[float]) -> None:
    with pytest.raises(InputError, match="`degrees`"):
        turntable.turned(images(2, 12, 12), degrees)


@pytest.mark.parametrize("measure", [
    lambda model, x: metrics.consistency(model, x),
    lambda model, x: metrics.sampled_invariance(model, x, "rotation", radius=0.2, output="logits"),
    lambda model, x: metrics.eq_r(model, x, max_angle=0.2, output="logits"),
    lambda model, x: lee.orbit(model, x[0], "rotation", torch.linspace(-0.2, 0.2, 5), output="logits").gap,
])  # fmt: skip
def test_a_model_that_ignores_its_images_is_told_from_an_invariant_one(measure: Callable[..., Any]) -> None:
    x = images(3)
    with pytest.warns(lee.ConstantOutputWarning):
        measure(lambda z: torch.ones(len(z), 4, dtype=z.dtype) + 0 * z.mean(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", lee.ConstantOutputWarning)
        measure(lambda z: 9 * z.amax((2, 3)) ** 0 * z[:, :, :1, :1].mean((2, 3)), x)
