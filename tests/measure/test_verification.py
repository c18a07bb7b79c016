"""Every number is right, or refused, or comes with a warning: models that torch's derivatives get wrong, one kind after another.

The truth is the central difference of the *finite* action on the function's values.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from oracles import by_differences
from torch import Tensor, nn

import lee
from lee.geometry.sampling import Sampler
from lee.measure.function import one_function
from lee.measure.judgement import NOTHING, steady
from lee.measure.reference import Reference

Model = Callable[[Tensor], Tensor]


def images(n: int = 4, channels: int = 3) -> Tensor:
    """Smooth images (n, channels, 16, 16), float64."""
    rough = torch.rand(n, channels, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return F.interpolate(rough, (16, 16), mode="bicubic")


def truth(model: Model, x: Tensor, generator: str) -> Tensor:
    """`L_X f(x)` from the values of `f` alone."""
    sampler = Sampler().for_image(*x.shape[-2:])
    return by_differences(model, x, lee.geometry.generators.get(generator), sampler)  # type: ignore[arg-type]


def error(derivative: Tensor) -> float:
    return float(derivative.square().mean())


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings that other tests look at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lee.LeeWarning)
        yield


def agrees(model: Model, x: Tensor, generator: str, tolerance: float = 1e-5) -> None:
    """All public ways to a number give the function's own."""
    known = truth(model, x, generator)
    size = max(float(known.norm()), 1e-3 * float(model(x).norm()))
    with quietly():
        found = lee.lie_derivative(model, x, generator, output="logits")
        gram = lee.equivariance_gram(model, x, generators=[generator, "shear_x"], output="logits", progress=False)
    assert float((found - known).norm()) < tolerance * size
    assert gram.lee(generator).value == pytest.approx(error(known), rel=2 * tolerance, abs=(tolerance * size) ** 2)


torch.manual_seed(0)
CONV = nn.Conv2d(3, 6, 3).double().eval().requires_grad_(False)
EYE = torch.eye(3, dtype=torch.float64)


def spectrum(z: Tensor) -> Tensor:
    return z.mean((2, 3)) + torch.fft.fft2(z.to(torch.complex128))[..., :4, :4].abs().mean((2, 3))


def half_spectrum(z: Tensor) -> Tensor:
    return torch.fft.irfft(z[..., :9], n=16).square().mean((2, 3)) + (z + 0j).abs().pow(3).mean((2, 3)).real


def summed_into_a_real_buffer(z: Tensor) -> Tensor:
    out = torch.zeros_like(z)
    out += torch.fft.fft2(z).real * 0.01
    out[:, 0] = z[:, 1].square()
    return out.mean((2, 3))


def zeroed_behind_a_convolution(z: Tensor) -> Tensor:
    z = z * 1
    y = CONV(z)
    z.zero_()
    return y.tanh().mean((2, 3))


def squared_behind_a_convolution(z: Tensor) -> Tensor:
    z = z * 1
    y = CONV(z)
    z **= 2
    return y.tanh().mean((2, 3)) + z.mean((2, 3)).sum(1, keepdim=True)


class Kernels(nn.Module):
    """One buffer takes three kernels in turn within a pass."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.kernels = torch.randn(3, 4, 3, 3, 3, dtype=torch.float64, generator=random)
        self.register_buffer("w", torch.zeros(4, 3, 3, 3, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return sum(F.conv2d(z, self.w.copy_(k)).tanh().mean((2, 3)) for k in self.kernels)  # type: ignore[misc, operator]


def normalised_by_a_constant(z: Tensor) -> Tensor:
    v = torch.fft.rfft2(z).abs().mean((2, 3))
    return v / v.norm(dim=1, keepdim=True).detach()


def distances_without_gradients(z: Tensor) -> Tensor:
    with torch.no_grad():
        n = z.sum((2, 3)).norm(dim=1, keepdim=True)
    return torch.cdist(z.sum((2, 3)) / n, EYE)


def standardised_by_item(z: Tensor) -> Tensor:
    parts = [(image - image.mean().item()) / image.std().item() for image in z]
    return torch.stack(parts).tanh().mean((2, 3))


class Reversal(torch.autograd.Function):
    """Domain adaptation's gradient reversal: the identity, with a backward pass that is not its derivative."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


