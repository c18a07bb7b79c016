"""Tensors inside a model that hold a batch in another order than image after image."""

import pytest
import torch
from cases import images
from torch import Tensor, nn

import lee
from lee.layers import layerwise


class Mean(nn.Module):
    """Over what is stacked before the images, or the tokens that come before them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, stacked: Tensor) -> Tensor:
        return self.layers(stacked.mean(0))


class Views(nn.Module):
    """The mean of two views of each image, (views, N, C, H, W): linear and pointwise, so that it has no error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.act, self.mean = nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), Mean()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5))

    def forward(self, x: Tensor) -> Tensor:
        views = [self.act(self.body(x)), self.act(self.body(x.flip(-1))).flip(-1)]
        return self.head(self.mean(torch.stack(views)))


class TokensFirst(nn.Module):
    """Tokens (L, N, C), as nn.Transformer takes them, pooled by a module."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.pool = Mean(nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.patches(x).flatten(2).permute(2, 0, 1).square())


class HeadsFirst(nn.Module):
    """Attention that folds (heads · N, L, d); its softmax has the mean 1/L whatever the order."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 24)
        self.softmax, self.head = nn.Softmax(-1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            torch.cat(part.split(4, -1), 0) for part in self.qkv(self.patches(x).flatten(2).mT.tanh()).chunk(3, -1)
        )
        mixed = self.softmax(9 * q @ k.mT) @ v
        return self.head(torch.cat(mixed.split(len(x), 0), -1).mean(1))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("kind", [Views, TokensFirst, HeadsFirst])
def test_a_batch_in_another_order_is_measured_image_by_image(kind: type[nn.Module], mode: str) -> None:
    model, x = kind().double().eval(), images(3)
    x[1] *= 0.3
    x[2] = x[2].flip(0)
    together, alone = (layerwise(model, x, "rotation", output="logits", mode=mode, chunk=c).frame for c in (None, 1))
    for column in ("norm2", "share", "self_share"):
        torch.testing.assert_close(torch.tensor(together[column]), torch.tensor(alone[column]), rtol=1e-9, atol=1e-12)
    if kind is Views:
        assert together.set_index("path").norm2["mean"] < 1e-20


def test_what_is_no_part_of_any_image_may_have_any_order() -> None:
    """A bias for pairs of tokens is computed in a module, and is as large for one image as for many."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.bias, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(2, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).mT
            table = self.bias(torch.ones(tokens.shape[1], tokens.shape[1], 2, dtype=x.dtype)).squeeze(-1)
            return self.head(((tokens @ tokens.mT + table).softmax(-1) @ tokens).mean(1))

    model, sizes = Biased().double().eval(), []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    lee.layerwise(model, images(3), "rotation", output="logits", verify=False, chunk=36)
    assert max(sizes) == 3
