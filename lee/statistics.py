"""Estimates with standard errors, and the equivariance Gram matrix from which they are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from lee.errors import InputError
from lee.generators import Action, AnyGenerator, Generator, coordinates, get


class Estimate(NamedTuple):
    """A mean over images with its standard error.

    Args:
        value: The mean.
        stderr: Its standard error; NaN for a single image.
        n: Number of images.
        unit: Unit of the value.
        kernel: Interpolation kernel that the value depends on.
        name: What was measured: the generator, say.
        quantity: Which measure it is.

    Examples:
        >>> print(Estimate(0.0123456, 0.00123, 100, "per half side²", "fourier", "translation_x"))
        LEE translation_x = 0.0123 ± 0.0012 per half side² (n = 100, kernel fourier)
    """

    value: float
    stderr: float
    n: int
    unit: str = ""
    kernel: str = ""
    name: str = ""
    quantity: str = "LEE"

    @classmethod
    def of(
        cls, samples: Tensor, *, unit: str = "", kernel: str = "", name: str = "", quantity: str = "LEE"
    ) -> "Estimate":
        """Mean and standard error of one number per image, (n,).

        Raises:
            InputError: If there is no image.
        """
        n = samples.numel()
        if n == 0:
            raise InputError("There are no images to average over.")
        samples = samples.double().cpu()
        stderr = float(samples.std(correction=1) / math.sqrt(n)) if n > 1 else math.nan
        return cls(float(samples.mean()), stderr, n, unit, kernel, name, quantity)

    def __str__(self) -> str:
        digits = _digits(self.value, self.stderr)
        details = f"(n = {self.n}" + (f", kernel {self.kernel})" if self.kernel else ")")
        title = f"{self.quantity} {self.name} = " if self.name else ""
        return " ".join(p for p in (f"{title}{digits}", self.unit, details) if p)


def _digits(value: float, stderr: float) -> str:
    """`value ± stderr` with two significant digits of the error."""
    if not math.isfinite(stderr) or stderr <= 0:
        return f"{value:.4g} ± {stderr:.2g}"
    if value and not 1e-4 <= abs(value) < 1e5:
        exponent = math.floor(math.log10(abs(value)))
        inner = _digits(value / 10**exponent, stderr / 10**exponent)
        return f"({inner})e{exponent:+03d}"
    places = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{places}f} ± {stderr:.{places}f}"


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation with an approximate confidence interval.

    Args:
        value: In [-1, 1].
        low: Lower end of the interval; NaN for fewer than four pairs.
        high: Upper end.
        n: Number of pairs.

    Examples:
        >>> print(RankCorrelation(0.9, 0.55, 0.98, 9))
        0.90 [0.55, 0.98] (n = 9)
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] (n = {self.n})"


def _ranks(values: Tensor) -> Tensor:
    """Ranks of (n,) numbers up to a constant; ties share their average."""
    return (values[:, None] > values).double().sum(1) + 0.5 * (values[:, None] == values).double().sum(1)


def rank_correlation(
    first: Tensor | Sequence[float], second: Tensor | Sequence[float], level: float = 0.95
) -> RankCorrelation:
    r"""How well two measures agree on the order of the same things, models say.

    The interval is :math:`\tanh(\operatorname{artanh} \rho \pm q \sqrt{1.06 / (n - 3)})` with the normal quantile `q`.

    Source: Fieller, Hartley & Pearson, *Tests for rank correlation coefficients I*, Biometrika 44, 1957.

    Args:
        first: (n,) numbers.
        second: (n,) numbers.
        level: Coverage of the interval.

    Raises:
        InputError: If they are not two equally long lists of at least two finite numbers, not all equal, or the level is
            not between 0 and 1.

    Examples:
        >>> rank_correlation([1, 2, 3, 4, 5], [10, 30, 20, 40, 50]).value
        0.9
    """
    pair = [torch.as_tensor(v, dtype=torch.float64).flatten().cpu() for v in (first, second)]
    n = len(pair[0])
    if n < 2 or len(pair[1]) != n or not all(bool(torch.isfinite(v).all()) for v in pair):
        raise InputError(
            f"A rank correlation needs two lists of finite numbers of one length; got {n} and {len(pair[1])}."
        )
    if not 0 < level < 1:
        raise InputError(f"`level` must be between 0 and 1, not {level!r}.")
    a, b = (_ranks(v) - _ranks(v).mean() for v in pair)
    if not (bool(a.any()) and bool(b.any())):
        raise InputError("A rank correlation needs numbers that differ; one of the lists is constant.")
    value = max(-1.0, min(1.0, float(a @ b / (a.norm() * b.norm()))))
    if n < 4:
        return RankCorrelation(value, math.nan, math.nan, n)
    if abs(value) > 1 - 1e-12:
        return RankCorrelation(round(value, 12), round(value, 12), round(value, 12), n)
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(1.06 / (n - 3))
    low, high = (math.tanh(math.atanh(value) + sign * reach) for sign in (-1, 1))
    return RankCorrelation(round(value, 12), low, high, n)


def unit_of(generator: Generator | Action) -> str:
    """Unit of the LEE of a generator: outputs squared per squared unit of its parameter."""
    return f"per {generator.unit}²"


@dataclass(frozen=True)
class EquivarianceGram:
    r"""Inner products of the Lie derivatives of a model along several generators, image by image.

    :math:`G_{ab} = \langle L_a f(x), L_b f(x) \rangle / \dim V_{out}`. As `X ↦ L_X f` is linear, the LEE of the generator
    with coefficients `c` is :math:`c^\top G c`, and comparisons of models on the same images are paired.

    Args:
        per_image: Shape (n, K, K), float64.
        generators: The K generators.
        kernel: Interpolation kernel.
        boundary: Boundary extension.
        align_corners: Pixel convention.
        output: Which output was differentiated.
    """

    per_image: Tensor
    generators: tuple[Generator | Action, ...]
    kernel: str
    boundary: str = "reflect"
    align_corners: bool = False
    output: str = "probabilities"
    dim: int = field(default=1, compare=False)

    @property
    def basis(self) -> tuple[str, ...]:
        """Names of the K generators."""
        return tuple(g.name for g in self.generators)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.per_image)

    @property
    def matrix(self) -> Tensor:
        """The mean over images, (K, K), float64."""
        return self.per_image.mean(0)

    def coefficients(self, generator: AnyGenerator) -> Tensor:
        """Coefficients of a generator over :attr:`basis`, (K,), float64.

        Raises:
            InputError: If it is not in their span.
        """
        names = self.basis
        wanted = get(generator) if not isinstance(generator, str) or generator not in names else None
        if wanted is None or wanted in self.generators:
            index = names.index(str(generator)) if wanted is None else self.generators.index(wanted)
            return torch.eye(len(names), dtype=torch.float64)[index]
        if isinstance(wanted, Action):
            raise InputError(f"The action {wanted.name!r} is not among the measured generators: {', '.join(names)}.")
        return coordinates(wanted, self.generators)

    def lee_per_image(self, generator: AnyGenerator) -> Tensor:
        """`‖L_X f(x)‖² / dim` of every image, (n,), float64."""
        c = self.coefficients(generator)
        return torch.einsum("a,nab,b->n", c, self.per_image, c)

    def lee(self, generator: AnyGenerator) -> Estimate:
        """Local equivariance error of a generator in the span of the basis, with its standard error over images."""
        known = get(generator) if not isinstance(generator, str) or generator not in self.basis else None
        named = self.generators[self.basis.index(str(generator))] if known is None else known
        samples = self.lee_per_image(generator)
        return Estimate.of(samples, unit=unit_of(named), kernel=self.kernel, name=named.name)

    def minus(self, other: "EquivarianceGram", generator: AnyGenerator) -> Estimate:
        """LEE of this model minus that of another on the same images, with the paired standard error.

        Raises:
            InputError: If the two were not measured on the same number of images or in the same way.
        """
        for what in ("n", "kernel", "boundary", "align_corners", "output"):
            mine, its = getattr(self, what), getattr(other, what)
            if mine != its:
                raise InputError(f"A paired comparison needs the same {what}: {mine!r} against {its!r}.")
        estimate = self.lee(generator)
        gap = self.lee_per_image(generator) - other.lee_per_image(generator)
        return Estimate.of(gap, unit=estimate.unit, kernel=self.kernel, name=estimate.name)

    def __str__(self) -> str:
        return "\n".join(str(self.lee(name)) for name in self.basis)


def concatenate(grams: Sequence[EquivarianceGram]) -> EquivarianceGram:
    """Join Gram matrices of several batches of images.

    Raises:
        InputError: If there is none, or if they were measured in different ways.
    """
    if not grams:
        raise InputError("There are no Gram matrices to join.")
    first = grams[0]
    for other in grams[1:]:
        if (other.generators, other.kernel, other.boundary, other.align_corners, other.output) != (
            first.generators, first.kernel, first.boundary, first.align_corners, first.output,
        ):  # fmt: skip
            raise InputError(
                "Gram matrices can be joined only if generators, kernel, boundary and output are the same."
            )
    joined = torch.cat([g.per_image for g in grams])
    return EquivarianceGram(
        joined, first.generators, first.kernel, first.boundary, first.align_corners, first.output, first.dim
    )
