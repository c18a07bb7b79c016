"""The discrete metrics against independent implementations in numpy and scipy, exact cases and identities."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
import torch.nn.functional as F
from cases import build, images, relative
from torch import Tensor, nn

import lee
from lee import metrics
from lee.errors import InputError
from lee.geometry.generators import Generator
from lee.geometry.sampling import Sampler
from lee.statistics import Estimate

Array = np.ndarray


def to_numpy(x: Tensor) -> Array:
    return x.detach().numpy()


def circular(cin: int = 3, cout: int = 4, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, padding_mode="circular").double()
    return conv.requires_grad_(False)


def network(seed: int = 0) -> nn.Sequential:
    """Images to maps of half the size, with zero padding, a stride and non-linearities."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.Sigmoid()]
        return nn.Sequential(*layers).double().requires_grad_(False)


def classifier(seed: int = 0) -> nn.Sequential:
    """Class scores that depend on where things are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4, bias=False)
        ).double()


# ---- consistency: Zhang, ICML 2019 ----------------------------------------------------------------------------------


def test_shifted_is_roll_padding_and_slicing() -> None:
    x = images(3, 6, 9)
    moves = torch.tensor([[0, 1], [-2, 4], [5, -3]])
    for k, (dy, dx) in enumerate(moves.tolist()):
        rolled = np.roll(to_numpy(x[k]), (-dy, -dx), (1, 2))
        np.testing.assert_array_equal(metrics.shifted(x, moves)[k], rolled)
        padded = np.pad(to_numpy(x[k]), ((0, 0), (6, 6), (6, 6)), mode="symmetric")
        expected = padded[:, 6 + dy : 12 + dy, 6 + dx : 15 + dx]
        np.testing.assert_array_equal(metrics.shifted(x, moves, boundary="reflect")[k], expected)
    corners = torch.tensor([[0, 1], [2, 4], [1, 5]])
    cut = metrics.shifted(x, corners, boundary="crop", size=4)
    for k, (dy, dx) in enumerate(corners.tolist()):
        np.testing.assert_array_equal(cut[k], x[k, :, dy : dy + 4, dx : dx + 4])


def every_shift(x: Array, boundary: str, size: int | None, reach: int | None) -> Iterator[Array]:
    """All images that Zhang's protocols may draw, by numpy alone."""
    height, width = x.shape[-2:]
    if boundary == "crop":
        assert size is not None
        for dy, dx in itertools.product(range(height - size + 1), range(width - size + 1)):
            yield x[..., dy : dy + size, dx : dx + size]
        return
    spans = [range(n) if reach is None else range(-reach, reach + 1) for n in (height, width)]
    for dy, dx in itertools.product(*spans):
        if boundary == "circular":
            yield np.roll(x, (dy, dx), (-2, -1))
        else:
            padded = np.pad(x, ((0, 0), (0, 0), (9, 9), (9, 9)), mode="symmetric")
            yield padded[..., 9 + dy : 9 + dy + height, 9 + dx : 9 + dx + width]


