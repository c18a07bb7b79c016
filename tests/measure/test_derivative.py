"""The Lie derivative against three oracles, closed forms and identities."""

import inspect
import math

import pytest
import torch
from cases import MODELS, build, images, relative
from oracles import by_dense_jacobian, by_differences, by_jvp
from torch import Tensor, nn

import lee
from lee.geometry.generators import NAMED
from lee.geometry.representations import Image, VectorField
from lee.geometry.sampling import Sampler


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("generator", NAMED)
def test_three_oracles_agree(name: str, generator: str) -> None:
    model, x = build(name), images(2)
    sampler = Sampler().for_image(*x.shape[-2:])
    exact = lee.lie_derivative(model, x, generator)

    def probabilities(z: Tensor) -> Tensor:
        return model(z).softmax(-1)

    assert relative(by_jvp(probabilities, x, NAMED[generator], sampler), exact) < 1e-9
    assert relative(by_differences(probabilities, x, NAMED[generator], sampler), exact) < 1e-6
    assert relative(by_dense_jacobian(probabilities, x, NAMED[generator], sampler), exact) < 1e-9


@pytest.mark.parametrize("kernel", ["fourier", "central"])
@pytest.mark.parametrize("boundary", ["reflect", "circular"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(12, 20), (21, 15)])
def test_oracle_agrees_for_every_convention_and_shape(
    kernel: str, boundary: str, align_corners: bool, size: tuple[int, int]
) -> None:
    model, x = build("cnn"), images(2, *size)
    sampler = Sampler(kernel, boundary, align_corners).for_image(*size)
    for name in ("translation_y", "rotation", "shear_x"):
        exact = lee.lie_derivative(
            model, x, name, output="logits", kernel=kernel, boundary=boundary, align_corners=align_corners
        )
        assert relative(by_jvp(model, x, NAMED[name], sampler), exact) < 1e-9
        if kernel == "fourier":  # Catmull-Rom's second derivative jumps: differences converge slowly there
            assert relative(by_differences(model, x, NAMED[name], sampler), exact) < 1e-6


def test_gram_is_the_inner_product_of_derivatives() -> None:
    model, x = build("vit"), images(3)
    gram = lee.equivariance_gram(model, x, progress=False, chunk=2)
    parts = torch.stack([lee.lie_derivative(model, x, name) for name in gram.basis])
    expected = torch.einsum("and,bnd->nab", parts, parts) / parts.shape[-1]
    assert gram.per_image.shape == (3, 9, 9)
    assert relative(gram.per_image, expected) < 1e-10
    mixture = 0.3 * lee.ROTATION + lee.SCALE - 2 * lee.BRIGHTNESS
    direct = lee.lie_derivative(model, x, mixture).square().mean(1)
    assert relative(gram.lee_per_image(mixture), direct) < 1e-10
    assert gram.lee(mixture).value == pytest.approx(float(direct.mean()), rel=1e-10)
    assert gram.lee(mixture).stderr == pytest.approx(float(direct.std() / math.sqrt(3)), rel=1e-10)


def test_linear_functional_of_a_wave_in_closed_form() -> None:
    """For f(x) = ⟨w, x⟩ and a half-sample cosine wave, `L f = ⟨w, ξ·∇x⟩` with the analytic gradient."""
    n = 24
    u = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    v, h = u[:, None], u[None, :]
    wave = torch.cos(3 * math.pi / 2 * (h + 1)) * torch.cos(5 * math.pi / 2 * (v + 1))
    gx = -3 * math.pi / 2 * torch.sin(3 * math.pi / 2 * (h + 1)) * torch.cos(5 * math.pi / 2 * (v + 1))
    gy = -5 * math.pi / 2 * torch.cos(3 * math.pi / 2 * (h + 1)) * torch.sin(5 * math.pi / 2 * (v + 1))
    weight = images(1, n, n, 1)[0, 0]
    expected = {
        "translation_x": gx, "translation_y": gy, "rotation": v * gx - h * gy, "scale": h * gx + v * gy,
        "shear_y": h * gy, "hyperbolic": v * gx + h * gy, "squeeze": h * gx - v * gy,
    }  # fmt: skip
    for name, field in expected.items():
        value = lee.lie_derivative(
            lambda z: (z * weight).sum((1, 2, 3))[:, None], wave[None, None], name, output="logits"
        )
        assert value.item() == pytest.approx((weight * field).sum().item(), rel=1e-10), name


def test_gaussian_blob_in_closed_form() -> None:
    """A template match with a blob: `d/dt ⟨g, x∘Φ_t⟩` of two Gaussians is known, and the samples are band-limited."""
    n, sigma, shift = 48, 0.16, 0.1
    u = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n

    def blob(c: float) -> Tensor:
        return torch.exp(-((u[None, :] - c) ** 2 + u[:, None] ** 2) / (2 * sigma**2))

    template = blob(0.0)
    x = blob(shift)[None, None]
    found = lee.lie_derivative(lambda z: (z * template).sum((1, 2, 3))[:, None], x, "translation_x", output="logits")
    # ⟨g, x(·+t)⟩ = π σ² exp(-(shift - t)²/(4σ²)) (n/2)²
    overlap = math.pi * sigma**2 * math.exp(-(shift**2) / (4 * sigma**2)) * (n / 2) ** 2
    assert found.item() == pytest.approx(overlap * shift / (2 * sigma**2), rel=1e-8)