def reversed_gradients(z: Tensor) -> Tensor:
    return Reversal.apply(z).tanh().mean((2, 3)) + z.mean((2, 3))  # type: ignore[no-untyped-call, no-any-return]


class Energy(nn.Module):
    """Its output is a gradient that it takes itself."""

    def forward(self, z: Tensor) -> Tensor:
        with torch.enable_grad():
            y = z.detach().requires_grad_()
            (force,) = torch.autograd.grad(y.tanh().square().sum(), y)
        return force.mean((2, 3))


def by_numpy(z: Tensor) -> Tensor:
    return torch.from_numpy(z.detach().numpy() ** 3).mean((2, 3))


def by_lists(z: Tensor) -> Tensor:
    return torch.tensor([[sum(c) / len(c) for c in i] for i in z.flatten(2).square().tolist()], dtype=z.dtype)


def rounded_on_the_side(z: Tensor) -> Tensor:
    assert z.abs().max().item() < 1e6  # leaves torch, but to no effect
    return z.square().mean((2, 3))


def in_place_of_a_view(z: Tensor) -> Tensor:
    y = z.clone()
    y[:, :, 2:6].mul_(2).sin_()
    y.view(len(y), -1)[:, ::3].zero_()
    y.transpose(2, 3)[..., 0] += z[..., 1]
    return y.mean((2, 3))


KINDS: dict[str, tuple[Model, str]] = {
    "complex": (spectrum, "scale"), "complex halves": (half_spectrum, "rotation"),
    "complex into real": (summed_into_a_real_buffer, "rotation"), "zero_": (zeroed_behind_a_convolution, "rotation"),
    "**=": (squared_behind_a_convolution, "scale"), "kernels": (Kernels(), "rotation"),
    "detach": (normalised_by_a_constant, "brightness"), "no_grad": (distances_without_gradients, "brightness"),
    "item": (standardised_by_item, "brightness"), "gradient reversal": (reversed_gradients, "scale"),
    "autograd.grad": (Energy(), "scale"), "numpy": (by_numpy, "brightness"), "tolist": (by_lists, "scale"),
    "item to no effect": (rounded_on_the_side, "scale"), "views": (in_place_of_a_view, "rotation"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_number_follows_the_function(name: str) -> None:
    model, generator = KINDS[name]
    agrees(model, images(), generator)


@pytest.mark.parametrize("name", KINDS)
def test_single_precision_says_how_well_it_was_checked(name: str) -> None:
    model, generator = KINDS[name]
    model = copy.deepcopy(model).float() if isinstance(model, nn.Module) else model
    if name in ("zero_", "**=", "no_grad", "kernels"):
        pytest.skip("holds weights in double precision")
    known = truth(KINDS[name][0], images(), generator)
    with quietly():
        found = lee.lie_derivative(model, images().float(), generator, output="logits")
    assert found.verification is not None  # type: ignore[attr-defined]
    scale = max(float(known.norm()), 1e-3)
    assert float((found.double() - known).norm()) < 0.05 * scale


def test_what_leaves_torch_is_named() -> None:
    with pytest.warns(lee.LeavesTorchWarning, match="item"):
        lee.lie_derivative(standardised_by_item, images(), "brightness", output="logits")


@pytest.mark.parametrize(("mode", "name"), [("reverse", "detach"), ("reverse", "gradient reversal")])
def test_a_mode_that_can_not_follow_is_refused_with_both_numbers(mode: str, name: str) -> None:
    model, generator = KINDS[name]
    with pytest.raises(
        lee.VerificationError, match=r"central differences of the function's own values give .* ± .*mode='auto'"
    ):
        lee.lie_derivative(model, images(), generator, output="logits", mode=mode)


def test_without_a_check_nothing_is_said() -> None:
    x = images()
    found = lee.lie_derivative(reversed_gradients, x, "scale", output="logits", mode="reverse", verify=False)
    assert found.verification is None  # type: ignore[attr-defined]
    assert float((found - truth(reversed_gradients, x, "scale")).norm()) > 0.1


def test_the_result_says_what_was_checked() -> None:
    net = nn.Sequential(CONV, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 14 * 14, 4).double()).eval()
    x = images()
    gram = lee.equivariance_gram(net, x, progress=False)
    estimate = lee.local_equivariance_error(net, x, "rotation", progress=False)
    for verification in (gram.verification, estimate.verification, gram.lee("scale").verification):
        assert verification is not None
        assert verification.verified
        assert verification.mode == "forward"
        assert verification.deviation < 1e-5
        assert "forward mode and differences of the function in float64 agree to" in str(verification)
    assert lee.layerwise(net, x, "rotation").verification is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_check_runs_seven_images_through_the_model(dtype: torch.dtype) -> None:
    """One for its activations, again beside another, two of a difference, and both in the other order.

    What is checked was pushed anyway.
    """
    net = nn.Sequential(copy.deepcopy(CONV), nn.SiLU(), nn.Flatten(), nn.Linear(6 * 14 * 14, 4)).to(dtype).eval()
    x, seen = images(2).to(dtype), list[int]()
    handle = net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    ran: list[int] = []
    for verify in (True, False):
        seen.clear()
        lee.equivariance_gram(net, x, verify=verify, progress=False)
        ran.append(sum(seen))
    handle.remove()
    assert ran[0] - ran[1] == 7
    assert ran[1] == len(x)


def test_ties_are_no_faults() -> None:
    """Flat, saturated images: max-pooling and ReLU have no single derivative there, and nobody is at fault."""
    net = nn.Sequential(
        nn.ReLU(), nn.MaxPool2d(2), CONV, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 6 * 6, 4).double()
    ).eval()
    x = (images() > 0.5).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lee.equivariance_gram(net, x, progress=False).verification.verified  # type: ignore[union-attr]


