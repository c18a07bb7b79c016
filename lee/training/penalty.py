r"""The local equivariance error as a term of the training loss, by reverse mode over one forward-mode derivative.

The penalty of a batch is the share of what tells one image's scores from another's that a motion by a pixel changes, the `R`
of :class:`EquivariancePenalty`. An error of the scores alone is lowered by smaller scores, and one of the probabilities by
saturated ones; `R` has neither way out, as it does not depend on the scores' scale or on a constant.

Along a random direction `c ~ N(0, 1)^K`, drawn anew for each image, :math:`\mathbb{E}_c \|\sum_k c_k L_k z\|^2 =
\sum_k \|L_k z\|^2`, the trace of the Gram matrix, as :math:`\mathbb{E}\,c_a c_b = \delta_{ab}`. So one tangent per image
gives an unbiased estimate of the numerator, and of its gradient, at a K-th of the cost.

A batch norm is taken in training mode, by the statistics of the images that it sees; these depend on the weights, but along
the tangent they are held fixed, because one image's motion must not reach another. Running statistics stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from lee.autodiff.functorch import load_formulas
from lee.errors import InputError, check_known
from lee.geometry.generators import Generator, get
from lee.measure.function import untouched
from lee.measure.spectrum import unit_sized
from lee.measure.terms import infinitesimal_actions, sampler_of
from lee.process.alone import alone
from lee.statistics import Estimate

#: How the sum over generators is found: along one random direction per image, or one generator after the other.
ESTIMATORS = ("random", "exact")


class _TwiceDifferentiable(TorchFunctionMode):
    """Replaces the functions whose forward-mode derivative torch lacks, gets wrong here, or can't differentiate again."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))


