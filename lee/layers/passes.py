"""One pass of images: local derivatives, the total, and the terms pushed to the output."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lee.autodiff import ForwardModeError
from lee.errors import InputError
from lee.geometry.generators import Generator
from lee.geometry.sampling import Sampler
from lee.layers.decomposition import Moments, summed_up, taken_apart
from lee.layers.deflation import Deflation, Directions
from lee.layers.forward import push
from lee.layers.local import ForwardError, locals_of
from lee.layers.primals import Primals
from lee.layers.reverse import BackwardError, Bumps
from lee.layers.trace import Traced
from lee.measure.terms import Terms


@dataclass(frozen=True)
class Setting:
    """What stays the same from pass to pass.

    Args:
        model: In eval mode.
        generator: The generator.
        sampler: Kernel, boundary and pixel convention, with the images' field of view.
        terms: The two terms of the whole function, which were verified.
        mode: One of `"auto"`, `"forward"`, `"reverse"`, `"deflated"`, `"probes"`.
        probes: Random directions per image in mode `"probes"`.
        deflation: How many directions mode `"deflated"` takes; None where it can't be taken.
        random: Where probes come from.
        found: The traced calls.
        parents: Nearest measured call around each; -1 for the model, -2 for calls that are not measured.
    """

    model: nn.Module
    generator: Generator
    sampler: Sampler
    terms: Terms
    mode: str
    probes: int
    deflation: Deflation | None
    random: torch.Generator
    found: list[Traced]
    parents: list[int]


@dataclass(frozen=True)
class Pass:
    """What one pass gave.

    Args:
        moments: Per-image sums.
        gap: `‖e‖²/dim` of every image, (n,), or an estimate of it, `e` the difference of the sum of all terms from the total.
        mode: How the terms were pushed.
        rounding: What of `gap` is rounding.
        deflation: For the images to come.
    """

    moments: Moments
    gap: Tensor
    mode: str
    rounding: float
    deflation: Deflation | None

    @property
    def relative_gap(self) -> float:
        """How far the parts' sum is from the total, relative to it or to the largest part, if these are more than rounding."""
        size = max(float(self.moments.total.mean()), float(self.moments.norm2.mean(0).max()), self.rounding)
        return (float(self.gap.mean()) / size) ** 0.5 if size > 0 else 0.0


def measure_pass(setting: Setting, x: Tensor, lanes: int) -> Pass:
    """Decompose images `x` (N, C, H, W) in one go, with at most `lanes` calls per stacked pass.

    Raises:
        InputError: For images in half precision, a mode that the model can't be differentiated in, and as
            :func:`lee.lie_derivative`.
    """
    if torch.finfo(x.dtype).eps > 1e-5:
        raise InputError(
            f"A decomposition subtracts large terms, of which {x.dtype} leaves nothing. Decompose in single precision: "
            "layerwise(model.float(), images.float(), …)."
        )
    primals = Primals(setting.model, setting.terms.pushing.function, x, setting.found)
    with primals.held():
        value, moving, moved = setting.terms(x)
    if value.is_complex():
        raise InputError("The output is complex; a decomposition needs a real one, such as output=torch.view_as_real.")
    total = _Total(value, _flat(moving[0]), _flat(torch.zeros_like(value) if moved is None else moved[0]))
    directions = None
    if setting.deflation is not None and setting.mode in ("auto", "deflated"):
        directions = setting.deflation.directions(_flat(value), total.moving - total.moved)
    terms = _terms(setting, x, total, primals, lanes, directions)
    whole = terms.whole[0] if terms.variance is None else (total.moving - total.moved) / total.moving.shape[1] ** 0.5
    moments = Moments.of(terms.whole, terms.own, whole.square().sum(-1), len(setting.found), terms.variance)
    rounding = torch.finfo(x.dtype).eps ** 1.5 * float(_movable(setting, value).square().mean())
    deflation, taken = setting.deflation, directions if terms.mode == "deflated" else None
    if deflation is not None:
        deflation = deflation.after(total.moving - total.moved, taken)
    return Pass(moments, terms.gap.square().sum(-1), terms.mode, rounding, deflation)


@dataclass(frozen=True)
class _Total:
    """The model's output, and for each image coordinates (n, dim): `J·(X·x)` and `X·f(x)`."""

    value: Tensor
    moving: Tensor
    moved: Tensor

    @property
    def scale(self) -> float:
        """What coordinates are multiplied by, so that their squares sum to a squared norm per dimension."""
        return self.moving.shape[1] ** -0.5


@dataclass(frozen=True)
class _Terms:
    """Coordinates (n, C) of what each call contributes, as a whole and by itself; calls that contribute nothing may be missing.

    `gap` has those of the difference from the total, and `variance` gives that of an estimated square (see :class:`Moments`).
    """

    whole: dict[int, Tensor]
    own: dict[int, Tensor]
    gap: Tensor
    mode: str
    variance: Callable[[Tensor], Tensor] | None = None


def _terms(
    setting: Setting, x: Tensor, total: _Total, primals: Primals, lanes: int, directions: Directions | None
) -> _Terms:
    """In the mode that was asked for; in `"auto"`, in an exact one where the cheapest one fails."""
    reasons = []
    for mode in _modes(setting, total.moving.shape[1], directions):
        try:
            if mode == "forward":
                return _forward(setting, x, total, primals, lanes)
            return _reverse(setting, x, total, mode, directions)
        except (BackwardError, ForwardError, ForwardModeError) as error:
            reasons.append(f"mode={mode!r} can't be used with this model: {error}")
    advice = "" if setting.mode == "auto" else f" Use mode={'reverse' if setting.mode == 'forward' else 'forward'!r}."
    raise InputError(" ".join(reasons) + advice)


