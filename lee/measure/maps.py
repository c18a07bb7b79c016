r"""Where in the picture: the error of an image as a sum over its pixels, exactly.

The tangent image `X·x` is local and a model's Jacobian is linear, so the Lie derivative is a sum over pixels `p`, and so is
its square:

.. math::
    L = \sum_p J_{:,p}\,(X \cdot x)(p) - X \cdot f(x), \qquad
    s(p) = \frac{\langle J_{:,p}\,(X \cdot x)(p),\; L\rangle}{\|L\|^2} = \frac{(J^\top L)(p) \cdot (X \cdot x)(p)}{\|L\|^2}.

One derivative and one backward pass give the signed shares `s` of all pixels. With that of the output's own motion, if it
moves, they sum to one. A negative share is that of a pixel whose motion cancels what others do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lee import memory
from lee.autodiff import pullback, workspace
from lee.autodiff.alternatives import MODES
from lee.errors import InputError, check_known
from lee.geometry.generators import Action, AnyGenerator, get
from lee.geometry.outputs import Representations, of_output
from lee.measure.backward import not_backward, verify_backward
from lee.measure.checks import Output, batches_of, check_input, check_output_name
from lee.measure.derivative import Model, chunks, gram_of, told_apart
from lee.measure.function import one_function
from lee.measure.pushing import Pushing
from lee.measure.shares import ErrorMap
from lee.measure.terms import Terms, sampler_of
from lee.statistics import EquivarianceGram

#: How far the pixels' sum may be from the verified total, relative to it: in double precision, and in any other, in which
#: two passes may take different sides of kinks.
EXACT, ROUGH = 1e-6, 0.01


class NoErrorToShare(InputError):
    """The Lie derivative is zero for all images, up to rounding."""


def error_map(
    model: Model,
    images: Tensor | Iterable[Any],
    generator: AnyGenerator | Sequence[AnyGenerator],
    *,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
    representations: Representations = None,
    mode: str = "auto",
    chunk: int | None = None,
    verify: bool = True,
    progress: bool = False,
) -> ErrorMap:
    r"""Which pixels hold the error of each image: exact signed shares, from one Lie derivative and one backward pass.

    Args:
        model: Any module or function of one tensor; measured in eval mode and left as it was.
        images: Images (N, C, H, W), or an iterable of such batches of one size, or of `(batch, labels, …)`.
        generator: A name such as `"rotation"`, a mixture or an action, or several of them (one backward pass each), from which
            :meth:`ErrorMap.along` mixes any other.
        output: As for :func:`lie_derivative`, and so are the other arguments.
        kernel: Interpolation kernel.
        boundary: Boundary extension.
        align_corners: Pixel convention.
        representations: How the output transforms.
        mode: How the derivative is taken; the shares need a backward pass in any case.
        chunk: Images per pass.
        verify: Whether to check the function and its derivative on the first images, and the pixels' sum on all.
        progress: Whether to show a progress bar.

    Returns:
        The map; `.share` (N, H, W) sums to 1 over the pixels of an image, with `.moved_share` for an output that moves.

    Raises:
        InputError: For input that can't be measured, images that interact in a batch, a model without a backward pass, and
            errors that are zero for all images.
        VerificationError: If no way of differentiating agrees with the function's values, or the pixels don't sum to it.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5))
        >>> found = error_map(model, torch.rand(2, 3, 8, 8), "rotation")
        >>> found.share.shape, [round(s, 3) for s in found.share.sum((1, 2)).tolist()]
        (torch.Size([2, 8, 8]), [1.0, 1.0])
        >>> found.patches(4).shape
        torch.Size([2, 2, 2])
    """
    chosen = told_apart(generator) if isinstance(generator, list | tuple) else (get(generator),)  # type: ignore[arg-type]
    if not chosen:
        raise InputError("`generator` is empty; name at least one.")
    check_output_name(output)
    check_known("mode", mode, MODES)
    name = output if isinstance(output, str) else getattr(output, "__name__", "callable")
    parts: list[_Part] = []
    total = len(images) if isinstance(images, Tensor) and images.ndim else None
    with (
        memory.kept(), one_function(model, output) as function, torch.no_grad(),
        tqdm(total=total, unit="image", disable=not progress, leave=False) as bar,
    ):  # fmt: skip
        pushing = Pushing(function, mode, verify)
        for batch in batches_of(images):
            check_input(model, batch, image=True)
            terms = Terms(pushing, chosen, sampler_of(batch, kernel, boundary, align_corners), representations)
            terms.start(batch)
            if function.interacts and chunk != 1:
                raise InputError(
                    "The images of a batch interact in this model, so no image has a map of its own; chunk=1 measures each alone."
                )
            with workspace(batch):
                for part in chunks(batch, len(chosen), pushing.chunk(chunk)):
                    parts.append(_mapped(terms, part, first=not parts))
                    bar.update(len(part))
    gram = EquivarianceGram(
        _joined([p.gram for p in parts]),
        chosen,
        kernel,
        boundary,
        align_corners,
        name,
        pushing.verification,
        terms.sampler.aspect,
    )
    if all(p.nothing for p in parts):
        raise NoErrorToShare(
            f"The Lie derivative along {', '.join(gram.basis)} is zero for all images, up to rounding: there is nothing to "
            "share out."
        )
    outputs = None if parts[0].outputs is None else _joined([p.outputs for p in parts if p.outputs is not None])
    found = _joined([p.products for p in parts])
    return ErrorMap(found, _joined([p.moved for p in parts]), gram, outputs, max(p.residual for p in parts))


@dataclass(frozen=True)
class _Part:
    """What a chunk gives, as in :class:`ErrorMap`, and whether its error is no more than rounding."""

    products: Tensor
    moved: Tensor
    gram: Tensor
    outputs: Tensor | None
    residual: float
    nothing: bool


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Along the first axis, if there is a part, and all pictures have one size."""
    if not parts:
        raise InputError("There are no images: the iterable gave no batch.")
    if any(p.shape[1:] != parts[0].shape[1:] for p in parts):
        sizes = " and ".join(dict.fromkeys(" × ".join(map(str, p.shape[-2:])) for p in parts))
        raise InputError(f"Maps need images of one size; the batches have {sizes} pixels.")
    return torch.cat(list(parts))


