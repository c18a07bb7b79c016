r"""A small network with an image as output: it takes noise off photographs.

An encoder halves the resolution twice, a decoder brings it back; what comes out is taken off the input. It learns from patches of
embedded photographs, two of which are kept for tests. `lee.models.load("lee.training.denoising:EncoderDecoder", weights=FILE)`
loads what :func:`train` has written, such as the committed :func:`weights`.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lee import datasets, provenance
from lee.models import load_weights
from lee.models.cards import write_card
from lee.models.reading import write_state
from lee.paths import file_sha256, package_data
from lee.process.alone import alone
from lee.training.optimisation import learning_rate

#: The photographs whose patches are kept for tests.
HELD_OUT = ("astronaut", "chelsea")
#: How it is trained; `noise` is the standard deviation of the Gaussian noise, `side` that of the patches in pixels.
RECIPE: dict[str, Any] = {
    "noise": 0.1, "side": 48, "patches": 4096, "steps": 5000, "batch_size": 16, "lr": 2e-3, "warmup": 100, "seed": 0,
}  # fmt: skip


def weights() -> Path:
    """The file of trained weights that comes with this package; the card beside it has their recipe and digest."""
    return package_data() / "denoiser" / "encoder-decoder.safetensors"


class EncoderDecoder(nn.Module):
    """Takes noise off images: `x - decoder(encoder(x))`, with a quarter of the resolution in between."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = 16, 32, 64  # channels at the full, half and quarter resolution
        self.encoder = nn.Sequential(
            nn.Conv2d(3, a, 3, padding=1), nn.GELU(), nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(b, c, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(c, c, 3, padding=1), nn.GELU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1), nn.GELU(), nn.ConvTranspose2d(c, b, 4, stride=2, padding=1), nn.GELU(),
            nn.ConvTranspose2d(b, a, 4, stride=2, padding=1), nn.GELU(), nn.Conv2d(a, 3, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the images without their noise, (N, 3, H, W).

        Args:
            x: Images (N, 3, H, W) with sides that 4 divides.
        """
        return x - self.decoder(self.encoder(x))


def noisy(images: Tensor, noise: float, seed: int) -> Tensor:
    """Images with Gaussian noise; nothing is clipped.

    Args:
        images: (N, C, H, W) in [0, 1].
        noise: Its standard deviation.
        seed: Which noise.
    """
    return images + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))


def decibels(found: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio, 10 log10 of one over the mean squared difference.

    Args:
        found: Images (N, C, H, W) with noise, or what a network has made of them.
        images: What they should be, (N, C, H, W).
    """
    return float(-10 * (found - images).square().mean().log10())


def patches(recipe: dict[str, Any] = RECIPE) -> tuple[Tensor, Tensor]:
    """Training patches, and those of the photographs that are held out, (N, 3, side, side) each.

    Args:
        recipe: As :data:`RECIPE`.
    """
    every = datasets.load("patches", n=recipe["patches"], size=recipe["side"], seed=recipe["seed"])
    assert every.labels is not None
    kept = torch.isin(every.labels, torch.tensor([every.class_names.index(name) for name in HELD_OUT]))
    return every.images[~kept], every.images[kept]


def train(path: Path, recipe: dict[str, Any] = RECIPE) -> dict[str, Any]:
    """Train the network and write its weights in half precision, and a card beside them.

    Args:
        path: The file of weights, `.safetensors`.
        recipe: As :data:`RECIPE`; equal ones give equal weights on the same machine, versions and number of threads.

    Returns:
        The front matter of the card.
    """
    start, (seen, unseen) = time.perf_counter(), patches(recipe)
    with alone(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe["seed"])
        net = EncoderDecoder()
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe["lr"])
    random = torch.Generator().manual_seed(recipe["seed"])
    for step in range(recipe["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe["lr"], step, recipe["steps"], recipe["warmup"])
        images = seen[torch.randint(len(seen), (recipe["batch_size"],), generator=random)]
        loss = (net(images + recipe["noise"] * torch.randn(images.shape, generator=random)) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    write_state({k: v.half() for k, v in net.state_dict().items()}, path)
    load_weights(net, path)
    given = noisy(unseen, recipe["noise"], recipe["seed"])
    with torch.no_grad():
        found = torch.cat([net(part) for part in given.split(64)])
    card = {
        "name": path.stem,
        "factory": "lee.training.denoising:EncoderDecoder",
        "parameters": sum(p.numel() for p in net.parameters()),
        "decibels_of_noisy_test_patches": round(decibels(given, unseen), 2),
        "decibels_after_denoising": round(decibels(found, unseen), 2),
        "recipe": recipe,
        "data": {"name": "patches", "train_patches": len(seen), "test_patches": len(unseen), "held_out": [*HELD_OUT]},
        "sha256": file_sha256(path),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
    }
    write_card(card, _TEXT.format(**card, train=len(seen), test=len(unseen)), path.with_suffix(".md"))
    return card


_TEXT = """# {name}

An encoder–decoder of {parameters:,} parameters that takes noise off photographs (chapter 15). It learned from {train:,} patches of
embedded photographs; {test:,} patches of two others, astronaut and cat, are its test: noise leaves them at
{decibels_of_noisy_test_patches} dB, the network brings them to {decibels_after_denoising} dB.

```python
from pathlib import Path
from lee.training import denoising

denoising.train(Path("data/denoiser/encoder-decoder.safetensors"))  # trains it again, on one core in some minutes
```

The front matter has the recipe. It is made to look at, and no denoiser to rely on.
"""
