r"""Infinitesimal generators of one-parameter image transformations.

A spatial generator is an affine vector field :math:`\xi(p) = A p + b` on the image plane, `p = (x, y)`, with
`x` to the right, `y` down, the origin at the image's centre and half of the shorter side as the unit of length.
It acts on an image by pulling it back along its flow, so that infinitesimally
:math:`(X \cdot z)(p) = \xi(p) \cdot \nabla z(p)`. A photometric generator acts on the values of the pixels.
Both are linear combinations of nine basis fields, so a :class:`Generator` is a name and nine coefficients.

Source: Gruver, Finzi, Goldblum & Wilson, *The Lie Derivative for Measuring Learned Equivariance*, ICLR 2023.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lee.errors import InputError, check_count, check_known

SPATIAL_BASIS = ("translation_x", "translation_y", "stretch_x", "shear_x", "shear_y", "stretch_y")
PHOTOMETRIC_BASIS = ("brightness", "contrast", "saturation")
BASIS = SPATIAL_BASIS + PHOTOMETRIC_BASIS

HALF_SIDE, RADIAN, RATIO, SLOPE = "half side", "radian", "e-fold", "slope"


@dataclass(frozen=True)
class Generator:
    """A linear combination of the nine basis fields.

    Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023 (generators of affine motions).

    Args:
        name: What tables and charts call it.
        coefficients: Nine numbers in this order: the fields `∂x, ∂y, x∂x, y∂x, x∂y, y∂y`, then
            brightness, contrast and saturation.
        unit: What one unit of the flow's parameter `t` means.

    Examples:
        >>> (0.5 * ROTATION + SCALE).name
        '0.5*rotation + scale'
        >>> ROTATION.matrix
        ((0.0, 1.0), (-1.0, 0.0))
    """

    name: str
    coefficients: tuple[float, ...]
    unit: str = "t"

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", tuple(self.coefficients))  # hashable, also from a list
        if len(self.coefficients) != len(BASIS):
            raise InputError(
                f"A generator needs {len(BASIS)} coefficients, one for each of {', '.join(BASIS)}; "
                f"{self.name!r} has {len(self.coefficients)}."
            )
        if not all(math.isfinite(c) for c in self.coefficients):
            raise InputError(f"The coefficients of generator {self.name!r} must be finite, not {self.coefficients}.")

    @property
    def matrix(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """`A` of the vector field `ξ(p) = A p + b`."""
        _, _, xx, yx, xy, yy = self.coefficients[:6]
        return (xx, yx), (xy, yy)

    @property
    def offset(self) -> tuple[float, float]:
        """`b` of the vector field `ξ(p) = A p + b`, in half sides."""
        return self.coefficients[0], self.coefficients[1]

    @property
    def photometric(self) -> tuple[float, ...]:
        """The coefficients of brightness, contrast and saturation."""
        return self.coefficients[6:]

    @property
    def is_spatial(self) -> bool:
        """Whether the generator moves pixels and leaves their values alone."""
        return not any(self.photometric)

    @property
    def is_axis_aligned(self) -> bool:
        """Whether the field's x component depends on x alone and its y component on y alone: shifts and stretches."""
        (_, yx), (xy, _) = self.matrix
        return not yx and not xy

    @property
    def is_photometric(self) -> bool:
        """Whether the generator changes values and leaves the pixels where they are."""
        return not any(self.coefficients[:6])

    def renamed(self, name: str, unit: str | None = None) -> "Generator":
        """The same field under another name (and unit).

        Args:
            name: The new name.
            unit: The new unit; None keeps the old one.
        """
        return replace(self, name=name, unit=self.unit if unit is None else unit)

    def per_pixel(self, side: int) -> "Generator":
        """The generator scaled from half sides to pixels of an image whose shorter side has `side` pixels.

        Args:
            side: The image's shorter side, in pixels.

        Raises:
            InputError: If its unit is no half side.
        """
        check_count("side", side)
        self._check_unit(HALF_SIDE, "per_pixel")
        return (2 / side * self).renamed(self.name, "pixel")

    def per_degree(self) -> "Generator":
        """The generator scaled from radians to degrees.

        Raises:
            InputError: If its unit is no radian.
        """
        self._check_unit(RADIAN, "per_degree")
        return (math.pi / 180 * self).renamed(self.name, "degree")

    def _check_unit(self, unit: str, what: str) -> None:
        if self.unit != unit:
            raise InputError(f"{what} scales generators per {unit}; {self.name!r} is per {self.unit}.")

    def flow(self, t: Tensor | float) -> Tensor:
        r"""The affine map :math:`\exp(t\,(A, b))` as a (3, 3) homogeneous matrix, float64, differentiable in `t`.

        Args:
            t: The amount, in the generator's unit: a number or a 0-dimensional tensor.

        Raises:
            InputError: For several amounts.
        """
        (a, b), (c, d) = self.matrix
        x, y = self.offset
        amount = torch.as_tensor(t, dtype=torch.float64)
        if amount.ndim:
            raise InputError(
                f"An amount `t` is one number for all images, not {tuple(amount.shape)}; move them one by one."
            )
        generator = torch.tensor([[a, b, x], [c, d, y], [0, 0, 0]], dtype=torch.float64)
        return torch.linalg.matrix_exp(generator * amount)

    def __add__(self, other: "Generator") -> "Generator":
        if not isinstance(other, Generator):
            return NotImplemented
        total = tuple(a + b for a, b in zip(self.coefficients, other.coefficients, strict=True))
        return Generator(f"{self.name} + {other.name}", total, self.unit if self.unit == other.unit else "t")

    def __mul__(self, factor: float) -> "Generator":
        if not isinstance(factor, int | float):
            return NotImplemented
        name = f"({self.name})" if " " in self.name else self.name
        unit = self.unit if abs(factor) == 1 else "t"  # one unit of t is another amount now
        return Generator(f"{factor:.4g}*{name}", tuple(factor * c for c in self.coefficients), unit)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Generator":
        return self * (1 / divisor) if isinstance(divisor, int | float) and divisor else NotImplemented

    def __neg__(self) -> "Generator":
        return (-1 * self).renamed(f"-({self.name})" if " " in self.name else f"-{self.name}")

    def __sub__(self, other: "Generator") -> "Generator":
        return self + (-other)


