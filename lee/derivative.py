r"""Lie derivatives of any torch model, along many generators at once, and the local equivariance error.

.. math::
    L_X f(x) = \frac{d}{dt}\Big|_{0} \rho_{out}(g_t^{-1})\, f(\rho_{in}(g_t)\, x) = J_f(x)\,(X \cdot x) - X \cdot f(x),
    \qquad LEE_X(f) = \mathbb{E}_x \|L_X f(x)\|^2 / \dim V_{out}.

No warp is differentiated: one spatial gradient of the image gives all the tangents `X_k·x`, and one stacked forward pass
(:mod:`lee.stacked`) pushes them through the model.

Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023 (definitions of the Lie derivative and of LEE).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lee import memory
from lee.errors import ConstantOutputWarning, InputError
from lee.generators import AFFINE, PHOTOMETRIC, Action, AnyGenerator, Generator, get
from lee.measuring import Output, check_input, check_output_name, plain, select, untouched
from lee.representations import Image, Representations, Trivial, of_output
from lee.sampling import Sampler
from lee.stacked import check_mode, load_formulas, pushed, workspace
from lee.statistics import EquivarianceGram, Estimate, concatenate

Model = Callable[[Tensor], Any]


def sampler_of(x: Tensor, kernel: str, boundary: str, align_corners: bool) -> Sampler:
    """The sampler of inputs `x` (N, ...), with the field of view of images."""
    sampler = Sampler(kernel, boundary, align_corners)
    return sampler.for_image(*x.shape[-2:]) if x.ndim == 4 else sampler


def _velocity(action: Callable[[Tensor, Tensor], Tensor], z: Tensor) -> Tensor:
    """`d/dt|₀ action(z, t)`, same shape as `z`."""
    load_formulas()
    zero = torch.zeros((), dtype=z.dtype, device=z.device)
    value, velocity = torch.func.jvp(lambda t: action(z, t), (zero,), (torch.ones_like(zero),))[:2]
    if value.shape != z.shape:
        raise InputError(
            f"An action (x, t) -> x must keep the shape {tuple(z.shape)}; it returned {tuple(value.shape)}."
        )
    return velocity.detach()


def infinitesimal_actions(generators: Sequence[Generator | Action], x: Tensor, sampler: Sampler) -> Tensor:
    """`X_k·x` of K generators on a batch of inputs (N, ...): shape (K, N, ...)."""
    named = [g for g in generators if isinstance(g, Generator)]
    moved = iter(Image().infinitesimal(named, x, sampler)) if named else iter(())
    return torch.stack([next(moved) if isinstance(g, Generator) else _velocity(g.function, x) for g in generators])


def _actions_on_output(
    generators: Sequence[Generator | Action], z: Tensor, x: Tensor, sampler: Sampler, given: Representations
) -> Tensor | None:
    """`X_k·f(x)`: shape (K, N, ...); None where every one is zero."""
    named = [g for g in generators if isinstance(g, Generator)]
    representation = of_output(z, x, given) if named else Trivial()
    if isinstance(representation, Trivial) and all(not isinstance(g, Action) or g.output is None for g in generators):
        return None
    moved = iter(representation.infinitesimal(named, z, sampler)) if named else iter(())
    parts = []
    for generator in generators:
        if isinstance(generator, Generator):
            parts.append(next(moved))
        else:
            parts.append(torch.zeros_like(z) if generator.output is None else _velocity(generator.output, z))
    return torch.stack(parts)


def terms_of(
    model: Model, x: Tensor, generators: Sequence[Generator | Action], output: Output, sampler: Sampler, given: Representations,
    mode: str = "auto",
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """The output of one chunk, and the two terms `J_f(x)·(X_k·x)` and `X_k·f(x)` of its Lie derivatives.

    Returns:
        The output (N, ...), then (K, N, ...) each; the last is None where it vanishes.
    """
    tangents = infinitesimal_actions(generators, x, sampler)
    value, lanes = pushed(lambda z: select(model(z), output), x, tangents, mode)
    if lanes is None:
        raise InputError(
            "The model's output does not depend on its input, so there is no derivative to measure. If it does so by ways "
            "that torch can't follow (NumPy, detach), use mode='differences'."
        )
    if value.ndim == 0 or len(value) != len(x):
        raise InputError(
            f"The output must have one entry per input along its first axis; {len(x)} inputs gave shape {tuple(value.shape)}."
        )
    if not bool(lanes.any()) and bool(tangents.any()):
        _warn_if_constant(lambda z: select(model(z), output), x, mode)
    return value, lanes, _actions_on_output(generators, value, x, sampler, given)


def _derivatives(
    model: Model, x: Tensor, generators: Sequence[Generator | Action], output: Output, sampler: Sampler, given: Representations,
    mode: str,
) -> Tensor:  # fmt: skip
    """`L_k f(x)` of one chunk: shape (K, N, ...)."""
    _, lanes, moved = terms_of(model, x, generators, output, sampler, given, mode)
    return lanes if moved is None else lanes - moved


def _warn_if_constant(function: Model, x: Tensor, mode: str) -> None:
    """Tell an exactly invariant model from one that ignores its input, by its derivative in a random direction."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    lanes = pushed(function, x, direction[None], mode)[1]
    if lanes is None or not bool(lanes.any()):
        warnings.warn(
            "The model's output does not change in any direction around these inputs: it ignores them or is saturated. "
            "The zero is no evidence of learned equivariance.",
            ConstantOutputWarning,
            stacklevel=5,
        )


