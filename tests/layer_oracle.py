"""Brute-force layer-wise decomposition of small models, and the models: nothing here imports `lee`.

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

CLASSES, SIDE = 4, 8

# ------------------------------------------------------------------------------------------------ how tensors move


@dataclass(frozen=True)
class Grid:
    """A tensor with a grid: flatten it to `prefix` entries without a place and then (before, h, w, after) in C order.

    Args:
        size: Height and width of the grid.
        tokens: The axis along which the grid is unrolled, or None for maps, whose axes 2 and 3 are the grid.
        prefix: Entries in front of the grid along that axis.
    """

    size: tuple[int, int]
    tokens: int | None = None
    prefix: int = 0


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
        inner = moved(generator, Grid(place.size), line[..., place.prefix :].unflatten(-1, place.size))
        return torch.cat([torch.zeros_like(line[..., : place.prefix]), inner.flatten(-2)], -1).movedim(-1, place.tokens)
    (h, w), along, down = place.size, derivative(z), derivative(z.mT).mT
    assert z.shape[-2:] == place.size
    y = (2 * torch.arange(h, dtype=torch.float64) + 1) / h - 1
    x = (2 * torch.arange(w, dtype=torch.float64) + 1) / w - 1
    u, v = VELOCITY[generator](x.expand(h, w), y[:, None].expand(h, w))
    return u * along + v * down


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


# --------------------------------------------------------------------------------------------------------- the models


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu, self.conv2 = nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.conv2(self.relu(self.norm(self.conv1(x)))))


class Cnn(nn.Module):
    """Residual block whose in-place ReLU is called twice, a stride, pooling in a module and as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(inplace=True)
        self.down, self.block = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), Residual(6)
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.block(self.down(self.act(self.norm(self.stem(x)))))
        return self.head(self.pool(z).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        q, k, v = self.qkv(z).chunk(3, -1)
        return self.proj(((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v)


class Vit(nn.Module):
    """4×4 patches of 2 pixels, a class token, position embeddings that are added by a function, one block run twice."""

    def __init__(self) -> None:
        super().__init__()
        width = 6
        self.patch, self.cls = nn.Conv2d(3, width, 2, stride=2), nn.Parameter(torch.zeros(1, 1, width))
        self.pos = nn.Parameter(torch.zeros(1, 17, width))
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x).flatten(2).mT
        z = torch.cat([self.cls.expand(len(x), -1, -1), z], 1) + self.pos
        for _ in range(2):
            z = z + self.attention(self.norm1(z))
            z = z + self.mlp(self.norm2(z))
        return self.head(z[:, 0])


class Mixer(nn.Module):
    """One block that mixes tokens, then channels; average over tokens."""

    def __init__(self) -> None:
        super().__init__()
        width = 5
        self.patch, self.norm1, self.norm2 = nn.Conv2d(3, width, 2, stride=2), nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(16, 7), nn.GELU(), nn.Linear(7, 16))
        self.channels = nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x).flatten(2).mT
        z = z + self.tokens(self.norm1(z).mT).mT
        z = z + self.channels(self.norm2(z))
        return self.head(z.mean(1))


def windows(z: Tensor) -> Tensor:
    """(N, 4, 4, C), rolled by one place, cut into windows of 2×2 that are folded into the batch: (4 N, 4, C)."""
    rolled = z.roll((-1, -1), (1, 2))
    return rolled.reshape(-1, 2, 2, 2, 2, z.shape[-1]).transpose(2, 3).reshape(-1, 4, z.shape[-1])


def whole(z: Tensor) -> Tensor:
    """The inverse of :func:`windows`."""
    rolled = z.reshape(-1, 2, 2, 2, 2, z.shape[-1]).transpose(2, 3).reshape(-1, 4, 4, z.shape[-1])
    return rolled.roll((1, 1), (1, 2))


