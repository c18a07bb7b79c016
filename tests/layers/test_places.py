"""Places followed through operators: the representation that is read off moves a tensor as its source was moved."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lee
from lee.errors import InputError
from lee.geometry.representations import Map, Representation, Scattered, Tokens, Trivial
from lee.geometry.sampling import Sampler
from lee.layers.places import (
    Follow,
    Unknown,
    follow_nothing,
    given_of,
    grid,
    of_representation,
    placed_image,
    places_of,
    read,
)

H, W, C = 4, 6, 5
SAMPLER = Sampler().for_image(H, W)
GENERATORS = [lee.ROTATION, lee.TRANSLATION_X, lee.SCALE, lee.SHEAR_Y]


def heads(z: Tensor) -> Tensor:
    return z.flatten(2).mT.unflatten(-1, (5, 1)).transpose(1, 2)  # (1, heads, L, d)


def beside(z: Tensor, other: Tensor) -> Tensor:
    return F.conv2d(torch.cat([z, other], 1), torch.ones(7, 2 * C, 3, 3, dtype=z.dtype), padding=1)


def windows(z: Tensor) -> Tensor:
    parts = z.permute(0, 2, 3, 1).reshape(1, 2, 2, 3, 2, C).permute(0, 1, 3, 2, 4, 5)
    return parts.reshape(-1, 4, C)


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], type[Representation]]] = {
    "itself": (lambda z: z.clone(), Map),
    "channels last": (lambda z: z.permute(0, 2, 3, 1), Map),
    "tokens": (lambda z: z.flatten(2).transpose(1, 2), Tokens),
    "tokens behind two prefixes": (lambda z: torch.cat([z.new_ones(1, 2, C), z.flatten(2).mT], 1), Tokens),
    "channels, then tokens": (lambda z: z.flatten(2), Scattered),
    "heads": (heads, Scattered),
    "windows in the batch": (windows, Scattered),
    "a cyclic shift": (lambda z: z.roll((1, 2), (2, 3)), Scattered),
    "flipped": (lambda z: z.flip(3), Scattered),
    "padded": (lambda z: F.pad(z, (1, 0, 2, 1)), Scattered),
    "one long vector": (lambda z: z.flatten(1), Scattered),
    "a stack of copies": (lambda z: torch.stack([z, z], 1), Scattered),
    "two halves swapped": (lambda z: torch.cat(z.chunk(2, 3)[::-1], 3), Scattered),
    "gathered": (lambda z: z.flatten(2)[:, :, torch.arange(H * W - 1, -1, -1)], Scattered),
}


def followed(function: Callable[[Tensor], Tensor], channels: int = C) -> tuple[Tensor, Tensor]:
    """A random image and what `function` makes of it, with places."""
    x = torch.rand(1, channels, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), Follow():
        out = function(placed_image(x))
    return x, out


def representation(out: Tensor) -> Representation | None:
    places = places_of(out)
    assert isinstance(places, Tensor), places
    assert places.shape == out.shape
    return read(places).representation


@pytest.mark.parametrize("name", MOVES)
def test_a_moved_tensor_moves_like_its_source(name: str) -> None:
    """`X·(P z) = P (X·z)` for every rearrangement `P`; constants that it adds stay where they are."""
    move, kind = MOVES[name]
    x, out = followed(move)
    found = representation(out)
    assert type(found) is kind
    source = Map().infinitesimal(GENERATORS, x, SAMPLER)
    constant = move(torch.zeros_like(x))
    expected = torch.stack([move(v) - constant for v in source])
    torch.testing.assert_close(found.infinitesimal(GENERATORS, out, SAMPLER), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MOVES)
def test_a_given_representation_has_the_places_that_are_read_as_it(name: str) -> None:
    _, out = followed(MOVES[name][0])
    found = representation(out)
    assert found is not None
    places = of_representation(found, out.shape)
    assert places is not None
    again = read(places).representation
    assert str(again) == str(found)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda z: F.conv2d(z, torch.ones(7, C, 3, 3, dtype=z.dtype), padding=1), Map()),
        (lambda z: F.max_pool2d(z, 2), Map()),
        (lambda z: F.conv2d(F.pad(z, (1, 1, 1, 1)), torch.ones(7, C, 4, 4, dtype=z.dtype), stride=2), Map()),
        (lambda z: F.conv2d(F.pad(z, (1, 1, 1, 1), mode="circular"), torch.ones(7, C, 3, 3, dtype=z.dtype)), Map()),
        (lambda z: F.conv2d(F.pad(z, (1, 1, 1, 1), mode="reflect"), torch.ones(7, C, 3, 3, dtype=z.dtype)), Map()),
        (lambda z: F.interpolate(z, scale_factor=2, mode="bilinear"), Map()),
        (lambda z: F.pixel_unshuffle(z, 2), Map()),
        (lambda z: F.layer_norm(z.permute(0, 2, 3, 1), (C,)), Map(channels_last=True)),
        (lambda z: z.permute(0, 2, 3, 1) @ torch.ones(C, 9, dtype=z.dtype), Map(channels_last=True)),
        (lambda z: z * z.mean((2, 3), keepdim=True).sigmoid(), Map()),
        (lambda z: z.mean((2, 3)), Trivial()),
        (lambda z: F.adaptive_avg_pool2d(z, 1), Trivial()),
        (lambda z: F.interpolate(z.mean((2, 3), keepdim=True), (H, W), mode="bilinear"), Trivial()),
        (lambda z: z.mean((2, 3), keepdim=True).expand_as(z), Trivial()),
        (lambda z: beside(z, F.interpolate(z.mean((2, 3), keepdim=True), (H, W))), Map()),
        (lambda z: beside(z, torch.rand_like(z)), Map()),
        (lambda z: z.flatten(1) @ torch.ones(C * H * W, 8, dtype=z.dtype), Trivial()),
        (lambda z: z.flatten(2).mT[:, :0].sum(1) + 1, Trivial()),
    ],
)
def test_what_a_layer_makes_of_a_map(function: Callable[[Tensor], Tensor], expected: Representation) -> None:
    assert representation(followed(function)[1]) == expected


def test_patch_merging_reads_as_a_coarser_map() -> None:
    """Four neighbours side by side in the channels, as between the stages of Swin, and the layer that reduces them."""

    def merge(z: Tensor) -> Tensor:
        return z.permute(0, 2, 3, 1).reshape(1, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5).flatten(3)

    assert representation(followed(merge)[1]) == Map(channels_last=True)
    reduced = followed(lambda z: merge(z) @ torch.ones(4 * C, 2 * C, dtype=z.dtype))[1]
    assert representation(reduced) == Map(channels_last=True)
    torch.testing.assert_close(places_of(reduced)[0, :, :, 0], grid(H // 2, W // 2))  # type: ignore[index]


def attention(z: Tensor) -> Tensor:
    tokens = torch.cat([z.new_ones(1, 1, C), z.flatten(2).mT], 1)
    return (tokens @ tokens.mT / math.sqrt(C)).softmax(-1) @ tokens


def test_attention_keeps_the_place_of_the_query() -> None:
    assert representation(followed(attention)[1]) == Tokens((H, W), 1)
    latent = followed(lambda z: z.new_ones(1, 1, C).bmm(z.flatten(2)).softmax(-1) @ z.flatten(2).mT)[1]
    assert representation(latent) == Trivial()


def test_25_tokens_are_a_class_token_and_24_where_the_image_is_4_by_6() -> None:
    out = followed(attention)[1]
    assert out.shape[1] == 25
    assert representation(out) == Tokens((4, 6), 1)


def test_token_mixing_has_no_places_inside() -> None:
    hidden = followed(lambda z: z.flatten(2) @ torch.ones(H * W, 9, dtype=z.dtype))[1]
    places = places_of(hidden)
    assert isinstance(places, Tensor)
    assert read(places).representation is None
    assert "mixes all places" in read(places).why


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z + z.flip(3),  # two places in one entry
        lambda z: z.flatten(2).sort(-1).values[..., :7],
        lambda z: torch.fft.fft2(z).real[..., :3],
    ],
)
def test_what_cannot_be_followed_is_unknown_and_not_constant(function: Callable[[Tensor], Tensor]) -> None:
    places = places_of(followed(function)[1])
    assert isinstance(places, Unknown) or read(places).representation is None  # type: ignore[arg-type]


def test_writing_into_a_view_of_another_tensor_takes_the_places_along() -> None:
    def write(z: Tensor) -> Tensor:
        out = torch.zeros_like(z)
        out[:, :, 1:] = z[:, :, :-1]
        return out

    _, out = followed(write)
    found = representation(out)
    assert isinstance(found, Scattered)
    assert found.grid == (H - 1, W)


def test_in_place_operators_keep_the_places() -> None:
    assert representation(followed(lambda z: z.clone().relu_().add_(1))[1]) == Map()


def test_constants_have_no_places_and_a_sum_with_one_keeps_them() -> None:
    assert representation(followed(lambda z: z + torch.rand(1, C, H, W, dtype=z.dtype))[1]) == Map()
    assert places_of(followed(lambda z: torch.ones(3))[1]) is None


def test_an_average_along_rows_is_a_map_of_one_column() -> None:
    assert representation(followed(lambda z: z.mean(3, keepdim=True))[1]) == Map()


def test_operators_in_a_quiet_block_are_not_followed() -> None:
    with Follow():
        z = placed_image(torch.rand(1, 1, H, W))
        with follow_nothing():
            quiet = z + 1
    assert places_of(quiet) is None
    assert given_of(z) is None


def test_a_representation_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        of_representation(Tokens((3, 3)), torch.Size((1, 10, 4)))