def automatic_chunk(x: Tensor, k: int) -> int:
    """Images per stacked pass with K tangents: few on a CPU, where large activations cost page faults, more on a GPU."""
    budget = 2.2e6 if x.device.type == "cpu" else 3.5e7  # numbers in the stacked input
    return max(1, round(budget / ((1 + k) * x[0].numel())))


def _chunks(x: Tensor, k: int, chunk: int | None) -> Iterator[Tensor]:
    if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
        raise InputError(f"`chunk` must be a positive number of images, not {chunk!r}.")
    yield from x.split(chunk or automatic_chunk(x, k))


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
) -> Tensor:
    r"""The Lie derivative :math:`L_X f(x) = J_f(x)\,(X \cdot x) - X \cdot f(x)`, as the paper defines it.

    Args:
        model: Any module or function of one tensor; measured in eval mode and left as it was.
        x: Images (N, C, H, W), floating point; for a user's action any (N, ...).
        generator: A name such as `"rotation"`, a mixture such as `0.3 * lee.ROTATION + lee.SCALE`, or an action
            `(x, t) -> x`.
        output: `"probabilities"` (softmax over (N, K) scores), `"logits"` (the output itself), or a callable on it.
        kernel: Interpolation kernel, see :mod:`lee.sampling`.
        boundary: `"reflect"` or `"circular"`.
        align_corners: Pixel convention, see :class:`lee.Sampler`.
        representations: How the output transforms where its shape leaves that open.
        mode: `"auto"` differentiates forward, and by backward passes where torch has no forward-mode derivative of something
            in the model; `"forward"` and `"reverse"` insist. All are exact. `"differences"` takes central differences of the
            model, for one that torch can't differentiate; measure in double precision then.
        chunk: Images per pass; None chooses by size.

    Returns:
        A tensor of the selected output's shape, per unit of the generator's parameter.

    Raises:
        InputError: For input that can't be measured; the message says why.

    Examples:
        >>> brightness_of = lambda x: x.mean((2, 3))
        >>> x = torch.rand(1, 3, 8, 8)
        >>> d = lie_derivative(brightness_of, x, "brightness", output="logits")
        >>> torch.allclose(d, brightness_of(x))
        True
    """
    resolved = get(generator)
    check_output_name(output)
    check_mode(mode)
    check_input(model, x, image=isinstance(resolved, Generator))
    sampler, inner = sampler_of(x, kernel, boundary, align_corners), plain(model)
    with untouched(inner), memory.kept(), torch.no_grad(), workspace(x):
        parts = [
            _derivatives(inner, part, [resolved], output, sampler, representations, mode)[0]
            for part in _chunks(x, 1, chunk)
        ]
    return torch.cat(parts)


