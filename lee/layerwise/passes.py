"""One pass of images: local derivatives, the total, and the terms pushed to the output."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lee.derivative import infinitesimal_actions, terms_of
from lee.errors import InputError
from lee.generators import Generator
from lee.layerwise.decomposition import Moments, summed_up, taken_apart
from lee.layerwise.forward import Run, push
from lee.layerwise.local import ForwardError, locals_of
from lee.layerwise.reverse import BackwardError, Bumps
from lee.layerwise.trace import Traced
from lee.measuring import Output, select
from lee.representations import Representations
from lee.sampling import Sampler
from lee.stacked import ForwardModeError, by_dual_numbers


@dataclass(frozen=True)
class Setting:
    """What stays the same from pass to pass.

    Args:
        model: In eval mode.
        generator: The generator.
        output: Which output is differentiated.
        sampler: Kernel, boundary and pixel convention, with the images' field of view.
        representations: That of the output, where given.
        mode: One of `"auto"`, `"forward"`, `"reverse"`, `"probes"`.
        probes: Random directions per image.
        random: Where they come from.
        found: The traced calls.
        parents: Nearest measured call around each; -1 for the model, -2 for calls that are not measured.
    """

    model: nn.Module
    generator: Generator
    output: Output
    sampler: Sampler
    representations: Representations
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
        gap: `‖e‖²/dim` of every image, (n,), `e` the difference of the total from torch's own forward mode.
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

    def run(z: Tensor) -> Tensor:
        return select(setting.model(z), setting.output)

    tangent = infinitesimal_actions([setting.generator], x, setting.sampler)
    value, moving, moved = terms_of(
        setting.model, x, [setting.generator], setting.output, setting.sampler, setting.representations
    )
    total = _Total(
        value,
        _flat(moving[0]),
        _flat(torch.zeros_like(value) if moved is None else moved[0]),
        _by_torch(run, x, tangent),
    )
    terms = _terms(setting, run, x, total, lanes)
    estimated = terms.mode == "probes"
    found = terms.whole[0]
    whole = total.moving - total.moved if estimated else found
    other = whole if total.by_torch is None else total.by_torch - total.moved
    moments = Moments.of(terms.whole, terms.own, whole.square().mean(-1), len(setting.found), estimated)
    return Pass(moments, terms.finished, (whole - other).square().mean(-1), terms.mode)


@dataclass(frozen=True)
class _Total:
    """The model's output, and for each image coordinates (n, dim): `J·(X·x)`, `X·f(x)`, and the first by torch's dual numbers."""

    value: Tensor
    moving: Tensor
    moved: Tensor
    by_torch: Tensor | None


@dataclass(frozen=True)
class _Terms:
    """Coordinates (n, C) of what each call contributes, as a whole and by itself; calls that contribute nothing may be missing."""

    whole: dict[int, Tensor]
    own: dict[int, Tensor]
    finished: list[int]
    mode: str


def _terms(setting: Setting, run: Run, x: Tensor, total: _Total, lanes: int) -> _Terms:
    """In the mode that was asked for; in `"auto"`, in the other exact one where the cheaper one fails."""
    if setting.mode == "auto":
        cheaper = "reverse" if _is_reverse_cheaper(setting.found, total.moving.shape[1]) else "forward"
        modes = [cheaper, "forward" if cheaper == "reverse" else "reverse"]
    else:
        modes = [setting.mode]
    reasons = []
    for mode in modes:
        try:
            return (
                _forward(setting, run, x, total, lanes) if mode == "forward" else _reverse(setting, run, x, total, mode)
            )
        except (BackwardError, ForwardError, ForwardModeError) as error:
            reasons.append(f"mode={mode!r} can't be used with this model: {error}")
    advice = "" if setting.mode == "auto" else f" Use mode={'reverse' if setting.mode == 'forward' else 'forward'!r}."
    raise InputError(" ".join(reasons) + advice)


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
        leaves = {t.call.index for t in found if t.leaf}
        values = push(setting.model, run, x, local.own, leaves, lanes).reshape(len(local.own), len(x), -1)
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
    known = total.moving if total.by_torch is None else total.by_torch
    direction = _rademacher(tuple(graph.y.shape), torch.Generator().manual_seed(0), graph.y)
    pulled = graph.pulled_back([direction])[-1, :, 0].double().cpu()
    gap = float((pulled - (_flat(direction) * known).sum(-1)).norm())
    # A hundredth, for kinks; and where the derivative vanishes, the rounding of what cancels in it.
    if gap > 0.01 * float(known.norm()) + eps**0.75 * float(graph.y.detach().norm()):
        raise BackwardError(
            "its backward pass is not the derivative of its forward pass (a detach, no_grad or checkpoint inside?)."
        )


def _flat(values: Tensor) -> Tensor:
    """One row per image, float64 on the CPU."""
    return values.detach().reshape(len(values), -1).double().cpu()


def _rademacher(shape: tuple[int, ...], random: torch.Generator, like: Tensor) -> Tensor:
    return (torch.randint(0, 2, shape, generator=random) * 2 - 1).to(like)


def _by_torch(run: Run, x: Tensor, tangent: Tensor) -> Tensor | None:
    """`J·(X·x)` by torch's own forward mode, with nothing of ours; None where torch has no formula for something."""
    try:
        other = by_dual_numbers(run, x, tangent)[1]
    except (RuntimeError, ForwardModeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return None
    return None if other is None else _flat(other[0])