def _modes(setting: Setting, dim: int, directions: Directions | None) -> list[str]:
    """The mode that was asked for; for `"auto"` the cheapest first. Backward passes need images that don't interact.

    In forward passes, one backward pass costs two, and the graph of all of them eight; about two calls in five need a lane, over
    half a pass each. What is exact is given up where an estimate takes half as long.
    """
    if setting.mode != "auto":
        return [setting.mode]
    if setting.terms.pushing.function.interacts:
        return ["forward"]
    reverse, forward = 2 * dim, 10 + 0.4 * len(setting.found)
    modes = ["reverse", "forward"] if reverse < forward else ["forward", "reverse"]
    cheap = directions is not None and 8 + 2 * directions.passes < min(8 + reverse, forward) / 2
    return ["deflated", *modes] if cheap else modes


def _forward(setting: Setting, x: Tensor, total: _Total, primals: Primals, lanes: int) -> _Terms:
    """Own terms pushed one by one; those of containers are their sums.

    Raises:
        ForwardError: If a stacked pass fails.
    """
    found, parents, run = setting.found, setting.parents, setting.terms.pushing.function
    local, unexplained = locals_of(setting.model, run, x, found, parents, setting.generator, setting.sampler, primals)
    own = {0: _flat(unexplained) - total.moved}
    if local:
        values = push(setting.model, run, x, local, found, primals, lanes).reshape(len(local), len(x), -1)
        own.update(zip(local, values.double().cpu(), strict=True))
    own = {m: v * total.scale for m, v in own.items()}
    whole = summed_up(own, parents)
    gap = whole[0] - (total.moving - total.moved) * total.scale
    return _Terms(whole, own, gap, "forward")


def _reverse(setting: Setting, x: Tensor, total: _Total, mode: str, directions: Directions | None) -> _Terms:
    """By one backward pass per output dimension, direction or probe.

    Raises:
        BackwardError: If the model has no backward pass, or one that contradicts its forward pass.
    """
    if any(p.is_inference() for p in setting.model.parameters()):
        raise BackwardError("its weights were made in torch.inference_mode.")
    graph = Bumps(setting.model, setting.terms.pushing.function, x, setting.found, setting.generator, setting.sampler)
    eps, size = torch.finfo(graph.y.dtype).eps, float(total.value.abs().max())
    if not torch.allclose(graph.y, total.value, rtol=eps**0.5, atol=eps**0.5 * size):
        raise BackwardError("a module writes into its input and its result is not used.")
    cotangents: Iterable[Tensor] = graph.every_output()
    rows, scale, variance = None, total.moving.new_tensor([total.scale]), None
    if mode == "deflated":
        assert directions is not None
        rows, scale = directions.rows(setting.random), directions.weights.sqrt() * total.scale
        variance = _gaussian(directions.probes)
    elif mode == "probes":
        n, dim = total.moving.shape  # image by image, so that no chunk changes what an image's probes are
        signs = torch.randint(0, 2, (n, setting.probes, dim), generator=setting.random) * 2 - 1
        rows, scale = signs.mT, scale / setting.probes**0.5
        variance = _sampled
    if rows is not None:
        rows = rows.to(graph.y.dtype).double()
        cotangents = (row.reshape(graph.y.shape).to(graph.y) for row in rows.unbind(-1))
    values = graph.pulled_back(cotangents).double().cpu() * scale
    moving, moved = (
        (t if rows is None else torch.einsum("nc,nck->nk", t, rows)) * scale for t in (total.moving, total.moved)
    )
    gap = values[-1] - moving
    # Some per cent, for kinks that rounding puts on the other side; where the derivative vanishes, what cancels in it.
    kinks = 0.01 if graph.y.dtype == torch.float64 else 0.1
    flat = eps**0.75 * float(_movable(setting, graph.y.detach()).norm())
    if float(gap.norm()) > total.scale * (kinks * float(total.moving.norm()) + flat):
        raise BackwardError(
            "its backward pass is not the derivative of its forward pass (a detach, no_grad or checkpoint inside?)."
        )
    whole = {0: values[-1] - moved, **dict(zip(graph.calls, values, strict=False))}
    return _Terms(whole, taken_apart(whole, setting.parents), gap, mode, variance)


def _movable(setting: Setting, y: Tensor) -> Tensor:
    """The scale on which a derivative of outputs is rounding, float64: a probability near 0 or 1 hardly moves."""
    wide = y.double() if y.device.type != "mps" else y.cpu().double()
    return wide * (1 - wide) if setting.terms.pushing.function.output == "probabilities" else wide


def _gaussian(probes: int) -> Callable[[Tensor], Tensor]:
    """Variance of the mean of the squares of normal variables, from these alone: unbiased also for one.

    The last coordinates are those of the probes, of the whole mean's size.
    """
    return lambda v: 2 * v[:, v.shape[1] - probes :].square().sum(1).square() / (probes + 2)


def _sampled(v: Tensor) -> Tensor:
    """Variance of a mean of squares as its samples have it; random signs spread less than normal variables."""
    return v.square().var(1) * v.shape[1]


def _flat(values: Tensor) -> Tensor:
    """One row per image, float64 on the CPU."""
    return values.detach().reshape(len(values), -1).double().cpu()
