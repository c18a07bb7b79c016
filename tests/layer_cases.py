"""Small models of every kind that the brute-force decomposition can take apart, and how their tensors move."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from layer_oracle import FIXED, LOST, Arranged, Grid, Place, Placement
from torch import Tensor, nn

CLASSES, SIDE = 4, 8


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


class Context(nn.Module):
    """What is pooled goes back to every place, beside the map that it was pooled from."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.pool = nn.Conv2d(3, 4, 2, stride=2), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1))
        self.spread = nn.UpsamplingBilinear2d((4, 4))
        self.join, self.act, self.head = nn.Conv2d(7, 5, 3, padding=1), nn.SiLU(), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.down(x)
        return self.head(self.act(self.join(torch.cat([z, self.spread(self.pool(z))], 1))).mean((2, 3)))


def maps_only(path: str, kind: str, i: int, z: Tensor) -> Place:
    """Four axes are a map, everything else has been pooled; a single place is none."""
    return Grid((z.shape[2], z.shape[3])) if z.ndim == 4 and z.shape[2] > 1 else FIXED


def strided(path: str, kind: str, i: int, z: Tensor) -> Place:
    """Maps whose first stride keeps pixels 0, 2, 4, 6, and whose second takes the mean of two of these."""
    place = maps_only(path, kind, i, z)
    pixels = {4: (0, 2), 2: (1, 4)}  # the first and how many on
    if not isinstance(place, Grid) or place.size[0] == SIDE:
        return place
    first, step = pixels[place.size[0]]
    return Grid(place.size, at=((first + 0.5) / SIDE, step / SIDE))


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
    "cnn": Case(Cnn, strided, softmax), "vit": Case(Vit, vit_places, softmax), "mixer": Case(Mixer, mixer_places, softmax),
    "swin": Case(Swin, swin_places, softmax),
    "context": Case(Context, maps_only, softmax),
    "twice": Case(Twice, strided, softmax), "nested": Case(Nested, strided, logits_of),
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
