"""What is no number, no model, no image or no action gets a sentence; and a failed call leaves nothing behind."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import TensorDataset

import lee
from lee import metrics
from lee.geometry.antialiasing import low_pass
from lee.geometry.interpolation import derivative_matrix
from lee.geometry.outputs import of_output
from lee.geometry.representations import Map
from lee.measure.reference import Reference
from lee.measure.testing import equivariance_deviation
from lee.training import EquivariancePenalty

X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5))


def of(model: Any, x: Any = X, generator: Any = "rotation", **options: Any) -> lee.Estimate:
    return lee.local_equivariance_error(model, x, generator, progress=False, **options)


MEASURED: dict[str, Callable[..., Any]] = {
    "lee": of,
    "unverified": lambda model, x=X: of(model, x, verify=False),
    "derivative": lambda model, x=X: lee.lie_derivative(model, x, "rotation"),
    "layerwise": lambda model, x=X: lee.layerwise(model, x, "rotation"),
    "explained": lambda model, x=X: lee.explain_representations(model, x),
    "consistency": lambda model, x=X: metrics.consistency(model, x),
    "errors": lambda model, x=X: metrics.eq_t(model, x, draws=1),
    "sampled": lambda model, x=X: metrics.sampled_invariance(model, x, "rotation", radius=0.1, draws=1),
    "layers": lambda model, x=X: metrics.layer_errors(model, x, [("rotation", 0.1)]),
    "range": lambda model, x=X: metrics.output_range(model, x),
}


class Hidden(nn.Module):
    """Infinite on the way, finite at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).exp() * torch.inf).mean((2, 3)) + x.mean()


@pytest.mark.parametrize("measured", [name for name in MEASURED if name not in ("explained", "layers")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_name_their_module(measured: str, value: float) -> None:
    model = network()
    nn.init.constant_(model[3].bias, value)
    with pytest.raises(lee.InputError, match=r"bias of the module 3 \(Linear\) holds NaN or infinity"):
        MEASURED[measured](model)


@pytest.mark.parametrize("measured", ["lee", "derivative", "layerwise", "consistency", "errors", "sampled"])
def test_what_is_infinite_on_the_way_names_its_module(measured: str) -> None:
    with pytest.raises(lee.InputError, match=r"first in the module last \(Sigmoid\), in what it is given"):
        MEASURED[measured](Hidden())


def test_a_saturating_weight_and_a_broken_buffer_are_refused_but_a_mask_is_none() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Flatten(), nn.Linear(784, 5))
    model.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
    assert of(model).n == 4
    nn.init.constant_(model[0].bias, torch.inf)  # type: ignore[arg-type]
    with pytest.raises(lee.InputError, match=r"bias of the module 0 \(Conv2d\)"):
        of(model)
    nn.init.zeros_(model[0].bias)  # type: ignore[arg-type]
    model[1].running_var[0] = torch.nan  # type: ignore[index,operator]
    with pytest.raises(lee.InputError, match=r"running_var of the module 1 \(BatchNorm2d\)"):
        of(model)


def test_an_output_that_fails_among_many_images_names_the_module() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores = x.mean((2, 3))
            return torch.cat([scores[:2], scores[2:] * torch.nan])

    with pytest.raises(lee.InputError, match=r"image 2 .* first in the module model \(Late\)"):
        of(Late())


@pytest.mark.parametrize("measured", MEASURED)
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18", r"'resnet18' is a name: lee\.models\.load\('resnet18'\)"),
        (nn.Linear, r"Linear is a class, not a model: make one of it"),
        (None, "a function of images, not NoneType"),
        ([network()], "a function of images, not list"),
    ],
)
def test_what_is_no_model_is_refused(measured: str, model: Any, said: str) -> None:
    with pytest.raises(lee.InputError, match=said):
        MEASURED[measured](model)
    with pytest.raises(lee.InputError, match=said):
        lee.LocalEquivarianceError(model, "rotation")


