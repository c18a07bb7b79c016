"""Where in the picture: shares of pixels against a dense Jacobian, against masked tangent images, and against the total."""

import math
import warnings
from typing import Any

import pytest
import torch
from cases import CLASSES, build, images, relative
from torch import Tensor, nn

import lee
from lee.geometry.generators import AFFINE
from lee.measure.maps import NoErrorToShare
from lee.measure.terms import infinitesimal_actions

N, SIDE = 2, 12
GENERATOR = "rotation"


def net() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, CLASSES)
        )
        .double()
        .eval()
    )


def dense_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 4, 3, padding=1)).double().eval()


def tangent(x: Tensor, generator: str = GENERATOR) -> Tensor:
    return infinitesimal_actions([lee.measure.derivative.get(generator)], x, lee.Sampler())[0]


def scores(model: nn.Module, z: Tensor) -> Tensor:
    return model(z).softmax(-1)


def test_shares_are_those_of_a_dense_jacobian() -> None:
    model, x = net(), images(N, SIDE, SIDE)
    found = lee.error_map(model, x, GENERATOR)
    for n, (image, velocity) in enumerate(zip(x, tangent(x), strict=True)):
        jacobian = torch.func.jacrev(lambda z: scores(model, z[None])[0])(image).detach()  # (classes, 3, H, W)
        per_pixel = (jacobian * velocity).sum(1)
        whole = per_pixel.sum((-2, -1))
        known = torch.einsum("khw,k->hw", per_pixel, whole) / whole.square().sum()
        assert relative(found.share[n], known) < 1e-10
    assert (found.share.sum((1, 2)) - 1).abs().max() < 1e-10
    assert bool((found.moved_share == 0).all())
    assert found.output_map is None


def test_shares_are_what_masked_tangent_images_leave() -> None:
    """Pushing the motion of one patch alone, by differences of the function, and projecting on the whole derivative."""
    model, x = net(), images(1, SIDE, SIDE)
    velocity, h = tangent(x), 1e-6

    def along(v: Tensor) -> Tensor:
        with torch.no_grad():
            return (scores(model, x + h * v) - scores(model, x - h * v))[0] / (2 * h)

    whole = along(velocity)
    patches = lee.error_map(model, x, GENERATOR).patches((4, 3))
    for row in range(3):
        for column in range(4):
            mask = torch.zeros_like(x)
            mask[..., 4 * row : 4 * row + 4, 3 * column : 3 * column + 3] = 1
            known = float(along(mask * velocity) @ whole / whole.square().sum())
            assert float(patches[0, row, column]) == pytest.approx(known, abs=1e-7)


@pytest.mark.parametrize("name", ["vit", "convnext", "swin"])
def test_the_total_is_the_verified_error(name: str) -> None:
    model, x = build(name), images(N)
    found = lee.error_map(model, x, "scale", output="logits")
    known = lee.local_equivariance_error(model, x, "scale", output="logits", progress=False)
    assert found.total.value == pytest.approx(known.value, rel=1e-10)
    assert found.total.verification == known.verification
    assert found.residual < 1e-10
    assert (found.share.sum((1, 2)) - 1).abs().max() < 1e-10


def test_several_generators_mix_as_the_gram_matrix_does() -> None:
    model, x = net(), images(N, SIDE, SIDE)
    every = lee.error_map(model, x, [*AFFINE, "brightness"], output="logits")
    mixture = 0.3 * lee.ROTATION + 0.7 * lee.SCALE + -0.2 * lee.BRIGHTNESS
    for generator in ("rotation", "brightness", mixture):
        one = lee.error_map(model, x, generator, output="logits")
        assert relative(every.along(generator).share, one.share) < 1e-9
        assert every.along(generator).total.value == pytest.approx(one.total.value, rel=1e-10)
    assert torch.allclose(every.products.sum((-2, -1)), every.gram.per_image, rtol=1e-9)
    with pytest.raises(lee.InputError, match=r"7 generators .* \.along"):
        _ = every.share


def test_the_motion_of_a_dense_output_has_a_share_of_its_own() -> None:
    model, x = dense_net(), images(N, SIDE, SIDE)
    found = lee.error_map(model, x, GENERATOR, output="logits")
    derivative = lee.lie_derivative(model, x, GENERATOR, output="logits")
    assert (found.share.sum((1, 2)) + found.moved_share - 1).abs().max() < 1e-10
    moved = lee.Map().infinitesimal([lee.ROTATION], model(x).detach(), lee.Sampler())[0]
    known = -(moved * derivative).flatten(1).sum(1) / derivative.flatten(1).square().sum(1)
    assert relative(found.moved_share, known) < 1e-9
    assert float(known.abs().min()) > 0.1
    assert found.output_map is not None
    assert relative(found.output_map, derivative.square().mean(1)) < 1e-10
    assert found.output_map.mean() == pytest.approx(found.total.value, rel=1e-10)


