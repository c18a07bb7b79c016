"""Networks with rotation built in: what they claim, by assertions of our own and by oracles that turn images, not filters."""

import math
import os

import pytest
import torch
import torch.nn.functional as F
from oracles import by_jvp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import lee
from lee import datasets
from lee.autodiff import record_fallbacks
from lee.datasets.rotated import turn
from lee.errors import InputError
from lee.geometry.sampling import Sampler
from lee.measure.testing import assert_equivariant, assert_invariant, equivariance_deviation
from lee.models.equivariant import Fields, group_cnn, plain_cnn, steerable_cnn, ti_pooling
from lee.models.equivariant.harmonics import dimension, kernel_basis, rotation_matrix
from lee.models.equivariant.p4 import FieldConv, FieldNorm, Lift, OrientationPool, quarter_turn
from lee.models.equivariant.plain import TurnedCopies
from lee.models.equivariant.steerable import Gate, GaussianHalving, HarmonicConv

NETWORKS = {"p4": group_cnn, "steerable": steerable_cnn, "ti": ti_pooling}


def vit(**_: object) -> nn.Module:
    return VisionTransformer(
        img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=2, num_heads=2, class_token=False,
        global_pool="avg",
    )  # fmt: skip


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def digits(n: int) -> Tensor:
    return datasets.load("digits", n=n, size=28).images


def settled(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode, with statistics of its own and no parameter at a special value."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.3)
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(digits(64).to(next(network.parameters()).dtype))
    return network.eval()


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("side", [12, 28])
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_do_not_change_under_quarter_turns(name: str, side: int, turns: int) -> None:
    torch.manual_seed(1)
    network = NETWORKS[name](img_size=side) if name == "ti" else NETWORKS[name]()
    x = torch.rand(4, 1, side, side, generator=torch.Generator().manual_seed(2))
    assert_invariant(network, x, lambda z: quarter_turn(z, turns), tolerance=1e-5)
    trained = settled(network) if side == 28 else network
    assert_invariant(trained, x, lambda z: quarter_turn(z, turns), tolerance=1e-5)


@pytest.mark.parametrize("build", [plain_cnn, vit])
def test_a_plain_network_fails_the_same_assertion(build: object) -> None:
    network = settled(build())  # type: ignore[operator]
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(network, digits(4), quarter_turn)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_each_p4_layer_commutes_with_quarter_turns(turns: int) -> None:
    x, fields = noise(2, 3, 8, 8), noise(2, 12, 8, 8)

    def moved(z: Tensor) -> Tensor:
        return quarter_turn(z, turns, fields=True)

    torch.manual_seed(0)
    assert_equivariant(Lift(3, 5, 5).double(), x, lambda z: quarter_turn(z, turns), moved, tolerance=1e-12)
    assert_equivariant(FieldConv(3, 5, 3).double(), fields, moved, moved, tolerance=1e-12)
    assert_equivariant(FieldNorm(3).double(), fields, moved, moved, tolerance=1e-12)
    assert_equivariant(OrientationPool(), fields, moved, lambda z: quarter_turn(z, turns), tolerance=1e-12)


def test_a_group_convolution_correlates_turned_inputs_with_one_filter() -> None:
    """Orientation r of the output: turn the input back by r, convolve with the filter as it is, turn the result."""
    torch.manual_seed(0)
    layer, lift = FieldConv(3, 5, 3).double(), Lift(2, 4, 3).double()
    fields, x = noise(2, 12, 7, 7), noise(2, 2, 7, 7)
    for conv, given, as_fields in ((layer, fields, True), (lift, x, False)):
        found = conv(given).unflatten(1, (-1, 4))
        for r in range(4):
            back = quarter_turn(given, -r, fields=as_fields)
            expected = F.conv2d(back, conv.weight, padding=1).rot90(r, (2, 3))
            torch.testing.assert_close(found[:, :, r], expected, rtol=0, atol=1e-12)


def test_field_norm_normalises_a_field_over_its_orientations_too() -> None:
    x = noise(8, 8, 4, 4) * 3 + 1
    found = FieldNorm(2).double().train()(x).unflatten(1, (2, 4))
    torch.testing.assert_close(found.mean((0, 2, 3, 4)), torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.var((0, 2, 3, 4), correction=0), torch.ones(2).double(), rtol=1e-4, atol=0)
    assert (found.mean((0, 3, 4)).abs() > 1e-3).all()  # one orientation alone is not normalised


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize(("out", "order"), [(m, n) for m in range(4) for n in range(4)])
def test_kernels_commute_with_quarter_turns_and_are_independent(out: int, order: int, size: int) -> None:
    basis = kernel_basis(out, order, size)
    assert basis.shape[1:] == (dimension(out), dimension(order), size, size)
    quarter = torch.tensor(math.pi / 2, dtype=torch.float64)  # turning the picture back undoes the turn of the fields
    after, before = rotation_matrix(out, -quarter), rotation_matrix(order, quarter)
    expected = torch.einsum("ab,kbcyx,cd->kadyx", after, basis, before)
    torch.testing.assert_close(basis.rot90(1, (3, 4)), expected, rtol=0, atol=1e-12)
    if len(basis):
        assert torch.linalg.matrix_rank(basis.flatten(1)) == len(basis)
        torch.testing.assert_close(
            basis.flatten(1).norm(dim=1), torch.full((len(basis),), dimension(out) ** 0.5).double()
        )


def blobs(side: int = 57) -> Tensor:
    """A smooth picture without symmetry, so small that no turn brings in its reflection: (1, 1, side, side)."""
    line = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = line[:, None], line
    spots = ((0.0, -5.0, 2.2, 1.0), (4.0, 2.0, 2.6, 0.8), (-3.0, 4.0, 2.4, -0.7))
    return sum(a * torch.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * s**2)) for r, c, s, a in spots)[None, None]  # type: ignore[return-value]