def test_an_engine_in_single_precision_fed_with_double() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Flatten(), nn.Linear(6 * 14 * 14, 4)).eval()
    exact = copy.deepcopy(inner).double()
    buffer = torch.zeros(64, 4)

    def engine(z: Tensor) -> Tensor:  # reuses its output's memory, as inference engines do
        out = torch.from_numpy(inner(z.float()).detach().numpy())
        buffer[: len(z)] = out
        return buffer[: len(z)]

    known = truth(exact, images(), "rotation")
    for mode in ("auto", "differences"):
        with quietly():
            found = lee.lie_derivative(engine, images(), "rotation", output="logits", mode=mode)
        assert float((found - known).norm()) < 0.05 * float(known.norm())
    with quietly():
        shifts = lee.metrics.eq_r(engine, images(), output="logits", max_angle=0.3, draws=4)
        same = lee.metrics.eq_r(exact, images(), output="logits", max_angle=0.3, draws=4)
    assert shifts.value == pytest.approx(same.value, rel=1e-3)


def test_quantised_models_are_not_counted_as_zero() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(net), {nn.Linear})
    x = images().float()
    known = lee.local_equivariance_error(net, x, "rotation", output="logits", progress=False).value
    with quietly():
        found = lee.local_equivariance_error(quantised, x, "rotation", output="logits", progress=False)
        with pytest.raises((lee.InputError, lee.VerificationError), match=r"linear_dynamic|mode='auto'"):
            lee.local_equivariance_error(quantised, x, "rotation", output="logits", mode="forward", progress=False)
    assert found.value == pytest.approx(known, rel=0.5)
    assert found.verification is not None
    assert found.verification.mode == "differences"


def test_autocast_inside() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()

    def model(z: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(z).float()  # type: ignore[no-any-return]

    x = images().float()
    known = lee.local_equivariance_error(net, x, "scale", output="logits", progress=False).value
    with quietly():
        found = lee.local_equivariance_error(model, x, "scale", output="logits", progress=False)
    assert found.value == pytest.approx(known, rel=0.1)


class HalfTurned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z) + z.detach().mean((2, 3)) * 3  # type: ignore[no-any-return]


def test_layers_follow_the_function() -> None:
    """The decomposition of a model that stops a gradient sums to what the function does, not to what torch says."""
    torch.manual_seed(0)
    model, x = HalfTurned().double().eval(), images()
    known = truth(model, x, "brightness")
    with quietly():
        parts = lee.layerwise(model, x, "brightness", output="logits")
    assert parts.total.value == pytest.approx(error(known), rel=1e-5)
    assert parts.residual < 1e-6


