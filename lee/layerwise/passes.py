"""One pass of images: local derivatives, the total, and the terms pushed to the output."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lee.derivative import infinitesimal_actions, terms_of
from lee.errors import InputError
from lee.generators import Generator
from lee.layerwise.decomposition import Moments
from lee.layerwise.forward import ForwardError, Run, push
from lee.layerwise.local import locals_of
from lee.layerwise.reverse import BackwardError, Bumps
from lee.layerwise.trace import Traced
from lee.measuring import Output, select
from lee.representations import Representations
from lee.sampling import Sampler
from lee.stacked import by_dual_numbers


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
    total = _Total(value, _flat(moving[0]), _flat(torch.zeros_like(value) if moved is None else moved[0]))
    terms = _terms(setting, run, x, total, lanes)
    coordinates = terms.pushed[0]
    estimated = terms.mode == "probes"
    whole = (total.moving - total.moved if estimated else coordinates).square().mean(-1)
    moments = Moments.of(terms.pushed, coordinates, whole, setting.parents, estimated)
    return Pass(moments, terms.finished, _gap(run, x, tangent, total.moving), terms.mode)


@dataclass(frozen=True)
class _Total:
    """The model's output, and for each image the coordinates (n, dim) of the two terms of its Lie derivative."""

    value: Tensor
    moving: Tensor
    moved: Tensor


@dataclass(frozen=True)
class _Terms:
    """Coordinates (n, C) of what each call contributes, the model first; calls that contribute nothing may be missing."""

    pushed: dict[int, Tensor]
    finished: list[int]
    mode: str


def _terms(setting: Setting, run: Run, x: Tensor, total: _Total, lanes: int) -> _Terms:
    """In the mode that was asked for; in `"auto"`, in the other exact one where the cheaper one fails."""
    chosen = setting.mode
    if chosen == "auto":
        chosen = "reverse" if _is_reverse_cheaper(setting.found, total.moving.shape[1]) else "forward"
    try:
        return (
            _forward(setting, run, x, total, lanes) if chosen == "forward" else _reverse(setting, run, x, total, chosen)
        )
    except (BackwardError, ForwardError) as error:
        if setting.mode != "auto":
            other = "reverse" if chosen == "forward" else "forward"
            raise InputError(f"mode={chosen!r} can't be used with this model: {error} Use mode={other!r}.") from error
    if chosen == "reverse":
        return _forward(setting, run, x, total, lanes)
    return _reverse(setting, run, x, total, "reverse")


def _is_reverse_cheaper(found: list[Traced], dim: int) -> bool:
    """One backward pass per output costs two forward ones; about two calls in five need a lane, over half a pass each."""
    return 2 * dim < 10 + 0.4 * len(found)


def _forward(setting: Setting, run: Run, x: Tensor, total: _Total, lanes: int) -> _Terms:
    local, finished = locals_of(
        setting.model, lambda: run(x.clone()), setting.found, setting.generator, setting.sampler, len(x)
    )
    # Within a group of lanes, those of the first calls are the long ones: groups follow the order in which calls end.
    local.sort(key=lambda part: part.finished)
    pushed = {0: total.moving - total.moved}
    if local:
        values = push(setting.model, run, x, local, lanes).reshape(len(local), len(x), -1).double().cpu()
        pushed.update({part.index: v for part, v in zip(local, values, strict=True)})
    return _Terms(pushed, finished, "forward")


def _reverse(setting: Setting, run: Run, x: Tensor, total: _Total, mode: str) -> _Terms:
    """By one backward pass per output dimension, or per probe.

    Raises:
        BackwardError: If the model has no backward pass, or one that contradicts its forward pass.
    """
    graph = Bumps(setting.model, run, x, setting.found, setting.generator, setting.sampler)
    if not torch.allclose(
        graph.y, total.value, rtol=torch.finfo(x.dtype).eps ** 0.5, atol=1e-5 * float(total.value.abs().max())
    ):
        raise BackwardError("a module writes into its input and its result is not used.")
    moving, moved = total.moving, total.moved
    if mode == "probes":
        directions = _rademacher((setting.probes, *total.value.shape), setting.random, total.value)
        rows = directions.reshape(setting.probes, len(x), -1).double().cpu()
        size = moving.shape[1] ** 0.5  # so that means of squares are squared norms per dimension
        values = graph.pulled_back(directions).double().cpu() / size
        moving, moved = ((rows * v).sum(-1).T / size for v in (moving, moved))
    else:
        values = graph.pulled_back(graph.every_output()).double().cpu()
    if float((values[-1] - moving).norm()) > torch.finfo(x.dtype).eps ** 0.4 * float(moving.norm()):
        raise BackwardError(
            "its backward pass is not the derivative of its forward pass (a detach, no_grad or checkpoint inside?)."
        )
    # The total of the same graph: where rounding puts an entry on the other side of a kink, it does so in every term.
    return _Terms({0: values[-1] - moved, **dict(zip(graph.calls, values, strict=False))}, graph.finished, mode)


def _flat(values: Tensor) -> Tensor:
    """One row per image, float64 on the CPU."""
    return values.reshape(len(values), -1).double().cpu()


def _rademacher(shape: tuple[int, ...], random: torch.Generator, like: Tensor) -> Tensor:
    return (torch.randint(0, 2, shape, generator=random) * 2 - 1).to(like)


def _gap(run: Run, x: Tensor, tangent: Tensor, moving: Tensor) -> Tensor:
    try:
        other = by_dual_numbers(run, x, tangent)[1]
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return torch.zeros(len(x))  # torch's own forward mode has no formula for something: nothing to compare with
    return torch.zeros(len(x)) if other is None else (_flat(other[0]) - moving).square().mean(-1)
