"""Where the samples of a layer's output lie, held to where it puts the coordinates themselves.

An image whose pixels hold their own rows, pushed through an operator that averages with symmetric weights, comes out as the
rows of the samples. A non-linear one is taken odd, `(f(r) - f(-r)) / 2`: for a maximum, the middle of its window.
"""

from collections.abc import Callable

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lee
from lee.geometry import Map, Registration, Scattered, Tokens, Trivial
from lee.layers.places import Follow, Unknown, placed_image, places_of, read

Function = Callable[[Tensor], Tensor]
H, W = 24, 36  # sides with many divisors


def coordinates(height: int = H, width: int = W) -> tuple[Tensor, Tensor]:
    """Images (1, 1, H, W) of rows and of columns, in heights and widths."""
    r, c = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (height, width))
    return r[:, None].expand(1, 1, height, width).contiguous(), c.expand(1, 1, height, width).contiguous()


def pushed(function: Function, height: int = H, width: int = W) -> Tensor:
    """Where `function` puts the coordinates, as row + i·column."""
    found = [(function(z) - function(-z)) / 2 for z in coordinates(height, width)]
    return torch.complex(found[0], found[1])


def claimed(function: Function, height: int = H, width: int = W) -> Tensor:
    """Where its samples lie, as it is followed."""
    with torch.no_grad(), Follow():
        places = places_of(function(placed_image(coordinates(height, width)[0])))
    assert isinstance(places, Tensor), places
    return places


def away(function: Function, border: float = 0.25) -> Tensor:
    """Difference of the two in pixels, at the samples that lie `border` within the image."""
    there, places = pushed(function), claimed(function)
    inside = ((places.real - 0.5).abs() < 0.5 - border) & ((places.imag - 0.5).abs() < 0.5 - border)
    assert int(inside.sum()) > 3
    off = (there - places)[inside]
    return torch.stack([off.real * H, off.imag * W])


def binomial(k: int) -> Tensor:
    """A symmetric kernel (1, 1, k, k) that sums to one."""
    row = torch.tensor([1.0], dtype=torch.float64)
    for _ in range(k - 1):
        row = F.conv1d(row[None, None], torch.tensor([[[0.5, 0.5]]], dtype=torch.float64), padding=1)[0, 0]
    return (row[:, None] * row)[None, None]


def same(k: int, stride: int) -> nn.Module:
    """timm's convolution with TensorFlow's padding, which puts the odd pixel on the right."""
    layer = timm.layers.Conv2dSame(1, 1, k, stride=stride, bias=False).double()
    layer.weight.data = binomial(k)
    return layer