@pytest.mark.filterwarnings("ignore::lee.errors.OutputWarning")  # images and small maps it is
@pytest.mark.parametrize("generator", sorted(set(NAMED) - {"saturation"}))
def test_identity_has_no_error(generator: str) -> None:
    x = images(2, 10, 14)
    assert float(lee.lie_derivative(lambda z: z, x, generator, output="logits").abs().max()) < 1e-12


def test_pointwise_affine_map_commutes_with_every_motion() -> None:
    """A 1×1 convolution is equivariant: `L f = 0` exactly for spatial generators, with the bias."""
    layer = nn.Conv2d(3, 4, 1).double()
    for name in ("translation_x", "rotation", "scale", "shear_y"):
        derivative = lee.lie_derivative(layer, images(2), name, output="logits")
        assert float(derivative.abs().max()) < 1e-12


def test_gradient_is_a_covector_field() -> None:
    """`f(x) = ∇x` is equivariant if its output rotates like a gradient (smooth image away from the border)."""
    n = 64
    u = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    x = torch.exp(-((u[None, :] - 0.1) ** 2 + (u[:, None] + 0.05) ** 2) / (2 * 0.12**2))[None, None]

    def gradient(z: Tensor) -> Tensor:
        return torch.cat(lee.spatial_gradient(z), 1)

    for name in ("rotation", "scale", "shear_x", "translation_y"):
        right = lee.lie_derivative(gradient, x, name, output="logits", representations="covector")
        assert float(right.norm() / gradient(x).norm()) < 1e-6
    wrong = lee.lie_derivative(gradient, x, "rotation", output="logits", representations="map")
    assert float(wrong.norm() / gradient(x).norm()) > 0.1
    oracle = by_jvp(gradient, x, NAMED["shear_x"], Sampler().for_image(n, n), VectorField())
    assert (
        relative(lee.lie_derivative(gradient, x, "shear_x", output="logits", representations="vector"), oracle) < 1e-9
    )


@pytest.mark.filterwarnings("ignore::lee.errors.OutputWarning")  # images and small maps it is
def test_image_to_image_agrees_with_oracle() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 3, 3, padding=1)).double()
    x = images(2, 12, 16)
    for name in ("rotation", "stretch_x", "contrast"):
        oracle = by_jvp(model, x, NAMED[name], Sampler().for_image(12, 16), Image())
        assert relative(lee.lie_derivative(model, x, name, output="logits"), oracle) < 1e-9


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_chain_rule_and_leibniz() -> None:
    """`L(f∘h) = (L f)∘h + df·(L h)` and `L(f·g) = L f·g + f·L g` for feature maps."""
    first = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.SiLU()).double().eval()
    second = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()).double().eval()
    x = images(1, 12, 12)
    for name in ("translation_x", "rotation"):

        def lie(f, z, name=name):  # type: ignore[no-untyped-def]
            return lee.lie_derivative(f, z, name, output="logits", representations="map")

        whole, inner = lie(nn.Sequential(first, second), x), first(x).detach()
        pushed = torch.func.jvp(second, (inner,), (lie(first, x),))[1]
        assert relative(lie(second, inner) + pushed, whole) < 1e-10
        # Leibniz holds for a product of functions into scalars; on grids the product aliases
        f, g = nn.Sequential(first, Mean()), nn.Sequential(second, Mean())
        product = lee.lie_derivative(lambda z: Mean()(first(z)) * Mean()(second(z)), x, name, output="logits")
        parts = [lee.lie_derivative(h, x, name, output="logits") for h in (f, g)]
        assert relative(parts[0] * g(x) + f(x) * parts[1], product) < 1e-10


def test_commutator_of_lie_derivatives_is_that_of_the_bracket() -> None:
    """`[L_X, L_Y] f = -L_{[X, Y]} f` for actions by pull-back, on a smooth image far from the border."""
    n = 48
    u = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    x = torch.exp(-((u[None, :] - 0.1) ** 2 + (u[:, None] + 0.05) ** 2) / (2 * 0.14**2)).expand(1, 3, n, n).clone()
    templates = images(4, n, n).flatten(1) - 0.5

    def model(z: Tensor) -> Tensor:
        return torch.tanh(z.flatten(1) @ templates.mT)

    def along(generator: lee.Generator, function):  # type: ignore[no-untyped-def]
        sampler = Sampler().for_image(n, n)
        return lambda z: torch.func.jvp(function, (z,), (Image().infinitesimal([generator], z, sampler)[0],))[1]

    for first, second in (
        (lee.ROTATION, lee.TRANSLATION_X),
        (lee.SHEAR_X, lee.SHEAR_Y),
        (lee.SCALE, lee.TRANSLATION_Y),
    ):
        commutator = along(first, along(second, model))(x) - along(second, along(first, model))(x)
        expected = lee.lie_derivative(model, x, lee.bracket(first, second), output="logits")
        assert relative(-commutator, expected) < 1e-5


