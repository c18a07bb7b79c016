"""Along orbits: integrals of the derivative against differences of the outputs, and where the class flips."""

import math
from typing import Any

import pytest
import torch
from cases import build, images, relative
from torch import Tensor, nn

import lee
from lee.errors import InputError

T = torch.linspace(-0.2, 0.2, 41)


def net() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)
        )
        .double()
        .eval()
    )


def dense_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 4, 3, padding=1)).double().eval()


@pytest.mark.parametrize("kernel", ["bilinear", "authors"])
def test_a_kernel_without_a_derivative_or_a_warp_has_no_orbit(kernel: str) -> None:
    with pytest.raises(InputError, match=kernel):
        lee.orbit(net(), images(1, 12, 12)[0], "rotation", T, kernel=kernel)
    if kernel == "bilinear":
        with pytest.raises(InputError, match="Unknown kernel 'bilinear'"):
            lee.LocalEquivarianceError(net(), "rotation", kernel=kernel)


@pytest.mark.parametrize("generator", ["rotation", "translation_x", "scale", "brightness", "shear_x"])
def test_the_integral_of_the_derivative_is_the_difference_of_the_outputs(generator: str) -> None:
    model, image = net(), images(1, 12, 12)[0]
    found = lee.orbit(model, image, generator, T)
    assert found.gap < 1e-4
    coarse = lee.orbit(model, image, generator, T[::2])
    assert found.gap < coarse.gap / 4
    with torch.no_grad():
        for i in (0, 25, 40):
            moved = lee.Image().finite(lee.measure.derivative.get(generator), T[i].double(), image[None], lee.Sampler())
            assert relative(found.outputs[i], model(moved).softmax(-1)[0]) < 1e-10


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_the_velocity_at_zero_is_the_lie_derivative(output: str) -> None:
    model, image = build("vit"), images(1)[0]
    found = lee.orbit(model, image, "rotation", T[10:31:5], output=output)
    known = lee.lie_derivative(model, image[None], "rotation", output=output)[0]
    assert relative(found.derivatives[found.start], known) < 1e-9
    assert found.verification is not None
    assert found.verification.verified
    step = float(T[1] - T[0])
    assert relative(found.tangents[found.start + 1] - found.outputs[found.start], known * 5 * step) < 1e-6


@pytest.mark.parametrize("layout", ["map", "tokens"])
def test_outputs_that_move_are_moved_back(layout: str) -> None:
    inner, image = dense_net(), images(1, 12, 12)[0]

    def model(z: Tensor) -> Tensor:
        return inner(z).flatten(2).mT if layout == "tokens" else inner(z)

    given = lee.Tokens((12, 12)) if layout == "tokens" else None
    options = {"output": "logits", "representations": given, "boundary": "circular"}
    found = lee.orbit(model, image, "rotation", T, **options)  # type: ignore[arg-type]
    assert found.gap < 1e-3
    assert found.flips is None
    assert found.predicted_flips is None
    known = lee.lie_derivative(model, image[None], "rotation", **options)[0]  # type: ignore[arg-type]
    assert relative(found.derivatives[found.start], known) < 1e-9
    odd = images(1, 11, 11)[0]  # the highest frequency of an even side has no shift
    still = lee.orbit(nn.Identity(), odd, "translation_x", T, output="logits", boundary="circular")
    assert float(still.differences.norm()) < 1e-9 * float(still.outputs.norm())
    assert float(still.derivatives.norm()) < 1e-9 * float(still.outputs.norm())


def test_actions_and_complex_outputs() -> None:
    image = images(1, 8, 8)[0]

    def fading(z: Tensor, t: Tensor) -> Tensor:
        return z * torch.exp(-t)

    action = lee.Action(fading, "fading", fading)
    found = lee.orbit(lambda z: torch.fft.fft(z.square().mean((2, 3))), image, action, T, output="logits")
    assert found.outputs.is_complex()
    assert found.gap < 1e-6
    assert relative(found.outputs, found.outputs[found.start] * torch.exp(-found.t)[:, None]) < 1e-9


def test_where_the_class_flips_and_what_the_tangent_predicts() -> None:
    """Two linear scores of an image that brightens: where they cross is known."""
    weights = torch.tensor([[2.0, 0, 0], [0.0, 0, 0]]).double()
    bias = torch.tensor([0.0, 0.8]).double()

    def model(z: Tensor) -> Tensor:
        return z.mean((2, 3)) @ weights.T + bias

    image = torch.full((3, 6, 6), 0.25, dtype=torch.float64) + 0.01 * torch.rand(3, 6, 6).double()
    mean = float(image[0].mean())
    found = lee.orbit(model, image, "brightness", torch.linspace(-1, 1, 9), output="logits")
    assert found.flips is not None
    assert found.flips[0] == -math.inf
    assert found.flips[1] == pytest.approx(math.log(0.4 / mean), abs=1e-3)
    assert found.predicted_flips is not None
    assert found.predicted_flips[0] == -math.inf
    assert found.predicted_flips[1] == pytest.approx((0.8 - 2 * mean) / (2 * mean))