@pytest.mark.parametrize("measured", MEASURED)
def test_tensors_that_are_no_images_are_refused(measured: str) -> None:
    model = network()
    nested = torch.nested.nested_tensor([X[0], X[1]], layout=torch.jagged)
    for x in (X.to_sparse(), X.to("meta"), nested, X.numpy(), X.to(torch.complex64), X.byte()):
        with pytest.raises(lee.InputError):
            MEASURED[measured](model, x)


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(lee.InputError, match="device meta"):
        of(network().to("meta"))


@pytest.mark.parametrize("value", [True, 0, -1, 2.0, "2"])
def test_counts_are_whole_numbers_and_true_is_none(value: Any) -> None:
    model = network()
    for call in (
        lambda: of(model, chunk=value),
        lambda: lee.layerwise(model, X, "rotation", chunk=value),
        lambda: metrics.consistency(model, X, chunk=value),
        lambda: metrics.consistency(model, X, shifts=value),
        lambda: metrics.eq_t(model, X, chunk=value),
        lambda: metrics.eq_t(model, X, draws=value),
        lambda: metrics.output_range(model, X, chunk=value),
        lambda: metrics.layer_errors(model, X, [("rotation", 0.1)], chunk=value),
    ):
        with pytest.raises(lee.InputError, match="must be a whole number from 1, not"):
            call()


@pytest.mark.parametrize("seed", [True, -1, 2**64, 1.5, "7"])
def test_seeds_are_whole_numbers(seed: Any) -> None:
    with pytest.raises(lee.InputError, match="`seed` must be a whole number from 0"):
        lee.layerwise(network(), X, "rotation", mode="probes", probes=2, seed=seed)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("photos", r"lee\.datasets\.load\('photos'\)\.images"),
        ({"pixels": X}, r"such as \(batch\['pixels'\] for batch in loader\)"),
        ([{"label": 1, "image": X}], r"such as \(batch\['image'\] for batch in loader\)"),
        (TensorDataset(X), r"DataLoader\(images, batch_size=8\)"),
        (X.numpy(), r"torch\.as_tensor"),
    ],
)
def test_what_holds_images_is_refused_with_how_to_give_them(images: Any, said: str) -> None:
    with pytest.raises(lee.InputError, match=said):
        of(network(), images)


@pytest.mark.parametrize("value", ["no", 1, None])
def test_flags_are_true_or_false(value: Any) -> None:
    for name in ("align_corners", "verify"):
        with pytest.raises(lee.InputError, match=f"`{name}` must be True or False, not {value!r}"):
            of(network(), **{name: value})
        with pytest.raises(lee.InputError, match=f"`{name}` must be True or False"):
            lee.layerwise(network(), X, "rotation", **{name: value})


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda x, t: torch.roll(x, int(t * 10), -1), "not change with t near 0"),
        (lambda x, t: torch.roll(x, round(float(t) * 300), -1), "not change with t near 0"),
        (lambda x, t: x, "does not depend on t"),
        (lambda x, t: x + 1 + t, "as it is at t = 0"),
        (lambda x, t: x * torch.nan, "as it is at t = 0"),
        (lambda x, t: x * (1 + t.abs()), "differences to one side"),
        (lambda x, t: x * (1 + t.relu()), "torch's derivative"),
        (lambda x, t: x * (1 + t.abs().sqrt()), "torch's derivative"),
        (lambda x, t: x * (1 + t.detach()), "torch's derivative"),
        (lambda x, t: x * (1 + float(t)), "torch's derivative|out of torch"),
        (lambda x, t: None, "must return a tensor"),
        (lambda x, t: torch.roll(x, int(t.ceil()), -1), "jumps at 0"),
        (lambda x, t: torch.rot90(x, int(t.sign()), (2, 3)), "jumps at 0"),
        (lambda x, t: x.flip(-1) if t > 0 else x, "jumps at 0"),
        (lambda x, t: x + t * torch.randn_like(x), "another result at every call"),
        (lambda x, t: (x * 255 * (1 + t)).round() / 255, "torch's derivative .* has norm 0"),
        (lambda x, t: (x * 255 * t.exp()).to(torch.uint8) / 255, "torch's derivative .* has norm 0"),
        (lambda x, t: torch.from_numpy(x.numpy() * np.exp(t.numpy())), "can't be differentiated in t"),
        (lambda x: x, "can't be called so here: too many positional"),
    ],
)
def test_an_action_is_the_identity_at_zero_and_differentiable_in_t(action: Any, said: str, verify: bool) -> None:
    with pytest.raises(lee.InputError, match=said):
        of(network(), generator=action, verify=verify)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda z, t: lee.warp(z, "translation_x", float(t)), "torch's derivative"),
        (lambda z, t: lee.warp(z, "translation_x", t.detach()), "torch's derivative"),
        (lambda z, t: 2 * lee.warp(z, "translation_x", t), "as it is at t = 0"),
        (lambda z, t: z.flip(-1) if t > 0 else z, "jumps at 0"),
    ],
)
def test_what_an_action_does_to_the_output_is_checked_like_what_it_does_to_the_image(output: Any, said: str) -> None:
    model = nn.Conv2d(3, 2, 3, padding=1)
    action = lee.Action(lambda x, t: lee.warp(x, "translation_x", t), "mine", output)
    with pytest.raises(lee.InputError, match=f"'mine' on the output .*{said}"):
        of(model, generator=action, output="logits")