@pytest.mark.parametrize(("order", "out"), [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 2)])
def test_a_harmonic_kernel_turns_its_response_with_the_image_by_any_angle(order: int, out: int) -> None:
    """Measured 0.02 to 7 %, most between orders 0 and 2, where the response is a second derivative and so small."""
    torch.manual_seed(0)
    before, after = Fields((0,) * order + (2,)), Fields((0,) * out + (2,))
    sampler = Sampler().for_image(57, 57)
    x = blobs() * torch.arange(1.0, before.channels + 1).double()[:, None, None]
    harmonic = HarmonicConv(before, after, 5).double()
    free = nn.Conv2d(before.channels, after.channels, 5, padding=2, bias=False).double()
    for angle in (0.4, 1.0):
        moved = before.finite(lee.ROTATION, angle, x, sampler)

        def on_output(z: Tensor, angle: float = angle) -> Tensor:
            return after.finite(lee.ROTATION, angle, z, sampler)

        assert_equivariant(harmonic, x, lambda _, moved=moved: moved, on_output, tolerance=0.1)
        assert equivariance_deviation(free, x, lambda _, moved=moved: moved, on_output) > 0.2


def test_the_response_of_order_1_points_to_or_from_a_blob() -> None:
    line = torch.arange(21, dtype=torch.float64) - 10
    blob = torch.exp(-(line[:, None] ** 2 + line**2) / 8)[None, None]
    kernel = kernel_basis(1, 0, 5)[:1].flatten(0, 1)
    response = F.conv2d(blob, kernel, padding=2)[0]
    for row, column in ((0, 4), (-4, 0), (3, 3), (-2, 4)):
        x, y = column, -row
        found = torch.atan2(response[1, 10 + row, 10 + column], response[0, 10 + row, 10 + column])
        towards = (float(found) - math.atan2(y, x)) % math.pi
        assert min(towards, math.pi - towards) % (math.pi / 2) == pytest.approx(0, abs=0.05)


