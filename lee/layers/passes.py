"""One pass of images: local derivatives, the total, and the terms pushed to the output."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lee.autodiff import ForwardModeError
from lee.errors import InputError, VerificationError
from lee.geometry.generators import Generator
from lee.geometry.sampling import Sampler
from lee.layers.decomposition import Moments, summed_up, taken_apart
from lee.layers.forward import Run, push
from lee.layers.local import ForwardError, locals_of
from lee.layers.reverse import BackwardError, Bumps
from lee.layers.trace import Traced
from lee.measure.reference import generic
from lee.measure.terms import Terms


@dataclass(frozen=True)
class Setting:
    """What stays the same from pass to pass.

    Args:
        model: In eval mode.
        generator: The generator.
        sampler: Kernel, boundary and pixel convention, with the images' field of view.
        terms: The two terms of the whole function, which were verified.
        mode: One of `"auto"`, `"forward"`, `"reverse"`, `"probes"`.
        probes: Random directions per image.
        random: Where they come from.
        found: The traced calls.
        parents: Nearest measured call around each; -1 for the model, -2 for calls that are not measured.
    """

    model: nn.Module
    generator: Generator
    sampler: Sampler
    terms: Terms
    mode: str
    probes: int
    random: torch.Generator
    found: list[Traced]
    parents: list[int]


@dataclass(frozen=True)
class Pass:
    """What one pass gave.

    Args:
        moments: Per-image sums.
        finished: All calls in the order in which they end.
        gap: `‖e‖²/dim` of every image, (n,), `e` the difference of the sum of all terms from the verified total.
        mode: How the terms were pushed.
    """

    moments: Moments
    finished: list[int]
    gap: Tensor
    mode: str


def measure_pass(setting: Setting, x: Tensor, lanes: int) -> Pass:
    """Decompose images `x` (N, C, H, W) in one go, with at most `lanes` calls per stacked pass.

    Raises:
        InputError: For a mode that the model can't be differentiated in, and as :func:`lee.lie_derivative`.
    """

    value, moving, moved = setting.terms(x)
    if value.is_complex():
        raise InputError("The output is complex; a decomposition needs a real one, such as output=torch.view_as_real.")
    total = _Total(value, _flat(moving[0]), _flat(torch.zeros_like(value) if moved is None else moved[0]))
    terms = _terms(setting, setting.terms.pushing.function, x, total, lanes)
    estimated = terms.mode == "probes"
    known = total.moving - total.moved
    whole = known if estimated else terms.whole[0]
    moments = Moments.of(terms.whole, terms.own, whole.square().mean(-1), len(setting.found), estimated)
    return Pass(moments, terms.finished, (whole - known).square().mean(-1), terms.mode)


def verified_mode(setting: Setting, x: Tensor, lanes: int) -> tuple[str, float]:
    """The first mode whose parts sum to the verified total at a generic image, and how far they are from it, relative to it.

    Parts that don't agree in the images' own precision are added up in double precision, which tells kinks that fall on the
    other side of a rounding from a fault.

    Raises:
        VerificationError: If the parts sum to the total in no mode.
        InputError: If no mode can be taken.
    """
    point, tried, reasons = generic(x[:1]), [], []
    function = setting.terms.pushing.function
    for mode in _modes(setting, function.value(point).numel()):
        one = replace(setting, mode=mode, random=torch.Generator().manual_seed(0))
        try:
            gap = _gap(one, point, lanes)
            if gap > 0.01 and x.dtype != torch.float64 and function.convertible:
                with function.doubled():
                    gap = min(gap, _gap(one, point.double(), lanes))
        except InputError as error:
            reasons.append(error)
            continue
        if gap <= (1e-4 if x.dtype == torch.float64 else 0.01):
            return mode, gap
        tried.append(f"{gap:.2g} in mode={mode!r}")
    if tried:
        raise VerificationError(
            f"The parts of the model don't sum to its Lie derivative: relative to it they are off by {', '.join(tried)}. A module "
            "call does something that its inputs and outputs don't show (values kept from call to call, random numbers, gradients "
            "stopped on the way); verify=False shows the numbers all the same."
        )
    raise reasons[0]


def _gap(setting: Setting, point: Tensor, lanes: int) -> float:
    """How far the sum of the parts is from the total, relative to it or to the largest part, if these are more than rounding."""
    found = measure_pass(setting, point, lanes)
    value = setting.terms.pushing.function.value(point).double().abs().square().mean()
    rounding = torch.finfo(point.dtype).eps ** 1.5 * float(value)
    size = max(float(found.moments.total.mean()), float(found.moments.norm2.mean(0).max()), rounding)
    return (float(found.gap.mean()) / size) ** 0.5 if size > 0 else 0.0


@dataclass(frozen=True)
class _Total:
    """The model's output, and for each image coordinates (n, dim): `J·(X·x)` and `X·f(x)`."""

    value: Tensor
    moving: Tensor
    moved: Tensor