def test_layers_of_what_leaves_torch_are_refused_or_right() -> None:
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, z: Tensor) -> Tensor:
            return self.head(standardised_by_item(z))  # type: ignore[no-any-return]

    model = Standardised().double().eval()
    with quietly(), pytest.raises(lee.LeeError) as raised:
        lee.layerwise(model, images(), "brightness", output="logits")
    assert len(str(raised.value)) < 600


def unit(z: Tensor) -> Tensor:
    v = torch.fft.rfft(CONV(z).tanh().mean((2, 3))).abs()
    return v / v.norm(dim=1, keepdim=True).detach()


def test_a_derivative_that_is_not_a_number_agrees_with_nothing() -> None:
    """Rows that attend to nothing: their NaN is replaced in the value, but not in torch's forward derivative."""
    mask = torch.ones(14, 14, dtype=torch.bool).tril(-1)

    def model(z: Tensor) -> Tensor:
        q, k, v = CONV(z)[:, :3].unsqueeze(2).unbind(1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).nan_to_num().mean((2, 3))

    agrees(model, images(), "rotation")


@pytest.mark.parametrize("mode", ["auto", "differences"])
def test_stairs_too_high_for_differences_are_refused_with_their_noise(mode: str) -> None:
    def model(z: Tensor) -> Tensor:
        return ((1e6 * z).round() * 12.9898).sin().mean((2, 3)) + 0 * z.mean((2, 3))

    with pytest.raises(lee.VerificationError, match=r"motions (its norm is 0 by .*, but )?central differences .* ± "):
        lee.lie_derivative(model, images(), "rotation", output="logits", mode=mode)


def test_an_image_at_which_nothing_changes_is_no_proof() -> None:
    """The first image is saturated; the check goes on to one that is not."""

    def model(z: Tensor) -> Tensor:
        return (unit(z) + 60 * (z.mean((1, 2, 3)) > 0.6).to(z)[:, None]).sigmoid()

    x = images()
    x[0], x[1:] = x[0] * 0.1 + 0.8, x[1:] * 0.5
    agrees(model, x, "brightness")


def test_an_output_that_never_moves_is_checked_in_few_passes() -> None:
    """As of networks whose last layer starts at zero; stairs, flat where differences usually look, are no such output."""
    torch.manual_seed(0)
    model, passes = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)), []
    model(images(1).float())
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    model.eval().register_forward_hook(lambda _, args, __: passes.append(len(args[0])))
    with pytest.warns(lee.ConstantOutputWarning):
        gram = lee.equivariance_gram(model, images(2).float(), generators=["scale"], progress=False)
    assert gram.verification is not None
    assert gram.verification.verified
    assert sum(passes) - 2 <= 23  # the two images themselves are measured, too

    def stairs(z: Tensor) -> Tensor:  # that small steps don't reach; its derivative is said to be zero
        return (1e3 * z.mean((2, 3))).detach().round() * 1e-3 + 0 * z.mean((2, 3))

    with quietly():
        found = lee.lie_derivative(stairs, images(2), "brightness", output="logits")
    assert float(found.abs().max()) > 0.1


def test_images_that_interact_are_checked_together() -> None:
    def model(z: Tensor) -> Tensor:
        v = torch.fft.rfft(CONV(z).tanh().mean((2, 3))).abs()
        v = v - v.mean(0, keepdim=True)
        return v / (v.norm(dim=1, keepdim=True).detach() + 1e-3)

    known = truth(model, images(), "brightness")
    with quietly():
        found = lee.lie_derivative(model, images(), "brightness", output="logits", chunk=4)
    assert float((found - known).norm()) < 1e-5 * float(known.norm())


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5])
def test_a_generator_of_little_effect_is_checked_beside_one_of_much(scale: float) -> None:
    def model(z: Tensor) -> Tensor:
        return scale * z.mean((1, 2, 3))[:, None] + unit(z)

    x = images()
    options = {"output": "logits", "boundary": "circular", "progress": False}
    with quietly():
        both = lee.equivariance_gram(model, x, generators=["translation_x", "brightness"], **options)  # type: ignore[arg-type]
        alone = lee.local_equivariance_error(model, x, "translation_x", **options)  # type: ignore[arg-type]
    assert both.lee("translation_x").value == pytest.approx(alone.value, rel=1e-3)


