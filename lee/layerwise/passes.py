"""One pass of images: local derivatives, the total, and the terms pushed to the output."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lee.derivative import infinitesimal_actions, terms_of
from lee.errors import InputError
from lee.generators import Generator
from lee.layerwise import push
from lee.layerwise.decomposition import Moments
from lee.layerwise.local import Local, locals_of
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
        gap: `Σ ‖e‖²/dim` over the images, `e` the difference of the total from torch's own forward mode.
        mode: How the terms were pushed.
    """

    moments: Moments
    finished: list[int]
    gap: float
    mode: str


def measure_pass(setting: Setting, x: Tensor, lanes: int) -> Pass:
    """Decompose images `x` (N, C, H, W) in one go, with at most `lanes` calls per stacked pass.

    Raises:
        InputError: For a mode that the model can't be differentiated in, and as :func:`lee.lie_derivative`.
    """
    model, n = setting.model, len(x)

    def run(z: Tensor) -> Tensor:
        return select(model(z), setting.output)

    local, finished = locals_of(model, lambda: run(x.clone()), setting.found, setting.generator, setting.sampler, n)
    # Within a group of lanes, those of the first calls are the long ones: groups follow the order in which calls end.
    local.sort(key=lambda part: part.finished)
    tangent = infinitesimal_actions([setting.generator], x, setting.sampler)
    moving, moved = terms_of(model, x, [setting.generator], setting.output, setting.sampler, setting.representations)
    total = moving[0] if moved is None else moving[0] - moved[0]
    mode = setting.mode if setting.mode != "auto" else _cheapest(local, total[0].numel(), lanes)
    coordinates, pushed = _flat(total), None
    if mode != "forward":
        try:
            coordinates, pushed = _backward(setting, run, x, local, tangent[0], moving[0], total, mode)
        except push.BackwardError as error:
            if setting.mode != "auto":
                raise InputError(f"mode={mode!r} can't be used with this model: {error} Use mode='forward'.") from error
            mode = "forward"
    if pushed is None and local:
        pushed = push.forward(model, run, x, local, lanes).reshape(len(local), n, -1).double().cpu()
    terms = {0: coordinates}
    if pushed is not None:
        terms.update({part.index: v for part, v in zip(local, pushed, strict=True)})
    whole = _flat(total).square().mean(-1)
    moments = Moments.of(terms, coordinates, whole, setting.parents, mode == "probes")
    return Pass(moments, finished, _gap(run, x, tangent, moving[0]), mode)


def _flat(values: Tensor) -> Tensor:
    """One row per image, float64 on the CPU."""
    return values.reshape(len(values), -1).double().cpu()


def _cheapest(local: list[Local], dim: int, lanes: int) -> str:
    """The exact mode with fewer passes: a lane runs from its call on, a backward pass costs two forward ones."""
    return "reverse" if 1 + 2.2 * dim < len(local) * 0.6 + len(local) / lanes else "forward"


def _backward(
    setting: Setting,
    run: push.Run,
    x: Tensor,
    local: list[Local],
    tangent: Tensor,
    moving: Tensor,
    total: Tensor,
    mode: str,
) -> tuple[Tensor, Tensor]:
    """Coordinates of the total, (n, C), and of the pushed terms, (M, n, C).

    Raises:
        BackwardError: If the model has no backward pass, or one that contradicts its forward derivative.
    """
    if mode == "reverse":
        pushed, along = push.reverse(setting.model, run, x, local, tangent)
        _check(_flat(along), _flat(moving), x.dtype)
        return _flat(total), pushed.reshape(len(local), len(x), -1).double().cpu()
    directions = _rademacher((setting.probes, *total.shape), setting.random, total)
    products, along = push.probes(setting.model, run, x, local, tangent, directions)
    size = total[0].numel() ** 0.5  # so that means of squares are squared norms per dimension
    rows = directions.reshape(setting.probes, len(x), -1).double().cpu()
    _check(along.double().cpu(), (rows * _flat(moving)).sum(-1).T, x.dtype)
    return (rows * _flat(total)).sum(-1).T / size, products.double().cpu() / size


def _check(along: Tensor, moving: Tensor, dtype: torch.dtype) -> None:
    """Both modes must give the same derivative along the image's own motion."""
    if float((along - moving).norm()) > torch.finfo(dtype).eps ** 0.4 * float(moving.norm()):
        raise push.BackwardError(
            "its backward pass is not the derivative of its forward pass (a detach, no_grad or checkpoint inside?)."
        )


def _rademacher(shape: tuple[int, ...], random: torch.Generator, like: Tensor) -> Tensor:
    return (torch.randint(0, 2, shape, generator=random) * 2 - 1).to(like)


def _gap(run: push.Run, x: Tensor, tangent: Tensor, moving: Tensor) -> float:
    try:
        other = by_dual_numbers(run, x, tangent)[1]
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return 0.0  # torch's own forward mode has no formula for something: nothing to compare with
    return 0.0 if other is None else float((_flat(other[0]) - _flat(moving)).square().mean(-1).sum())