@dataclass(frozen=True)
class Action:
    """A user's own one-parameter action on the model's input, and on its output where that is not invariant.

    Args:
        function: `(x, t) -> x` with `function(x, 0) = x`, differentiable in the 0-dimensional tensor `t`.
        name: What tables and charts call it.
        output: The matching action `(z, t) -> z` on the output; None for an invariant output.
        unit: What one unit of `t` means.

    Raises:
        InputError: If a function can't be called with an input and an amount.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    name: str = "action"
    output: Callable[[Tensor, Tensor], Tensor] | None = None
    unit: str = "t"

    def __post_init__(self) -> None:
        for function in (self.function,) if self.output is None else (self.function, self.output):
            try:
                inspect.signature(function).bind(None, None)
            except ValueError:  # a builtin function may not tell
                pass
            except TypeError as error:
                raise InputError(
                    f"An action is a function (x, t) -> x, which can't be called so here: {error}. Write it alone, or "
                    "lee.Action(function, name)."
                ) from error


def _field(name: str, unit: str, **coefficients: float) -> Generator:
    return Generator(name, tuple(float(coefficients.get(b, 0.0)) for b in BASIS), unit)


#: `∂x`: what is seen moves to the left, one half side per unit.
TRANSLATION_X = _field("translation_x", HALF_SIDE, translation_x=1)
#: `∂y`: what is seen moves up, one half side per unit.
TRANSLATION_Y = _field("translation_y", HALF_SIDE, translation_y=1)
#: `y ∂x - x ∂y`, in radians.
ROTATION = _field("rotation", RADIAN, shear_x=1, shear_y=-1)
#: `x ∂x + y ∂y`: what is seen shrinks, in e-folds.
SCALE = _field("scale", RATIO, stretch_x=1, stretch_y=1)
#: `x ∂x`, in e-folds.
STRETCH_X = _field("stretch_x", RATIO, stretch_x=1)
#: `y ∂y`, in e-folds.
STRETCH_Y = _field("stretch_y", RATIO, stretch_y=1)
#: `y ∂x`: upright lines lean by this slope.
SHEAR_X = _field("shear_x", SLOPE, shear_x=1)
#: `x ∂y`: level lines rise by this slope.
SHEAR_Y = _field("shear_y", SLOPE, shear_y=1)
#: `y ∂x + x ∂y`: stretches one diagonal and squeezes the other.
HYPERBOLIC = _field("hyperbolic", RATIO, shear_x=1, shear_y=1)
#: `x ∂x - y ∂y`: what is seen is squeezed along x and stretched along y.
SQUEEZE = _field("squeeze", RATIO, stretch_x=1, stretch_y=-1)
#: All values times `exp t`.
BRIGHTNESS = _field("brightness", RATIO, brightness=1)
#: Values times `exp t` about the image's mean luma.
CONTRAST = _field("contrast", RATIO, contrast=1)
#: Values times `exp t` about each pixel's luma; RGB images only.
SATURATION = _field("saturation", RATIO, saturation=1)

#: Every generator above, by the name that strings call it.
NAMED: dict[str, Generator] = {
    g.name: g
    for g in (
        TRANSLATION_X, TRANSLATION_Y, ROTATION, SCALE, STRETCH_X, STRETCH_Y, SHEAR_X, SHEAR_Y, HYPERBOLIC, SQUEEZE, BRIGHTNESS,
        CONTRAST, SATURATION,
    )
}  # fmt: skip
#: The six spatial generators of the affine algebra, in the order of the basis.
AFFINE = tuple(NAMED[name] for name in SPATIAL_BASIS)
#: Brightness, contrast and saturation.
PHOTOMETRIC = tuple(NAMED[name] for name in PHOTOMETRIC_BASIS)

AnyGenerator = str | Generator | Action | Callable[[Tensor, Tensor], Tensor]


def get(generator: AnyGenerator) -> Generator | Action:
    """Turn a name, a mixture or a user's action into a :class:`Generator` or an :class:`Action`.

    Args:
        generator: One of :data:`NAMED`'s keys, a generator, an action, or a function `(x, t) -> x`.

    Raises:
        InputError: If the name is unknown (the nearest one is suggested) or the type is none of these.
    """
    if isinstance(generator, Generator | Action):
        return generator
    if isinstance(generator, str):
        check_known("generator", generator, NAMED)
        return NAMED[generator]
    if callable(generator) and not isinstance(generator, type):
        return Action(generator, getattr(generator, "__name__", "action"))
    raise InputError(
        f"A generator is a name, a lee.Generator such as 0.3 * lee.ROTATION, or an action (x, t) -> x; "
        f"got {type(generator).__name__}."
    )