def test_differences_take_steps_that_other_images_allow() -> None:
    """A piecewise linear model looks steady at any step around one image; at others a large one crosses its kinks."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 3)).double().eval()
    x = images(16)
    known = lee.lie_derivative(net, x, "rotation", output="logits")
    with quietly():
        found = lee.lie_derivative(lambda z: torch.from_numpy(net(z).detach().numpy()), x, "rotation", output="logits")
    assert float((found - known).norm()) < 1e-5 * float(known.norm())


def test_complex_outputs_count_with_their_whole_size() -> None:
    def model(z: Tensor) -> Tensor:
        return torch.fft.fft(z.square().mean((2, 3)))

    x = images()
    derivative = lee.lie_derivative(model, x, "scale", output="logits")
    found = lee.local_equivariance_error(model, x, "scale", output="logits", progress=False)
    assert found.value == pytest.approx(float(derivative.abs().square().mean()), rel=1e-9)


def test_outputs_without_a_derivative_are_refused() -> None:
    for model, said in ((lambda z: z.mean((2, 3)).argmax(1), "no derivative"), (lambda z: z[:, :0], "empty")):
        with pytest.raises(lee.InputError, match=said):
            lee.lie_derivative(model, images(), "scale", output="logits")


def test_a_backward_pass_that_is_half_the_derivative_is_not_verified() -> None:
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.square()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient / 2

    with pytest.raises(lee.VerificationError):
        lee.lie_derivative(lambda z: Half.apply(z).mean((2, 3)), images(), "scale", output="logits", mode="reverse")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("noise", "verified"), [(0.3, False), (0.05, True)])
def test_differences_that_rounding_explains_in_part_are_not_called_verified(noise: float, verified: bool) -> None:
    """As of a model that computes in single precision inside: what rounding may do is a third of the whole slope."""
    reference = SimpleNamespace(
        best=(torch.ones(1), noise, 1e-7),
        response=0.0,
        rounding=lambda step: 0.05,
        dtype=torch.float64,
        narrowing=NARROW,
    )
    found = steady(reference)  # type: ignore[arg-type]
    assert found is not None
    assert found.verified is verified
    assert str(found).startswith("verified" if verified else "not verified")
    assert found.note == ("" if verified else NARROW)


class Called(nn.Module):
    """A function as a module, which can be converted."""

    def __init__(self, function: Model) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


NARROW = "the model computes in float32 inside, whatever it is given"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("inside", "said"), [(Tensor.float, NARROW), (Tensor.double, ""), (torch.clone, "")])
def test_a_conversion_to_single_precision_inside_is_found(
    dtype: torch.dtype, inside: Callable[[Tensor], Tensor], said: str
) -> None:
    def model(z: Tensor) -> Tensor:
        return inside(z.square()).mean((2, 3)).to(z.dtype)

    x = images(1).to(dtype)
    with one_function(nn.Sequential(Called(model)), "logits") as function:
        assert Reference(function, x, torch.ones_like(x), function.value(x)).narrowing == said


@pytest.mark.filterwarnings("ignore::lee.errors.ImageWarning")
def test_noise_of_single_precision_inside_is_no_scale_for_a_zero() -> None:
    """The response to a step that is too small is rounding, a thousand times the derivative, which is no zero beside it."""
    torch.manual_seed(1)
    model, x = timm.create_model("efficientvit_b0").eval(), torch.rand(4, 3, 32, 32)
    with pytest.warns(lee.VerificationWarning, match=f"not verified.*own noise is .*, as {NARROW}"):
        found = lee.equivariance_gram(
            model, x, generators=["rotation", "translation_x"], output="logits", progress=False
        )
    assert found.verification is not None
    assert not found.verification.verified


@pytest.mark.filterwarnings("ignore::lee.errors.ConstantOutputWarning")  # of the first six
@pytest.mark.parametrize("chunk", [None, 6])
def test_a_check_where_nothing_changes_does_not_speak_for_images_where_something_does(chunk: int | None) -> None:
    """The first images are dark, and an activation is dead there; the others may come in a later pass."""

    def model(z: Tensor) -> Tensor:
        return ((z.mean((1, 2, 3), keepdim=True) - 0.5).relu() * CONV(z).tanh()).mean((2, 3))

    x = images(12)
    x[:6], x[6:] = x[:6] * 0.2, x[6:] * 0.2 + 0.8
    agrees(model, x, "brightness")
    found = lee.equivariance_gram(model, x, output="logits", progress=False, chunk=chunk).verification
    assert found is not None
    assert found.verified
    assert found.deviation > 0  # something was compared
    assert found.note != NOTHING


def test_a_check_says_so_where_it_finds_no_image_that_changes() -> None:
    """What is remembered from the last image of one pass is constant in the next, but not among many images."""
    seen: dict[int, Tensor] = {}

    def model(z: Tensor) -> Tensor:
        value = CONV(z).tanh().mean((2, 3))
        return value if len(z) > 3 else seen.setdefault(len(z), value.detach().clone()) + 0 * value

    with pytest.warns(lee.LeeWarning) as said:
        found = lee.equivariance_gram(model, images(6), output="logits", progress=False, generators=["brightness"])
    assert any(isinstance(w.message, lee.VerificationWarning) and "but at others" in str(w.message) for w in said)
    assert found.verification is not None
    assert not found.verification.verified


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}])
def test_convolutions_of_the_reference_are_torchs_in_value_and_layout(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    last = nn.Conv2d(4, 6, 3, groups=2, **options).eval()
    seen: list[tuple[int, ...]] = []

    def model(z: Tensor) -> Tensor:
        images = F.interpolate(z, (12, 12))[:, [0, 1, 2, 0]].contiguous(memory_format=torch.channels_last)
        out = last(images)
        seen.append(out.stride())
        return out.flatten(1)

    x = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad(), one_function(model, "logits") as function:
        found = function.in_double(x)
        with function.doubled():
            expected = function.value(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert seen[-1] == seen[-2]


class Straight(torch.autograd.Function):
    """A clamp whose backward pass does as if it were none: a straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0]