@pytest.mark.parametrize("amounts", [5, 21])
def test_a_class_flips_where_the_scores_that_are_moved_back_cross(amounts: int) -> None:
    """The output turns by t as the image brightens: both scores are known, and where they cross is found by dense amounts."""

    def model(z: Tensor) -> Tensor:
        return torch.stack([z.mean((1, 2, 3)), torch.full((len(z),), 0.6, dtype=z.dtype)], 1)

    def turn(z: Tensor, t: Tensor) -> Tensor:
        return torch.stack([t.cos() * z[:, 0] - t.sin() * z[:, 1], t.sin() * z[:, 0] + t.cos() * z[:, 1]], 1)

    image = images(1, 12, 12)[0]
    action = lee.Action(lambda z, t: z * t.exp(), "gain", turn)
    found = lee.orbit(model, image, action, torch.linspace(-1, 1, amounts), output="logits")
    t = torch.linspace(-1, 1, 200_001).double()
    back = turn(torch.stack([float(image.mean()) * t.exp(), torch.full_like(t, 0.6)], 1), -t)
    other = t[(back.argmax(1) != back[100_000].argmax()) & (t > 0)]
    assert found.flips is not None
    assert found.flips[1] == pytest.approx(float(other.min()), abs=2 / (amounts - 1) / 2**11)


def test_what_an_action_does_to_the_output_of_an_orbit_is_checked() -> None:
    action = lee.Action(lambda z, t: z * t.exp(), "gain", lambda z, t: z + 0.5)
    with pytest.raises(InputError, match="on the output does not leave everything as it is"):
        lee.orbit(net(), images(1, 12, 12)[0], action, T, output="logits")


def test_what_has_no_orbit_is_refused() -> None:
    model, image = net(), images(1, 12, 12)[0]
    for wrong in ([0.0, 0.1], [0.1, 0.2, 0.3], [0.2, 0.0, -0.2], 0.3):
        with pytest.raises(lee.InputError, match="three amounts or more"):
            lee.orbit(model, image, "rotation", wrong)  # type: ignore[arg-type]
    with pytest.raises(lee.InputError, match="one image"):
        lee.orbit(model, images(2, 12, 12), "rotation", T)
    with pytest.raises(lee.InputError, match="no closed form"):
        lee.orbit(model, image, lee.ROTATION + lee.BRIGHTNESS, T)
    with pytest.raises(lee.InputError, match="no finite warp"):
        lee.orbit(model, image, "rotation", T, kernel="authors")
    with pytest.raises(lee.InputError, match="Images must have shape"):
        lee.orbit(model, image[0], "rotation", T)


def test_the_images_of_an_orbit_do_not_meet() -> None:
    """A model that centres its batch sees one image at a time, however many are asked for per pass."""

    def model(z: Tensor) -> Tensor:
        v = z.mean((2, 3)) ** 2
        return v + v.mean(0, keepdim=True)

    amounts = torch.linspace(-0.2, 0.2, 9)
    with pytest.warns(lee.BatchInteractionWarning):
        found = lee.orbit(model, images(1, 12, 12)[0], "brightness", amounts, output="logits", chunk=9)
    alone = lee.orbit(lambda z: 2 * z.mean((2, 3)) ** 2, images(1, 12, 12)[0], "brightness", amounts, output="logits")
    torch.testing.assert_close(found.outputs, alone.outputs)
    torch.testing.assert_close(found.derivatives, alone.derivatives)


def test_one_number_per_image_has_an_orbit() -> None:
    model, image = net(), images(1, 12, 12)[0]
    found = lee.orbit(lambda z: model(z)[:, 0], image, "rotation", T, output="logits")
    assert found.outputs.shape == T.shape
    assert found.flips is None
    assert found.gap < 1e-4


@pytest.mark.parametrize("t", [None, "abc", ["a", "b", "c"]])
def test_amounts_are_numbers(t: object) -> None:
    with pytest.raises(lee.InputError, match="`t` must hold numbers"):
        lee.orbit(net(), images(1, 12, 12)[0], "rotation", t)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", [lambda z, t: z * (1 + t.detach()), lambda z, t: z + 0.1])
def test_actions_are_checked(action: Any) -> None:
    with pytest.raises(InputError, match="action"):
        lee.orbit(build("cnn"), images(1), action, torch.linspace(-0.2, 0.2, 5), output="logits")


def test_a_small_amount_beside_zero_stays_what_it_is() -> None:
    found = lee.orbit(build("cnn"), images(1), "rotation", torch.tensor([-1e-9, 0.0, 1.0], dtype=torch.float64))
    assert found.t.tolist() == [-1e-9, 0.0, 1.0]
    with pytest.raises(InputError, match="real numbers"):
        lee.orbit(build("cnn"), images(1), "rotation", torch.tensor([-1j, 0, 1j]))
