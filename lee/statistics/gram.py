"""The equivariance Gram matrix, from which the local equivariance error of any generator is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lee.errors import InputError
from lee.geometry.algebra import coordinates
from lee.geometry.generators import NAMED, SPATIAL_BASIS, Action, AnyGenerator, Generator, get
from lee.statistics.estimates import Estimate
from lee.statistics.verification import Verification, weakest


def unit_of(generator: Generator | Action) -> str:
    """Unit of the LEE of a generator: outputs squared per squared unit of its parameter.

    Args:
        generator: What was measured.
    """
    return f"per {generator.unit}²"


@dataclass(frozen=True, eq=False)
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
        verification: What was checked on the first images, and how well; None where nothing was.
        aspect: Width over height of the images' field of view; None where it is not known, or differs.
    """

    per_image: Tensor
    generators: tuple[Generator | Action, ...]
    kernel: str
    boundary: str = "reflect"
    align_corners: bool = False
    output: str = "probabilities"
    verification: Verification | None = field(default=None, compare=False)
    aspect: float | None = None

    @property
    def basis(self) -> tuple[str, ...]:
        """Names of the K generators."""
        return tuple(g.name for g in self.generators)

    @property
    def motions(self) -> tuple[str, ...]:
        """Names worth telling: all named motions, rotation and scale too, if the basis spans them; otherwise the basis."""
        if not set(SPATIAL_BASIS) <= set(self.basis):
            return self.basis
        named = tuple(name for name, motion in NAMED.items() if motion.is_spatial or name in self.basis)
        return named + tuple(name for name in self.basis if name not in NAMED)

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

        Args:
            generator: A name, a mixture or an action.

        Raises:
            InputError: If it is not in their span.
        """
        wanted = self._measured(generator)
        if wanted in self.generators:
            return torch.eye(len(self.generators), dtype=torch.float64)[self.generators.index(wanted)]
        if isinstance(wanted, Action):
            raise InputError(
                f"The action {wanted.name!r} is not among the measured generators: {', '.join(self.basis)}."
            )
        return coordinates(wanted, self.generators)

    def _measured(self, generator: AnyGenerator) -> Generator | Action:
        """The one of the generators that has a name or is an action, whatever it is called here; another one as it is."""
        if isinstance(generator, str) and generator in self.basis:
            return self.generators[self.basis.index(generator)]
        wanted = get(generator)
        same = [replace(g, name=wanted.name) == wanted for g in self.generators] if isinstance(wanted, Action) else []
        return self.generators[same.index(True)] if True in same and wanted not in self.generators else wanted

    def lee_per_image(self, generator: AnyGenerator) -> Tensor:
        """`‖L_X f(x)‖² / dim` of every image, (n,), float64.

        Args:
            generator: A name, or a generator in the span of the basis.
        """
        c = self.coefficients(generator)
        return torch.einsum("a,nab,b->n", c, self.per_image, c)

    def lee(self, generator: AnyGenerator) -> Estimate:
        """Local equivariance error of a generator in the span of the basis, with its standard error over images.

        Args:
            generator: A name, or a generator in the span of the basis.
        """
        named = self._measured(generator)
        samples = self.lee_per_image(generator)
        found = Estimate.of(samples, unit=unit_of(named), kernel=self.kernel, name=named.name)
        return found._replace(verification=self.verification)

    def only(self, generator: AnyGenerator) -> "EquivarianceGram":
        """The Gram matrices of one generator alone, (n, 1, 1).

        Args:
            generator: A name, or a generator in the span of the basis.
        """
        found = self.lee_per_image(generator)[:, None, None]
        return replace(self, per_image=found, generators=(self._measured(generator),))

    def minus(self, other: "EquivarianceGram", generator: AnyGenerator) -> Estimate:
        """LEE of this model minus that of another on the same images, with the paired standard error.

        Args:
            other: The other model's Gram matrices, on the same images in the same order.
            generator: A name, or a generator in the span of the basis.

        Raises:
            InputError: If the two were not measured on the same number of images or in the same way, or if the other one has not
                this generator, whatever its name.
        """
        for what in ("n", "kernel", "boundary", "align_corners", "output"):
            mine, its = getattr(self, what), getattr(other, what)
            if mine != its:
                raise InputError(f"A paired comparison needs the same {what}: {mine!r} against {its!r}.")
        estimate = self.lee(generator)
        its = other.lee_per_image(self._measured(generator))  # a name may mean another generator there
        gap = self.lee_per_image(generator) - its
        found = Estimate.of(gap, unit=estimate.unit, kernel=self.kernel, name=estimate.name)
        return found._replace(verification=weakest([self.verification, other.verification]))

    def __str__(self) -> str:
        return "\n".join(str(self.lee(name)) for name in self.motions)


def concatenate(grams: Sequence[EquivarianceGram]) -> EquivarianceGram:
    """Join Gram matrices of several batches of images.

    Args:
        grams: One per batch, measured in the same way.

    Raises:
        InputError: If there is none, or if they were measured in different ways.
    """
    if not grams:
        raise InputError("There are no Gram matrices to join.")
    first, same = grams[0], ("generators", "kernel", "boundary", "align_corners", "output")
    if any(getattr(g, what) != getattr(first, what) for g in grams[1:] for what in same):
        raise InputError("Gram matrices can be joined only if generators, kernel, boundary and output are the same.")
    aspect = first.aspect if all(g.aspect == first.aspect for g in grams) else None
    known = weakest([g.verification for g in grams])
    return replace(first, per_image=torch.cat([g.per_image for g in grams]), aspect=aspect, verification=known)