@pytest.mark.parametrize("layout", ["map_channels_last", "tokens"])
def test_places_of_other_layouts(layout: str) -> None:
    inner = dense_net()
    known = lee.error_map(inner, images(N, SIDE, SIDE), "scale", output="logits").output_map

    def model(z: Tensor) -> Tensor:
        maps = inner(z)
        if layout == "tokens":
            return torch.cat([maps.mean((2, 3))[:, None], maps.flatten(2).mT], 1)
        return maps.movedim(1, -1)

    given = lee.Tokens((SIDE, SIDE), prefix=1) if layout == "tokens" else layout
    found = lee.error_map(model, images(N, SIDE, SIDE), "scale", output="logits", representations=given)
    assert known is not None
    assert found.output_map is not None
    assert relative(found.output_map, known) < 1e-10


def test_the_mean_over_a_class_weighs_images_by_their_error() -> None:
    model, x = net(), images(6, SIDE, SIDE)
    labels = torch.tensor([0, 1, 1, 0, 1, 2])
    found = lee.error_map(model, x, GENERATOR, chunk=4)
    alone = lee.error_map(model, x[labels == 1], GENERATOR)
    size = alone.gram.per_image[:, 0, 0]
    known = (alone.share * size[:, None, None]).sum(0) / size.sum()
    assert relative(found.mean(labels == 1), known) < 1e-10
    assert relative(found.mean([1, 2, 4]), known) < 1e-10
    assert float(found.mean().sum()) == pytest.approx(1, abs=1e-10)
    with pytest.raises(lee.InputError, match="0 of 6 images"):
        found.mean(labels == 3)


def test_batches_single_precision_and_actions() -> None:
    model, x = net(), images(4, SIDE, SIDE)
    whole = lee.error_map(model, x, GENERATOR)
    batches = lee.error_map(model, [(x[:3], 0), (x[3:], 1)], GENERATOR)
    assert relative(batches.share, whole.share) < 1e-12
    single = lee.error_map(model.float(), x.float(), GENERATOR)
    assert single.share.dtype == torch.float32
    assert relative(single.share.double(), whole.share) < 1e-4
    assert single.residual < 1e-4
    assert "12 × 12 pixels" in str(single)

    def rolled(z: Tensor, t: Tensor) -> Tensor:
        return lee.warp(z, lee.TRANSLATION_X, t, boundary="circular")

    action = lee.error_map(net(), x, rolled)
    known = lee.error_map(net(), x, "translation_x", boundary="circular")
    assert relative(action.share, known.share) < 1e-8


def test_an_image_without_error_has_no_shares() -> None:
    x = images(2, SIDE, SIDE)
    x[1] = 0
    found = lee.error_map(net(), x, GENERATOR)
    assert bool(found.share[1].isnan().all())
    assert float(found.mean().sum()) == pytest.approx(1, abs=1e-10)
    with pytest.warns(lee.ImageWarning), pytest.raises(lee.InputError, match="zero for all images, up to rounding"):
        lee.error_map(net(), torch.full_like(x, 0.5), GENERATOR)


def test_a_backward_pass_that_is_not_the_derivative_is_refused() -> None:
    inner = net()

    def model(z: Tensor) -> Tensor:
        return inner(z) * (1 + z.detach().mean((1, 2, 3))[:, None])

    def on_numpy(z: Tensor) -> Tensor:
        return torch.from_numpy(z.detach().numpy() ** 3).mean((2, 3))

    x = images(N, SIDE, SIDE)
    for one, z in ((model, x), (lambda z: model(z.double()), x.float())):
        with pytest.raises(lee.VerificationError, match="pixels don't sum"):
            lee.error_map(one, z, "brightness")
    assert lee.error_map(model, x, "brightness", verify=False).residual > 1e-3
    with pytest.warns(lee.LeavesTorchWarning), pytest.raises(lee.InputError, match="backward pass can follow"):
        lee.error_map(on_numpy, x, "scale", output="logits")


