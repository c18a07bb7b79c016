"""Generators: their algebra, their flows, and bad input."""

import math

import pytest
import torch

import lee
from lee.geometry.algebra import coordinates
from lee.geometry.generators import BASIS, NAMED, ROTATION, SPATIAL_BASIS, TRANSLATION_X, Generator, get


def test_flow_is_a_one_parameter_group() -> None:
    for generator in (lee.ROTATION, lee.SHEAR_X, lee.SCALE + 0.5 * lee.TRANSLATION_Y, lee.HYPERBOLIC):
        product = generator.flow(0.3) @ generator.flow(0.5)
        torch.testing.assert_close(product, generator.flow(0.8), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(generator.flow(0.0), torch.eye(3, dtype=torch.float64))


def test_rotation_is_a_rotation_and_scale_a_scaling() -> None:
    c, s = math.cos(0.4), math.sin(0.4)
    expected = torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(lee.ROTATION.flow(0.4), expected)
    torch.testing.assert_close(lee.SCALE.flow(0.4)[:2, :2], math.exp(0.4) * torch.eye(2, dtype=torch.float64))
    assert float(torch.linalg.det(lee.SQUEEZE.flow(0.7))) == pytest.approx(1.0)
    assert float(torch.linalg.det(lee.HYPERBOLIC.flow(0.7))) == pytest.approx(1.0)


def test_arithmetic_is_linear() -> None:
    mixture = 0.3 * lee.ROTATION + lee.SCALE - lee.BRIGHTNESS * 2
    by_hand = [0.3 * r + s - 2 * b for r, s, b in zip(lee.ROTATION.coefficients, lee.SCALE.coefficients,
                                                      lee.BRIGHTNESS.coefficients, strict=True)]  # fmt: skip
    assert mixture.coefficients == pytest.approx(by_hand)
    assert mixture.name == "0.3*rotation + scale + -2*brightness"
    assert (-lee.ROTATION).name == "-rotation"
    assert not mixture.is_spatial
    with pytest.raises(TypeError):
        lee.ROTATION + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        lee.ROTATION * lee.SCALE  # type: ignore[operator]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("rotation", "translation_x", "translation_y"), ("scale", "rotation", None),
        ("translation_x", "translation_y", None), ("translation_x", "scale", "translation_x"),
    ],
)  # fmt: skip
def test_known_brackets(first: str, second: str, expected: str | None) -> None:
    found = lee.bracket(NAMED[first], NAMED[second]).coefficients
    wanted = NAMED[expected].coefficients if expected else (0.0,) * len(BASIS)
    assert found == pytest.approx(wanted)


def test_bracket_is_antisymmetric_and_satisfies_jacobi() -> None:
    x, y, z = lee.SHEAR_X + lee.TRANSLATION_Y, lee.ROTATION, lee.STRETCH_X + lee.TRANSLATION_X
    assert lee.bracket(x, y).coefficients == pytest.approx([-c for c in lee.bracket(y, x).coefficients])
    total = lee.bracket(x, lee.bracket(y, z)) + lee.bracket(y, lee.bracket(z, x)) + lee.bracket(z, lee.bracket(x, y))
    assert total.coefficients == pytest.approx([0.0] * len(BASIS), abs=1e-14)
    with pytest.raises(lee.InputError, match="'contrast'"):
        lee.bracket(x, lee.CONTRAST)


def test_units() -> None:
    assert lee.TRANSLATION_X.per_pixel(224).coefficients[0] == pytest.approx(2 / 224)
    assert lee.TRANSLATION_X.per_pixel(224).unit == "pixel"
    assert lee.ROTATION.per_degree().coefficients[3] == pytest.approx(math.pi / 180)
    assert (lee.ROTATION + lee.SCALE).unit == "t"


def test_coordinates_in_another_basis() -> None:
    basis = [lee.ROTATION, lee.HYPERBOLIC, lee.SCALE]
    torch.testing.assert_close(
        coordinates(lee.SHEAR_X, basis), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64), atol=1e-12, rtol=0
    )
    with pytest.raises(lee.InputError, match="not a combination"):
        coordinates(lee.STRETCH_X, basis)


def test_bad_generators_are_refused() -> None:
    with pytest.raises(lee.InputError, match="Did you mean 'shear_x'"):
        get("sheer_x")
    with pytest.raises(lee.InputError, match="9 coefficients"):
        Generator("short", (1.0, 2.0))
    with pytest.raises(lee.InputError, match="finite"):
        math.nan * lee.ROTATION
    assert get(get("scale")) is lee.SCALE
    assert len(SPATIAL_BASIS) == 6


def test_a_multiple_is_in_a_unit_of_its_own() -> None:
    assert (2 * ROTATION).unit == (ROTATION / 4).unit == "t"
    assert (-ROTATION).unit == (1 * ROTATION).unit == "radian"
    assert ROTATION.per_degree().unit == "degree"
    for wrong in (
        lambda: ROTATION.per_pixel(32),
        TRANSLATION_X.per_degree,
        lambda: TRANSLATION_X.per_pixel(32).per_pixel(32),
    ):
        with pytest.raises(lee.InputError, match="scales generators per"):
            wrong()
    with pytest.raises(lee.InputError, match="`side` must be"):
        TRANSLATION_X.per_pixel(0)


def test_a_small_generator_is_in_the_span_or_not_as_a_large_one() -> None:
    for size in (1e-10, 1e-30, 1e10):
        with pytest.raises(lee.InputError, match="not a combination"):
            coordinates(size * ROTATION, [TRANSLATION_X])
        with pytest.raises(lee.InputError, match="not a combination"):
            coordinates(size * (ROTATION + 1e-6 * TRANSLATION_X), [ROTATION])
        found = coordinates(size * (2 * ROTATION + lee.SCALE), [ROTATION, 1e-12 * lee.SCALE])
        torch.testing.assert_close(found, size * torch.tensor([2, 1e12], dtype=torch.float64), rtol=1e-12, atol=0)
    assert coordinates(0 * ROTATION, [TRANSLATION_X]).tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_bracket_does_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = lee.bracket(ROTATION.per_degree(), 0.1 * TRANSLATION_X).coefficients
    finally:
        torch.set_default_dtype(before)
    assert found[1] == pytest.approx(0.1 * math.pi / 180, rel=1e-15)