class Swin(nn.Module):
    """Channels last, attention in shifted windows."""

    def __init__(self) -> None:
        super().__init__()
        width = 6
        self.patch, self.norm, self.attention = nn.Conv2d(3, width, 2, stride=2), nn.LayerNorm(width), Attention(width)
        self.mlp, self.head = (
            nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width)),
            nn.Linear(width, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x).permute(0, 2, 3, 1)
        z = z + whole(self.attention(windows(self.norm(z))))
        return self.head((z + self.mlp(z)).mean((1, 2)))


class Twice(nn.Module):
    """One container, with one convolution in it, called three times on maps of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = x + self.shared(self.shared(x))
        return self.head(self.shared(z[..., ::2, ::2]).square().mean((2, 3)))


class Fork(nn.Module):
    """Two maps of different sizes and something that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.odd = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1, stride=2)

    def forward(self, image: Tensor, *, gain: float, extra: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        z = image + extra["bias"]
        return gain * self.even(z), {"odd": self.odd(z), "name": "odd", "sizes": torch.tensor([8, 4])}


class Join(nn.Module):
    def forward(self, even: Tensor, odd: Tensor) -> Tensor:
        return even.square().mean((2, 3)) + nn.functional.pad(odd.tanh().mean((2, 3)), (0, 0))[:, :4]


class Nested(nn.Module):
    """Keyword arguments, tuples and mappings between modules, and a mapping as the model's output."""

    def __init__(self) -> None:
        super().__init__()
        self.fork, self.join, self.head = Fork(), Join(), nn.Linear(4, CLASSES)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Any]:
        even, rest = self.fork(image=x, gain=1.5, extra={"bias": self.bias})
        z = self.join(even, odd=rest["odd"])
        return {"features": z, "logits": self.head(z), "note": "done"}


def maps_only(path: str, kind: str, i: int, z: Tensor) -> Place:
    """Four axes are a map, everything else has been pooled; a single place is none."""
    return Grid((z.shape[2], z.shape[3])) if z.ndim == 4 and z.shape[2] > 1 else FIXED


def vit_places(path: str, kind: str, i: int, z: Tensor) -> Place:
    return Grid((4, 4), tokens=1, prefix=1) if z.ndim == 3 else maps_only(path, kind, i, z)


def mixer_places(path: str, kind: str, i: int, z: Tensor) -> Place:
    if z.ndim != 3:
        return maps_only(path, kind, i, z)
    if path.startswith("tokens"):
        return Grid((4, 4), tokens=2) if z.shape[2] == 16 else LOST
    return Grid((4, 4), tokens=1)


def softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def logits_of(result: dict[str, Any]) -> Tensor:
    return result["logits"]


LAST = Arranged(Grid((4, 4)), lambda z: z.permute(0, 2, 3, 1), lambda z: z.permute(0, 3, 1, 2))
WINDOWS = Arranged(LAST.grid, lambda z: windows(LAST.there(z)), lambda z: LAST.back(whole(z)))


def swin_places(path: str, kind: str, i: int, z: Tensor) -> Place:
    if path.startswith("attention"):
        return WINDOWS
    return LAST if path.startswith(("norm", "mlp")) else maps_only(path, kind, i, z)


@dataclass(frozen=True)
class Case:
    """A model, how its tensors move, and what of its output is measured."""

    build: Callable[[], nn.Module]
    place: Placement
    select: Callable[[Any], Tensor]


CASES = {
    "cnn": Case(Cnn, maps_only, softmax), "vit": Case(Vit, vit_places, softmax), "mixer": Case(Mixer, mixer_places, softmax),
    "swin": Case(Swin, swin_places, softmax),
    "twice": Case(Twice, maps_only, softmax), "nested": Case(Nested, maps_only, logits_of),
}  # fmt: skip


def build(name: str, seed: int = 0) -> nn.Module:
    """A model of this file in float64 and eval mode with every parameter and statistic random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CASES[name].build()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5 if parameter.ndim < 2 else 1.5 * float(parameter[0].numel()) ** -0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return model.double().eval()


def images(n: int, seed: int = 0) -> Tensor:
    """Random images (n, 3, SIDE, SIDE), float64."""
    return torch.rand(n, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