def test_what_can_not_be_mapped_is_refused_in_a_sentence() -> None:
    x = images(N, SIDE, SIDE)
    batch_norm = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()).double().eval()
    )
    with pytest.warns(lee.BatchInteractionWarning), pytest.raises(lee.InputError, match="chunk=1"):
        lee.error_map(batch_norm, x, "scale", output="logits")
    with pytest.warns(lee.BatchInteractionWarning):
        alone = lee.error_map(batch_norm, x, "scale", output="logits", chunk=1)
    assert (alone.share.sum((1, 2)) - 1).abs().max() < 1e-9
    with pytest.raises(lee.InputError, match="one size"):
        lee.error_map(lambda z: z.mean((2, 3)), [x, x[..., :6]], "scale")
    nothing: list[Any] = [[], torch.zeros(0, 3, 4, 4)]
    for empty in nothing:
        with pytest.raises(lee.InputError, match=r"empty|no images"):
            lee.error_map(net(), empty, "scale")
    with pytest.raises(lee.InputError, match="`generator` is empty"):
        lee.error_map(net(), x, [])
    with pytest.raises(lee.InputError, match="argmax"):
        lee.error_map(lambda z: net()(z).argmax(1), x, "scale", output="logits")
    with pytest.raises(lee.InputError, match="Patches of 5 × 5"):
        lee.error_map(net(), x, "scale").patches(5)
    assert math.isfinite(lee.error_map(net(), x, "scale").total.value)


def test_one_number_per_image_has_a_map() -> None:
    model, x = net(), images(N, SIDE, SIDE)
    single = lee.error_map(lambda z: model(z)[:, 0], x, GENERATOR, output="logits")
    column = lee.error_map(lambda z: model(z)[:, :1], x, GENERATOR, output="logits")
    assert relative(single.share, column.share) < 1e-12
    assert (single.share.sum((1, 2)) - 1).abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_neither_a_constant_nor_coarse_numbers_make_an_error_zero(dtype: torch.dtype) -> None:
    model, x = net(), images(N, SIDE, SIDE)
    known = lee.error_map(model, x, GENERATOR, output="logits").total.value
    coarse, offset = net().to(dtype), 1e4 if dtype == torch.float32 else 0.0
    found = lee.error_map(coarse, x.to(dtype), GENERATOR, output=lambda o: o + offset, verify=False)
    assert found.total.value == pytest.approx(known, rel=0.1)
    assert bool(((found.share.double().sum((1, 2)) - 1).abs() < 0.1).all())


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_squares_beyond_single_precision_are_shared_out(scale: float) -> None:
    model, x = net().float(), images(N, SIDE, SIDE).float()
    plain, scaled = (lee.error_map(model, x, GENERATOR, output=lambda o, s=s: s * o) for s in (1.0, scale))  # type: ignore[misc]
    assert plain.share.dtype == torch.float32
    assert relative(scaled.share, plain.share.double()) < 1e-4


def test_a_circular_network_that_only_rounding_moves_has_no_map() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ]
    for dtype in (torch.float32, torch.float64):
        model = nn.Sequential(*layers).to(dtype)
        with pytest.raises(lee.InputError, match="zero for all images, up to rounding"):
            lee.error_map(model, images(N, SIDE, SIDE).to(dtype), "translation_x", output="logits", boundary="circular")


@pytest.mark.filterwarnings("ignore::lee.errors.LeeWarning")
def test_a_model_with_a_precision_of_its_own_is_refused_in_a_sentence() -> None:
    inner = net().float()

    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, z: Tensor) -> Tensor:
            return inner((z * 255).round().to(torch.uint8).float() / 255)  # type: ignore[no-any-return]

    x = images(N, SIDE, SIDE).float()
    for measure, said in ((lee.error_map, "pixels don't sum"), (lee.layerwise, "parts of the model don't sum")):
        with pytest.raises(lee.VerificationError, match=said):
            measure(Rounded(), x, GENERATOR, output="logits")


def test_two_functions_of_one_name_are_told_apart() -> None:
    found = lee.error_map(build("cnn"), images(2), [lambda x, t: x + t * x, lambda x, t: x - t * x * x])
    first, second = (found.along(name).share for name in found.gram.basis)
    assert not torch.allclose(first, second)
    assert found != lee.error_map(
        build("cnn"), images(2), "rotation"
    )  # results are compared as objects, without an error


@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.float16, 500.0), (torch.float16, 1e-3), (torch.float32, 1e25), (torch.float32, 1e-25)]
)
def test_the_map_over_the_output_has_the_error_as_its_mean_whatever_its_size(dtype: torch.dtype, factor: float) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 3, padding=1)).eval()

    def model(z: Tensor) -> Tensor:
        return dense.to(z.dtype)(z) * factor

    found = lee.error_map(model, images(2).to(dtype), "translation_x", output="logits", verify=False)
    assert found.output_map is not None
    assert float(found.output_map.double().mean()) == pytest.approx(found.total.value, rel=1e-3)


