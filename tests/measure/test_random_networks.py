"""Random networks of five to twelve operators: the Lie derivative is that of their values, or it is refused.

200 of them belong to the tests; `LEE_RANDOM_NETWORKS=5000 pytest tests/measure/test_random_networks.py` tries as many others.
"""

import os
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lee
from lee.geometry.sampling import Sampler

EXAMPLES = int(os.environ.get("LEE_RANDOM_NETWORKS", "200"))
SIDE, CHANNELS = 8, 4

Step = Callable[["Network", Tensor], Tensor]


def _moved(network: "Network", x: Tensor, weights: Tensor) -> Tensor:
    """A convolution by a buffer that takes other weights for each call."""
    return F.conv2d(x, network.buffer.copy_(weights), padding=1)


def _sliced(network: "Network", x: Tensor) -> Tensor:
    x[:, :, 1:4] *= 0.5
    return x


def _strided(network: "Network", x: Tensor) -> Tensor:
    y = x.clone(memory_format=torch.contiguous_format)
    y.view(len(y), -1)[:, ::3].add_(0.1).sin_()
    return y


def _turned(network: "Network", x: Tensor) -> Tensor:
    y = x.transpose(2, 3)
    y[..., 0].zero_()
    return y


def _assigned(network: "Network", x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 0] = x[:, 1] * 2
    y[:, 1:] = x[:, 1:]
    return y


def _written(network: "Network", x: Tensor) -> Tensor:
    network.kept[-1].add_(x)
    return x * 1.5


def _without_gradients(network: "Network", x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = 1 + x.square().mean((1, 2, 3), keepdim=True)
    return x / scale


def _wave(network: "Network", x: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(x.to(torch.complex128)) * network.phase).real


def _attended(network: "Network", x: Tensor) -> Tensor:
    tokens = x.flatten(2).mT[:, None]
    return F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0].mT.reshape(x.shape)


def _kept(network: "Network", x: Tensor) -> Tensor:
    network.kept.append(x)
    return x + 0.1


def _zero_behind(network: "Network", x: Tensor) -> Tensor:
    y = x * 1
    z = network.conv(y)
    y.zero_()
    return z


STEPS: dict[str, Step] = {
    "convolution": lambda n, x: n.conv(x), "its twin": lambda n, x: n.conv(x).tanh(),
    "other weights": lambda n, x: _moved(n, x, n.first),
    "and others": lambda n, x: _moved(n, x, n.second), "batch norm": lambda n, x: n.norm(x), "group norm": lambda n, x: n.groups(x),
    "layer norm": lambda n, x: F.layer_norm(x, x.shape[2:]), "softmax": lambda n, x: x.softmax(1), "silu": lambda n, x: F.silu(x),
    "relu_": lambda n, x: (x * 1).relu_(), "celu_": lambda n, x: F.celu(x * 1, inplace=True), "leaky": lambda n, x: F.leaky_relu(x),
    "transpose": lambda n, x: x.transpose(2, 3), "flip": lambda n, x: x.flip(3), "roll": lambda n, x: x.roll(1, 2),
    "channels last": lambda n, x: x.contiguous(memory_format=torch.channels_last), "slice": _sliced, "stride": _strided,
    "turn": _turned, "assign": _assigned, "keep": _kept, "write into kept": _written, "add kept": lambda n, x: x + n.kept[-1],
    "times kept": lambda n, x: x * n.kept[-1].tanh(), "copy kept": lambda n, x: x.clone().copy_(n.kept[-1]).cos(),
    "detach": lambda n, x: x / (1 + x.detach().abs().mean()), "no_grad": _without_gradients, "waves": _wave,
    "spectrum": lambda n, x: x + torch.fft.rfft2(x).abs().mean((2, 3), keepdim=True), "attention": _attended,
    "pool": lambda n, x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear"),
    "largest": lambda n, x: F.max_pool2d(x, 3, 1, 1), "sort": lambda n, x: x.sort(1)[0], "sum up": lambda n, x: x.cumsum(3) * 0.2,
    "where": lambda n, x: torch.where(x > 0.3, x.square(), x), "index_add_": lambda n, x: (x * 1).index_add_(1, n.index, x[:, :2]),
    "power": lambda n, x: (x * 1).pow_(2), "zero behind": _zero_behind,
}  # fmt: skip


class Network(nn.Module):
    """A chain of steps between a 1×1 convolution and a linear layer."""

    def __init__(self, steps: list[str], seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.stem, self.conv = nn.Conv2d(3, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
            self.norm, self.groups = nn.BatchNorm2d(CHANNELS), nn.GroupNorm(2, CHANNELS)
            self.norm.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            self.head = nn.Linear(CHANNELS, 3)
            for name in ("first", "second", "buffer"):
                self.register_buffer(name, torch.randn(CHANNELS, CHANNELS, 3, 3) * 0.3)
            self.register_buffer("phase", torch.rand(SIDE, SIDE) + 0.5)
        self.register_buffer("index", torch.tensor([1, 3]))
        self.steps = steps
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.kept: list[Tensor] = [x]
        for step in self.steps:
            x = STEPS[step](self, x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def slopes(network: Network, x: Tensor, v: Tensor) -> list[Tensor]:
    """Difference quotients along `v` with three small steps."""
    with torch.no_grad():
        return [(network(x + h * v) - network(x - h * v)) / (2 * h) for h in (1e-6, 3e-7, 1e-7)]


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 200, suppress_health_check=list(HealthCheck), database=None
)  # fmt: skip
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=5, max_size=12), st.integers(0, 10**6))
def test_a_random_network_is_right_or_refused(steps: list[str], seed: int) -> None:
    network = Network(steps, seed)
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64, generator=random)
    generator = lee.geometry.generators.get(["rotation", "scale", "brightness"][seed % 3])
    v = lee.Image().infinitesimal([generator], x, Sampler().for_image(SIDE, SIDE))[0]
    try:
        known = slopes(network, x, v)
    except RuntimeError:  # torch refuses the network itself: a turned view is added to its own memory
        reject()
    noise = max(float((known[0] - k).norm()) for k in known[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = lee.lie_derivative(network, x, generator, output="logits")
        except lee.LeeError:
            return
    scale = float(network(x).detach().norm()) + float(known[0].norm())
    assert float((found - known[0]).norm()) <= 1e-5 * scale + 10 * noise