def merge(z: Tensor) -> Tensor:
    """Four neighbours as channels, channels last, by reshapes."""
    return z.reshape(1, -1, H // 2, 2, W // 2, 2).permute(0, 2, 4, 3, 5, 1).flatten(3)


def spread(z: Tensor) -> Tensor:
    """Channels as neighbours, by reshapes."""
    return z.reshape(1, -1, 2, 2, *z.shape[2:]).permute(0, 1, 4, 2, 5, 3).reshape(1, -1, 2 * z.shape[2], 2 * z.shape[3])


def beside_coarse(z: Tensor) -> tuple[Tensor, Tensor]:
    """Every other pixel, and as many of means of 4×4 that are enlarged from corner to corner: another origin and spacing."""
    coarse = F.interpolate(F.avg_pool2d(z, 4), size=(H // 2, W // 2), mode="bilinear", align_corners=True)
    return z[..., ::2, ::2], coarse


BILINEAR = torch.outer(*[torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)] * 2)[None, None]
TENT = torch.outer(*[torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)] * 2)[None, None]

#: The coordinates come out as the places, exactly.
EXACT: dict[str, Function] = {
    "every other pixel": lambda z: z[..., ::2, ::2],
    "every third row, from the second": lambda z: z[..., 1::3, 2::2],
    "a crop": lambda z: z[..., 3:-2, 5:],
    "flipped": lambda z: z.flip(3),
    "flipped, then every other": lambda z: z.flip(2)[..., ::2, ::2],
    "flipped, then a stride": lambda z: F.conv2d(z.flip(3), binomial(3), stride=2, padding=1),
    "rolled": lambda z: z.roll((3, 5), (2, 3)),
    "rolled, then a convolution with stride 1": lambda z: F.conv2d(z.roll((4, 7), (2, 3)), binomial(1)),
    "turned, then a stride": lambda z: F.conv2d(z.mT, binomial(3), stride=2, padding=1),
    "1x1, stride 2": lambda z: F.conv2d(z, binomial(1), stride=2),
    "2x2, stride 2": lambda z: F.conv2d(z, binomial(2), stride=2),
    "3x3, stride 2, padding 1": lambda z: F.conv2d(z, binomial(3), stride=2, padding=1),
    "3x3, stride 2, no padding": lambda z: F.conv2d(z, binomial(3), stride=2),
    "7x7, stride 2, padding 3": lambda z: F.conv2d(z, binomial(7), stride=2, padding=3),
    "3x3, dilated by 2 × 1": lambda z: F.conv2d(z, binomial(3), dilation=(2, 1)),
    "patches": lambda z: F.conv2d(z, binomial(4), stride=4),
    "two strides": lambda z: F.conv2d(F.conv2d(z, binomial(3), stride=2, padding=1), binomial(3), stride=2, padding=1),
    "padded on the right, then a stride": lambda z: F.conv2d(F.pad(z, (0, 1, 0, 1)), binomial(3), stride=2),
    "TensorFlow's padding": same(3, 2),
    "TensorFlow's padding of 5": same(5, 2),
    "an even kernel with padding='same'": lambda z: F.conv2d(F.pad(z, (0, 1, 0, 1)), binomial(2)),
    "reflected": lambda z: F.pad(z, (2, 1, 3, 1), mode="reflect"),
    "reflected, then a stride": lambda z: F.conv2d(F.pad(z, (1, 2, 1, 0), mode="reflect"), binomial(3), stride=2),
    "repeated borders, then a stride": lambda z: F.conv2d(F.pad(z, (2, 1, 0, 1), mode="replicate"), binomial(4), stride=2),
    "periodic, then a stride": lambda z: F.conv2d(F.pad(z, (1, 1, 2, 2), mode="circular"), binomial(3), stride=2),
    "blurred and thinned": lambda z: F.conv2d(F.pad(z, (1, 1, 1, 1), mode="reflect"), binomial(3))[..., ::2, ::2],
    "average of 2x2": lambda z: F.avg_pool2d(z, 2),
    "average of 3x3, stride 2, padding 1": lambda z: F.avg_pool2d(z, 3, 2, 1),
    "average with an incomplete window": lambda z: F.avg_pool2d(z, 5, 5, ceil_mode=True),
    "maximum of 2x2": lambda z: F.max_pool2d(z, 2),
    "maximum of 3x3, stride 2, padding 1": lambda z: F.max_pool2d(z, 3, 2, 1),
    "maximum of 2x2, dilated": lambda z: F.max_pool2d(z, 2, 1, dilation=2),
    "adaptive average": lambda z: F.adaptive_avg_pool2d(z, (6, 12)),
    "adaptive maximum": lambda z: F.adaptive_max_pool2d(z, (8, 9)),
    "bilinear, twice": lambda z: F.interpolate(z, scale_factor=2, mode="bilinear"),
    "bilinear, 1.5 times": lambda z: F.interpolate(z, scale_factor=1.5, mode="bilinear"),
    "bilinear, from corner to corner": lambda z: F.interpolate(z, size=(31, 50), mode="bilinear", align_corners=True),
    "bilinear, down": lambda z: F.interpolate(z, size=(10, 13), mode="bilinear"),
    "bilinear, down, smooth": lambda z: F.interpolate(z, size=(12, 12), mode="bilinear", antialias=True),
    "nearest, half": lambda z: F.interpolate(z, scale_factor=0.5),
    "nearest-exact, half": lambda z: F.interpolate(z, scale_factor=0.5, mode="nearest-exact"),
    "area": lambda z: F.interpolate(z, size=(12, 12), mode="area"),
    "transposed, as bilinear": lambda z: F.conv_transpose2d(z, BILINEAR, stride=2, padding=1),
    "transposed, 3x3": lambda z: F.conv_transpose2d(z, TENT, stride=2, padding=1, output_padding=1),
    "a stride undone": lambda z: F.conv_transpose2d(F.conv2d(z, binomial(3), stride=2, padding=1), TENT, stride=2, padding=1),
    "bilinear behind a stride": lambda z: F.interpolate(z[..., ::2, ::2], scale_factor=2, mode="bilinear"),
    "unshuffled and averaged": lambda z: F.pixel_unshuffle(z, 2).mean(1, keepdim=True),
    "unshuffled and shuffled": lambda z: F.pixel_shuffle(F.pixel_unshuffle(z, 3), 3),
    "space to depth by reshapes, averaged": lambda z: merge(z).mean(-1, keepdim=True),
    "repeated, then a convolution": lambda z: F.conv2d(z.repeat_interleave(2, 2).repeat_interleave(2, 3), binomial(3)),
    "depth to space by reshapes, then a convolution": lambda z: F.conv2d(spread(z.repeat(1, 4, 1, 1)), binomial(3)),
    "two grids averaged": lambda z: (z[..., ::2, ::2] + F.avg_pool2d(z, 2)) / 2,
    "neighbours averaged": lambda z: (z[..., 1:, :] + z[..., :-1, :]) / 2,
    "two grids side by side, averaged": lambda z: F.conv2d(
        torch.cat([z[..., ::2, ::2], F.avg_pool2d(z, 2)], 1), binomial(1).repeat(1, 2, 1, 1) / 2
    ),
    "a sum with two grids side by side": lambda z: (
        torch.cat([z[..., ::2, ::2], F.avg_pool2d(z, 2)], 1) + F.avg_pool2d(z.repeat(1, 2, 1, 1), 2)
    ).mean(1, keepdim=True) / 2,
    "a sum of grids side by side": lambda z: (
        torch.cat([z[..., ::2, ::2], F.avg_pool2d(z, 2)], 1) + torch.cat([z[..., ::2, 1::2], F.avg_pool2d(z, (2, 4), 2, (0, 1))], 1)
    ).mean(1, keepdim=True) / 2,
    "grids of two spacings averaged": lambda z: torch.stack(beside_coarse(z)).mean(0),
    "grids of two spacings added": lambda z: sum(beside_coarse(z)) / 2,
    "grids of two spacings side by side, averaged": lambda z: F.conv2d(
        torch.cat(beside_coarse(z), 1), binomial(1).repeat(1, 2, 1, 1) / 2
    ),
    "grids of two spacings side by side, cropped and padded": lambda z: F.pad(
        torch.cat(beside_coarse(z), 1), (-1, 1, -1, 1)
    ).mean(1, keepdim=True),
    "every other, with channels last": lambda z: z[..., ::2, ::2].permute(0, 2, 3, 1),
    "every other, as tokens": lambda z: z[..., ::2, ::2].flatten(2).mT,
    "turned, with channels last": lambda z: z[..., ::2, ::2].permute(0, 3, 2, 1),
    "windows of every other": lambda z: z[..., ::2, ::2].reshape(1, 1, 3, 4, 3, 6).transpose(3, 4).reshape(9, 1, 4, 6),
}  # fmt: skip

#: The coordinates come out as the places on average: neighbours share a value, which is off to either side.
ON_AVERAGE: dict[str, Function] = {
    "bicubic, twice": lambda z: F.interpolate(z, scale_factor=2, mode="bicubic"),
    "nearest, twice": lambda z: F.interpolate(z, scale_factor=2),
    "nearest, 3 times": lambda z: F.interpolate(z, scale_factor=3),
    "nearest, 1.5 times": lambda z: F.interpolate(z, scale_factor=1.5),
    "nearest-exact, 1.5 times": lambda z: F.interpolate(z, scale_factor=1.5, mode="nearest-exact"),
    "transposed, 2x2": lambda z: F.conv_transpose2d(z, torch.ones(1, 1, 2, 2, dtype=z.dtype), stride=2),
    "shuffled": lambda z: F.pixel_shuffle(z.expand(1, 4, H, W), 2),
    "adaptive average of unequal windows": lambda z: F.adaptive_avg_pool2d(z, (10, 7)),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_the_coordinates_come_out_where_the_samples_lie(name: str) -> None:
    assert away(EXACT[name]).abs().max() < 1e-9


@pytest.mark.parametrize("name", ON_AVERAGE)
def test_the_coordinates_come_out_on_average_where_the_samples_lie(name: str) -> None:
    # Over the whole image: there are whole periods, and a border of one sample changes the mean by less than 0.02 pixels.
    off = away(ON_AVERAGE[name], border=0)
    assert off.abs().max() < 1.2
    assert off.mean(1).abs().max() < 0.02
    assert off.abs().max() > 0.01


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    k=st.integers(1, 5), s=st.integers(1, 4), p=st.integers(0, 4), d=st.integers(1, 3),
    border=st.tuples(*[st.integers(0, 3)] * 4),
)  # fmt: skip
def test_windows_sit_at_their_middle(k: int, s: int, p: int, d: int, border: tuple[int, int, int, int]) -> None:
    """`s i + d (k - 1)/2 - p`, with any border of zeros before it."""

    def function(z: Tensor) -> Tensor:
        return F.conv2d(F.pad(z, border), binomial(k), stride=s, padding=p, dilation=d)

    whole = (function(torch.ones(1, 1, H, W, dtype=torch.float64)) - 1).abs() < 1e-9  # nothing from outside
    off = (pushed(function) - claimed(function))[whole]
    assert len(off)
    assert off.abs().max() < 1e-9


# ------------------------------------------------------------------------------------------------- what it is for


def blob(height: int = 72, width: int = 96) -> Tensor:
    """A smooth blob off the centre, (1, 1, H, W), that vanishes at the border."""
    x, y = lee.Sampler().coordinates(height, width)
    return torch.exp(-((x - 0.15) ** 2 + (y[:, None] + 0.2) ** 2) / (2 * 0.16**2))[None, None]


def own_error(layer: Function, generator: str, *, grids: str = "registered") -> float:
    """`‖J (X·h) - X·m(h)‖` of a layer, relative to `‖X·m(h)‖`."""
    x = blob()
    with torch.no_grad(), Follow():
        places = places_of(layer(placed_image(x)))
    assert isinstance(places, Tensor), places
    found = read(places, centred=grids == "centred").representation
    assert found is not None
    error = lee.lie_derivative(layer, x, generator, output="logits", representations={"output": found})
    moved = found.infinitesimal([lee.geometry.get(generator)], layer(x), lee.Sampler().for_image(*x.shape[-2:]))
    return float(error.norm() / moved.norm())


DELTA = F.pad(torch.ones(1, 1, 1, 1, dtype=torch.float64), (1, 1, 1, 1))
#: Layers that pick samples of the image and do nothing else to it.
SAMPLING: dict[str, Function] = {
    "every other pixel": lambda z: z[..., ::2, ::2],
    "every other pixel, from the second": lambda z: z[..., 1::2, 1::2],
    "1x1, stride 2": lambda z: F.conv2d(z, binomial(1), stride=2),
    "3x3, stride 2, padding 1": lambda z: F.conv2d(z, DELTA, stride=2, padding=1),
    "3x3, stride 3": lambda z: F.conv2d(z, DELTA, stride=3),
    "TensorFlow's padding": lambda z: F.conv2d(F.pad(z, (0, 1, 0, 1)), DELTA, stride=2),
    "a crop": lambda z: z[..., 2:-5, 7:-3],
    "as tokens": lambda z: z[..., ::2, ::2].flatten(2).mT,
    "with channels last": lambda z: z[..., ::2, ::2].permute(0, 2, 3, 1),
    "flipped": lambda z: z.flip(3)[..., ::2, ::2],
}
MOTIONS = ("translation_x", "translation_y", "rotation", "scale", "shear_x")


@pytest.mark.parametrize("generator", MOTIONS)
@pytest.mark.parametrize("name", SAMPLING)
def test_samples_of_a_smooth_image_are_equivariant(name: str, generator: str) -> None:
    assert (
        own_error(SAMPLING[name], generator) < 1e-4
    )  # what the blob has at the border and beyond the coarser grid's waves


@pytest.mark.parametrize("generator", MOTIONS)
def test_blurs_with_a_stride_are_equivariant_up_to_the_blur(generator: str) -> None:
    """A blur commutes with translations, and nearly with rotations; magnified, it is another blur."""
    for layer in (
        lambda z: F.conv2d(z, binomial(3), stride=2, padding=1), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), timm_blur,
        lambda z: F.conv2d(z, binomial(4), stride=4),
    ):  # fmt: skip
        assert own_error(layer, generator) < (0.1 if generator in ("scale", "shear_x") else 2e-3)


