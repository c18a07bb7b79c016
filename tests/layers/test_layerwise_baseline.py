"""The paper's layer-wise estimator, as the benchmark has it, against dense Jacobians: no part of `lee.layerwise` in sight."""

import pytest
import torch
from torch import Tensor, nn

import lee
from benchmarks.paper_layerwise import Key, Leaf, Readings, act, estimate, rounded_positions
from lee.geometry.interpolation import derivative_matrix
from lee.geometry.representations import Map, Representation, Scattered, Tokens, Trivial
from lee.geometry.sampling import Sampler

pytestmark = pytest.mark.xdist_group("baseline")  # its fixtures are made once

SIDE = 8


class Block(nn.Module):
    """A residual block whose activation works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = (
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.norm(self.conv(x)))


class Network(nn.Module):
    """Stem, strided convolution, residual block (called twice), pooling, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GELU()
        self.block, self.pool, self.head = Block(), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.block(self.block(self.act(self.stem(x))))
        return self.head(self.pool(z).flatten(1))


MAP, NONE = Map(), Trivial()
READINGS: Readings = {
    ("stem", 0): ([MAP], [MAP]), ("act", 0): ([MAP], [MAP]), ("pool", 0): ([MAP], [NONE]), ("head", 0): ([NONE], [NONE]),
    **{(f"block.{name}", call): ([MAP], [MAP]) for name in ("conv", "norm", "relu") for call in (0, 1)},
}  # fmt: skip


def network() -> nn.Module:
    model = Network()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            nn.init.normal_(module.weight)
    return model.double().eval()