def default_generators(x: Tensor) -> tuple[Generator, ...]:
    """The six affine generators and the photometric ones that images `x` (N, C, H, W) have (saturation needs RGB)."""
    return AFFINE + (PHOTOMETRIC if x.shape[1] == 3 else PHOTOMETRIC[:2])


def batches_of(images: Tensor | Iterable[Any]) -> Iterator[Tensor]:
    """Batches of inputs, from a tensor or an iterable of tensors or of (inputs, labels, …)."""
    if isinstance(images, Tensor):
        yield images
        return
    if not isinstance(images, Iterable):
        raise InputError(f"Images must be a tensor or an iterable of batches, not {type(images).__name__}.")
    for batch in images:
        yield batch[0] if isinstance(batch, tuple | list) and batch else batch


def _gram(derivatives: Tensor) -> Tensor:
    """Inner products of (K, N, ...) over the output, divided by its dimension: (N, K, K), float64."""
    flat = derivatives.flatten(2) if derivatives.ndim > 2 else derivatives[..., None]
    wide = flat.to("cpu" if flat.device.type == "mps" else flat.device).double()
    return torch.einsum("and,bnd->nab", wide, wide).cpu() / wide.shape[-1]


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
    progress: bool = True,
) -> EquivarianceGram:
    """Inner products of the Lie derivatives along several generators, per image, from one primal pass.

    Args:
        model: As for :func:`lie_derivative`.
        images: A tensor (N, C, H, W), or an iterable of such batches, or of `(batch, labels, …)`.
        generators: Names, mixtures or actions; None for the six affine ones, brightness, contrast and saturation.
        output: As for :func:`lie_derivative`, and so are the other arguments.
        kernel: Interpolation kernel.
        boundary: Boundary extension.
        align_corners: Pixel convention.
        representations: How the output transforms.
        mode: How the model is differentiated.
        chunk: Images per pass.
        progress: Whether to show a progress bar.

    Returns:
        The Gram matrices; `.lee(generator)` of any combination of the generators.

    Raises:
        InputError: For input that can't be measured, and for no images at all.
    """
    check_output_name(output)
    check_mode(mode)
    chosen = tuple(get(g) for g in generators) if generators is not None else None
    if chosen is not None and not chosen:
        raise InputError("`generators` is empty; name at least one, or pass None for the default ones.")
    inner, grams = plain(model), []
    total = len(images) if isinstance(images, Tensor) and images.ndim else None
    with (
        untouched(inner),
        memory.kept(),
        torch.no_grad(),
        tqdm(total=total, unit="image", disable=not progress, leave=False) as bar,
    ):
        for batch in batches_of(images):
            check_input(model, batch, image=chosen is None or any(isinstance(g, Generator) for g in chosen))
            used = chosen or default_generators(batch)
            sampler = sampler_of(batch, kernel, boundary, align_corners)
            with workspace(batch):
                for part in _chunks(batch, len(used), chunk):
                    lanes = _derivatives(inner, part, used, output, sampler, representations, mode)
                    name = output if isinstance(output, str) else getattr(output, "__name__", "callable")
                    grams.append(EquivarianceGram(_gram(lanes), used, kernel, boundary, align_corners, name))
                    bar.update(len(part))
    if not grams:
        raise InputError("There are no images: the iterable gave no batch.")
    return concatenate(grams)


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
    progress: bool = True,
) -> Estimate:
    r"""The local equivariance error :math:`E_x \|L_X f(x)\|^2 / \dim V_{out}` of the paper, with its standard error.

    Arguments as for :func:`equivariance_gram`, for one generator.
    """
    gram = equivariance_gram(
        model, images, generators=[generator], output=output, kernel=kernel, boundary=boundary, align_corners=align_corners,
        representations=representations, mode=mode, chunk=chunk, progress=progress,
    )  # fmt: skip
    return gram.lee(gram.generators[0])