def test_dual_numbers_that_are_wrong_for_later_images_alone_are_found() -> None:
    torch.manual_seed(0)
    conv, head = nn.Conv2d(3, 8, 3, padding=1).double().eval(), nn.Linear(8, 4).double().eval()

    def model(clamp: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        kept = torch.zeros(z.shape, dtype=z.dtype)
        kept[:] = clamp(z)  # a write into a plain tensor, which only dual numbers of the whole function follow
        return head(conv(kept).sigmoid().mean((2, 3)))

    x = torch.cat([images()[:2] * 0.5, images()[2:] * 2])
    options: dict[str, Any] = {"output": "logits", "progress": False}
    plain = lee.local_equivariance_error(partial(model, lambda z: z.clamp(0, 1)), x, "rotation", **options)
    for given in (x, x.flip(0)):
        found = lee.local_equivariance_error(partial(model, Straight.apply), given, "rotation", **options)
        assert found.value == pytest.approx(plain.value, rel=1e-4)


def test_backward_passes_take_an_output_without_axes() -> None:
    def model(z: Tensor) -> Tensor:
        return z.square().mean((1, 2, 3))

    found = lee.lie_derivative(model, images(), "rotation", output="logits", mode="reverse")
    torch.testing.assert_close(found, lee.lie_derivative(model, images(), "rotation", output="logits"))


def stairs(z: Tensor) -> Tensor:
    """Steps that are fine beside a bright image and coarse beside a dark one."""
    bright = np.round(300 * z.amax((1, 2, 3)).numpy())[:, None]
    return torch.from_numpy(np.floor(45000 * z[:, :, 4:12, 4:12].mean((2, 3)).numpy()) / (150 * bright))


@pytest.mark.parametrize("mode", ["auto", "differences"])
@pytest.mark.filterwarnings("ignore::lee.LeavesTorchWarning")
def test_steps_that_suit_the_first_image_alone_are_not_called_verified(mode: str) -> None:
    x = images(8) / images(8).amax((1, 2, 3), keepdim=True)
    x[1:] /= 300
    with pytest.warns(lee.VerificationWarning, match="twice the step are .* off at other images"):
        found = lee.equivariance_gram(
            stairs, x, generators=["translation_x"], output="logits", mode=mode, progress=False
        )
    assert found.verification is not None
    assert not found.verification.verified
    alone = lee.equivariance_gram(
        stairs, x[:1], generators=["translation_x"], output="logits", mode=mode, progress=False
    )
    assert alone.verification is not None
    assert alone.verification.verified


def test_images_that_the_first_way_can_not_follow_are_measured_in_another() -> None:
    def model(z: Tensor) -> Tensor:
        y = z.tanh().mean((2, 3))
        dark = z.mean((1, 2, 3)) < 0.1
        return torch.from_numpy(y.detach().numpy()) * 1 if bool(dark.any()) else y

    x = torch.cat([images(3), images(1) * 0.1])
    known = truth(model, x, "rotation")
    with quietly():
        found = lee.equivariance_gram(model, x, generators=["rotation"], output="logits", chunk=2, progress=False)
    assert found.lee("rotation").value == pytest.approx(error(known), rel=1e-4)
    with pytest.raises(lee.LeeError):
        lee.equivariance_gram(
            model, x, generators=["rotation"], output="logits", mode="forward", chunk=2, progress=False
        )


def test_a_value_that_is_widened_inside_is_checked_in_double_precision() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(2048, 4)).eval()
    weights = torch.rand(4, dtype=torch.float64)
    found = lee.equivariance_gram(
        lambda z: net(z) * weights, images().float(), generators=["rotation"], output="logits", progress=False
    )
    assert found.verification is not None
    assert found.verification.precision == "float64"


