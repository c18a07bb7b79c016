"""Models that run but can't be followed, or fail once gradients are switched on, are refused in a sentence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lee

WEIGHT = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Written(nn.Module):
    """A product into memory of its own, which torch doesn't differentiate."""

    def forward(self, z: Tensor) -> Tensor:
        out = torch.empty(len(z), 5, dtype=z.dtype)
        return torch.mm(z.mean((2, 3)), WEIGHT, out=out).tanh()


class Masked(nn.Module):
    """Torch's encoder drops masked tokens in eval mode, and its modules hand on nested tensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, z: Tensor) -> Tensor:
        tokens = self.patches(z).flatten(2).mT
        mask = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        mask[:, -3:] = True
        return self.encoder(tokens, src_key_padding_mask=mask)[:, :13].mean(1)  # type: ignore[no-any-return]


@pytest.fixture
def x() -> Tensor:
    rough = torch.rand(3, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return F.interpolate(rough, (16, 16), mode="bicubic")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore::lee.VerificationWarning")
@pytest.mark.parametrize(
    ("measure", "model", "said"),
    [
        (lee.layerwise, Written(), "fails where gradients are switched on"),
        (lee.error_map, Written(), "fails where gradients are switched on"),
        (lee.layerwise, Masked().double().eval(), "can't be followed from call to call .*NestedTensor.* Measure the whole"),
    ],
    ids=["layers of out=", "map of out=", "layers of nested tensors"],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused(
    measure: Callable[..., Any], model: nn.Module, said: str, x: Tensor
) -> None:
    options = {"progress": False} if measure is lee.layerwise else {}
    with pytest.raises(lee.InputError, match=said):
        measure(model, x, "rotation", output="logits", **options)
    found = lee.local_equivariance_error(model, x, "rotation", output="logits", progress=False)
    assert found.verification is not None
    assert found.verification.verified


def test_what_prepares_a_model_for_quantisation_computes_with_floats() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.sum = nn.Conv2d(3, 3, 3, padding=1), torch.ao.nn.quantized.FloatFunctional()

        def forward(self, z: Tensor) -> Tensor:
            return self.sum.add(z, self.conv(z).tanh()).mean((2, 3))

    model, x = Residual().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    found = lee.layerwise(model, x, "rotation", output="logits")
    known = lee.local_equivariance_error(model, x, "rotation", output="logits", progress=False)
    assert found.total.value == pytest.approx(known.value)