def _softmax(x: Tensor, dim: int | None = None, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    """Softmax out of elementary functions: torch's own derivative along a tangent overwrites what its gradient needs."""
    x = x if dtype is None else x.to(dtype)
    axis = -1 if dim is None else dim
    raised = (x - x.detach().amax(axis, keepdim=True)).exp()
    return raised / raised.sum(axis, keepdim=True)


def _log_softmax(x: Tensor, dim: int | None = None, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    """The logarithm of `_softmax`, without underflow."""
    x = x if dtype is None else x.to(dtype)
    axis = -1 if dim is None else dim
    centred = x - x.detach().amax(axis, keepdim=True)
    return centred - centred.exp().sum(axis, keepdim=True).log()


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, **_: Any,
) -> Tensor:  # fmt: skip
    """`scaled_dot_product_attention` as two products and a softmax; the fused kernels have no derivative along a tangent."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        allowed = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if allowed else scores + attn_mask
    return F.dropout(_softmax(scores), dropout_p) @ value


def _batch_norm(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """`torch.nn.functional.batch_norm` on a dual tensor; in training mode the statistics have no tangent."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    primal = forward_ad.unpack_dual(x).primal
    variance, mean = torch.var_mean(primal, [0, *range(2, x.ndim)], correction=0)
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    shape = [1, -1, *[1] * (x.ndim - 2)]
    return x * scale.view(shape) + shift.view(shape)


def _layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:  # fmt: skip
    """Layer norm out of elementary functions: torch's derivative along a tangent holds the statistics' gradient at zero."""
    variance, mean = torch.var_mean(x, [*range(-len(normalized_shape), 0)], correction=0, keepdim=True)
    out = (x - mean) * (variance + eps).rsqrt()
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _instance_norm(
    x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Instance norm likewise; running statistics, where they are used, are a batch norm's."""
    if not use_input_stats:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    shape = (-1, *[1] * (x.ndim - 2))
    scale, shift = (None if z is None else z.view(shape) for z in (weight, bias))
    return _layer_norm(x, x.shape[2:], scale, shift, eps)


_REPLACED: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
    F.scaled_dot_product_attention: _attention,
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax), _softmax),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, Tensor.log_softmax), _log_softmax),
}


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Choose operators that have a forward-mode derivative, and keep batch norms from counting the batch."""
    batches = (m.num_batches_tracked for m in model.modules() if isinstance(m, _BatchNorm))
    counters = [(counter, counter.clone()) for counter in batches if counter is not None]
    load_formulas()
    try:
        with alone(), _TwiceDifferentiable(), forward_ad.dual_level():
            yield
    finally:
        for counter, before in counters:
            counter.copy_(before)


def scores_and_derivative(model: nn.Module, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """`f(x)` and `J_f(x)·tangent`, both differentiable in the model's parameters.

    Args:
        model: In the mode that it is trained in; left as it was.
        x: Images (N, C, H, W).
        tangent: Of the same shape.

    Returns:
        Two tensors of the output's shape.

    Raises:
        InputError: If the output does not depend on the input.
    """
    with _differentiable(model):
        output = forward_ad.unpack_dual(model(forward_ad.make_dual(x.clone(), tangent.clone())))
    if output.tangent is None:
        raise InputError("The model's output does not depend on its input, so there is no equivariance to train for.")
    return output.primal, output.tangent


class EquivariancePenalty:
    r"""The local equivariance error of the scores as a term of the loss, for motions by one pixel.

    .. math::
        R = \frac{\sum_k \mathbb{E}_x \|L_k z\|^2}{\mathbb{E}_x \|z - \mathbb{E} z\|^2}

    for scores `z = f(x)`, centred over classes, and generators `X_k` that move the pixels by one pixel (root mean square over
    the image). It depends neither on the scores' scale nor on a constant added to them.

    Args:
        generators: K names of affine generators.
        estimator: `random` (one direction per image) or `exact` (all K generators, K times the work).
        kernel: As for :func:`lee.lie_derivative`.

    Raises:
        InputError: For no generators, ones that move no pixels, or an unknown estimator.

    Examples:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
        >>> penalty = EquivariancePenalty(["translation_x", "rotation"])
        >>> penalty(net, torch.rand(8, 3, 8, 8)).backward()
        >>> net[1].weight.grad.shape
        torch.Size([10, 192])
    """

    def __init__(self, generators: Sequence[str], estimator: str = "random", *, kernel: str = "fourier") -> None:
        check_known("estimator", estimator, ESTIMATORS)
        self.generators = unit_generators(generators)
        self.estimator, self.kernel = estimator, kernel

    def __call__(self, model: nn.Module, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return `R` for images (N, C, H, W) with N ≥ 2, a scalar with a gradient.

        Args:
            model: Images in, class scores (N, classes) out; in the mode that it is trained in.
            images: Those that move, (N, C, H, W).
            generator: Of the directions, on the CPU; None for torch's own.

        Raises:
            InputError: For fewer than two images.
        """
        scores, moved = self.terms(model, images, generator)
        return moved.square().sum(-1).mean(0) / (scores - scores.mean(0)).square().sum(-1).mean()

    def terms(
        self, model: nn.Module, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The centred scores (N, classes), and derivatives whose squares, summed over the last axis, estimate the trace.

        The second has shape (N, classes) along random directions and (N, K · classes) exactly.

        Args:
            model: In the mode that it is trained in.
            images: (N, C, H, W) with N ≥ 2.
            generator: Of the directions, on the CPU; None for torch's own.

        Raises:
            InputError: For fewer than two images.
        """
        k, n = len(self.generators), len(images)
        if n < 2:
            raise InputError(f"A penalty compares images with each other: give 2 or more, not {n}.")
        pixel = 2 / min(images.shape[-2:])
        with torch.no_grad():
            sampler = sampler_of(images, self.kernel, "reflect", False)
            tangents = pixel * infinitesimal_actions(self.generators, images, sampler)
            if self.estimator == "random":
                directions = torch.randn(k, n, generator=generator).to(tangents)
                x, tangent = images, torch.einsum("kn,kn...->n...", directions, tangents)
            else:
                x, tangent = images.repeat(k, 1, 1, 1), tangents.flatten(0, 1)
        scores, moved = (_centred(z) for z in scores_and_derivative(model, x, tangent))
        if self.estimator == "random":
            return scores, moved
        return scores[:n], moved.unflatten(0, (k, n)).transpose(0, 1).flatten(1)


def moved_share(
    model: nn.Module, images: Tensor, generators: Sequence[str], *, chunk: int = 50, kernel: str = "fourier"
) -> Estimate:
    """The penalty `R`, exactly, in eval mode, with its standard error over images: that of a ratio of means, to first order.

    Args:
        model: a classifier, (N, classes) scores.
        images: (N, C, H, W), 2 or more.
        generators: K names.
        chunk: images per pass.
        kernel: interpolation kernel.

    Raises:
        InputError: scores or derivatives that are not finite.
    """
    penalty = EquivariancePenalty(generators, "exact", kernel=kernel)
    with untouched(model), torch.no_grad():
        # A single image goes with a copy of itself: a penalty wants two.
        parts = [
            (part, penalty.terms(model, part.expand(max(2, len(part)), -1, -1, -1))) for part in images.split(chunk)
        ]
    scores, moved = (torch.cat([found[i][: len(part)] for part, found in parts]).double() for i in (0, 1))
    if not bool(torch.isfinite(scores).all() & torch.isfinite(moved).all()):
        raise InputError("The model's scores or their derivatives hold NaN or infinity: there is no share.")
    squares, spread = moved.square().sum(-1), (scores - scores.mean(0)).square().sum(-1)
    share = squares.mean() / spread.mean()
    rest = Estimate.of((squares - share * spread) / spread.mean(), unit="per pixel²", kernel=kernel, name="moved share")
    return rest._replace(value=float(share))


def unit_generators(names: Sequence[str]) -> tuple[Generator, ...]:
    """Generators that displace the points of a square image by one half side, root mean square."""
    chosen = [get(name) for name in names]
    if not chosen:
        raise InputError("A penalty needs at least one generator, such as 'rotation'.")
    return tuple(unit_sized(g) for g in chosen if isinstance(g, Generator))


def _centred(scores: Tensor) -> Tensor:
    """Scores (N, classes) without what adding a constant to all of them would change."""
    scores = scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores
    return scores - scores.mean(-1, keepdim=True)
