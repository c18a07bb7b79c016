"""Brute-force layer-wise decomposition of small models: nothing here imports `lee`.

For every call `m` of every module, `v_m = P_m (J_m X h_m - X m(h_m))` with `P_m` the dense Jacobian of the selected output
with respect to a shift of the call's outputs, and `P_m J_m` dense rows of reverse mode through the module alone. How a
tensor moves is declared by hand for each model; derivatives of samples come from the fast Fourier transform of the
even extension.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# ------------------------------------------------------------------------------------------------ how tensors move


@dataclass(frozen=True)
class Grid:
    """A tensor with a grid: flatten it to `prefix` entries without a place and then (before, h, w, after) in C order.

    Args:
        size: Height and width of the grid.
        tokens: The axis along which the grid is unrolled, or None for maps, whose axes 2 and 3 are the grid.
        prefix: Entries in front of the grid along that axis.
        at: Place of the first sample and distance between samples, on both axes, in sides of the image; None: evenly over it.
    """

    size: tuple[int, int]
    tokens: int | None = None
    prefix: int = 0
    at: tuple[float, float] | None = None


@dataclass(frozen=True)
class Arranged:
    """A tensor that is a rearrangement of one with a grid.

    Args:
        grid: How the original moves.
        there: The rearrangement.
        back: Its inverse.
    """

    grid: Grid
    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


FIXED, LOST = "does not move", "has no known place"
Place = Grid | Arranged | str
Placement = Callable[[str, str, int, Tensor], Place]  # path, "in" or "out", which tensor, its value

VELOCITY: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {  # ξ(x, y) in half sides
    "translation_x": lambda x, y: (torch.ones_like(x), torch.zeros_like(x)),
    "rotation": lambda x, y: (y, -x),
    "scale": lambda x, y: (x, y),
}


def derivative(z: Tensor) -> Tensor:
    """`d/dx` along the last axis of the cosine polynomial through the samples, `x` in half sides."""
    n = z.shape[-1]
    wave = torch.fft.fft(torch.cat([z, z.flip(-1)], -1))
    frequency = 2 * torch.pi * torch.fft.fftfreq(2 * n, d=2 / n, dtype=torch.float64)
    return torch.fft.ifft(1j * frequency * wave).real[..., :n]


def moved(generator: str, place: Place, z: Tensor) -> Tensor:
    """`X·z`."""
    if isinstance(place, Arranged):
        return place.there(moved(generator, place.grid, place.back(z)))
    if not isinstance(place, Grid):
        return torch.zeros_like(z)
    if place.tokens is not None:
        line = z.movedim(place.tokens, -1)
        inner = moved(generator, Grid(place.size, at=place.at), line[..., place.prefix :].unflatten(-1, place.size))
        return torch.cat([torch.zeros_like(line[..., : place.prefix]), inner.flatten(-2)], -1).movedim(-1, place.tokens)
    (h, w), along, down = place.size, derivative(z), derivative(z.mT).mT
    assert z.shape[-2:] == place.size
    (top, rows), (left, columns) = ((0.5 / n, 1 / n) if place.at is None else place.at for n in (h, w))
    y = 2 * (top + rows * torch.arange(h, dtype=torch.float64)) - 1
    x = 2 * (left + columns * torch.arange(w, dtype=torch.float64)) - 1
    u, v = VELOCITY[generator](x.expand(h, w), y[:, None].expand(h, w))
    return u * along / (w * columns) + v * down / (h * rows)


# -------------------------------------------------------------------------------------------------- the decomposition


@dataclass
class Row:
    """One module call; `v` and `own` are (dim,) vectors, None where a tensor has no known place."""

    path: str
    type: str
    call: int
    depth: int
    parent: int
    kind: str = "leaf"
    v: Tensor | None = None
    own: Tensor | None = None
    finished: int = -1
    inputs: Any = None
    outputs: Any = None


def floats(nested: Any) -> list[Tensor]:
    return [v for v in pytree.tree_leaves(nested) if isinstance(v, Tensor) and v.is_floating_point()]


def replaced(nested: Any, values: Sequence[Tensor]) -> Any:
    fresh = iter(values)
    return pytree.tree_map(lambda v: next(fresh) if isinstance(v, Tensor) and v.is_floating_point() else v, nested)


def record(
    model: nn.Module, run: Callable[[], Any], shift: tuple[int, Sequence[Tensor]] | None = None
) -> tuple[Any, list[Row]]:
    """Run a pass and list its calls; `shift` is added to the outputs of one of them."""
    rows: list[Row] = []
    stack: list[int] = []
    seen: Counter[str] = Counter()
    ended = iter(range(10**6))

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            parent = stack[-1] if stack else -1
            if parent >= 0:
                rows[parent].kind = "container"
            stack.append(len(rows))
            inputs = pytree.tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, (args, kwargs))
            rows.append(Row(path, type(module).__name__, seen[path], len(stack) - 1, parent, inputs=inputs))
            seen[path] += 1

        return hook

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        index = stack.pop()
        rows[index].finished = next(ended)
        rows[index].outputs = [v.detach().clone() for v in floats(output)]
        if shift is None or index != shift[0]:
            return None
        return replaced(output, [v + d for v, d in zip(floats(output), shift[1], strict=True)])

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        return run(), rows
    finally:
        for handle in handles:
            handle.remove()


def dense_rows(function: Callable[..., Tensor], at: Sequence[Tensor]) -> list[Tensor]:
    """The Jacobian of a (dim,) function of several tensors: per tensor (dim, numel)."""
    jacobian = torch.autograd.functional.jacobian(function, tuple(at))
    return [j.flatten(1) for j in jacobian]


def decompose(
    model: nn.Module,
    x: Tensor,
    generator: str,
    place: Placement,
    select: Callable[[Any], Tensor] = lambda z: z.softmax(-1),
) -> list[Row]:
    """Every call's contribution for one image (1, C, H, W)."""
    modules = dict(model.named_modules())
    rows = record(model, lambda: model(x.clone()))[1]
    for index, row in enumerate(rows):
        given = floats(row.inputs)
        ins = [place(row.path, "in", i, z) for i, z in enumerate(given)]
        outs = [place(row.path, "out", i, z) for i, z in enumerate(row.outputs)]
        if LOST in ins + outs:
            row.kind = "merged"
            continue
        pushed = dense_rows(
            lambda *d, index=index: select(record(model, lambda: model(x.clone()), (index, d))[0])[0],
            [torch.zeros_like(z) for z in row.outputs],
        )

        def alone(*values: Tensor, row: Row = row, pushed: list[Tensor] = pushed) -> Tensor:
            args, kwargs = replaced(row.inputs, [v.clone() for v in values])
            out = floats(modules[row.path](*args, **kwargs))
            return sum((p @ z.flatten() for p, z in zip(pushed, out, strict=True)), torch.zeros(()))

        pulled = dense_rows(alone, given)
        into = sum(p @ moved(generator, a, z).flatten() for p, a, z in zip(pulled, ins, given, strict=True))
        out_of = sum(p @ moved(generator, a, z).flatten() for p, a, z in zip(pushed, outs, row.outputs, strict=True))
        row.v = into - out_of
    for index, row in enumerate(rows):
        if row.v is not None:
            row.own = row.v - sum((r.v for r in rows if r.v is not None and _around(rows, r) == index), torch.zeros(()))
    return rows


def _around(rows: list[Row], row: Row) -> int:
    """The nearest call around one that has a contribution of its own."""
    parent = row.parent
    while parent >= 0 and rows[parent].v is None:
        parent = rows[parent].parent
    return parent