def test_fields_act_as_a_representation() -> None:
    """`ρ(0) = id`, `ρ(-t) ρ(t) ≈ id`, order 1 is a vector field, and the infinitesimal action is the derivative."""
    fields, sampler = Fields((1, 2, 1)), Sampler().for_image(57, 57)
    z = blobs().expand(-1, 7, -1, -1) * noise(1, 7, 1, 1)
    torch.testing.assert_close(fields.finite(lee.ROTATION, 0.0, z, sampler), z, rtol=0, atol=1e-10)
    back = fields.finite(lee.ROTATION, -0.7, fields.finite(lee.ROTATION, 0.7, z, sampler), sampler)
    assert (back - z).abs().max() < 1e-3 * z.abs().max()
    found = fields.infinitesimal([lee.ROTATION, lee.SCALE, lee.TRANSLATION_X], z, sampler)
    step = 1e-4
    for k, generator in enumerate((lee.ROTATION, lee.SCALE, lee.TRANSLATION_X)):
        ends = [fields.finite(generator, t, z, sampler) for t in (step, -step)]
        torch.testing.assert_close(found[k], (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-5)
    upright = torch.tensor([1.0, -1.0]).double()[:, None, None]  # lee's vector fields have y down
    vector = lee.VectorField().finite(lee.ROTATION, 0.3, z[:, 1:3] * upright, sampler) * upright
    turned = Fields((0, 1)).finite(lee.ROTATION, 0.3, z[:, 1:3], sampler)
    torch.testing.assert_close(
        turned, vector, rtol=1e-13, atol=1e-13
    )  # an amount in single precision would be 1e-8 off
    with pytest.raises(InputError, match=r"Fields \(1, 2, 1\) have shape \(N, 7, H, W\)"):
        fields.finite(lee.ROTATION, 0.1, z[:, :5], sampler)


def test_the_gate_and_the_halving_commute_with_turning_values() -> None:
    fields = Fields((2, 2, 1))
    gate = settled_gate(fields)
    z = noise(4, gate.fields_in.channels, 6, 6)
    assert_equivariant(
        gate, z, lambda v: gate.fields_in.turn_values(v, 0.7), lambda v: fields.turn_values(v, 0.7), tolerance=1e-12
    )
    assert_equivariant(GaussianHalving(), z, quarter_turn, quarter_turn, tolerance=1e-12)
    torch.testing.assert_close(GaussianHalving()(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 4, 4))
    with pytest.raises(InputError, match="7 × 8 pixels can't be halved"):
        GaussianHalving()(torch.ones(1, 1, 7, 8))


def settled_gate(fields: Fields) -> Gate:
    torch.manual_seed(3)
    gate = Gate(fields).double().train()
    for _ in range(50):
        gate(torch.randn(16, gate.fields_in.channels, 6, 6, dtype=torch.float64) * 3)
    return gate.eval()


def test_the_running_scale_is_the_root_mean_square_of_the_lengths() -> None:
    torch.manual_seed(0)
    gate = settled_gate(Fields((1, 3)))
    assert gate.scale is not None
    torch.testing.assert_close(gate.scale.running, torch.full((3,), 9.0).double(), rtol=0.1, atol=0)


def test_copies_are_the_turned_images_and_their_largest_features_decide() -> None:
    """TI-pooling against its definition, with the copies made by another routine."""
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    copies = TurnedCopies(28, 8).double()(x).unflatten(0, (3, 8))
    angles = torch.cat([2 * math.pi * (step / 8 + torch.arange(4).double() / 4) for step in range(2)])
    expected = torch.stack([turn(x, angle.expand(3)) for angle in angles], 1)
    torch.testing.assert_close(copies, expected, rtol=0, atol=1e-6)  # its weights are kept in float32
    torch.manual_seed(0)
    network = ti_pooling().double().eval()
    features = torch.stack([network.branch(turn(x, angle.expand(3))) for angle in angles])
    torch.testing.assert_close(network(x), network.head(features.amax(0)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [*NETWORKS.values(), plain_cnn])
def test_networks_are_small_trainable_and_follow_the_seed(build: object) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(build())  # type: ignore[operator]
    first, second = (network.state_dict() for network in made)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    network = made[0]
    assert sum(p.numel() for p in network.parameters()) < 300_000
    scores = network(digits(8))
    assert scores.shape == (8, 10)
    F.cross_entropy(scores, torch.arange(8)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("name", [*NETWORKS, "plain"])
def test_lie_derivatives_are_those_of_functorch_and_need_no_fallback(name: str) -> None:
    network = settled((NETWORKS | {"plain": plain_cnn})[name]()).double()
    x = digits(2).double() + 0.1 * noise(
        2, 1, 28, 28
    )  # on a black ground, rounding would decide which entry is largest
    sampler = Sampler().for_image(28, 28)
    for generator in (lee.ROTATION, lee.TRANSLATION_X):
        with record_fallbacks() as fallbacks:
            found = lee.lie_derivative(network, x, generator, output="logits")
        assert fallbacks == []
        expected = by_jvp(network, x, generator, sampler).detach()
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))


def relative_error(network: nn.Module, x: Tensor) -> float:
    """Mean ‖L_X f‖² over the variance of f over images: what an angle of one radian would change, to first order."""
    derivative = lee.lie_derivative(network, x, "rotation", output="logits")
    with torch.no_grad():
        scores = network(x)
    return float(derivative.square().mean() / (scores - scores.mean(0)).square().mean())


@pytest.mark.parametrize("seed", range(3 if os.environ.get("LEE_ALL_SEEDS") else 1))
def test_untrained_steerable_network_has_a_small_rotation_error(seed: int) -> None:
    """Measured 20 to 300 times smaller than that of the others; pooled over four or eight turns is not enough."""
    x = turn(digits(24), torch.linspace(0, 6, 24))
    torch.manual_seed(seed)
    steerable, others = steerable_cnn(), [plain_cnn(), group_cnn(), ti_pooling()]
    smallest = min(relative_error(settled(network, seed), x) for network in others)
    assert relative_error(settled(steerable, seed), x) < smallest / 10


def test_layerwise_sees_that_the_convolutions_of_a_steerable_network_turn_their_fields() -> None:
    """Told how fields turn, it finds their convolutions equivariant; told that they are scalars, it doesn't."""
    network = settled(steerable_cnn()).double()
    x = turn(digits(3), torch.tensor([0.3, 1.0, 2.0])).double()
    layers = dict(network.named_children())
    fields: dict[str, Fields] = {
        name: layer.fields_out for name, layer in layers.items() if isinstance(layer, HarmonicConv)
    }
    scalars = {}
    for name, layer in layers.items():
        if isinstance(layer, Gate):
            fields[name] = Fields((layer.scalars, *layer.fields_in.counts[1:]))
            scalars[f"{name}.norm"] = "map"
        elif isinstance(layer, GaussianHalving):
            fields[name] = fields[str(int(name) - 1)]
    errors = []
    for given in (fields, dict.fromkeys(fields, "map")):
        frame = lee.layerwise(network, x, "rotation", output="logits", representations={**given, **scalars}).frame
        assert frame["self_share"].sum() == pytest.approx(1, abs=1e-8)
        convolutions = frame[frame["type"] == "HarmonicConv"]
        assert convolutions["self_norm2"].notna().tolist() == [True] * 4
        errors.append(convolutions["self_norm2"].sum())
    assert errors[0] < 0.1 * errors[1]


def test_layerwise_decomposes_the_others() -> None:
    for build in (group_cnn, ti_pooling):
        frame = lee.layerwise(settled(build()).double(), digits(2).double(), "rotation", output="logits").frame
        assert frame["self_share"].sum() == pytest.approx(1, abs=1e-8)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InputError, match="kernel_size = 6 has no centre"):
        FieldConv(1, 1, kernel_size=6)
    with pytest.raises(InputError, match="kernel_size = 4 has no centre"):
        HarmonicConv(Fields((1,)), Fields((1,)), kernel_size=4)
    with pytest.raises(InputError, match=r"scalars only: \(count,\), not \(4, 4\)"):
        steerable_cnn(fields=((4, 4), (4, 4)))
    with pytest.raises(InputError, match="angles = 6"):
        ti_pooling(angles=6)