@pytest.mark.parametrize("chosen", [[9], 0, [0.5], "all"])
def test_images_are_chosen_by_index_or_by_a_boolean_for_each(chosen: Any) -> None:
    with pytest.raises(lee.InputError, match="`chosen` must hold indices"):
        lee.error_map(build("cnn"), images(2), "rotation").mean(chosen)


def test_a_backward_pass_that_is_wrong_across_the_motion_alone_is_refused() -> None:
    """No translation changes the mean of a circular image, so the pixels' sum doesn't show that its gradient is stopped."""
    torch.manual_seed(0)
    inner, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 3), nn.Tanh()).double().eval(), images(N, SIDE, SIDE)
    inner[1].weight.data += 0.02  # which sees the mean

    def centred(z: Tensor, mean: Tensor) -> Tensor:
        return inner(z - mean)  # type: ignore[no-any-return]

    options: dict[str, Any] = {"output": "logits", "boundary": "circular"}
    stopped = lambda z: centred(z, z.mean((1, 2, 3), keepdim=True).detach())  # noqa: E731
    for model, z in ((stopped, x), (lambda z: stopped(z.double()), x.float())):
        with pytest.raises(lee.VerificationError, match=r"Along a random change of an image the backward pass gives"):
            lee.error_map(model, z, "translation_x", **options)
    whole = lee.error_map(lambda z: centred(z, z.mean((1, 2, 3), keepdim=True)), x, "translation_x", **options)
    assert relative(lee.error_map(stopped, x, "translation_x", **options, verify=False).share, whole.share) > 0.01


class Tokens(nn.Module):
    """Batch normalisation whose map becomes tokens: torch's own backward pass fails for a single image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        nn.init.uniform_(self.norm.running_var, 0.3, 2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).flatten(2).mT.tanh().mean(1))  # type: ignore[no-any-return]


def test_a_single_image_has_the_backward_pass_that_it_has_among_others() -> None:
    model, x = Tokens().double().eval(), images(N, SIDE, SIDE)
    assert relative(lee.error_map(model, x[:1], GENERATOR).share, lee.error_map(model, x, GENERATOR).share[:1]) < 1e-10
    known = lee.lie_derivative(model, x[:1], GENERATOR)
    assert relative(lee.lie_derivative(model, x[:1], GENERATOR, mode="reverse"), known) < 1e-10
    parts = [lee.layerwise(model, x[:1], GENERATOR, mode=mode).frame.self_share for mode in ("forward", "reverse")]
    assert parts[0].to_list() == pytest.approx(parts[1].to_list(), abs=1e-9)


class Constant(nn.Module):
    """The mean of a normalised map is its bias, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore::lee.VerificationWarning", "ignore::lee.ConstantOutputWarning")
def test_what_rounding_leaves_of_zero_is_not_shared_out(dtype: torch.dtype) -> None:
    model, x = Constant().to(dtype).eval(), images(N, SIDE, SIDE).to(dtype)
    with pytest.raises(NoErrorToShare):
        lee.error_map(model, x, GENERATOR, output="logits")
    parts = lee.layerwise(model, x, GENERATOR, output="logits")
    assert parts.total.value == 0
    assert parts.frame.share.isna().all()
    assert "there is no error to share out" in str(parts)


def test_an_output_that_only_rounding_changes_is_called_constant() -> None:
    model, x = Constant().double().eval(), images(N, SIDE, SIDE)
    with pytest.warns(lee.ConstantOutputWarning):
        assert lee.local_equivariance_error(model, x, GENERATOR, output="logits", progress=False).value < 1e-28
    with warnings.catch_warnings():  # small, and beside a large constant, but no rounding
        warnings.simplefilter("error")
        found = lee.error_map(net(), x, GENERATOR, output=lambda o: 1e-9 * o + 1)
    known = lee.error_map(net(), x, GENERATOR, output="logits")
    assert relative(found.share, known.share) < 1e-6


def test_an_exactly_invariant_model_is_not_called_constant() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular").double().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lee.local_equivariance_error(
            lambda z: conv(z).mean((2, 3)), images(N, SIDE, SIDE), "translation_x", output="logits", boundary="circular",
            progress=False,
        )  # fmt: skip
