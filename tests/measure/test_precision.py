"""Tangents in a lower precision: used where the first images allow it, said either way, and nothing else is rounded."""

import pytest
import torch
from torch import Tensor, nn

import lee
from lee import models
from lee.datasets import load
from lee.measure import precision

X = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def gram(model: nn.Module, x: Tensor = X, **options: object) -> lee.EquivarianceGram:
    return lee.equivariance_gram(model, x, progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["zoo/resnet-s", "zoo/vit-s"])
def test_bfloat16_is_near_and_says_how_near(name: str) -> None:
    model, x = models.load(name), load("patches", n=8, size=32).images
    own, low = gram(model, x, chunk=4), gram(model, x, chunk=4, precision="bfloat16")
    assert torch.equal(low.per_image[:4], own.per_image[:4]), "the first images are there in both"
    gap = (low.matrix - own.matrix).norm() / own.matrix.norm()
    assert 0 < gap < precision.TOLERATED
    assert low.verification is not None
    assert "bfloat16 changes the mean squares of the first 4 images by up to " in low.verification.note
    assert "not used" not in low.verification.note
    assert own.verification is not None
    assert own.verification.note == ""


class Cancelling(nn.Module):
    """The difference of two linear maps that are nearly the same: rounding is all that is left of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Linear(768, 4), nn.Linear(768, 4)
        with torch.no_grad():
            self.other.weight.copy_(self.one.weight * (1 + 1e-4 * torch.randn(4, 768)))

    def forward(self, x: Tensor) -> Tensor:
        return (self.one(x.flatten(1)) - self.other(x.flatten(1))).tanh()


def test_a_model_that_loses_too_much_is_measured_in_its_own_precision() -> None:
    own, asked = (gram(Cancelling(), output="logits", chunk=2, precision=p) for p in ("own", "bfloat16"))
    assert torch.equal(own.per_image, asked.per_image)
    assert asked.verification is not None
    assert "so it was not used" in asked.verification.note


def test_modes_without_a_stack_keep_their_precision() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5))
    for mode in ("reverse", "differences"):
        asked = gram(model, mode=mode, chunk=2, precision="bfloat16")
        assert asked.verification is not None
        assert "can't be had with this model in this mode, so it was not used" in asked.verification.note
        assert torch.equal(asked.per_image, gram(model, mode=mode, chunk=2).per_image)


def test_every_function_takes_it() -> None:
    model, x = models.load("zoo/resnet-xs"), load("patches", n=6, size=32).images
    whole = gram(model, x, chunk=4, generators=["rotation"], precision="bfloat16").lee("rotation").value
    derivative = lee.lie_derivative(model, x, "rotation", chunk=4, precision="bfloat16")
    assert derivative.dtype == torch.float32
    assert float(derivative.square().mean()) == pytest.approx(whole, rel=1e-3)
    known = lee.local_equivariance_error(model, x, "rotation", chunk=4, precision="bfloat16", progress=False)
    assert known.value == pytest.approx(whole, rel=1e-6)


def test_auto_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_is_fast", lambda device: True)
    assert precision.lowering("auto", X) == precision.Lowering("bfloat16")
    monkeypatch.setattr(precision, "_is_fast", lambda device: False)
    assert precision.lowering("auto", X) is None
    assert precision.lowering("own", X) is None


def test_other_names_and_tf32_without_a_gpu_are_refused() -> None:
    model = nn.Flatten()
    with pytest.raises(lee.InputError, match="Did you mean 'bfloat16'"):
        gram(model, output="logits", precision="bfloat61")
    with pytest.raises(lee.InputError, match="'tf32' is for GPUs"):
        gram(model, output="logits", precision="tf32")


def test_what_torch_may_round_is_exact_meanwhile_and_as_before_afterwards() -> None:
    """`torch.set_float32_matmul_precision("medium")` lets processors with bfloat16 round all products."""
    seen: list[str] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]
            return x.mean((2, 3)).tanh()

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        gram(Spy(), output="logits")
        assert set(seen) == {"ieee"}
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
    finally:
        torch.set_float32_matmul_precision(before)


class Smooth(nn.Module):
    """Periodic convolutions of blurred images: almost invariant to shifts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), nn.GELU(),
            nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), nn.GELU(),
        )  # fmt: skip
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore::lee.VerificationWarning")
@pytest.mark.parametrize("mode", ["auto", "differences"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_that_leaves_nothing_of_a_number_is_not_called_verified(dtype: torch.dtype, mode: str) -> None:
    """Beside the response to other changes such a number is small, but it isn't zero: float64 tells."""
    x = X
    for _ in range(3):
        x = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), 3, 1)
    options = {"boundary": "circular", "progress": False, "mode": mode}
    half = lee.local_equivariance_error(Smooth().to(dtype), x.to(dtype), "translation_x", **options)  # type: ignore[arg-type]
    true = lee.local_equivariance_error(Smooth().double(), x.to(dtype).double(), "translation_x", **options)  # type: ignore[arg-type]
    assert half.value > 2 * true.value
    assert half.verification is not None
    assert not half.verification.verified
    assert true.verification is not None
    assert true.verification.verified


def test_half_precision_that_keeps_a_number_is_verified() -> None:
    x = X.to(torch.float16)
    found = lee.local_equivariance_error(Smooth().to(torch.float16), x, "rotation", progress=False)
    true = lee.local_equivariance_error(Smooth().double(), x.double(), "rotation", progress=False)
    assert found.value == pytest.approx(true.value, rel=0.1)
    assert found.verification is not None
    assert found.verification.verified
