"""Representations: group laws, agreement of infinitesimal and finite actions, layouts, and what shapes leave open."""

import pytest
import torch
from cases import images
from torch import Tensor

import lee
from lee.geometry.generators import NAMED
from lee.geometry.outputs import SHORTHAND, of_output, resolve
from lee.geometry.sampling import Sampler

GENERATORS = [lee.TRANSLATION_X, lee.ROTATION, lee.SCALE, lee.SHEAR_Y]
CASES = {
    "image": (lee.Image(), (2, 3, 10, 14)), "map": (lee.Map(), (2, 5, 10, 14)), "last": (lee.Map(True), (2, 10, 14, 5)),
    "vector": (lee.VectorField(), (2, 4, 10, 14)), "covector": (lee.VectorField(True), (2, 4, 10, 14)),
    "tokens": (lee.Tokens((10, 14), 1), (2, 141, 5)), "trivial": (lee.Trivial(), (2, 7)),
}  # fmt: skip


def tensor(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CASES)
def test_infinitesimal_action_is_the_derivative_of_the_finite_one(name: str) -> None:
    representation, shape = CASES[name]
    z, sampler = tensor(shape), Sampler().for_image(10, 14)
    names = GENERATORS + ([lee.BRIGHTNESS, lee.CONTRAST, lee.SATURATION] if name == "image" else [])
    moved = representation.infinitesimal(names, z, sampler)
    assert moved.shape == (len(names), *shape)
    h = 1e-4
    for generator, velocity in zip(names, moved, strict=True):
        ahead, behind = (representation.finite(generator, s * h, z, sampler) for s in (1, -1))
        torch.testing.assert_close((ahead - behind) / (2 * h), velocity, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(representation.finite(generator, 0.0, z, sampler), z, rtol=0, atol=1e-12)


def test_layouts_agree() -> None:
    z, sampler = tensor((2, 5, 10, 14)), Sampler().for_image(10, 14)
    maps = lee.Map().infinitesimal(GENERATORS, z, sampler)
    last = lee.Map(True).infinitesimal(GENERATORS, z.movedim(1, -1), sampler)
    torch.testing.assert_close(last.movedim(-1, 2), maps)
    tokens = torch.cat([tensor((2, 2, 5)), z.flatten(2).mT], 1)
    moved = lee.Tokens((10, 14), 2).infinitesimal(GENERATORS, tokens, sampler)
    assert float(moved[:, :, :2].abs().max()) == 0.0
    torch.testing.assert_close(moved[:, :, 2:].mT.unflatten(-1, (10, 14)), maps)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_photometric_actions_are_groups(name: str) -> None:
    x, image, sampler = images(2), lee.Image(), Sampler()
    once = image.finite(NAMED[name], 0.2, image.finite(NAMED[name], 0.3, x, sampler), sampler)
    torch.testing.assert_close(once, image.finite(NAMED[name], 0.5, x, sampler), rtol=0, atol=1e-12)


def test_what_photometric_actions_leave_alone() -> None:
    grey = images(1, channels=1).expand(1, 3, 32, 32)
    sampler = Sampler()
    assert float(lee.Image().infinitesimal([lee.SATURATION], grey, sampler).abs().max()) < 1e-12
    flat = torch.full((1, 3, 8, 8), 0.4, dtype=torch.float64)
    assert float(lee.Image().infinitesimal([lee.CONTRAST], flat, sampler).abs().max()) < 1e-12
    assert float(lee.Map().infinitesimal([lee.BRIGHTNESS], flat, sampler).abs().max()) == 0.0
    with pytest.raises(lee.InputError, match="RGB"):
        lee.Image().infinitesimal([lee.SATURATION], images(1, channels=1), sampler)
    with pytest.raises(lee.InputError, match="no closed form"):
        lee.Image().finite(lee.ROTATION + lee.BRIGHTNESS, 0.1, grey, sampler)


def test_rotated_vectors_turn_with_the_image() -> None:
    """A quarter turn of a constant field along x gives one along y (on a square, nothing else changes)."""
    field = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    field[:, 0] = 1
    turned = lee.VectorField().finite(lee.ROTATION, torch.pi / 2, field, Sampler())
    torch.testing.assert_close(turned[:, 1].abs(), torch.ones(1, 8, 8, dtype=torch.float64))
    torch.testing.assert_close(turned[:, 0], torch.zeros(1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 10), "trivial"), ((2,), "trivial"), ((2, 3, 16, 24), "image"), ((2, 7, 8, 12), "map"), ((2, 512, 1, 1), "trivial"),
    ],
)  # fmt: skip
def test_shapes_beyond_doubt(shape: tuple[int, ...], expected: str) -> None:
    assert of_output(tensor(shape), tensor((2, 3, 16, 24)), None) == SHORTHAND[expected]


@pytest.mark.parametrize("shape", [(2, 96, 5), (2, 8, 12, 7), (2, 4, 6, 9), (2, 3, 4, 5, 6), (2, 2, 3, 5)])
def test_shapes_in_doubt_are_refused(shape: tuple[int, ...]) -> None:
    x = tensor((2, 3, 16, 24))
    with pytest.raises(lee.InputError, match="several ways"):
        of_output(tensor(shape), x, None)
    assert of_output(tensor(shape), x, {"output": "trivial"}) == lee.Trivial()


def test_wrong_layouts_are_refused() -> None:
    sampler = Sampler()
    for representation, shape, message in (
        (lee.Map(), (2, 3), "4 dimensions"), (lee.VectorField(), (2, 3, 4, 4), "2M"),
        (lee.Tokens((3, 3)), (2, 10, 4), r"\(N, 9, C\)"),
    ):  # fmt: skip
        with pytest.raises(lee.InputError, match=message):
            representation.infinitesimal([lee.SCALE], tensor(shape), sampler)
    assert resolve("map_channels_last") == lee.Map(channels_last=True)