def test_user_action_on_a_time_series_and_a_point_cloud() -> None:
    time = torch.linspace(0, 2 * math.pi, 41, dtype=torch.float64)[:-1]
    energy = lee.lie_derivative(
        lambda z: z.square().sum(1, keepdim=True),
        time.sin()[None],
        lambda z, t: torch.exp(t) * z,
        output="logits",
    )
    assert energy.item() == pytest.approx(2 * float(time.sin().square().sum()))

    def rotate(points: Tensor, t: Tensor) -> Tensor:
        c, s = torch.cos(t), torch.sin(t)
        return points @ torch.stack([torch.stack([c, -s]), torch.stack([s, c])]).to(points)

    cloud = torch.randn(2, 30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distances = lee.lie_derivative(
        lambda p: (p[:, :, None] - p[:, None]).square().sum(-1).flatten(1), cloud, rotate, output="logits"
    )
    assert float(distances.abs().max()) < 1e-10
    mean = lee.lie_derivative(lambda p: p.mean(1), cloud, rotate, output="logits")
    assert float(mean.norm()) > 1e-3
    covariant = lee.Action(rotate, output=lambda z, t: rotate(z[:, None], t)[:, 0])
    assert float(lee.lie_derivative(lambda p: p.mean(1), cloud, covariant, output="logits").norm()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_close(dtype: torch.dtype) -> None:
    model, x = build("cnn"), images(2)
    exact = lee.lie_derivative(model, x, "rotation", output="logits")
    found = lee.lie_derivative(build("cnn").to(dtype), x.to(dtype), "rotation", output="logits")
    assert found.dtype is dtype
    assert relative(found.double(), exact) < (1e-4 if dtype is torch.float32 else 0.1)


def test_chunk_does_not_change_the_result() -> None:
    model, x = build("vit"), images(5)
    whole = lee.lie_derivative(model, x, "scale", chunk=5)
    assert relative(lee.lie_derivative(model, x, "scale", chunk=2), whole) < 1e-12


def test_images_may_come_in_batches_with_labels() -> None:
    model, x = build("cnn"), images(5)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(5)), batch_size=2)
    batches = lee.equivariance_gram(model, loader, progress=False)
    assert relative(batches.per_image, lee.equivariance_gram(model, x, progress=False).per_image) < 1e-12
    estimate = lee.local_equivariance_error(model, x, "rotation", progress=False)
    assert estimate[:6] == pytest.approx(batches.lee("rotation")[:6])
    assert "±" in str(estimate)
    assert estimate.unit == "per radian²"


def test_every_public_call_takes_the_same_keywords() -> None:
    """The names are used by others: they must not drift apart."""
    common = [
        "output",
        "kernel",
        "boundary",
        "align_corners",
        "representations",
        "mode",
        "chunk",
        "verify",
        "precision",
    ]
    for call in (lee.lie_derivative, lee.equivariance_gram, lee.local_equivariance_error):
        parameters = inspect.signature(call).parameters
        keywords = [
            n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY and n not in ("generators", "progress")
        ]
        assert keywords == common
        assert parameters["kernel"].default == "fourier"


def test_a_matrix_of_the_whole_algebra_tells_the_named_motions() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 4)), torch.rand(2, 3, 8, 8)
    gram = lee.equivariance_gram(model, x, output="logits", progress=False)
    told = [line.split()[1] for line in str(gram).splitlines()]
    assert told == list(lee.geometry.generators.NAMED)
    assert str(gram.lee("rotation")) in str(gram)
    few = lee.equivariance_gram(model, x, generators=["scale", "contrast"], output="logits", progress=False)
    assert [line.split()[1] for line in str(few).splitlines()] == ["scale", "contrast"]


def test_outputs_that_only_look_like_images_or_maps_are_asked_about() -> None:
    """Scores of three classes at every pixel are no colours, and the last axes of matrices are no places."""
    dense = nn.Conv2d(3, 3, 3, padding=1).double().eval()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    with pytest.warns(lee.errors.OutputWarning, match="has the shape of the image"):
        asked = lee.lie_derivative(dense, x, "brightness", output="logits")
    told = lee.lie_derivative(dense, x, "brightness", output="logits", representations="image")
    assert torch.equal(asked, told)
    lee.lie_derivative(dense, x, "rotation", output="logits")  # places are places in both
    matrices = nn.Sequential(nn.Flatten(), nn.Linear(768, 24 * 9), nn.Unflatten(1, (24, 3, 3))).double().eval()
    with pytest.warns(lee.errors.OutputWarning, match="maps of 3 × 3 places"):
        lee.lie_derivative(matrices, x, "rotation", output="logits")
    lee.lie_derivative(matrices, x, "rotation", output="logits", representations="trivial")
