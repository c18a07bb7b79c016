"""What can't be followed is refused or counted in the module around it; what steers a model is followed image by image."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
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


class Carried(nn.Module):
    """Two convolutions, and between them the same values in another tensor."""

    def __init__(self, carry: Callable[[Tensor], Tensor] = lambda h: h) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.carry = [carry]
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, padding=1)
        self.head = nn.Linear(4, 3)
        self.double()

    def forward(self, z: Tensor) -> Tensor:
        h = self.carry[0](F.gelu(self.first(z)))
        return self.head(F.gelu(self.second(h)).mean((2, 3)))  # type: ignore[no-any-return]


class ByNumpy(torch.autograd.Function):
    """The identity by way of NumPy, with its own derivative."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return torch.from_numpy(h.detach().numpy() * 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0].clone()


class Tagged(Tensor):
    """Images of a library's own class."""


def in_a_thread(h: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: h * 1.0).result()


def through_a_view(h: Tensor) -> Tensor:
    kept = torch.zeros_like(h)
    view = kept.view(kept.shape)
    kept.copy_(h)
    return view


CARRIERS = {
    "NumPy": ByNumpy.apply,
    "a thread": in_a_thread,
    "a parameter": lambda h: nn.Parameter(h, requires_grad=False),
    "a subclass": lambda h: h.as_subclass(Tagged),
    "an older view": through_a_view,
}


def shares(model: nn.Module, x: Tensor) -> "pd.Series[float]":
    frame: pd.DataFrame = lee.layerwise(model.eval(), x, "rotation", verify=False).frame
    return frame.set_index("path")["self_share"]


@pytest.mark.parametrize("carry", CARRIERS.values(), ids=CARRIERS)
def test_what_only_looks_constant_is_counted_around_its_layers(carry: Callable[[Tensor], Tensor], x: Tensor) -> None:
    plain, found = shares(Carried(), x), shares(Carried(carry), x)
    assert found["first"] == pytest.approx(plain["first"], abs=1e-6)
    assert found[["second", "head"]].isna().all(), "they would be called 0 here"
    assert found[""] == pytest.approx(plain[["", "second", "head"]].sum(), abs=1e-6)
    told = lee.explain_representations(Carried(carry), x).frame.set_index("path")
    assert "depends on the image in a way that can't be followed" in told.loc["second", "why"]
    measured = lee.metrics.layer_errors(Carried(carry).eval(), x, [("rotation", 0.3)]).set_index("path")["mean"]
    assert measured.isna()["second"]
    assert measured["first"] > 0


def test_images_of_a_subclass_are_followed_and_constants_stay_constants(x: Tensor) -> None:
    assert shares(Carried(), x.as_subclass(Tagged)).to_numpy() == pytest.approx(shares(Carried(), x).to_numpy())
    gain = nn.Parameter(torch.rand(4, 8, 8, dtype=torch.float64))

    class Gained(Carried):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.soften = gain, nn.Tanh()

        def forward(self, z: Tensor) -> Tensor:
            return self.head((self.second(self.first(z)) * self.soften(self.gain)).mean((2, 3)))  # type: ignore[no-any-return]

    assert shares(Gained(), x)["soften"] == 0


class Turned(Carried):
    """The brighter half of each image to the right, by `where` or by a decision in Python."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by

    def forward(self, z: Tensor) -> Tensor:
        left, right = z[..., :8].mean((1, 2, 3)), z[..., 8:].mean((1, 2, 3))
        if self.by == "where":
            z = torch.where((left > right)[:, None, None, None], z.flip(-1), z)
        else:
            z = torch.stack([one.flip(-1) if a > b else one for one, a, b in zip(z, left, right, strict=True)])
        return super().forward(z)


@pytest.mark.parametrize("by", ["where", "if"])
def test_images_that_a_model_turns_each_in_its_way_are_followed_one_by_one(by: str, x: Tensor) -> None:
    x = x.clone()
    x[0, :, :, :8] += 1
    x[1:, :, :, 8:] += 1
    model = Turned(by).eval()
    together, reversed_ = (lee.layerwise(model, part, "translation_x") for part in (x, x.flip(0)))
    assert together.frame["self_share"].to_numpy() == pytest.approx(
        reversed_.frame["self_share"].to_numpy(), abs=1e-9, nan_ok=True
    )
    alone = [lee.layerwise(model, one, "translation_x") for one in x.split(1)]
    mean = sum(a.frame["self_share"] * a.total.value for a in alone) / sum(a.total.value for a in alone)
    assert together.frame["self_share"].to_numpy() == pytest.approx(mean.to_numpy(), abs=1e-9, nan_ok=True)
    if by == "if":
        with pytest.raises(lee.InputError, match="image 1 is laid out otherwise than image 0"):
            lee.metrics.layer_errors(model, x, [("rotation", 0.3)])


class Padded(Carried):
    """The second convolution reads zeros that it puts around itself, or that are put there before."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before = before
        self.second = nn.Conv2d(4, 4, 3, padding=3 - before).double()
        with torch.no_grad():
            self.second.weight.copy_(Carried().second.weight)
            self.second.bias.copy_(Carried().second.bias)

    def forward(self, z: Tensor) -> Tensor:
        h = F.pad(F.gelu(self.first(z)), [self.before] * 4)
        return self.head(F.gelu(self.second(h)).mean((2, 3)))  # type: ignore[no-any-return]


def test_zeros_around_a_map_have_places_before_a_convolution_that_keeps_the_size(x: Tensor) -> None:
    assert shares(Padded(2), x).to_numpy() == pytest.approx(shares(Padded(0), x).to_numpy(), abs=1e-9)