def test_a_backward_pass_that_is_wrong_for_later_images_alone_is_found() -> None:
    torch.manual_seed(0)
    rows, head = nn.LSTM(3 * 16, 8, batch_first=True).double().eval(), nn.Linear(8, 4).double().eval()

    def model(clamp: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        return head(rows(clamp(z).permute(0, 2, 1, 3).flatten(2))[0][:, -1])

    x = torch.cat([images()[:2] * 0.5, images()[2:] * 2])
    plain = lee.local_equivariance_error(
        partial(model, lambda z: z.clamp(0, 1)), x, "rotation", output="logits", progress=False
    )
    for given in (x, x.flip(0)):
        found = lee.local_equivariance_error(
            partial(model, Straight.apply), given, "rotation", output="logits", progress=False
        )
        assert found.value == pytest.approx(plain.value, rel=1e-4)


def test_images_of_double_precision_in_a_model_of_single_precision_do_not_interact() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()
    found = lee.equivariance_gram(lambda z: net(z.float()).to(z.dtype), images(6), output="logits", progress=False)
    assert found.verification is not None


def test_what_a_derivative_is_too_large_for_is_given_in_double_precision() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8**2, 2, bias=False)).half().eval()
    with torch.no_grad():
        net[1].weight.fill_(30000.0)
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float16)
    x[..., 8 // 2 :] = 1e-3
    found = lee.lie_derivative(net, x, "translation_x", output="logits", verify=False, mode="differences")
    assert bool(torch.isfinite(found).all())


def test_a_steep_and_sure_classifier_is_not_held_against_steps_that_are_too_large() -> None:
    """Scores by a large factor: small steps drown in the rounding of 1 - 1e-9, and large ones agree with each other by chance."""
    torch.manual_seed(3)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10)
    ).double().eval()  # fmt: skip
    x = torch.rand(4, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float().double()
    top = body(x).detach().topk(2, 1).values
    factor = 20 / float((top[:, 0] - top[:, 1]).min())
    measured = lee.equivariance_gram(lambda z: body(z) * factor, x, generators=["rotation"], progress=False)
    plain = lee.equivariance_gram(lambda z: body(z) * factor, x, generators=["rotation"], progress=False, verify=False)
    assert torch.allclose(measured.lee_per_image("rotation"), plain.lee_per_image("rotation"), rtol=1e-6, atol=0)