def test_an_action_and_its_output_are_those_of_a_generator() -> None:
    def move(x: Tensor, t: Tensor) -> Tensor:
        return lee.warp(x, "translation_x", t)

    model = nn.Conv2d(3, 2, 3, padding=1)
    known = of(model, generator="translation_x", output="logits").value
    assert of(model, generator=lee.Action(move, "mine", move), output="logits").value == pytest.approx(known, rel=1e-3)


def test_an_action_may_move_an_image_against_the_others() -> None:
    assert of(network(), generator=lambda x, t: x + t * (x - x.mean(0))).value > 0


def test_an_action_may_bend_at_zero() -> None:
    assert of(network(), generator=lambda x, t: x * t.cos()).value == 0
    assert of(network(), generator=lambda x, t: x * (1 + t.abs() ** 1.5)).value == 0


def test_the_function_of_an_action_comes_first() -> None:
    with pytest.raises(lee.InputError, match=r"Write it alone, or lee\.Action\(function, name\)"):
        lee.Action("mine", lambda x, t: x * (1 + t))  # type: ignore[arg-type]


def test_an_action_may_leave_these_images_as_they_are() -> None:
    assert of(network(), X[:2] * 0, lambda x, t: x * torch.exp(t)).value == 0


def test_two_lambdas_have_two_names() -> None:
    first, second = (lambda x, t: x * (1 + t)), (lambda x, t: x * (1 + 2 * t))
    gram = lee.equivariance_gram(network(), X, generators=[first, second, "rotation"], progress=False)
    assert gram.basis == ("<lambda>", "<lambda> (2)", "rotation")
    assert gram.lee(second).value == pytest.approx(4 * gram.lee(first).value, rel=1e-4)
    assert gram.lee(second).name == "<lambda> (2)"
    assert gram.lee("<lambda> (2)") == gram.lee(second)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(self.net(x), self.net(x.flip(-1)))


def test_complex_outputs_are_measured_as_complex_or_refused() -> None:
    model, parts = Complex().double(), lambda o: torch.view_as_real(o).flatten(1)
    x = X.double()
    whole, apart = of(model, x, output="logits"), of(model, x, output=parts)
    assert whole.value == pytest.approx(2 * apart.value)  # the same sum over half as many outputs
    whole = metrics.eq_t(model, x, draws=2, output="logits")
    assert whole.value == pytest.approx(2 * metrics.eq_t(model, x, draws=2, output=parts).value)
    for name in ("lee", "derivative", "errors", "consistency", "range"):
        with pytest.raises(lee.InputError, match="complex"):
            MEASURED[name](model, x)
    with pytest.raises(lee.InputError, match="The output is complex"):
        lee.layerwise(model, x, "rotation", output="logits")


def test_complex_maps_are_compared_as_complex() -> None:
    for turn in (False, True):
        call: Any = metrics.eq_r if turn else metrics.eq_t
        z = X.double()
        real, both = lambda x: x.square(), lambda x: torch.complex(x.square(), x.square())
        one, two = (call(f, z, draws=2, output="logits").value for f in (real, both))
        assert two == pytest.approx(2 * one)