def _mapped(terms: Terms, x: Tensor, *, first: bool) -> _Part:
    """One chunk of images; in the `first` one the backward pass is checked beyond the motions."""
    value, lanes, moved, products = _pixels(terms, x)
    found = lanes if moved is None else lanes - moved
    gram, dim = gram_of(found), value[0].numel()
    own = torch.zeros_like(gram) if moved is None else -_paired(moved, found) / dim
    zero = _is_zero(terms.tangents(x), x) | _cancels(gram, products / dim, own, value)
    gap, limit = _gap(products, lanes, found), EXACT if x.dtype == torch.float64 else ROUGH
    odd = ~zero & (terms.doubtful | ~(gap <= limit))  # rounding has no sum
    if bool(odd.any()):
        zero[odd] = terms.nothing(x[odd.to(x.device)])
    gap, gram = gap.masked_fill(zero, 0), gram.masked_fill(zero[:, None, None], 0)
    residual = float(gap.max())
    if terms.pushing.verify and not residual <= limit:
        _verify_in_double(terms, x[int(gap.argmax())][None], residual)
    if terms.pushing.verify and first and not bool(zero.all()):
        chosen = int((~zero).nonzero()[0])
        verify_backward(terms.pushing.function, x[chosen][None], found[:, chosen][:, None])
    outputs = _over_output(terms, found, value, x)
    return _Part(_narrowed(products / dim, x.dtype), own, gram, outputs, residual, bool(zero.all()))


def _narrowed(products: Tensor, dtype: torch.dtype) -> Tensor:
    """Products (n, K, K, H, W) in the images' precision, unless squares of small or large derivatives are lost in it."""
    limits, sizes = torch.finfo(dtype), products.abs().sum((-2, -1))
    lost = (sizes > 0) & (sizes < limits.tiny / limits.eps) | (sizes > limits.max)
    return products if bool(lost.any()) else products.to(dtype)


def _is_zero(tangents: Tensor, x: Tensor) -> Tensor:
    """Which images' tangents (K, n, C, H, W) are what rounding leaves of constant images, (n,); they come in float32 or wider."""
    eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    size, whole = tangents.abs().flatten(2).amax((0, 2)), x.abs().flatten(1).amax(1)
    return (size <= 10 * eps * max(x.shape[-2:]) * whole).cpu()