@dataclass(frozen=True)
class _Terms:
    """Coordinates (n, C) of what each call contributes, as a whole and by itself; calls that contribute nothing may be missing."""

    whole: dict[int, Tensor]
    own: dict[int, Tensor]
    finished: list[int]
    mode: str


def _terms(setting: Setting, run: Run, x: Tensor, total: _Total, lanes: int) -> _Terms:
    """In the mode that was asked for; in `"auto"`, in the other exact one where the cheaper one fails."""
    reasons = []
    for mode in _modes(setting, total.moving.shape[1]):
        try:
            return (
                _forward(setting, run, x, total, lanes) if mode == "forward" else _reverse(setting, run, x, total, mode)
            )
        except (BackwardError, ForwardError, ForwardModeError) as error:
            reasons.append(f"mode={mode!r} can't be used with this model: {error}")
    advice = "" if setting.mode == "auto" else f" Use mode={'reverse' if setting.mode == 'forward' else 'forward'!r}."
    raise InputError(" ".join(reasons) + advice)


def _modes(setting: Setting, dim: int) -> list[str]:
    """The mode that was asked for; for `"auto"` both exact ones, the cheaper first. Reverse needs images that don't interact."""
    if setting.mode != "auto":
        return [setting.mode]
    modes = ["reverse", "forward"] if _is_reverse_cheaper(setting.found, dim) else ["forward", "reverse"]
    return ["forward"] if setting.terms.pushing.function.interacts else modes


def _is_reverse_cheaper(found: list[Traced], dim: int) -> bool:
    """One backward pass per output costs two forward ones; about two calls in five need a lane, over half a pass each."""
    return 2 * dim < 10 + 0.4 * len(found)


def _forward(setting: Setting, run: Run, x: Tensor, total: _Total, lanes: int) -> _Terms:
    """Own terms pushed one by one; those of containers are their sums.

    Raises:
        ForwardError: If a stacked pass fails.
    """
    found, parents = setting.found, setting.parents
    local = locals_of(setting.model, run, x, found, parents, setting.generator, setting.sampler)
    own = {0: _flat(local.moving - local.explained) - total.moved}
    if local.own:
        values = push(setting.model, run, x, local.own, found, lanes).reshape(len(local.own), len(x), -1)
        own.update({part.index: v for part, v in zip(local.own, values.double().cpu(), strict=True)})
    return _Terms(summed_up(own, parents), own, local.finished, "forward")


def _reverse(setting: Setting, run: Run, x: Tensor, total: _Total, mode: str) -> _Terms:
    """By one backward pass per output dimension, or per probe.

    Raises:
        BackwardError: If the model has no backward pass, or one that contradicts its forward pass.
    """
    graph = Bumps(setting.model, run, x, setting.found, setting.generator, setting.sampler)
    _check(graph, total)
    if mode == "probes":
        directions = _rademacher((setting.probes, *total.value.shape), setting.random, total.value)
        rows = directions.reshape(setting.probes, len(x), -1).double().cpu()
        size = total.moving.shape[1] ** 0.5  # so that means of squares are squared norms per dimension
        values = graph.pulled_back(directions).double().cpu() / size
        moved = (rows * total.moved).sum(-1).T / size
    else:
        values, moved = graph.pulled_back(graph.every_output()).double().cpu(), total.moved
    # The total of the same graph: where rounding puts an entry on the other side of a kink, it does so in every term.
    whole = {0: values[-1] - moved, **dict(zip(graph.calls, values, strict=False))}
    return _Terms(whole, taken_apart(whole, setting.parents), graph.finished, mode)


def _check(graph: Bumps, total: _Total) -> None:
    """Compare values, and the derivative along the image's own motion in one random direction of the output.

    Raises:
        BackwardError: If either differs from that of a plain pass.
    """
    eps = torch.finfo(graph.y.dtype).eps
    if not torch.allclose(graph.y, total.value, rtol=eps**0.5, atol=eps**0.5 * float(total.value.abs().max())):
        raise BackwardError("a module writes into its input and its result is not used.")
    direction = _rademacher(tuple(graph.y.shape), torch.Generator().manual_seed(0), graph.y)
    pulled = graph.pulled_back([direction])[-1, :, 0].double().cpu()
    gap = float((pulled - (_flat(direction) * total.moving).sum(-1)).norm())
    # Some per cent, for kinks that rounding puts on the other side; where the derivative vanishes, what cancels in it.
    kinks = 0.01 if graph.y.dtype == torch.float64 else 0.1
    if gap > kinks * float(total.moving.norm()) + eps**0.75 * float(graph.y.detach().norm()):
        raise BackwardError(
            "its backward pass is not the derivative of its forward pass (a detach, no_grad or checkpoint inside?)."
        )


def _flat(values: Tensor) -> Tensor:
    """One row per image, float64 on the CPU."""
    return values.detach().reshape(len(values), -1).double().cpu()


def _rademacher(shape: tuple[int, ...], random: torch.Generator, like: Tensor) -> Tensor:
    return (torch.randint(0, 2, shape, generator=random) * 2 - 1).to(like)
