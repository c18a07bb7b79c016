r"""Lie derivatives of any torch model, along many generators at once, and the local equivariance error.

.. math::
    L_X f(x) = \frac{d}{dt}\Big|_{0} \rho_{out}(g_t^{-1})\, f(\rho_{in}(g_t)\, x) = J_f(x)\,(X \cdot x) - X \cdot f(x),
    \qquad LEE_X(f) = \mathbb{E}_x \|L_X f(x)\|^2 / \dim V_{out}.

The terms are computed in :mod:`lee.measure.terms`, and checked against the function's own values in
:mod:`lee.measure.verification`.

Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023 (definitions of the Lie derivative and of LEE).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lee import memory
from lee.autodiff import workspace
from lee.autodiff.alternatives import MODES
from lee.errors import InputError, check_count, check_known
from lee.geometry.generators import AFFINE, PHOTOMETRIC, Action, AnyGenerator, Generator, get
from lee.geometry.outputs import Representations
from lee.measure.checks import Output, batches_of, check_input, check_model, check_output_name, count_of
from lee.measure.function import one_function
from lee.measure.precision import lowering
from lee.measure.pushing import Pushing
from lee.measure.terms import Terms, sampler_of
from lee.statistics import EquivarianceGram, Estimate, concatenate

Model = Callable[[Tensor], Any]


def automatic_chunk(x: Tensor, k: int) -> int:
    """Images per stacked pass with K tangents: few on a CPU, where large activations cost page faults, more on a GPU."""
    budget = 2.2e6 if x.device.type == "cpu" else 3.5e7  # numbers in the stacked input
    return max(1, round(budget / ((1 + k) * x[0].numel())))


def chunks(x: Tensor, k: int, chunk: int | None) -> Iterator[Tensor]:
    """Images (N, ...) in parts of `chunk`, or of :func:`automatic_chunk` for K tangents."""
    if chunk is not None:
        check_count("chunk", chunk)
    yield from x.split(chunk or automatic_chunk(x, k))


def _derivatives(terms: Terms, part: Tensor) -> Tensor:
    """`L_k f(x)` of one chunk.

    Raises:
        InputError: If there is no memory for it; with the chunk to try.
    """
    try:
        return terms.derivatives(part)
    except Exception as error:
        if not memory.is_shortage(error):
            raise
        n = len(part)
        advice = f"Try chunk={n // 2}" if n > 1 else "Use smaller images, or fewer generators at once"
        raise InputError(f"Memory ran out with {n} image{'s' * (n > 1)} per pass. {advice}.") from error


def lie_derivative(
    model: Model,
    x: Tensor,
    generator: AnyGenerator,
    *,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
    representations: Representations = None,
    mode: str = "auto",
    chunk: int | None = None,
    verify: bool = True,
    precision: str = "own",
) -> Tensor:
    r"""The Lie derivative :math:`L_X f(x) = J_f(x)\,(X \cdot x) - X \cdot f(x)`, as the paper defines it.

    Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023 (definition of the Lie derivative).

    Args:
        model: Any module or function of one tensor; measured in eval mode and left as it was.
        x: Images (N, C, H, W), floating point; for a user's action any (N, ...).
        generator: A name such as `"rotation"`, a mixture such as `0.3 * lee.ROTATION + lee.SCALE`, or an action
            `(x, t) -> x`.
        output: `"probabilities"` (softmax over (N, K) scores), `"logits"` (the output itself), or a callable on it.
        kernel: Interpolation kernel, one of :data:`lee.geometry.KERNELS`.
        boundary: `"reflect"` or `"circular"`.
        align_corners: Pixel convention, see :class:`lee.Sampler`.
        representations: How the output transforms where its shape leaves that open.
        mode: `"auto"` differentiates forward, and goes on to backward passes and to central differences where the derivative
            can't be had or disagrees with the function's values; `"forward"` and `"reverse"` (both exact) and
            `"differences"` insist.
        chunk: Images per pass; None chooses by size.
        verify: Whether to check, on the first images, that the model is one function and that the derivative is that of
            its values; costs at most some twenty forward passes of one image.
        precision: `"own"`, that of model and images (a `torch.autocast` around the call is off meanwhile); `"bfloat16"`, `"tf32"`
            (GPUs) and `"auto"` (bfloat16 where the device is fast in it) push in less if that changes the first images' mean
            squares by at most 3 %; `verification` says so.

    Returns:
        A tensor of the selected output's shape, per unit of the generator's parameter; its attribute `verification` says
        what was checked and how well.

    Raises:
        InputError: For input that can't be measured; the message says why.
        VerificationError: If no way of differentiating agrees with the function's values.

    Examples:
        >>> brightness_of = lambda x: x.mean((2, 3))
        >>> x = torch.rand(1, 3, 8, 8)
        >>> d = lie_derivative(brightness_of, x, "brightness", output="logits")
        >>> torch.allclose(d, brightness_of(x))
        True
    """
    resolved = get(generator)
    check_output_name(output)
    check_known("mode", mode, MODES)
    check_input(model, x, image=isinstance(resolved, Generator))
    with memory.kept(), one_function(model, output) as function, torch.no_grad():
        pushing = Pushing(function, mode, verify, lowering(precision, x))
        terms = Terms(pushing, [resolved], sampler_of(x, kernel, boundary, align_corners), representations)
        terms.start(x)
        with workspace(x):
            parts = [_derivatives(terms, part)[0] for part in chunks(x, 1, pushing.chunk(chunk))]
    found = torch.cat(parts)
    narrow = found.to(x.dtype) if found.dtype == torch.float64 else found  # differences of converted modules
    found = narrow if bool(torch.isfinite(narrow).all()) else found  # the images' precision may not hold them
    found.verification = pushing.verification  # type: ignore[attr-defined]
    return found


def default_generators(x: Tensor) -> tuple[Generator, ...]:
    """The six affine generators and the photometric ones that images `x` (N, C, H, W) have (saturation needs RGB)."""
    return AFFINE + (PHOTOMETRIC if x.shape[1] == 3 else PHOTOMETRIC[:2])


def told_apart(generators: Sequence[AnyGenerator]) -> tuple[Generator | Action, ...]:
    """The generators; of several with one name, as lambdas are, the second and later are counted."""
    if isinstance(generators, str) or not isinstance(generators, Iterable):
        raise InputError(f"`generators` must be a list of them, such as [{generators!r}], not one alone.")
    chosen = [get(g) for g in generators]
    names = [g.name for g in chosen]
    counts = [names[:i].count(name) + 1 for i, name in enumerate(names)]
    differ = [g not in chosen[:i] for i, g in enumerate(chosen)]
    return tuple(
        replace(g, name=f"{g.name} ({count})") if count > 1 and new else g
        for g, count, new in zip(chosen, counts, differ, strict=True)
    )


def gram_of(derivatives: Tensor) -> Tensor:
    """Inner products of (K, N, ...) over the output, divided by its dimension: (N, K, K), float64; real parts of complex ones."""
    flat = derivatives.flatten(2) if derivatives.ndim > 2 else derivatives[..., None]
    dim = flat.shape[-1]
    flat = torch.view_as_real(flat).flatten(2) if flat.is_complex() else flat
    wide = flat.to("cpu" if flat.device.type == "mps" else flat.device).double()
    return torch.einsum("and,bnd->nab", wide, wide).cpu() / dim


def equivariance_gram(
    model: Model,
    images: Tensor | Iterable[Any],
    *,
    generators: Sequence[AnyGenerator] | None = None,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
    representations: Representations = None,
    mode: str = "auto",
    chunk: int | None = None,
    verify: bool = True,
    precision: str = "own",
    progress: bool = True,
) -> EquivarianceGram:
    """Inner products of the Lie derivatives along several generators, per image, from one primal pass.

    Args:
        model: As for :func:`lie_derivative`.
        images: A tensor (N, C, H, W), or an iterable of such batches, or of `(batch, labels, …)`.
        generators: Names, mixtures or actions; None for the six affine ones, brightness, contrast and, for RGB images, saturation.
        output: As for :func:`lie_derivative`, and so are the other arguments.
        kernel: Interpolation kernel.
        boundary: Boundary extension.
        align_corners: Pixel convention.
        representations: How the output transforms.
        mode: How the model is differentiated.
        chunk: Images per pass.
        verify: Whether to check the function and its derivative on the first images.
        precision: What tangents are pushed in, see :func:`lie_derivative`.
        progress: Whether to show a progress bar.

    Returns:
        The Gram matrices; `.lee(generator)` of any combination of the generators. `.verification` says what was checked.

    Raises:
        InputError: For input that can't be measured, and for no images at all.
        VerificationError: If no way of differentiating agrees with the function's values.
    """
    check_model(model)
    check_output_name(output)
    check_known("mode", mode, MODES)
    chosen = told_apart(generators) if generators is not None else None
    if chosen is not None and not chosen:
        raise InputError("`generators` is empty; name at least one, or pass None for the default ones.")
    grams: list[EquivarianceGram] = []
    name = output if isinstance(output, str) else getattr(output, "__name__", "callable")
    total = count_of(images)
    with (
        memory.kept(),
        one_function(model, output) as function,
        torch.no_grad(),
        tqdm(total=total, unit="image", disable=not progress, leave=False) as bar,
    ):
        pushing = Pushing(function, mode, verify)
        for batch in batches_of(images):
            check_input(model, batch, image=chosen is None or any(isinstance(g, Generator) for g in chosen))
            used = chosen or default_generators(batch)
            if not grams:
                pushing.lowering = lowering(precision, batch)
            terms = Terms(pushing, used, sampler_of(batch, kernel, boundary, align_corners), representations)
            terms.start(batch)
            with workspace(batch):
                for part in chunks(batch, len(used), pushing.chunk(chunk)):
                    gram = gram_of(_derivatives(terms, part))
                    aspect = terms.sampler.aspect
                    grams.append(EquivarianceGram(gram, used, kernel, boundary, align_corners, name, aspect=aspect))
                    bar.update(len(part))
    if not grams:
        raise InputError("There are no images: the iterable gave no batch.")
    return replace(concatenate(grams), verification=pushing.verification)  # as later images may have changed it


def local_equivariance_error(
    model: Model,
    images: Tensor | Iterable[Any],
    generator: AnyGenerator,
    *,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
    representations: Representations = None,
    mode: str = "auto",
    chunk: int | None = None,
    verify: bool = True,
    precision: str = "own",
    progress: bool = True,
) -> Estimate:
    r"""The local equivariance error :math:`E_x \|L_X f(x)\|^2 / \dim V_{out}` of the paper, with its standard error.

    Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023 (definition of LEE).

    Args:
        model: Any module or function of one tensor; measured in eval mode and left as it was.
        images: A tensor (N, C, H, W), or an iterable of such batches, or of `(batch, labels, …)`.
        generator: A name such as `"rotation"`, a mixture, or an action `(x, t) -> x`.
        output: `"probabilities"` (softmax over (N, K) scores), `"logits"` (the output itself), or a callable on it.
        kernel: Interpolation kernel, one of :data:`lee.geometry.KERNELS`.
        boundary: `"reflect"` or `"circular"`.
        align_corners: Pixel convention, see :class:`lee.Sampler`.
        representations: How the output transforms where its shape leaves that open.
        mode: How the model is differentiated, see :func:`lie_derivative`.
        chunk: Images per pass; None chooses by size.
        verify: Whether to check the function and its derivative on the first images.
        precision: What tangents are pushed in, see :func:`lie_derivative`.
        progress: Whether to show a progress bar.

    Returns:
        The mean over images and outputs, per squared unit of the generator, with its standard error over images.

    Raises:
        InputError: For input that can't be measured, and for no images at all.
        VerificationError: If no way of differentiating agrees with the function's values.
    """
    gram = equivariance_gram(
        model, images, generators=[generator], output=output, kernel=kernel, boundary=boundary, align_corners=align_corners,
        representations=representations, mode=mode, chunk=chunk, verify=verify, precision=precision,
        progress=progress,
    )  # fmt: skip
    return gram.lee(gram.generators[0])