def timm_blur(z: Tensor) -> Tensor:
    """timm's anti-aliased stride, which pads by reflection."""
    return timm.layers.BlurPool2d(1, filt_size=3, stride=2).double()(z)


def test_centred_grids_blame_the_stride() -> None:
    """A shift by half a pixel, booked as an error of the layer, as in the paper's code."""
    for generator in ("rotation", "scale"):
        assert own_error(SAMPLING["3x3, stride 2, padding 1"], generator, grids="centred") > 0.03
    assert own_error(nn.AvgPool2d(2), "rotation", grids="centred") < 2e-3  # lies where a centred grid has it


def test_upsampling_behind_a_stride_lies_where_it_is() -> None:
    """Half a pixel off the grid of the image: no error of the two layers, but of a network that adds the image itself."""

    class Hourglass(nn.Module):
        def __init__(self, skip: bool) -> None:
            super().__init__()
            self.down, self.up, self.skip = (
                nn.Conv2d(1, 1, 1, stride=2),
                nn.Upsample(scale_factor=2, mode="bicubic"),
                skip,
            )
            self.head = nn.Linear(72 * 96, 3)

        def forward(self, x: Tensor) -> Tensor:
            z = self.up(self.down(x))
            return self.head((z + x if self.skip else z).flatten(1))

    own = {}
    for skip in (False, True):
        torch.manual_seed(0)
        found = lee.layerwise(Hourglass(skip).double(), blob(), "rotation", output="logits").frame
        assert found.self_share.sum() == pytest.approx(1, abs=1e-9)
        own[skip] = found.set_index("type").self_norm2
    assert own[False]["Hourglass"] < 1e-9 * own[True]["Hourglass"]
    assert own[True]["Hourglass"] > 10 * own[True][["Conv2d", "Upsample"]].max()