@pytest.mark.parametrize("around", [torch.inference_mode, FakeTensorMode, lambda: torch.device("meta")])
def test_a_call_elsewhere_leaves_no_cache_that_fails(around: Any) -> None:
    derivative_matrix.cache_clear()
    x = X[:, :, :11, :11].double()
    with around():
        derivative_matrix(11)
        low_pass(x, 0.5) if around is torch.inference_mode else None
    z = x.clone().requires_grad_()
    lee.spatial_gradient(z)[0].square().sum().backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_a_failed_call_changes_no_later_one() -> None:
    model, penalty = network(), EquivariancePenalty(["rotation"], "exact")
    before, share = of(model), float(penalty(model, X).detach())
    calls: list[Callable[[], Any]] = [
        lambda: of(model, X, lambda x, t: 1 / 0),
        lambda: of(model, X, output=lambda o: 1 / 0),
        lambda: of(lambda z: model(z)[:, :, 0, 0, 0], X),
        lambda: of(model, X[:, :, :9]),
        lambda: lee.layerwise(model, X[:, :1], "rotation"),
        lambda: penalty(model, X[:, :1]),
        lambda: metrics.eq_t(model, X[:, :1], draws=1),
    ]
    for call in calls:
        with pytest.raises(Exception):  # noqa: B017, PT011  # whatever the model raises
            call()
        assert of(model) == before
        assert float(penalty(model, X).detach()) == share


