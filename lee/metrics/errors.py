r"""How much a model's output differs from equivariance after finite motions `g`: `f(ρ(g) x)` against `ρ(g) f(x)`.

.. math::
    \mathrm{MSE} = \frac{\sum_{g, c} \sum_{p \in V_g} \bigl(f(\rho(g) x)_c(p) - (\rho(g) f(x))_c(p)\bigr)^2}
        {\sum_{g, c} |V_g|}, \qquad
    \mathrm{PSNR} = 10 \log_{10} \frac{I^2}{\mathrm{MSE}}\ \text{dB}.

`V_g` holds the samples of the output that the motion brings in from inside the image, and `I` is the width of the interval
that outputs lie in. Class scores are invariant (`ρ(g) f(x) = f(x)`) and have nothing to mask.

Source: Karras, Aittala, Laine, Härkönen, Hellsten, Lehtinen & Aila, *Alias-Free Generative Adversarial Networks*, NeurIPS
2021, section 4 and appendix E, there for a generator that moves its own input; here the input image is moved. Sampled
invariance is among the measures that Gruver et al. compare with LEE (their Fig. 5).
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lee import memory
from lee.errors import InputError, VerificationWarning, check_count, check_flag
from lee.geometry.generators import AnyGenerator, Generator
from lee.geometry.outputs import Representations, of_output
from lee.geometry.representations import Image, Representation, Trivial
from lee.geometry.sampling import Sampler
from lee.measure.actions import acted, check_actions, check_output_actions
from lee.measure.checks import Output, check_input, check_output_name
from lee.measure.function import one_function
from lee.measure.looking import look, look_at_chunk, warn_if_constant
from lee.metrics.motion import Motion, amounts, apart, as_motions, disc, in_view, rotations, translations
from lee.statistics import Estimate

Model = Callable[[Tensor], Any]
ROUNDED = 3  # times its rounding, by which an output must differ for that to be known to some per cent


@dataclass(frozen=True, eq=False)
class Differences:
    """Squared differences from equivariance, per motion and image.

    Args:
        squares: Sums over the compared entries, (T, N), float64.
        counts: Numbers of compared entries, (T,), float64.
        motions: The T motions.
        kernel: Interpolation kernel.
    """

    squares: Tensor
    counts: Tensor
    motions: tuple[Motion, ...]
    kernel: str

    @property
    def per_image(self) -> Tensor:
        """Mean squared difference of every image over all motions and entries, (N,), float64.

        Raises:
            InputError: If no motion leaves anything in view.
        """
        if not (total := self.counts.sum()) > 0:
            raise InputError("No sample of the output stays in view under any motion; make it, or the margin, smaller.")
        return self.squares.sum(0) / total

    @property
    def per_motion(self) -> Tensor:
        """Mean squared difference of every motion and image, (T, N), float64; NaN where nothing stays in view."""
        return self.squares / torch.where(self.counts > 0, self.counts, math.nan)[:, None]

    def mse(self, quantity: str = "MSE", name: str = "given motions") -> Estimate:
        """The mean squared difference with its standard error over images, for these motions.

        Args:
            quantity: What it is called.
            name: What the motions are called.
        """
        return Estimate.of(self.per_image, kernel=self.kernel, name=name, quantity=quantity)


def moved(
    motion: Motion, z: Tensor, representation: Representation, sampler: Sampler, *, output: bool = False
) -> Tensor:
    """`ρ(exp tX) z` for an input or, with `output`, for an output, where a user's action may be trivial."""
    if isinstance(motion.generator, Generator):
        return representation.finite(motion.generator, motion.t, z, sampler)
    function = motion.generator.output if output else motion.generator.function
    return z if function is None else acted(function, z, motion.t)


def compare(
    n: int, actual: Tensor, wanted: Tensor, representation: Representation, motion: Motion, sampler: Sampler,
    margin: int, band_limit: bool,
) -> tuple[Tensor, float]:  # fmt: skip
    """Sum of squared differences of every sample, (n,), float64, and the number of entries compared.

    `actual` is `f(ρ(g) x)`, (n, ...), or of `n` samples folded into its first axis one after the other, and `wanted` is
    `ρ(g) f(x)`. The sampler has the field of view of the image; `margin` samples of the map are left out beside the mask, and with
    `band_limit` only the frequencies count that every rotation leaves on the grid.
    """
    if actual.shape != wanted.shape:
        raise InputError(f"A motion must keep shapes: {tuple(wanted.shape)} has become {tuple(actual.shape)}.")
    maps, rest = apart(representation, actual - wanted, n)  # all that follows is linear
    squares, count = _square(rest).sum(1), float(rest.shape[1])
    if maps is not None:
        height, width = maps.shape[-2:]
        mask = in_view(motion, height, width, sampler, margin).to(maps.device)
        kept = disc(maps, sampler.boundary) if band_limit else maps
        squares = squares + (_square(kept) * mask).sum((1, 2, 3))
        count += float(mask.sum()) * maps.shape[1]
    return squares.cpu(), count