# ---------------------------------------------------------------------------------------------- what is read off


def reading(function: Function) -> lee.geometry.Representation | None:
    return read(claimed(function)).representation


def test_grids_that_cover_the_image_need_no_registration() -> None:
    assert reading(lambda z: F.conv2d(z, binomial(3), padding=1)) == Map()
    assert reading(lambda z: F.avg_pool2d(z, 4)) == Map()
    assert reading(lambda z: F.interpolate(z, scale_factor=1.5, mode="bilinear")) == Map()
    assert reading(lambda z: F.conv2d(z, binomial(4), stride=4).flatten(2).mT) == Tokens((H // 4, W // 4))


def test_a_registration_is_read_off_in_every_layout() -> None:
    at = Registration((0.5 / H, 0.5 / W), (2 / H, 2 / W))

    def strided(z: Tensor) -> Tensor:
        return F.conv2d(z, binomial(3), stride=2, padding=1)

    def is_at(found: object) -> bool:
        assert isinstance(found, Map | Tokens | Scattered)
        assert found.registration is not None
        numbers = (*found.registration.origin, *found.registration.spacing)
        return numbers == pytest.approx((*at.origin, *at.spacing), abs=1e-12)

    assert is_at(reading(strided))
    assert is_at(reading(lambda z: strided(z).permute(0, 2, 3, 1)))
    assert is_at(reading(lambda z: torch.cat([z.new_ones(1, 1, 1), strided(z).flatten(2).mT], 1)))
    assert is_at(reading(lambda z: F.pad(strided(z), (1, 2, 3, 4))))
    assert is_at(reading(lambda z: strided(z).roll((1, 2), (2, 3))))


def test_a_single_channel_last_is_told_from_a_column() -> None:
    assert read(claimed(lambda z: z.permute(0, 2, 3, 1))).representation == Map(channels_last=True)
    turned = read(claimed(lambda z: z.permute(0, 3, 2, 1))).representation
    assert isinstance(turned, Scattered)
    assert turned.grid == (H, W)


def test_windows_of_a_single_channel_are_told_from_channels() -> None:
    windows = read(claimed(lambda z: z.reshape(1, 4, H // 4, 6, W // 6).transpose(2, 3).reshape(1, 24, H // 4, W // 6)))
    assert isinstance(windows.representation, Scattered), windows.why


def test_a_registration_is_told_in_words() -> None:
    assert read(claimed(lambda z: z[..., ::2, ::2])).why == (
        "channels first on a grid of 12×18 places, -0.25 rows and -0.25 columns off the image's centre"
    )
    assert read(claimed(lambda z: z[..., 6:])).why.endswith(
        "grid of 24×30 places, +0 rows and +3 columns off the image's centre, over 1 × 0.833 of it"
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda z: F.conv2d(z.roll((4, 7), (2, 3)), binomial(3), stride=2),  # across the seam
        lambda z: z + z.mT if z.shape[2] == z.shape[3] else z + z.flip(3),
        lambda z: z + z.roll(1, 3),
        lambda z: (
            z + F.interpolate(z[..., : H // 3, : W // 3], size=z.shape[2:], mode="bilinear")
        ),  # three times as fine
        lambda z: F.conv2d(torch.cat([z[..., 2:], z[..., :2]], 3), binomial(3), stride=2),
    ],
)
def test_what_lies_on_no_grid_is_unknown(function: Function) -> None:
    with torch.no_grad(), Follow():
        assert isinstance(places_of(function(placed_image(coordinates()[0]))), Unknown)


def test_channels_on_several_grids_are_read_as_on_one() -> None:
    """As NASNet has them: joined, then cropped on one side and padded on the other, and averaged in the end."""
    joined = claimed(lambda z: torch.cat(beside_coarse(z), 1))
    assert read(joined).representation == read(joined.mean(1, keepdim=True)).representation
    padded = read(claimed(lambda z: F.pad(torch.cat(beside_coarse(z), 1), (-1, 1, -1, 1)))).representation
    assert isinstance(padded, Scattered)
    assert padded.grid == (H // 2 - 1, W // 2 - 1)
    assert read(claimed(lambda z: torch.cat(beside_coarse(z), 1).mean((2, 3)))).representation == Trivial()


AT = Registration((0.1, 0.03), (0.13, 0.11))


@pytest.mark.parametrize("move", [lee.ROTATION, lee.SCALE, lee.TRANSLATION_X])
@pytest.mark.parametrize(
    ("r", "shape"),
    [
        (Map(registration=AT), (2, 3, 6, 9)),
        (Map(channels_last=True, registration=AT), (2, 6, 9, 3)),
        (Tokens((6, 9), 1, registration=AT), (2, 55, 3)),
        (
            Scattered(
                (6, 9),
                torch.randperm(162, generator=torch.Generator().manual_seed(0)).view(54, 3),
                162,
                registration=AT,
            ),
            (2, 162),
        ),
    ],
    ids=["map", "channels last", "tokens", "scattered"],
)
def test_the_infinitesimal_action_is_the_derivative_of_the_finite_one(
    r: lee.geometry.Representation, shape: tuple[int, ...], move: lee.Generator
) -> None:
    z = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampler, h = lee.Sampler().for_image(H, W), 1e-5
    difference = (r.finite(move, h, z, sampler) - r.finite(move, -h, z, sampler)) / (2 * h)
    torch.testing.assert_close(r.infinitesimal([move], z, sampler)[0], difference, rtol=1e-6, atol=1e-6)


def test_corners_on_the_border_are_a_registration_of_their_own() -> None:
    """With `align_corners=True` every map reaches from border to border, as in the paper's code."""
    z, sampler = torch.rand(1, 1, 6, 9, dtype=torch.float64), lee.Sampler(align_corners=True).for_image(12, 18)
    at = Map(registration=Registration((0.5 / 12, 0.5 / 18), (1 / 6, 1 / 9)))
    assert torch.equal(at.infinitesimal([lee.ROTATION], z, sampler), Map().infinitesimal([lee.ROTATION], z, sampler))