def _cancels(gram: Tensor, products: Tensor, own: Tensor, value: Tensor) -> Tensor:
    """For which images the parts of every `‖L‖²` cancel down to rounding, as those of an exactly equivariant model do, (n,).

    How large the output is says nothing: a constant that is added to it changes no derivative.
    """
    parts = (products.abs().sum((-2, -1)).cpu() + own.abs()).diagonal(dim1=1, dim2=2)
    return (gram.diagonal(dim1=1, dim2=2) <= torch.finfo(value.dtype).eps ** 0.75 * parts).all(1)


def _pixels(terms: Terms, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """The output, `J·(X_a·x)`, `X_a·f(x)`, and `(Jᵀ L_b)(p)·(X_a·x)(p)`, (n, K, K, H, W)."""
    value, lanes, moved = terms(x)
    found = (lanes if moved is None else lanes - moved).to(value.dtype)
    sizes = _flat(found).abs().amax(-1)  # squares of small numbers are zero in single precision
    sizes = torch.where(sizes > 0, sizes, 1)
    pulled = pullback(terms.pushing.function, x, found / sizes.reshape(*sizes.shape, *[1] * (found.ndim - 2)))
    products = torch.einsum("anchw,bnchw->nabhw", terms.tangents(x), pulled)
    wide = products.to("cpu" if products.device.type == "mps" else products.device).double()
    products = wide * sizes.T.to(wide)[:, None, :, None, None]
    return value, lanes, moved, products


def _flat(z: Tensor) -> Tensor:
    """(K, n, ...) with one axis of entries, (K, n, d)."""
    return z.reshape(*z.shape[:2], -1)


def _paired(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of (K, n, ...) over the entries, for every pair, (n, K, K), float64; real parts of complex ones."""
    wide = torch.complex128 if a.is_complex() else torch.float64
    return torch.einsum("and,bnd->nab", _flat(a).to("cpu", wide), _flat(b).to("cpu", wide).conj()).real


def _gap(products: Tensor, lanes: Tensor, found: Tensor) -> Tensor:
    """How far sums over pixels are from `⟨J·(X_a·x), L_b⟩` of each image, relative to the factors' norms, (n,)."""
    known = _paired(lanes, found)
    sizes = [_flat(t).abs().double().norm(dim=-1).T.cpu() for t in (lanes, found)]
    scale = (sizes[0][:, :, None] * sizes[1][:, None, :]).amax((1, 2))
    gaps = (products.double().sum((-2, -1)).cpu() - known).abs().amax((1, 2))
    return torch.where(scale > 0, gaps / scale, gaps)


def _verify_in_double(terms: Terms, x: Tensor, residual: float) -> None:
    """Tell kinks that rounding puts on the other side from a backward pass that is another derivative.

    Raises:
        VerificationError: If an image's pixels don't sum to its derivative in double precision either.
    """
    if x.dtype != torch.float64 and terms.pushing.function.convertible:
        with memory.unless_refused(), terms.pushing.function.doubled():  # a model may insist on a precision of its own
            _, lanes, moved, products = _pixels(terms, x.double())
            if float(_gap(products, lanes, lanes if moved is None else lanes - moved)) <= EXACT:
                return
    raise not_backward(
        f"The pixels don't sum to the Lie derivative that was verified: relative to it they are off by {residual:.2g}."
    )


def _over_output(terms: Terms, found: Tensor, value: Tensor, x: Tensor) -> Tensor | None:
    """`⟨L_a(q), L_b(q)⟩ / C` at the places of a dense output, (n, K, K, h, w)."""
    if any(isinstance(g, Action) for g in terms.generators) and terms.representations is None and value.ndim > 2:
        return None  # what an action does to the output says nothing of places
    representation = of_output(value, x, terms.representations)
    maps = [representation.maps(part) for part in found]
    if any(m is None for m in maps):
        return None
    stacked = torch.stack([m for m in maps if m is not None])
    stacked = stacked.to("cpu") if stacked.device.type == "mps" else stacked
    # Squares may leave the range of the output's own precision.
    stacked = stacked.to(torch.complex128 if stacked.is_complex() else torch.float64)
    pairs = torch.einsum("anchw,bnchw->nabhw", stacked, stacked.conj())
    return _narrowed((pairs.real if pairs.is_complex() else pairs) / stacked.shape[2], x.dtype)