class Mapped(nn.Module):
    """Its convolution runs inside `torch.vmap`, where no value may be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda image: self.conv(image[None]).tanh()[0])(x).mean((2, 3))


def test_modules_inside_vmap_and_weights_of_inference_mode_are_measured() -> None:
    mapped = Mapped()
    plain = nn.Sequential(mapped.conv, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    known = of(plain, output="logits").value
    assert of(mapped, output="logits").value == pytest.approx(known, rel=1e-5)
    with torch.inference_mode():
        made = nn.Sequential(nn.Conv2d(3, 4, 3), *plain[1:])
        made[0].load_state_dict(mapped.conv.state_dict())
    assert of(made, output="logits").value == pytest.approx(known, rel=1e-5)


def test_layers_inside_vmap_are_refused_by_name() -> None:
    with pytest.raises(lee.InputError, match=r"The module conv runs inside a transform of torch.func"):
        lee.layerwise(Mapped(), X, "rotation", output="logits")


def test_a_model_of_one_batch_size_is_told_so() -> None:
    def four(x: Tensor) -> Tensor:
        if len(x) != 4:
            raise ValueError("a batch of 4")
        return x.mean((2, 3)).tanh()

    with pytest.raises(lee.InputError, match=r"runs on 4 images together, but not on one to three.*a batch of 4"):
        of(four, output="logits")
    with pytest.raises(ValueError, match="a batch of 4"):  # its own complaint, where the number is not the reason
        of(four, X[:3], output="logits")


def test_a_model_that_refuses_images_nearby_is_checked_with_the_steps_it_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    def bounded(x: Tensor) -> Tensor:
        if (x > X.amax() + 0.01).any() or (x < X.amin() - 0.01).any():
            raise ValueError("outside the table")
        return (x + 1).sqrt().mean((2, 3))

    estimate = of(bounded, output="logits", mode="differences")
    assert estimate.verification is not None
    assert estimate.verification.verified

    def refusing(self: Reference, step: float, v: Tensor | None = None) -> Tensor:
        raise ValueError("outside the table")

    monkeypatch.setattr(Reference, "slope", refusing)
    with pytest.raises(lee.InputError, match=r"differ a little from the given ones .*outside the table.*verify=False"):
        of(bounded, output="logits", mode="differences")


def test_another_default_device_is_refused_with_the_way_out() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3)).eval(), torch.rand(2, 3, 8, 8)
    with torch.device("meta"):
        for measure in (lee.local_equivariance_error, lee.lie_derivative, lee.layerwise, lee.error_map):
            with pytest.raises(lee.InputError, match=r"default device is meta.*with torch.device\(\"cpu\"\)"):
                measure(model, x, "rotation")
        with torch.device("cpu"):
            assert lee.local_equivariance_error(model, x, "rotation", progress=False).n == 2


def test_warnings_that_are_errors_stay_what_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(lee.BatchInteractionWarning):
            lee.lie_derivative(
                lambda z: z.mean((2, 3)) - z.mean((0, 2, 3)), torch.rand(3, 3, 8, 8), "scale", output="logits"
            )


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a generator alone": (lambda: lee.equivariance_gram(network(), X, generators=lee.ROTATION), "must be a list of them"),  # type: ignore[arg-type]
    "a number of generators": (lambda: lee.equivariance_gram(network(), X, generators=3), "must be a list of them"),  # type: ignore[arg-type]
    "a class": (lambda: of(network(), generator=lee.Generator), "A generator is a name"),
    "whole scores": (lambda: of(lambda z: (9 * z.mean((2, 3))).long()), "holds torch.int64"),
    "a map without channels": (
        lambda: of(lambda z: z.mean(1), output="logits"), r"without channels needs output=lambda o: o\[:, None\]"),
    "no motions": (lambda: metrics.differences(network(), X, 3), "must be a list of pairs"),  # type: ignore[arg-type]
    "a motion alone": (lambda: metrics.differences(network(), X, ("rotation", 0.1)), "must be a list of pairs"),  # type: ignore[arg-type]
    "a motion of layers": (lambda: metrics.layer_errors(network(), X, ["rotation"]), "must be a list of pairs"),  # type: ignore[list-item]
    "a seed": (lambda: metrics.eq_t(network(), X, random=0), "`random` must be a torch.Generator"),  # type: ignore[arg-type]
    "a seed of angles": (lambda: metrics.eq_r(network(), X, random=0), "`random` must be a torch.Generator"),  # type: ignore[arg-type]
    "a seed of shifts": (lambda: metrics.consistency(network(), X, random=0), "`random` must be a torch.Generator"),
    "an output": (lambda: metrics.consistency(network(), X, output="logit"), "Unknown output 'logit'"),
    "a flag": (lambda: metrics.eq_r(network(), X, band_limit="no"), "`band_limit` must be True or False"),  # type: ignore[arg-type]
    "lists of shifts": (lambda: metrics.shifted(X, [[1, 2]] * 4), "`shifts` must be a tensor"),  # type: ignore[arg-type]
    "an image to shift": (lambda: metrics.shifted(X[0], torch.zeros(3, 2).long()), r"tensor \(N, C, H, W\)"),
    "a number of decibels": (lambda: metrics.psnr(0.1, 1.0), "`mse` must be an estimate"),  # type: ignore[arg-type]
    "a range": (lambda: metrics.psnr(lee.Estimate(0.1, 0.0, 2), None), "`dynamic_range` must be a number above 0"),  # type: ignore[arg-type]
    "a size of nothing": (lambda: metrics.shift(1.0, 1.0, 0, 16), "`height` must be a whole number"),
    "a spectrum of a number": (lambda: lee.symmetry_spectrum(3), "a Gram matrix"),  # type: ignore[arg-type]
    "a name": (lambda: lee.explain_representations(network(), X, "foo"), "Unknown representation 'foo'"),
    "a pattern": (lambda: lee.explain_representations(network(), X, {3: "map"}), "patterns of module paths"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_before_they_fail_inside(name: str) -> None:
    call, said = WRONG[name]
    with pytest.raises(lee.InputError, match=said):
        call()


@pytest.mark.parametrize(
    "wrong", [{"aspect": float("nan")}, {"aspect": "2"}, {"level": "a"}, {"resamples": 1.5}, {"seed": -1}]
)
def test_a_spectrum_s_numbers_are_checked(wrong: dict[str, Any]) -> None:
    gram = lee.equivariance_gram(network(), X, progress=False)
    with pytest.raises(lee.InputError, match=next(iter(wrong))):
        lee.symmetry_spectrum(gram, **wrong)


def test_a_traced_model_is_refused_in_one_line() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network(), X)
    with pytest.raises(lee.InputError, match="no forward-mode derivative") as raised:
        of(traced, mode="forward")
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)


def test_an_output_whose_shape_leaves_its_places_or_its_kind_open_is_asked_about() -> None:
    with pytest.warns(lee.OutputWarning, match="12 × 12 places are taken to cover the image of 16 × 16 pixels evenly"):
        of(nn.Conv2d(3, 4, 5), output="logits")
    flow = nn.Conv2d(3, 2, 3, padding=1)
    with pytest.warns(lee.OutputWarning, match="two channels are taken for maps of scores"):
        of(flow, output="logits")
    for said in ("map", "vector"):
        assert of(flow, output="logits", representations=said).value > 0
    assert of(flow, generator="translation_x", output="logits").value > 0  # the same for both


TOKENS = nn.Conv2d(3, 6, 2, 2).eval()


def of_pairs(z: Tensor, kind: str) -> Tensor:
    """A matrix (N, 1, places, places) or (N, 1, channels, channels), that is square as images are."""
    tokens = TOKENS(z).flatten(2)
    if kind in ("gram", "covariance"):
        centred = tokens - tokens.mean(2, keepdim=True) if kind == "covariance" else tokens
        return (centred @ centred.mT / 64)[:, None]  # type: ignore[no-any-return]
    pairs = tokens[:, :3].mT @ tokens[:, 3:]
    return pairs.softmax(-1 if kind == "rows" else -2)[:, None]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["gram", "covariance", "rows", "columns"])
def test_matrices_that_have_the_shape_of_maps_are_asked_about(kind: str) -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"generators": ["scale"], "output": "logits", "progress": False}
    with pytest.warns(lee.OutputWarning, match=r"read as maps of (6 × 6|64 × 64) places, but looks like"):
        lee.equivariance_gram(lambda z: of_pairs(z, kind), x, **options)
    flat = lee.equivariance_gram(lambda z: of_pairs(z, kind).flatten(1), x, **options)
    said = lee.equivariance_gram(lambda z: of_pairs(z, kind), x, **options, representations="trivial")
    assert torch.allclose(said.per_image, flat.per_image, rtol=1e-4)
    lee.equivariance_gram(lambda z: of_pairs(z, kind), x, **options, representations="map")  # confirmed


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(6, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(TOKENS(x).flatten(2).mT).mT.unflatten(2, (8, 8))  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_of_dense_networks_are_not_asked_about(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    dense: list[Callable[[Tensor], Tensor]] = [
        conv, lambda z: conv(z).softmax(1), lambda z: conv(z).flatten(2).softmax(2).unflatten(2, (16, 16)),
        lambda z: (conv(z) - conv(z).mean((1, 2, 3), keepdim=True)) / conv(z).std((1, 2, 3), keepdim=True), TOKENS,
        Transformer().eval(), lambda z: conv(z) * 0 + 1 / 16, lambda z: conv(z).sigmoid() * 1e-6 + 1,
    ]  # fmt: skip
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for function in dense:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert type(of_output(function(x).to(dtype), x.to(dtype), None)) is Map
    even = torch.ones(2, 3, 16, 16)  # a symmetric image has symmetric maps
    with torch.no_grad():
        assert type(of_output(conv(even), even, None)) is Map


def rare(kind: str) -> Tensor:
    if kind == "jagged":
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    if kind == "float4":
        return torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    return {"csr": torch.eye(3).to_sparse_csr, "coo": torch.eye(3).to_sparse, "mkldnn": torch.ones(3, 4).to_mkldnn}[
        kind
    ]()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["csr", "coo", "jagged", "float4", "mkldnn"])
@pytest.mark.parametrize("place", ["buffer", "parameter", "attribute"])
def test_a_model_may_keep_tensors_that_torch_cannot_compare(kind: str, place: str) -> None:
    x = torch.rand(2, 3, 8, 8)
    plain, model = (nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval() for _ in range(2))
    model.load_state_dict(plain.state_dict())
    if place == "buffer":
        model.register_buffer("rare", rare(kind))
    elif place == "parameter":
        model.register_parameter("rare", nn.Parameter(rare(kind), requires_grad=False))
    else:
        model.rare = [rare(kind)]
    values = [lee.local_equivariance_error(m, x, "rotation", progress=False).value for m in (plain, model)]
    assert values[0] == values[1]


def test_a_skeleton_of_an_ensemble_needs_no_values() -> None:
    """The recipe of torch's own tutorial on ensembles."""
    nets = [network().eval() for _ in range(2)]
    nn.init.normal_(nets[1][3].weight)  # type: ignore[arg-type]
    weights, buffers = torch.func.stack_module_state(nets)
    skeleton = copy.deepcopy(nets[0]).to("meta")

    def member(w: Any, b: Any, z: Tensor) -> Tensor:
        return torch.func.functional_call(skeleton, (w, b), (z,))  # type: ignore[no-any-return]

    def ensemble(z: Tensor) -> Tensor:
        return torch.func.vmap(member, (0, 0, None))(weights, buffers, z).mean(0)  # type: ignore[no-any-return]

    known = of(lambda z: sum(net(z) for net in nets) / 2)
    assert of(ensemble).value == pytest.approx(known.value, rel=1e-4)