def _square(z: Tensor) -> Tensor:
    """`|z|²`, float64."""
    return (z.abs() if z.is_complex() else z).double().square()


def differences(
    model: Model,
    images: Tensor,
    motions: Sequence[Motion | tuple[AnyGenerator, float]],
    *,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    margin: int = 0,
    band_limit: bool = False,
    representations: Representations = None,
    chunk: int = 32,
) -> Differences:
    """`f(ρ(g) x) - ρ(g) f(x)`, squared and summed over the entries that stay in view, for every motion and image.

    Args:
        model: Any module or function of images; measured in eval mode and left as it was.
        images: (N, C, H, W), floating point; for a user's action any (N, ...).
        motions: See :func:`translations`, :func:`rotations` and :func:`amounts`; pairs `(generator, t)` will do.
        output: `"probabilities"`, `"logits"` (the output itself: feature maps too), or a callable on it.
        kernel: Interpolation kernel of the finite motions: `"fourier"` (ideal low-pass), `"central"` or `"bilinear"`.
        boundary: What the motion brings in from outside: `"reflect"` or `"circular"`.
        margin: Samples along the output's border to leave out beside those from outside: what a zero padding reaches, say.
        band_limit: Compare only the frequencies that every rotation leaves on the grid, see :func:`disc`.
        representations: How the output transforms where its shape leaves that open.
        chunk: Images per pass.

    Raises:
        InputError: For input that can't be measured; the message says why.
    """
    check_output_name(output)
    check_count("margin", margin, 0)
    check_count("chunk", chunk)
    check_flag("band_limit", band_limit)
    steps = as_motions(motions)
    check_input(model, images, image=(known := any(isinstance(m.generator, Generator) for m in steps)))
    sampler = Sampler(kernel, boundary)
    sampler = sampler.for_image(*images.shape[-2:]) if images.ndim == 4 else sampler
    with memory.kept(), one_function(model, output) as function, torch.no_grad():  # which leaves inference mode
        rounding, squares, counts = 0.0, torch.zeros(len(steps), len(images)).double(), torch.zeros(len(steps)).double()
        check_actions([m.generator for m in steps], images, finite=True)
        look(function, images[:3])
        for index in torch.arange(len(images)).split(1 if function.one_by_one else chunk):
            x = images[index]
            value = function.checked(x)
            if int(index[0]) == 0:
                check_output_actions([m.generator for m in steps], value, finite=True)
            look_at_chunk(function, x, value, first=int(index[0]) == 0)
            if value.dtype not in (torch.float64, torch.complex128):  # there is no better advice for these
                rounding = max(rounding, torch.finfo(value.dtype).eps ** 2 * float(_square(value).mean()))
            representation = of_output(value, x, representations) if known else Trivial()
            for k, motion in enumerate(steps):
                actual = function.checked(moved(motion, x, Image(), sampler))
                wanted = moved(motion, value, representation, sampler, output=True)
                squares[k, index], counts[k] = compare(
                    len(x), actual, wanted, representation, motion, sampler, margin, band_limit
                )
        if not bool(squares.any()):
            warn_if_constant(function, images[:3])
    if 0 < float(squares.sum()) < ROUNDED**2 * rounding * float(counts.sum()) * len(images):
        warnings.warn(
            f"The outputs differ by no more than rounding in {value.dtype} may make them; double precision shows more.",
            VerificationWarning,
            stacklevel=3,
        )
    return Differences(squares, counts, tuple(steps), kernel)