@pytest.mark.parametrize(
    ("boundary", "size", "reach"),
    [("circular", None, None), ("circular", None, 1), ("reflect", None, 2), ("crop", 7, None)],
)
@pytest.mark.parametrize("reference", ["pair", "image"])
def test_consistency_is_the_chance_of_agreement(
    boundary: str, size: int | None, reach: int | None, reference: str
) -> None:
    """Over all pairs of shifts, two agree with probability `Σ_k p_k²`, with `p_k` the share of shifts with class k."""
    x = images(30, 10, 9) - 0.5
    side = (size, size) if size else (10, 9)
    model = classifier()
    model(torch.zeros(1, 3, *side, dtype=torch.float64))
    with torch.no_grad():
        seen = np.stack(
            [to_numpy(model(torch.tensor(v)).argmax(1)) for v in every_shift(to_numpy(x), boundary, size, reach)]
        )
        start = ((10 - side[0]) // 2, (9 - side[1]) // 2)
        still = to_numpy(model(x[..., start[0] : start[0] + side[0], start[1] : start[1] + side[1]]).argmax(1))
    shares = np.stack([(seen == k).mean(0) for k in range(4)])
    expected = (shares**2).sum(0) if reference == "pair" else (seen == still).mean(0)
    assert 0.3 < expected.mean() < 0.95  # or the test would show nothing
    found = metrics.agreement(
        model, x, shifts=60, boundary=boundary, size=size, max_shift=reach, reference=reference, chunk=7,
        random=torch.Generator().manual_seed(3),
    )  # fmt: skip
    noise = math.sqrt((expected * (1 - expected)).sum() / 60) / 30
    assert abs(float(found.mean()) - expected.mean()) < 4 * noise
    total = metrics.consistency(model, x, shifts=5, boundary=boundary, size=size, max_shift=reach, reference=reference)
    again = metrics.agreement(model, x, shifts=5, boundary=boundary, size=size, max_shift=reach, reference=reference)
    assert total.value == float(again.mean())
    assert total.stderr == pytest.approx(float(again.std() / math.sqrt(30)))
    assert str(total).startswith(f"consistency {boundary} shifts = ")


def test_an_exactly_invariant_classifier_is_always_consistent() -> None:
    model = nn.Sequential(circular(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    x = images(6, 8, 8)
    for reference in ("pair", "image"):
        assert metrics.consistency(model, x, reference=reference)[:3] == (1.0, 0.0, 6)


# ---- EQ-T, EQ-T-frac, EQ-R: Karras et al., NeurIPS 2021, appendix E -------------------------------------------------


def pixels(motion: metrics.Motion, x: Tensor) -> tuple[float, float]:
    """How many columns and rows further a translation reads."""
    half = min(x.shape[-2:]) / 2
    bx, by = motion.generator.offset  # type: ignore[union-attr]
    return bx * half * motion.t, by * half * motion.t


def fft_shift(z: Array, shifts: tuple[float, float], mirrored: bool) -> Array:
    """Ideal fractional shift along the last two axes: a phase in the Fourier domain, of the even extension if mirrored."""
    for axis, t in zip((-1, -2), shifts, strict=True):
        n = z.shape[axis]
        wide = np.concatenate([z, np.flip(z, axis)], axis) if mirrored else z
        spectrum = np.moveaxis(np.fft.fft(wide, axis=axis), axis, -1)
        phase = np.exp(2j * np.pi * np.fft.fftfreq(wide.shape[axis]) * t)
        wide = np.moveaxis(np.fft.ifft(spectrum * phase).real, -1, axis)
        z = np.take(wide, np.arange(n), axis)
    return z


def bilinear_shift(z: Array, shifts: tuple[float, float]) -> Array:
    offset = (0, 0, -shifts[1], -shifts[0])
    return scipy.ndimage.shift(z, offset, order=1, mode="reflect", prefilter=False)


SHIFTS: dict[tuple[str, str], Callable[[Array, tuple[float, float]], Array]] = {
    ("fourier", "circular"): lambda z, s: fft_shift(z, s, False),
    ("fourier", "reflect"): lambda z, s: fft_shift(z, s, True),
    ("bilinear", "reflect"): bilinear_shift,
}


@pytest.mark.parametrize(("kernel", "boundary"), SHIFTS)
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("margin", [0, 1])
def test_eq_t_and_eq_t_frac_of_maps_are_those_of_the_paper(
    kernel: str, boundary: str, integer: bool, margin: int
) -> None:
    x, model, move = images(3, 12, 16), network(), SHIFTS[kernel, boundary]
    motions = metrics.translations(x, 5, max_shift=0.25, integer=integer, random=torch.Generator().manual_seed(1))
    total = np.zeros(3)
    count = 0.0
    before = to_numpy(model(x))
    i, j = np.arange(6)[:, None], np.arange(8)[None, :]
    for motion in motions:
        dx, dy = pixels(motion, x)
        after = to_numpy(model(torch.tensor(move(to_numpy(x), (dx, dy)))))
        wanted = move(before, (dx / 2, dy / 2))  # the maps have half the resolution
        mask = np.ones((6, 8))
        if boundary == "reflect":
            for here, step, n in ((i, dy / 2, 6), (j, dx / 2, 8)):
                for place in (here, here + step):
                    mask = mask * (place >= margin - 1e-9) * (place <= n - 1 - margin + 1e-9)
        total += ((after - wanted) ** 2 * mask).sum((1, 2, 3))
        count += mask.sum() * 5
    name = metrics.eq_t if integer else metrics.eq_t_frac
    found = name(
        model, x, max_shift=0.25, draws=5, random=torch.Generator().manual_seed(1), output="logits", kernel=kernel,
        boundary=boundary, margin=margin, chunk=2,
    )  # fmt: skip
    expected = total / count
    assert found.value == pytest.approx(expected.mean(), rel=1e-9)
    assert found.stderr == pytest.approx(expected.std(ddof=1) / math.sqrt(3), rel=1e-9)
    assert found.n == 3
    assert found.kernel == kernel
    decibel = metrics.psnr(found, 2.0)
    assert decibel.value == pytest.approx(np.log10(2) * 20 - np.log10(expected.mean()) * 10, rel=1e-12)
    assert decibel.unit == "dB"
    assert decibel.skew == -found.skew  # many decibels are a small error


def test_integer_translations_are_uniform_whole_pixels() -> None:
    x = images(1, 16, 32)
    motions = metrics.translations(x, 400, max_shift=0.25, integer=True, step=2)
    found = np.array([pixels(m, x) for m in motions])
    np.testing.assert_allclose(found, np.round(found / 2) * 2, atol=1e-12)
    assert np.abs(found).max(0) == pytest.approx([8, 4])
    assert np.abs(found.mean(0) / found.std(0)).max() < 4 / 20  # four standard errors


def rotate(z: Array, angle: float) -> Array:
    """Bilinear rotation about the centre that reads at `(x cos + y sin, y cos - x sin)`, mirrored at the edges."""
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.array([[c, -s], [s, c]])  # on (row, column)
    middle = (np.array(z.shape[-2:]) - 1) / 2
    flat = z.reshape(-1, *z.shape[-2:])
    turned = [
        scipy.ndimage.affine_transform(p, matrix, middle - matrix @ middle, order=1, mode="reflect", prefilter=False)
        for p in flat
    ]
    return np.stack(turned).reshape(z.shape)


def disc_filter(z: Array) -> Array:
    """Keep the cosines within the disc of half a cycle per sample (type II: the even extension)."""
    spectrum = scipy.fft.dctn(z, axes=(-2, -1))
    ky, kx = (np.arange(n) / n for n in z.shape[-2:])
    return scipy.fft.idctn(spectrum * (ky[:, None] ** 2 + kx**2 <= 1), axes=(-2, -1))


@pytest.mark.parametrize("band_limit", [True, False])
def test_eq_r_of_maps_is_that_of_the_paper(band_limit: bool) -> None:
    x, model = images(2, 12, 16), network()
    motions = metrics.rotations(4, random=torch.Generator().manual_seed(2))
    before = to_numpy(model(x))
    row, column = np.meshgrid(np.arange(6) - 2.5, np.arange(8) - 3.5, indexing="ij")
    total = np.zeros(2)
    count = 0.0
    for motion in motions:
        after, wanted = to_numpy(model(torch.tensor(rotate(to_numpy(x), motion.t)))), rotate(before, motion.t)
        gap = disc_filter(after - wanted) if band_limit else after - wanted
        c, s = math.cos(motion.t), math.sin(motion.t)
        mask = (abs(c * column + s * row) <= 3.5) & (abs(c * row - s * column) <= 2.5)
        total += (gap**2 * mask).sum((1, 2, 3))
        count += mask.sum() * 5
    found = metrics.eq_r(
        model, x, draws=4, random=torch.Generator().manual_seed(2), output="logits", kernel="bilinear",
        band_limit=band_limit,
    )  # fmt: skip
    assert found.value == pytest.approx(float((total / count).mean()), rel=1e-9)


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_the_disc_is_a_projection_that_keeps_slow_waves(boundary: str, size: tuple[int, int]) -> None:
    x = images(2, *size)
    once = metrics.disc(x, boundary)
    assert relative(metrics.disc(once, boundary), once) < 1e-12
    assert relative(once, x) > 0.05
    if boundary == "reflect":
        np.testing.assert_allclose(once, disc_filter(to_numpy(x)), atol=1e-12)
    else:
        fy, fx = (2 * np.fft.fftfreq(n) for n in size)
        spectrum = np.fft.fft2(to_numpy(x)) * (fy[:, None] ** 2 + fx**2 <= 1)
        np.testing.assert_allclose(once, np.fft.ifft2(spectrum).real, atol=1e-12)
    flat = torch.ones(1, 1, *size)
    torch.testing.assert_close(metrics.disc(flat, boundary), flat)


def test_eq_t_of_class_scores_is_plain_sampling() -> None:
    """For invariant outputs Gruver et al. compare the probabilities of the moved image with those of the image."""
    model, x = build("cnn"), images(3)
    motions = metrics.translations(x, 4, random=torch.Generator().manual_seed(5))
    with torch.no_grad():
        still = model(x).softmax(1)
        gaps = [
            (model(torch.tensor(fft_shift(to_numpy(x), pixels(m, x), True))).softmax(1) - still).square().mean(1)
            for m in motions
        ]
    expected = torch.stack(gaps).mean(0)
    found = metrics.differences(model, x, motions)
    assert relative(found.per_image, expected) < 1e-9
    assert relative(found.per_motion, torch.stack(gaps)) < 1e-9
    assert metrics.eq_t_frac(model, x, draws=4, random=torch.Generator().manual_seed(5)).value == pytest.approx(
        float(expected.mean())
    )


# ---- exact cases ----------------------------------------------------------------------------------------------------


def test_a_circular_convolution_is_exactly_equivariant_to_every_shift() -> None:
    x = images(2, 12, 11)
    for metric in (metrics.eq_t, metrics.eq_t_frac):
        found = metric(circular(), x, output="logits", boundary="circular")
        assert found.value < 1e-28
        assert metrics.psnr(found, 1.0).value > 250


def test_a_relu_is_equivariant_to_whole_shifts_only() -> None:
    x, model = images(2, 12, 12) - 0.5, nn.ReLU()
    assert metrics.eq_t(model, x, output="logits").value < 1e-26
    assert metrics.eq_t_frac(model, x, output="logits").value > 1e-4


def test_a_zero_padding_reaches_one_sample_far() -> None:
    x = images(2, 12, 12)
    model = nn.Conv2d(3, 4, 3, padding=1).double()
    assert metrics.eq_t(model, x, output="logits").value > 1e-4
    assert metrics.eq_t(model, x, output="logits", margin=1).value < 1e-28


@pytest.mark.parametrize("metric", [metrics.eq_t, metrics.eq_t_frac, metrics.eq_r])
def test_the_identity_has_no_error_and_an_infinite_ratio(metric: Callable[..., Estimate]) -> None:
    found = metric(lambda z: z, images(3, 8, 10), output="logits", draws=3)
    assert found.value == found.stderr == 0.0
    decibel = metrics.psnr(found, 1.0)
    assert decibel.value == math.inf
    assert decibel.stderr == 0.0
    assert "inf ± 0 dB" in str(decibel)


@pytest.mark.filterwarnings("ignore::lee.errors.ConstantOutputWarning")
@pytest.mark.parametrize("shape", [(), (3,), (2, 8, 8)])
def test_a_constant_has_no_error(shape: tuple[int, ...]) -> None:
    x = images(4, 8, 8)
    for metric in (metrics.eq_t, metrics.eq_t_frac, metrics.eq_r):
        assert metric(lambda z: torch.ones(len(z), *shape).double(), x, output="logits").value < 1e-26


def test_a_rotated_field_of_vectors_turns_its_vectors() -> None:
    """The gradient of a smooth bump is equivariant as a covector field, and not as four maps."""
    n = 48
    u = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    x = torch.exp(-((u[None, :] - 0.1) ** 2 + (u[:, None] + 0.05) ** 2) / (2 * 0.12**2))[None, None]

    def gradient(z: Tensor) -> Tensor:
        return torch.cat(lee.spatial_gradient(z), 1)

    right = metrics.eq_r(gradient, x, output="logits", representations="covector", draws=4).value
    wrong = metrics.eq_r(gradient, x, output="logits", representations="map", draws=4).value
    assert right < 1e-12 * wrong


def test_tokens_keep_their_prefix() -> None:
    conv = nn.Conv2d(3, 5, 4, stride=4).double().eval()

    def tokens(z: Tensor) -> Tensor:
        return torch.cat([z.new_ones(len(z), 2, 5), conv(z).flatten(2).mT], 1)

    x = images(2, 16, 16)
    motions = metrics.translations(x, 6, max_shift=0.5, integer=True, step=4)
    found = metrics.differences(tokens, x, motions, output="logits", representations=lee.Tokens((4, 4), prefix=2))
    assert float(found.squares.max()) < 1e-25
    expected = [10 + 5 * (4 - abs(dx) / 4) * (4 - abs(dy) / 4) for dx, dy in (pixels(m, x) for m in motions)]
    torch.testing.assert_close(found.counts, torch.tensor(expected).double())


# ---- sampled invariance ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", ["rotation", "translation_x", "scale", "brightness"])
def test_sampled_invariance_tends_to_the_local_equivariance_error(generator: str) -> None:
    """`E ‖f(ρ(t)x) - f(x)‖² / E t² → LEE`; what is left is of order t, as the draws are not symmetric about 0."""
    model, x = build("cnn"), images(3)
    exact = lee.local_equivariance_error(model, x, generator, progress=False).value
    errors = []
    for radius in (2e-4, 1e-4):
        motions = metrics.amounts(generator, 64, radius=radius)
        second = np.mean([m.t**2 for m in motions])
        assert second == pytest.approx(radius**2 / 3, rel=0.05)
        found = metrics.sampled_invariance(model, x, generator, radius=radius, draws=64)
        errors.append(abs(found.value / second / exact - 1))
    assert errors[1] < 1e-3
    assert errors[1] < 0.6 * errors[0] + 1e-7


def test_sampled_invariance_in_closed_form() -> None:
    """Brightness multiplies a mean by `exp t`, so the difference is `(exp t - 1) m`."""
    x = images(4, 6, 6)
    mean = x.mean((1, 2, 3))
    motions = metrics.amounts("brightness", 8, radius=0.7, random=torch.Generator().manual_seed(4))
    expected = np.mean([math.expm1(m.t) ** 2 for m in motions]) * mean.square().mean()
    options = {"radius": 0.7, "draws": 8, "random": torch.Generator().manual_seed(4), "output": "logits"}
    found = metrics.sampled_invariance(lambda z: z.mean((1, 2, 3)), x, "brightness", **options)
    assert found.value == pytest.approx(float(expected))
    assert found.name == "brightness"

    action = lee.Action(lambda z, t: z * t.exp(), "gain", output=lambda z, t: z * t.exp())
    assert (
        metrics.sampled_invariance(lambda z: z.mean(1), x.flatten(1), action, radius=0.5, output="logits").value < 1e-30
    )


# ---- layers ---------------------------------------------------------------------------------------------------------


def layered() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [circular(3, 4), nn.ReLU(), circular(4, 6, 2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 5).double().requires_grad_(False))


KNOWN = {"[0-3]": "map", "[4-6]": "trivial"}  # of `layered`, whose circular padding nobody has to follow


def test_module_errors_with_both_normalisations() -> None:
    """`S / N` and `S / √N` of each module at its own input, by an independent loop and FFT shifts."""
    model, x = layered(), images(3, 12, 12) - 0.5
    motions = metrics.translations(x, 3, max_shift=0.25)
    table = metrics.layer_errors(model, x, motions, boundary="circular", representations=KNOWN).set_index("path")
    value = x
    for path, module in model.named_children():
        with torch.no_grad():
            output = module(value.clone())
        if value.ndim < 4 or output.shape[-1] < 2:
            break
        squares = []
        for motion in motions:
            dx, dy = pixels(motion, x)

            def move(z: Tensor, dx: float = dx, dy: float = dy) -> Tensor:
                ratio = z.shape[-1] / 12
                return torch.tensor(fft_shift(to_numpy(z), (dx * ratio, dy * ratio), False))

            squares.append((module(move(value)) - move(output)).square().sum((1, 2, 3)))
        total, n = torch.stack(squares).mean(0), output[0].numel()
        row = table.loc[path]
        assert row["n"] == n
        assert row["mean"] == pytest.approx(float(total.mean()) / n, rel=1e-9, abs=1e-28)
        assert row["root"] == pytest.approx(float(total.mean()) / math.sqrt(n), rel=1e-9, abs=1e-26)
        assert row["mean_se"] == pytest.approx(float(total.std()) / n / math.sqrt(3), rel=1e-6, abs=1e-28)
        value = output
    assert path == "4"
    assert table.loc["0", "mean"] < 1e-28  # a circular convolution
    assert table.loc["1", "mean"] > 1e-4  # a ReLU, after a fractional shift
    assert table.loc["6", "mean"] == 0  # a linear map of pooled features
    assert table.loc["", ["n", "mean", "root"]].isna().all()


def test_feature_errors_are_those_of_the_model_up_to_each_layer() -> None:
    model, x = layered(), images(3, 12, 12) - 0.5
    motions = metrics.translations(x, 3, max_shift=0.25)
    options = {"margin": 1, "chunk": 2}
    given = KNOWN | {"output": "trivial"}
    table = metrics.layer_errors(model, x, motions, scope="features", representations=given, **options).set_index(
        "path"
    )
    for stop in range(1, 8):
        kind = "map" if stop < 5 else "trivial"
        whole = metrics.differences(model[:stop], x, motions, output="logits", representations=kind, **options)
        row = table.loc[str(stop - 1)]
        assert row["n"] == float(whole.counts.mean())
        assert row["mean"] == pytest.approx(float(whole.per_motion.mean()), rel=1e-9, abs=1e-28)
        roots = (whole.squares / whole.counts.sqrt()[:, None]).mean()
        assert row["root"] == pytest.approx(float(roots), rel=1e-9, abs=1e-26)


def test_whole_shifts_miss_pointwise_layers() -> None:
    """Gruver et al., Fig. 4 right: integer translations say nothing about activations, and nothing about strides either."""
    model, x = layered(), images(2, 12, 12) - 0.5
    motions = metrics.translations(x, 4, max_shift=0.4)
    options = {"boundary": "circular", "representations": KNOWN}
    table = metrics.layer_errors(model, x, motions, whole=True, **options).set_index("path")
    assert table.loc[["0", "1", "2", "3", "4", "6"], "mean"].max() < 1e-28
    half = metrics.layer_errors(model, x, motions, **options).set_index("path")
    assert half.loc[["1", "2", "3"], "mean"].min() > 1e-7


@pytest.mark.parametrize("name", ["vit", "swin", "convnext"])
@pytest.mark.parametrize("scope", ["module", "features"])
def test_layers_of_real_architectures_whatever_the_chunk(name: str, scope: str) -> None:
    model, x = build(name), images(3)
    motions = metrics.translations(x, 2)
    table = metrics.layer_errors(model, x, motions, scope=scope, chunk=3)
    alone = [metrics.layer_errors(model, z[None], motions, scope=scope)["mean"] for z in x]
    np.testing.assert_allclose(table["mean"], np.mean(alone, 0), rtol=1e-9, atol=1e-25)
    leaves = table[table.leaf]
    if scope == "module":
        pointwise = leaves[leaves.type.isin(["Linear", "Dropout", "Identity"]) & (leaves.type != "Flatten")]
        small = pointwise["mean"].dropna()
        assert len(small) > 5
        assert small.max() < 1e-24
        assert leaves[leaves.type.isin(["GELU", "LayerNorm"])]["mean"].max() > 1e-6


# ---- manners --------------------------------------------------------------------------------------------------------


def test_models_are_left_as_they_were() -> None:
    model, x = nn.Sequential(network(), nn.BatchNorm2d(5).double(), nn.Dropout()), images(2, 8, 8)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    motions = metrics.translations(x, 2)
    first = metrics.differences(model, x, motions, output="logits")
    for scope in ("module", "features"):
        metrics.layer_errors(model, x, motions, scope=scope)
    metrics.consistency(model, x, output=lambda z: z.mean((2, 3)))
    assert metrics.output_range(model, x) > 0
    assert all(m.training for m in model.modules())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(first.squares, metrics.differences(model, x, motions, output="logits").squares)


def test_draws_are_reproducible_and_nothing_global_is_drawn() -> None:
    x, state = images(2, 8, 8), torch.random.get_rng_state()
    assert metrics.translations(x, 3) == metrics.translations(x, 3)
    assert metrics.rotations(3) == metrics.rotations(3)
    other = metrics.translations(x, 3, random=torch.Generator().manual_seed(1))
    assert other != metrics.translations(x, 3)
    assert torch.equal(state, torch.random.get_rng_state())


def test_psnr_and_its_error() -> None:
    mse = Estimate(4e-3, 4e-4, 25, "", "fourier", "any angle", "EQ-R")
    found = metrics.psnr(mse, 2.0)
    assert found.value == pytest.approx(30.0)
    slope = (metrics.psnr(mse._replace(value=4.001e-3), 2.0).value - found.value) / 1e-6
    assert found.stderr == pytest.approx(abs(slope) * 4e-4, rel=1e-3)
    assert str(found) == "EQ-R any angle = 30.00 ± 0.43 dB (n = 25, kernel fourier)"
    assert metrics.output_range(lambda z: z, torch.linspace(-1, 2, 12).view(1, 3, 2, 2)) == 3.0


X = images(2, 8, 8)
MAPS = network()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.consistency(MAPS, X), r"class scores \(N, K\)"),
        (lambda: metrics.consistency(MAPS, X[0]), r"must have shape \(N, C, H, W\)"),
        (lambda: metrics.consistency(MAPS, X, shifts=0), "`shifts` must be a whole number from 1"),
        (lambda: metrics.consistency(MAPS, X, max_shift=0), "`max_shift` must be a whole number from 1"),
        (lambda: metrics.consistency(MAPS, X, boundary="circle"), "Unknown boundary 'circle'"),
        (lambda: metrics.consistency(MAPS, X, boundary="reflect"), "needs `max_shift`"),
        (lambda: metrics.consistency(MAPS, X, boundary="crop"), "needs `size`"),
        (lambda: metrics.consistency(MAPS, X, boundary="crop", size=8), "smaller than the images of 8 × 8"),
        (lambda: metrics.consistency(MAPS, X, size=4), "goes with boundary='crop'"),
        (lambda: metrics.consistency(MAPS, X, reference="pairs"), "Unknown reference 'pairs'.*'pair'"),
        (lambda: metrics.shifted(X, torch.zeros(2, 2)), "2 × 2 whole numbers"),
        (lambda: metrics.shifted(X, torch.full((2, 2), 5), boundary="crop", size=4), "leaves the image"),
        (lambda: metrics.translations(X, 0), "`draws` must be a whole number from 1"),
        (lambda: metrics.translations(X, 3, max_shift=1.0), "`max_shift` must be a number between 0 and 1"),
        (lambda: metrics.translations(X, 3, step=0), "`step` must be a whole number from 1"),
        (lambda: metrics.eq_t(MAPS, X, max_shift=0.05), "No shift up to"),
        (lambda: metrics.eq_t(MAPS, X.long()), "floating point"),
        (lambda: metrics.eq_t(MAPS, X), r"needs class scores \(N, K\)"),
        (lambda: metrics.eq_t_frac(MAPS, X, output="logits", margin=-1), "`margin` must be a whole number from 0"),
        (lambda: metrics.eq_t_frac(MAPS, X, output="logits", margin=3), "stays in view"),
        (lambda: metrics.eq_t_frac(MAPS, X, output="logits", kernel="authors"), "authors"),
        (lambda: metrics.eq_t_frac(MAPS, X, output="logits", boundary="zeros"), "Unknown boundary"),
        (lambda: metrics.eq_r(lambda z: z[:1], X, output="logits"), "one entry per input"),
        (lambda: metrics.sampled_invariance(MAPS, X, "rotatoin", radius=1.0), "'rotation'"),
        (lambda: metrics.sampled_invariance(MAPS, X, "rotation", radius=0.0), "`radius` must be a number above 0"),
        (lambda: metrics.differences(MAPS, X, []), "no motion"),
        (lambda: metrics.psnr(Estimate(0.1, 0.1, 2), 0.0), "`dynamic_range` must be a number above 0"),
        (lambda: metrics.psnr(Estimate(-0.1, 0.1, 2), 1.0), "can't be negative"),
        (lambda: metrics.layer_errors(MAPS, X, [], scope="module"), "no motion"),
        (lambda: metrics.layer_errors(MAPS, X, metrics.rotations(1), scope="modules"), "Unknown scope 'modules'"),
        (lambda: metrics.layer_errors(F.relu, X, metrics.rotations(1)), r"torch\.nn\.Module"),
        (lambda: metrics.layer_errors(MAPS, X, metrics.rotations(1), whole=True), "Only translations"),
        (lambda: metrics.layer_errors(MAPS, X, metrics.rotations(1), whole=True, scope="features"), "`whole` goes with"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_in_view_counts_samples_by_hand() -> None:
    sampler = Sampler().for_image(8, 8)
    right = metrics.shift(2.0, 0.0, 8, 8)
    assert metrics.in_view(right, 8, 8, sampler).sum(1).tolist() == [6] * 8
    assert metrics.in_view(right, 4, 4, sampler)[0].tolist() == [True, True, True, False]
    assert int(metrics.in_view(right, 8, 8, sampler, margin=1).sum()) == 6 * 4
    assert bool(metrics.in_view(right, 8, 8, Sampler(boundary="circular").for_image(8, 8)).all())
    quarter = metrics.in_view(metrics.Motion(lee.ROTATION, math.pi / 2), 4, 8, Sampler().for_image(4, 8))
    assert quarter.tolist() == [[False, False, True, True, True, True, False, False]] * 4


def test_differences_that_are_rounding_are_said() -> None:
    model, x = network().float(), images(2, 12, 12).float()
    assert metrics.eq_t(model, x, draws=2, output="logits").value > 0
    with pytest.warns(lee.VerificationWarning, match=r"rounding in torch\.float32"):
        metrics.eq_t(model, x, draws=2, output=lambda o: o + 1e5)


def test_shifts_that_all_round_to_zero_are_refused() -> None:
    x = torch.rand(2, 3, 32, 32)
    with pytest.raises(InputError, match=r"No shift up to 0\.125 of 32 pixels is a multiple of 8"):
        metrics.translations(x, 4, integer=True, step=8)
    refused = 0
    for seed in range(8):  # one draw in a few is the zero shift
        try:
            (motion,) = metrics.translations(x, 1, integer=True, step=4, random=torch.Generator().manual_seed(seed))
        except InputError:
            refused += 1
            continue
        assert isinstance(motion.generator, Generator)
        assert 0 < max(abs(v) for v in motion.generator.offset) * motion.t * 16 <= 4 + 1e-9
    assert 0 < refused < 8


def test_an_action_that_changes_the_shape_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(InputError, match="must keep the shape"):
        metrics.sampled_invariance(
            net, torch.rand(4, 3, 8, 8), lambda z, t: z[:1], radius=0.1, draws=2, output="logits"
        )