@pytest.mark.parametrize("measured", ["lee", "derivative", "layerwise", "invariant"])
def test_weights_without_values_are_refused_where_they_are_used(measured: str) -> None:
    """A convolution alone would run, and give what lies in memory."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().to("meta")
    calls: dict[str, Callable[[], Any]] = {
        "lee": lambda: of(net),
        "derivative": lambda: lee.lie_derivative(lambda z: net(z), X, "rotation", verify=False),
        "layerwise": lambda: lee.layerwise(net, X, "rotation"),
        "invariant": lambda: equivariance_deviation(net, X, lambda z: z.flip(3)),
    }
    with pytest.raises(lee.InputError, match=r"weight of the module 0 \(Conv2d\) lies on the device meta"):
        calls[measured]()


class Masked(nn.Module):
    """Scores of which some classes are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = network().eval()
        self.register_buffer("left_out", torch.tensor([False, True, False, False, True]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x).masked_fill(self.left_out, -torch.inf)  # type: ignore[no-any-return,operator]


def test_classes_that_are_left_out_have_no_probability() -> None:
    model = Masked().eval()
    found = lee.lie_derivative(model, X, "rotation")
    among = lee.lie_derivative(lambda z: model.scores(z)[:, [0, 2, 3]], X, "rotation")  # those of the others alone
    assert not found[:, [1, 4]].any()
    assert torch.allclose(found[:, [0, 2, 3]], among, rtol=1e-4, atol=1e-6)
    parts = lee.layerwise(model, X, "rotation")
    assert parts.total.value == pytest.approx(float(found.square().mean()), rel=1e-4)
    with pytest.raises(lee.InputError, match=r"output holds NaN or infinity .* in the module model \(Masked\)"):
        lee.lie_derivative(model, X, "rotation", output="logits")


class ByName(nn.Module):
    def forward(self, *, pixel_values: Tensor) -> Tensor:
        return pixel_values.mean((2, 3))


class AtTime(nn.Module):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x.mean((2, 3)) * time


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ByName(), r"lambda x: model\(pixel_values=x\)"), (AtTime(), r"lambda x: model\(x, time=time\)"),
        (lambda a, b: a * b, r"lambda x: model\(x, b=b\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("measured", ["lee", "derivative", "layerwise", "consistency"])
def test_a_model_of_other_arguments_is_told_how_to_wrap_it(measured: str, model: Any, said: str) -> None:
    if measured == "layerwise" and not isinstance(model, nn.Module):
        return
    with pytest.raises(lee.InputError, match=said):
        MEASURED[measured](model)


def test_a_type_error_of_a_model_s_own_stays_what_it_is() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        of(lambda z: z + "1")


def test_a_video_is_told_what_to_do_with_its_frames() -> None:
    with pytest.raises(lee.InputError, match=r"got \(1, 2, 3, 16, 16\)\. Choose one frame .* x\.flatten\(0, 1\)"):
        of(network(), X[None, :2])
