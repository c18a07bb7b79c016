"""How much of the error is aliasing: closed forms at either end, and what is left out."""

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lee
from lee import models
from lee.errors import InputError
from lee.geometry.antialiasing import aliased_derivative, low_pass
from lee.layers import aliased_part

CIRCULAR: dict[str, Any] = {"output": "logits", "boundary": "circular"}


class Pattern(nn.Module):
    """Adds a pattern: a border or a position embedding, which folds nothing and moves with nothing."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.pattern = nn.Parameter(torch.randn(3, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pattern


def waves(size: int, k: int) -> Tensor:
    """Two images with one wave of `k` cycles along x, in three channels of other phases, float64."""
    place = 2 * math.pi * k * torch.arange(size, dtype=torch.float64) / size
    rows = torch.stack([torch.cos(place + phase) for phase in (0.3, 1.1, 2.0)])
    return torch.stack([rows, 0.5 * rows.flip(0)])[:, :, None].expand(2, 3, size, size).contiguous()


@pytest.mark.parametrize(("k", "cutoff"), [(3, math.inf), (6, math.inf), (6, 4.0)])
def test_what_a_stride_folds_is_the_wave_above_the_limit(k: int, cutoff: float) -> None:
    """Of 16 samples every second is kept. Six cycles fold, as the waves alone say; three don't, nor six behind an ideal filter."""
    torch.manual_seed(0)
    thin, head = nn.Conv2d(3, 3, 1, stride=2, bias=False).double(), nn.Linear(192, 4).double()
    filtered = low_pass(waves(16, k), cutoff, boundary="circular")
    found = aliased_part(nn.Sequential(thin, nn.Flatten(), head), filtered, ["translation_x"], **CIRCULAR)
    mixed = torch.einsum("kc,nchw->nkhw", thin.weight[:, :, 0, 0], filtered)[:, :, ::2]
    expected = aliased_derivative(mixed, 8).flatten(1) @ head.weight.T * 4  # per half side, of 4 coarse pixels
    assert torch.allclose(found.parts["all"][:, 1], expected.square().mean(1), atol=1e-20)
    assert (float(found.parts["all"][:, 1].min()) > 1e-3) == (k == 6 and cutoff == math.inf)
    assert list(found.parts) == ["strided convolution", "all"]


def test_a_linear_layer_without_a_stride_folds_nothing() -> None:
    """A filter, batch normalisation and an added pattern: no layer is read, and none is missed."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 3, 5, padding=2), nn.BatchNorm2d(3), Pattern(8), nn.Flatten(), nn.Linear(192, 2)
    ).double()
    found = aliased_part(net, torch.rand(2, 3, 8, 8, dtype=torch.float64), output="logits")
    assert list(found.parts) == ["all"]
    assert found.share().value == 0
    assert float(found.total.min()) > 0
    assert found.left_out == ()


class Square(nn.Module):
    """A polynomial of degree 2: a grid twice as fine holds all that it makes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square() + x


@pytest.mark.parametrize("factor", [2, 4])
def test_a_periodic_network_of_layers_that_commute_with_whole_shifts_errs_by_aliasing_alone(factor: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), Square(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, padding_mode="circular"), Square(),
        nn.Conv2d(4, 3, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).double()  # fmt: skip
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    found = aliased_part(net, images, factor=factor, **CIRCULAR)
    gram = lee.equivariance_gram(net, images, generators=["translation_x", "translation_y"], progress=False, **CIRCULAR)
    assert torch.allclose(found.total, gram.lee_per_image("translation_x") + gram.lee_per_image("translation_y"))
    assert torch.allclose(found.parts["all"], found.total[:, None].expand(-1, 2), rtol=1e-9)
    assert found.share().value == pytest.approx(1, abs=1e-9)
    assert found.left_out == ()


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.GELU()])
def test_kinks_need_a_finer_grid(activation: nn.Module) -> None:
    """The share comes closer to 1 as the grid becomes finer; a layer that writes into its input is no exception."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), activation, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    gaps = [abs(aliased_part(net, images, factor=f, **CIRCULAR).share().value - 1) for f in (1, 4, 16)]
    assert gaps[2] < 0.01
    assert gaps[2] < gaps[0]


def test_attention_and_normalisation_of_tokens_are_read_on_their_grid() -> None:
    """Without position embeddings, on a torus, a transformer commutes with whole shifts of its patches."""
    torch.manual_seed(0)
    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3,
        class_token=False, global_pool="avg", pos_embed="none",
    ).double().eval()  # fmt: skip
    net = models.Normalized(net, (0.5,) * 3, (0.5,) * 3).double()
    found = aliased_part(net, torch.rand(2, 3, 32, 32, dtype=torch.float64), **CIRCULAR, factor=4)
    assert list(found.parts) == ["strided convolution", "activation", "normalisation", "attention", "all"]
    assert found.share().value == pytest.approx(1, abs=0.02)


def test_layers_that_are_not_understood_are_named() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    found = aliased_part(net, torch.rand(2, 3, 8, 8, dtype=torch.float64), output="logits")
    assert found.left_out == ("1 (MaxPool2d)",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generators": ["brightness"]}, "Only affine motions"),
        ({"generators": []}, "Only affine motions"),
        ({"generators": "rotation"}, r"must be a list of them, such as \['rotation'\]"),
        ({"chunk": 0}, "`chunk` must be"),
        ({"factor": 0}, "`factor` must be"),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        aliased_part(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten()), torch.rand(1, 3, 8, 8), **options)


class Attending(nn.Module):
    """A layer with three inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend, self.head = (
            nn.Conv2d(3, 8, 4, 4),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        return self.head(self.attend(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_layers_with_several_inputs_are_named() -> None:
    found = aliased_part(Attending().double(), torch.rand(1, 3, 8, 8, dtype=torch.float64), output="logits")
    assert any("attend" in name for name in found.left_out)


def test_layers_in_a_layout_that_is_not_read_are_among_those_left_out() -> None:
    class Tokens(nn.Module):
        def __init__(self, first: bool) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.first = first
            self.embed, self.act, self.mix, self.head = (
                nn.Conv2d(3, 8, 4, 4),
                nn.GELU(),
                nn.Linear(8, 8),
                nn.Linear(8, 5),
            )

        def forward(self, x: Tensor) -> Tensor:
            t = self.embed(x).flatten(2)
            t = t.permute(2, 0, 1) if self.first else t.mT
            return self.head(self.mix(self.act(t)).mean(0 if self.first else 1))  # type: ignore[no-any-return]

    x = torch.rand(2, 3, 16, 24)
    batch_first, sequence_first = (aliased_part(Tokens(first).eval(), x, ["translation_x"]) for first in (False, True))
    assert batch_first.left_out == ()
    assert sequence_first.left_out == ("act (GELU)",)
    assert sequence_first.share("strided convolution").value == pytest.approx(
        batch_first.share("strided convolution").value, abs=1e-5
    )


@pytest.mark.filterwarnings("ignore::lee.LeavesTorchWarning")
def test_a_model_that_leaves_torch_on_the_way_is_refused_in_a_sentence() -> None:
    class Doubling(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: Tensor) -> Tensor:
            return torch.from_numpy(2 * h.detach().numpy())

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return 2 * gradients[0]

    class Leaving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.head = nn.Conv2d(3, 4, 3, 2, padding=1), nn.GELU(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(Doubling.apply(self.act(self.first(x))).mean((2, 3)))  # type: ignore[no-any-return, no-untyped-call]

    with pytest.raises(InputError, match="can't be pushed to the output of this model"):
        aliased_part(Leaving(), torch.rand(2, 3, 8, 8), ["translation_x"])
