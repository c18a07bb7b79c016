r"""The spectrum of a Gram matrix: which motions of the affine algebra a model respects most, and which least.

The LEE of the generator with coefficients `c` is :math:`c^\top G c`. To compare directions one must say how large a
generator is. Here its size is the mean square of its displacement over the image,
:math:`c^\top M c` with :math:`M_{ab} = \frac1{|\Omega|}\int_\Omega \xi_a(p) \cdot \xi_b(p)\,dp`, in half sides squared, so that a
unit of every direction moves the pixels equally far. The directions are then the solutions of
:math:`G c = \lambda M c` with :math:`c^\top M c = 1`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lee.errors import InputError, check_count, check_number
from lee.geometry.algebra import coordinates
from lee.geometry.generators import NAMED, Action, Generator
from lee.statistics import Comparison, EquivarianceGram, paired_ratio

#: A basis of the affine algebra whose members are orthogonal in the metric of a square image.
ORTHOGONAL = tuple(NAMED[n] for n in ("translation_x", "translation_y", "rotation", "scale", "squeeze", "hyperbolic"))
UNIT = "rms half side"
_ROUNDING = 1e-6  # of an image's largest eigenvalue, below which one is none: tables hold seven digits


@dataclass(frozen=True, eq=False)
class SymmetrySpectrum:
    """Eigenvalues and directions of a Gram matrix, smallest (most respected) first.

    Args:
        eigenvalues: (K,), LEE per mean squared displacement, in half sides squared.
        low: (K,), lower ends of the bootstrap intervals of the ordered eigenvalues, over images.
        high: (K,), their upper ends.
        directions: (K, K), float64; row k holds the coefficients of direction k over `basis`.
        alignment: (K,): mean over resamples of the cosine, in [0, 1] and in the displacement metric, between
            direction k and the resample's own. Near 1 the direction is determined; where eigenvalues lie close, it is
            small and only their common plane is.
        spread: (K,): the angle, in degrees and in the same metric, within which that share of the resamples' own
            directions lies that `level` says.
        resampled: (B, K, K): the directions of each resample, with the signs that turn them towards `directions`.
        basis: names of the measured generators.
        generators: the directions as generators, ready to be measured or drawn.
        level: of the intervals.
        n: number of images.
        metric: (K, K): mean products of displacements of the measured generators, half sides squared.
        held_out: (⌈n / 2⌉, K): errors of every second image, from the first on, along the directions that the others have, in
            the same unit.
    """

    eigenvalues: Tensor
    low: Tensor
    high: Tensor
    directions: Tensor
    alignment: Tensor
    spread: Tensor
    resampled: Tensor
    basis: tuple[str, ...]
    generators: tuple[Generator, ...]
    level: float
    n: int
    metric: Tensor
    held_out: Tensor

    @property
    def factor(self) -> Comparison:
        """How many times larger the error along the last direction is than along the first, on images that didn't choose them.

        The ratio of the two eigenvalues is too large, as the images that are measured also choose the directions: of 8 images and
        a model of one output that respects all directions alike, 40 in the median. Here half of the images choose and the others
        are measured, with the interval of :func:`lee.statistics.paired_ratio`. Half of the images find the directions less well,
        so the factor is rather too small.

        Raises:
            InputError: there are only two images, or one of the two directions leaves all outputs alone.
        """
        return paired_ratio(self.held_out[:, -1], self.held_out[:, 0], self.level)

    def frame(self) -> pd.DataFrame:
        """Return a tidy table: a row per direction with its interval, alignment and coefficients."""
        numbers = torch.stack([self.eigenvalues, self.low, self.high, self.alignment, self.spread], 1).numpy()
        table = pd.DataFrame(numbers, columns=["eigenvalue", "low", "high", "alignment", "spread"])
        table.insert(0, "direction", range(1, len(table) + 1))
        return pd.concat([table, pd.DataFrame(self.directions.numpy(), columns=list(self.basis))], axis=1)

    def shares(self, generators: Sequence[Generator] = ORTHOGONAL) -> Tensor:
        """Squared cosines of the directions with other generators, (K, G): how much of each direction is a rotation, say.

        Over an orthogonal basis, such as :data:`ORTHOGONAL` on a square image, each row sums to 1.

        Args:
            generators: G generators in the span of what was measured.

        Raises:
            InputError: a generator is not in the span of what was measured.
        """
        c = torch.stack([coordinates(g, self.generators) for g in generators], 1)  # over orthonormal directions
        return c**2 / (c**2).sum(0)

    def plane_spread(self, first: int, last: int) -> float:
        """How well directions `first` to `last` (from 1) are determined together, whatever their order: in degrees.

        The largest principal angle between their span and that of the resample's own; `level` of the resamples lie
        within what is returned. For a single direction it is its `spread`.

        Args:
            first: Number of the first direction, from 1.
            last: Number of the last one.

        Raises:
            InputError: there are no such directions.
        """
        if not 1 <= first <= last <= len(self.eigenvalues):
            raise InputError(f"There are directions 1 to {len(self.eigenvalues)}, not {first} to {last}.")
        kept = slice(first - 1, last)
        cosines = self.directions[kept] @ self.metric @ self.resampled[:, kept].mT
        return float(_degrees(torch.linalg.svdvals(cosines)[:, -1:], self.level)[0])


def displacement_metric(generators: Sequence[Generator | Action], *, aspect: float = 1.0) -> Tensor:
    """Mean products of displacements over the image, (K, K), float64, in half sides squared.

    Args:
        generators: K spatial generators.
        aspect: width over height of the image.

    Raises:
        InputError: a generator that moves no pixels, or an aspect that is no positive number.

    >>> from lee.geometry.generators import ROTATION, TRANSLATION_X
    >>> displacement_metric([TRANSLATION_X, ROTATION]).round(decimals=3).tolist()
    [[1.0, 0.0], [0.0, 0.667]]
    """
    if isinstance(aspect, bool) or not isinstance(aspect, int | float) or not 0 < aspect < math.inf:
        raise InputError(f"aspect = {aspect!r}: give the image's width over its height, a positive number.")
    if not generators:
        raise InputError("There is no spatial generator to give a size to.")
    rows = []
    for generator in generators:
        if isinstance(generator, Action) or not generator.is_spatial:
            raise InputError(
                f"The size of {generator.name!r} can't be given as a displacement: it is not an affine motion. "
                f"Measure the Gram matrix over spatial generators alone."
            )
        rows.append(generator.coefficients[:6])
    fields = torch.tensor(rows, dtype=torch.float64)
    # ξ_x = b_x + x·xx + y·yx and ξ_y = b_y + x·xy + y·yy; over the image 1, x and y are orthogonal.
    x, y = max(aspect, 1) ** 2 / 3, max(1 / aspect, 1) ** 2 / 3
    weights = torch.tensor([1.0, 1.0, x, y, x, y], dtype=torch.float64)  # in the order of SPATIAL_BASIS
    return fields @ (weights[:, None] * fields.T)


def unit_sized(generator: Generator, *, aspect: float = 1.0) -> Generator:
    """The generator scaled to a root mean square displacement of one half side, under its own name.

    Args:
        generator: a spatial generator that moves something.
        aspect: width over height of the image.

    Raises:
        InputError: it moves no pixels.

    >>> from lee.geometry.generators import SCALE
    >>> round(unit_sized(SCALE).matrix[0][0] ** 2, 6)
    1.5
    """
    size = float(displacement_metric([generator], aspect=aspect)[0, 0]) ** 0.5
    if size == 0:
        raise InputError(f"Generator {generator.name!r} moves no pixel, so it can't be scaled to a size.")
    return (1 / size * generator).renamed(generator.name, UNIT)


def at_equal_size(gram: EquivarianceGram, generators: Sequence[Generator] = ORTHOGONAL) -> EquivarianceGram:
    """The same Gram matrices over other generators, each scaled by :func:`unit_sized`: their diagonals can be compared.

    Args:
        gram: measured over generators in whose span the others are.
        generators: K spatial generators.

    Raises:
        InputError: a generator is not in the span, or moves nothing.
    """
    units = tuple(unit_sized(g, aspect=gram.aspect or 1.0) for g in generators)
    rows = torch.stack([gram.coefficients(g) for g in units])
    per_image = rows @ gram.per_image.double().cpu() @ rows.T
    return replace(gram, per_image=per_image, generators=units)


def symmetry_spectrum(
    gram: EquivarianceGram, *, aspect: float | None = None, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> SymmetrySpectrum:
    r"""Find the directions of the affine algebra that a model respects most and least.

    They solve :math:`G c = \lambda M c` with :math:`c^\top M c = 1`, where `G` is the Gram matrix and `M` the
    :func:`displacement_metric`, so that a unit of every direction moves the pixels equally far.

    Intervals are percentiles over resampled images. Ordering eigenvalues biases the smallest downwards and the
    largest upwards where they lie closer than their intervals; `alignment` shows where that is so, and
    :attr:`SymmetrySpectrum.factor` compares the two on images that didn't choose the directions.

    Args:
        gram: measured over linearly independent spatial generators, on two or more images; photometric ones
            among them, which move no pixels, are left out.
        aspect: width over height of the images; None: as they were, and 1 where that is not known (tables of square images).
        resamples: bootstrap resamples of the images, 100 or more.
        level: of the intervals, in (0, 1).
        seed: of the resamples.

    Raises:
        InputError: an action whose displacement is not known, generators that depend on each other, no spatial one, a
            single image, images so few that some direction has no error whatever the model does (a model of C
            probabilities shows C - 1 directions per image), a level outside (0, 1), or fewer than 100 resamples.
    """
    if not isinstance(gram, EquivarianceGram):
        raise InputError(
            f"A spectrum is that of a Gram matrix, as lee.equivariance_gram gives it, not of {type(gram).__name__}."
        )
    check_number("level", level, 0, 1)
    check_count("resamples", resamples, 100)
    check_count("seed", seed, 0)
    if gram.n < 2:
        raise InputError("A spectrum with intervals needs a Gram matrix of two or more images.")
    kept = [k for k, g in enumerate(gram.generators) if isinstance(g, Action) or not g.is_photometric]
    generators, names = [gram.generators[k] for k in kept], tuple(gram.basis[k] for k in kept)
    aspect = gram.aspect or 1.0 if aspect is None else aspect
    metric = displacement_metric(generators, aspect=aspect)
    whiten = _whitening(metric)
    if whiten is None:
        raise InputError(f"The generators {', '.join(names)} depend on each other; leave out the combinations.")
    per_image = whiten.T @ gram.per_image.double().cpu()[:, kept][:, :, kept] @ whiten
    shown = int(torch.linalg.matrix_rank(per_image, rtol=_ROUNDING, hermitian=True).sum())
    if 0 < shown < len(kept):
        raise InputError(
            f"The outputs for {gram.n} images depend on {shown} directions at most, so their errors along the other "
            f"{len(kept) - shown} of {len(kept)} would be zero for any model: measure more images."
        )
    eigenvalues, vectors = torch.linalg.eigh(per_image.mean(0))
    drawn, turned = torch.linalg.eigh(_resampled(per_image, resamples, seed))
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(drawn, tails, dim=0)
    cosines = torch.einsum("ik,bik->bk", vectors, turned).abs()
    directions = _signed((whiten @ vectors).T)
    resampled = (whiten @ turned).mT
    resampled = resampled * torch.einsum("bki,ij,kj->bk", resampled, metric, directions).sign()[:, :, None]
    return SymmetrySpectrum(
        eigenvalues.clamp_min(0), low.clamp_min(0), high.clamp_min(0), directions, cosines.mean(0),
        _degrees(cosines, level), resampled, names, _as_generators(directions, generators), level, gram.n, metric,
        _held_out(per_image),
    )  # fmt: skip


def _held_out(per_image: Tensor) -> Tensor:
    """Errors (⌈n / 2⌉, K) of every second image along the directions of the others, smallest first."""
    vectors = torch.linalg.eigh(per_image[1::2].mean(0))[1]
    return torch.einsum("ak,nab,bk->nk", vectors, per_image[::2], vectors).clamp_min(0)


def _whitening(metric: Tensor) -> Tensor | None:
    """`W` with `Wᵀ M W = 1`, (K, K); None for generators that depend on each other, whatever their sizes."""
    units = metric.diagonal().sqrt()
    if not bool(units.all()):
        return None
    sizes, axes = torch.linalg.eigh(metric / units[:, None] / units)
    if float(sizes[0]) <= 1e-9 * float(sizes[-1]):
        return None
    return axes / sizes.sqrt() @ axes.T / units[:, None]


def _degrees(cosines: Tensor, level: float) -> Tensor:
    """Angles (K,) in degrees within which that share of the resamples (B, K) lies."""
    return torch.quantile(torch.rad2deg(torch.arccos(cosines.clamp(0, 1))), level, dim=0)


def _resampled(per_image: Tensor, resamples: int, seed: int) -> Tensor:
    """Means (B, K, K) of per-image matrices (n, K, K) over images drawn with replacement."""
    n = len(per_image)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return torch.einsum("bn,nij->bij", torch.from_numpy(counts / n), per_image)


def _signed(directions: Tensor) -> Tensor:
    """Turn each row so that its largest entry is positive: an eigenvector has no sign of its own."""
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * largest.sign()


def _as_generators(directions: Tensor, basis: Sequence[Generator | Action]) -> tuple[Generator, ...]:
    """Directions over a basis as generators over the nine basis fields."""
    fields = torch.tensor([g.coefficients for g in basis if isinstance(g, Generator)], dtype=torch.float64)
    rows = (directions @ fields).tolist()
    return tuple(Generator(f"direction {k}", tuple(row), UNIT) for k, row in enumerate(rows, 1))