def difference_matrix(size: int) -> Tensor:
    """Rows of one-sided differences, per sample, on the side that rounding picks at each node; the border is a mirror."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for node, position in enumerate(rounded_positions(size, torch.float64).tolist()):
        ahead = position >= node
        for index, sign in ((node + 1, 1.0), (node, -1.0)) if ahead else ((node, 1.0), (node - 1, -1.0)):
            mirrored = -index if index < 0 else 2 * (size - 1) - index if index >= size else index
            matrix[node, mirrored] += sign
    return matrix


def dense_action(shape: torch.Size, representation: Representation) -> Tensor:
    """The infinitesimal action of the translation along x on (1, C, H, W), as a matrix on flattened tensors."""
    if isinstance(representation, Trivial):
        return torch.zeros(shape.numel(), shape.numel(), dtype=torch.float64)
    along = difference_matrix(shape[-1]) * (shape[-1] - 1) / 2  # a half side has (W - 1) / 2 samples
    eye = torch.eye(shape.numel() // shape[-1], dtype=torch.float64)
    return torch.kron(eye, along)


def dense_contributions(model: nn.Module, x: Tensor) -> dict[Key, Tensor]:
    """`v` of every leaf call: dense Jacobian of the rest of the model times `J_m X h - X m(h)`."""
    calls: list[tuple[Key, Tensor, Tensor]] = []
    shift: dict[Key, Tensor] = {}
    modules = dict(model.named_modules())

    def hook(path: str):  # type: ignore[no-untyped-def]
        def after(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            key = (path, sum(k[0] == path for k, _, _ in calls))
            calls.append((key, inputs.pop(), output.detach().clone()))
            return output + shift[key] if key in shift else output.clone()

        return after

    inputs: list[Tensor] = []
    handles = []
    for path, module in modules.items():
        if not list(module.children()):
            handles.append(module.register_forward_pre_hook(lambda m, args: inputs.append(args[0].detach().clone())))
            handles.append(module.register_forward_hook(hook(path)))

    def shifted(key: Key, value: Tensor) -> Tensor:
        calls.clear()
        shift.clear()
        shift[key] = value
        return model(x).softmax(-1)[0]

    model(x)
    found, result = list(calls), {}
    pushes = {
        key: torch.autograd.functional.jacobian(lambda d, key=key: shifted(key, d), torch.zeros_like(out)).flatten(1)
        for key, _, out in found
    }
    for handle in handles:
        handle.remove()
    for key, h, out in found:
        inside, outside = READINGS[key][0][0], READINGS[key][1][0]
        assert inside is not None
        assert outside is not None
        jacobian = torch.autograd.functional.jacobian(lambda z, key=key: modules[key[0]](z.clone()), h)
        local = jacobian.reshape(out.numel(), h.numel()) @ dense_action(h.shape, inside) @ h.flatten()
        result[key] = pushes[key] @ (local - dense_action(out.shape, outside) @ out.flatten())
    return result


@pytest.fixture(scope="module")
def measured() -> tuple[dict[Key, Tensor], dict[Key, Leaf]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, x = network(), torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64)
    leaves = estimate(model, x, lee.TRANSLATION_X, READINGS, probes=3000)
    return dense_contributions(model, x), {(leaf.path, leaf.call): leaf for leaf in leaves}


def test_every_leaf_call_is_estimated(measured: tuple[dict[Key, Tensor], dict[Key, Leaf]]) -> None:
    exact, leaves = measured
    assert list(leaves) == list(exact)
    assert len(leaves) == 10


def test_mean_over_probes_is_the_squared_norm(measured: tuple[dict[Key, Tensor], dict[Key, Leaf]]) -> None:
    exact, leaves = measured
    nonzero = 0
    for key, v in exact.items():
        truth, leaf = float(v @ v) / len(v), leaves[key]
        if truth < 1e-25:
            assert leaf.norm2 < 1e-25, key
            continue
        nonzero += 1
        assert abs(leaf.norm2 - truth) < 4 * leaf.stderr, key
        # ⟨u, v⟩ is normal, so its square varies by √2 of its mean: 14 % after 100 probes
        assert leaf.stderr * 3000**0.5 == pytest.approx(2**0.5 * truth, rel=0.15), key
    assert (
        nonzero == 7
    )  # stem, GELU, pool, and twice a convolution and a ReLU: pointwise linear maps contribute nothing


def test_single_probes_are_inner_products_with_the_dense_contribution() -> None:
    """The same check without statistics: the first probes are known vectors."""
    torch.manual_seed(4)
    model, x = network(), torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64)
    leaves = {
        (leaf.path, leaf.call): leaf for leaf in estimate(model, x, lee.TRANSLATION_X, READINGS, probes=3, seed=7)
    }
    random = torch.Generator().manual_seed(7)
    probes = torch.cat([torch.randn(1, 5, dtype=torch.float64, generator=random) for _ in range(3)])
    for key, v in dense_contributions(model, x).items():
        torch.testing.assert_close(leaves[key].samples, (probes @ v) ** 2 / 5, rtol=1e-9, atol=1e-20)


def test_calls_without_a_representation_have_no_estimate() -> None:
    partial = {**READINGS, ("act", 0): ([MAP], [None])}
    leaves = estimate(network(), torch.rand(1, 3, SIDE, SIDE).double(), lee.TRANSLATION_X, partial, probes=2)
    assert [leaf.path for leaf in leaves if leaf.norm2 != leaf.norm2] == ["act"]


def test_hooks_and_gradients_are_gone_afterwards() -> None:
    model = network()
    x = torch.rand(1, 3, SIDE, SIDE).double()
    lean = estimate(model, x, lee.TRANSLATION_X, READINGS, probes=2)
    full = estimate(model, x, lee.TRANSLATION_X, READINGS, probes=2, weight_gradients=True)
    assert [leaf.norm2 for leaf in lean] == [leaf.norm2 for leaf in full]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("generator", [lee.TRANSLATION_X, lee.ROTATION, lee.SCALE, 0.5 * lee.SHEAR_Y + lee.STRETCH_X])
@pytest.mark.parametrize(
    ("representation", "shape"),
    [
        (Map(), (1, 2, 6, 9)),
        (Map(channels_last=True), (1, 6, 9, 2)),
        (Tokens((6, 9), 2), (1, 56, 3)),
        (Scattered((6, 9), torch.randperm(108, generator=torch.Generator().manual_seed(0)).view(54, 2), 110), (1, 11, 10)),
        (Trivial(), (1, 7)),
    ],
    ids=["map", "channels last", "tokens", "scattered", "trivial"],
)  # fmt: skip
def test_bilinear_action_is_the_identity_and_has_the_one_sided_velocity(
    representation: Representation, shape: tuple[int, ...], generator: lee.Generator
) -> None:
    """In every layout, against the dense derivative matrices of `kernel="authors"`."""
    z = torch.rand(shape, dtype=torch.float64)
    sampler = Sampler("authors", "reflect", align_corners=True).for_image(6, 9)
    zero = torch.zeros((), dtype=torch.float64)
    value, velocity = torch.autograd.functional.jvp(
        lambda t: act(representation, z, t, generator, sampler), zero, torch.ones_like(zero)
    )
    assert torch.equal(value, z)
    torch.testing.assert_close(
        velocity, representation.infinitesimal([generator], z, sampler)[0], rtol=1e-12, atol=1e-12
    )


def test_sides_of_the_kink_are_those_of_the_kernel() -> None:
    for size in (2, 7, 8, 28, 56):
        torch.testing.assert_close(
            difference_matrix(size), derivative_matrix(size, "authors", "reflect", True, torch.float64)
        )