def eq_t(
    model: Model, images: Tensor, *, max_shift: float = 0.125, draws: int = 16, step: int = 1,
    random: torch.Generator | None = None, **options: Any,
) -> Estimate:  # fmt: skip
    """EQ-T: the mean squared error of equivariance to translations by whole pixels; :func:`psnr` turns it into dB.

    Source: Karras et al., *Alias-Free Generative Adversarial Networks*, NeurIPS 2021, appendix E (EQ-T).

    Args:
        model: As for :func:`differences`.
        images: (N, C, H, W).
        max_shift: Largest shift, as a fraction of the side (Karras et al.: 1/8).
        draws: Random shifts along both axes at once, the same for every image.
        step: Shifts are multiples of so many pixels; 1 for any whole pixel.
        random: Source of the draws; None for seed 0.
        options: As for :func:`differences`.

    Raises:
        InputError: For input that can't be measured.
    """
    check_input(model, images, image=True)
    motions = translations(images, draws, max_shift=max_shift, integer=True, step=step, random=random)
    return differences(model, images, motions, **options).mse("EQ-T", "whole pixels")


def eq_t_frac(
    model: Model, images: Tensor, *, max_shift: float = 0.125, draws: int = 16, random: torch.Generator | None = None,
    **options: Any,
) -> Estimate:  # fmt: skip
    """EQ-T-frac: as :func:`eq_t`, with shifts by any fraction of a pixel, interpolated by the kernel.

    Karras et al. interpolate with a Lanczos-windowed sinc of six taps; the default here is its ideal, `fourier`.

    Source: Karras et al., *Alias-Free Generative Adversarial Networks*, NeurIPS 2021, appendix E.

    Args:
        model: As for :func:`differences`.
        images: (N, C, H, W).
        max_shift: Largest shift, as a fraction of the side.
        draws: Random shifts along both axes at once, the same for every image.
        random: Source of the draws; None for seed 0.
        options: As for :func:`differences`.

    Raises:
        InputError: For input that can't be measured.
    """
    check_input(model, images, image=True)
    motions = translations(images, draws, max_shift=max_shift, random=random)
    return differences(model, images, motions, **options).mse("EQ-T-frac", "any shift")


def eq_r(
    model: Model, images: Tensor, *, max_angle: float = math.pi, draws: int = 16, random: torch.Generator | None = None,
    band_limit: bool = True, **options: Any,
) -> Estimate:  # fmt: skip
    """EQ-R: the mean squared error of equivariance to rotations about the centre by any angle up to `max_angle` radians.

    Feature maps are compared at the frequencies that every rotation leaves on the grid, see :func:`disc`.

    Source: Karras et al., *Alias-Free Generative Adversarial Networks*, NeurIPS 2021, appendix E.

    Args:
        model: As for :func:`differences`.
        images: (N, C, H, W).
        max_angle: Largest angle, in radians.
        draws: Random angles, the same for every image.
        random: Source of the draws; None for seed 0.
        band_limit: Whether only the frequencies that every rotation leaves on the grid are compared.
        options: As for :func:`differences`.

    Raises:
        InputError: For input that can't be measured.
    """
    check_input(model, images, image=True)
    motions = rotations(draws, max_angle=max_angle, random=random)
    return differences(model, images, motions, band_limit=band_limit, **options).mse("EQ-R", "any angle")


def sampled_invariance(
    model: Model, images: Tensor, generator: AnyGenerator, *, radius: float, draws: int = 16,
    random: torch.Generator | None = None, **options: Any,
) -> Estimate:  # fmt: skip
    r"""`E_t ‖f(ρ(exp tX) x) - ρ(exp tX) f(x)‖² / dim` with `t` uniform in ± `radius`, for any generator.

    For class scores this is the sampled invariance of Gruver et al. (Fig. 5). As `radius → 0` it approaches
    `radius² / 3` times the local equivariance error.

    Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023, Fig. 5 (left).

    Args:
        model: As for :func:`differences`.
        images: (N, C, H, W), or any (N, ...) for a user's action.
        generator: A name, a mixture or an action `(x, t) -> x`.
        radius: Largest `|t|`, in the generator's unit.
        draws: Random amounts, the same for every image, one from each of so many equal parts of the interval.
        random: Source of the draws; None for seed 0.
        options: As for :func:`differences`.

    Raises:
        InputError: For input that can't be measured.

    Examples:
        >>> brightness_of = lambda x: x.mean((2, 3))
        >>> sampled_invariance(brightness_of, torch.rand(4, 3, 8, 8), "rotation", radius=0.1, output="logits").n
        4
    """
    motions = amounts(generator, draws, radius=radius, random=random)
    return differences(model, images, motions, **options).mse("sampled invariance", motions[0].generator.name)
