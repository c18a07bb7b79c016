"""Stacked forward mode and memory: writes in place, views, convolutions that wait, prepared weights, tensors that models keep."""

import gc
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import relative
from oracles import slopes
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lee.autodiff import Stacked, pushforward, record_fallbacks, workspace
from lee.autodiff.weights import current_workspace

Function = Callable[[Tensor], Tensor]
RANDOM = torch.Generator().manual_seed(2)
WEIGHT = torch.randn(4, 4, 3, 3, dtype=torch.float64, generator=RANDOM)
BIAS = torch.randn(4, dtype=torch.float64, generator=RANDOM)
KERNELS = torch.randn(3, 4, 4, 3, 3, dtype=torch.float64, generator=RANDOM)
ROWS = torch.tensor([2, 0])


def point(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Images (2, 4, 5, 5) and two directions."""
    random = torch.Generator().manual_seed(1)
    x = torch.rand(2, 4, 5, 5, generator=random, dtype=torch.float64) + 0.2
    return x.to(dtype), torch.randn(2, 2, 4, 5, 5, generator=random, dtype=torch.float64).to(dtype)


def agrees(function: Function, dtype: torch.dtype = torch.float64) -> list[str]:
    """Compare with central differences in double precision; the fallbacks on the way."""
    x, tangents = point(dtype)
    with record_fallbacks() as names:
        value, lanes = pushforward(function, x, tangents)
    known = slopes(function, x.double(), tangents.double(), 1e-5)
    assert lanes is not None
    with torch.no_grad():
        assert relative(value.double(), function(x.double())) < (1e-12 if dtype is torch.float64 else 1e-5)
    assert relative(lanes.double(), known) < (3e-8 if dtype is torch.float64 else 1e-4)
    return names


def conv(z: Tensor, weight: Tensor = WEIGHT, bias: Tensor | None = BIAS) -> Tensor:
    return F.conv2d(z, weight.to(z.dtype), None if bias is None else bias.to(z.dtype), padding=1)


def raised(z: Tensor) -> None:
    z **= 2


def assigned(z: Tensor) -> None:
    z[:, 1:] = z[:, :1] ** 2


def masked(z: Tensor) -> None:
    z[z > 0.7] = z.mean()


def data_assigned(z: Tensor) -> None:
    z.data = z.sin()


WRITES: dict[str, Callable[[Tensor], object]] = {
    "zero_": lambda z: z.zero_(), "**=": raised, "index_fill_": lambda z: z.index_fill_(1, ROWS, 0.5),
    "index_fill_ by a tensor": lambda z: z.index_fill_(1, ROWS, z.mean()),  # type: ignore[call-overload]
    "addcmul_": lambda z: z.addcmul_(z, z), "index_add_": lambda z: z.index_add_(1, ROWS, z[:, :2].clone()),
    "index assignment": assigned, "mask assignment": masked, "relu_": lambda z: z.sub_(0.5).relu_(),
    "inplace=True": lambda z: F.threshold(z, 0.5, 0.1, inplace=True), "celu_": lambda z: torch.celu_(z.sub_(0.5), 1.3),
    "acosh_": lambda z: z.add_(1.5).acosh_(), "data.mul_": lambda z: z.data.mul_(3), "data =": data_assigned,
    "through a view": lambda z: z[:, ::2].transpose(1, 2).mul_(z[0, 0, 0].sin()), "out=": lambda z: torch.mul(z, z, out=z),
    "copy_": lambda z: z.copy_(z.flip(1)), "clamp_": lambda z: z.clamp_(0.4, 0.9),
    "foreach": lambda z: torch._foreach_mul_([z], 2.0),
    "comparison": lambda z: z.gt_(0.6), "logical": lambda z: z.sub_(z.floor()).logical_not_(),
    "transpose_": lambda z: z.transpose_(2, 3),
    "uniform_": lambda z: z.uniform_(generator=torch.Generator().manual_seed(0)), "fill_": lambda z: z.fill_(z.mean()),
    "scatter_add_": lambda z: z.scatter_add_(1, torch.zeros(2, 4, 5, 5, dtype=torch.int64), z.clone()),
    "round_": lambda z: z.mul_(7).round_(), "masked_fill_": lambda z: z.masked_fill_(z > 0.6, 0.1),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_write_behind_a_convolution(name: str, dtype: torch.dtype) -> None:
    """The convolution has read what was there before, and everyone else reads what is there now."""
    if name == "uniform_" and dtype is torch.float32:
        pytest.skip("other numbers than in double precision")

    def function(z: Tensor) -> Tensor:
        z = z * 1
        y, part = conv(z), z[:, :2]
        WRITES[name](z)
        return y.tanh() * (1 + z) + part.sum(1, keepdim=True)

    if name == "data =":
        function = keeping_no_view(function, name)
    if name == "transpose_":  # part keeps its own shape
        assert any("whole function" in n for n in agrees(function, dtype))
    else:
        agrees(function, dtype)


def keeping_no_view(function: Function, name: str) -> Function:
    def without(z: Tensor) -> Tensor:
        z = z * 1
        y = conv(z)
        WRITES[name](z)
        return y.tanh() * (1 + z)

    return without


class Kernels(nn.Module):
    """One buffer takes three kernels in turn within a pass."""

    def __init__(self, change: Callable[[Tensor, Tensor], object], owned: bool = False) -> None:
        super().__init__()
        self.change = change
        w = torch.zeros(4, 4, 3, 3, dtype=torch.float64)
        self.w = nn.Parameter(w, requires_grad=False) if owned else w
        self.norm = nn.BatchNorm2d(4).double().eval()

    def forward(self, z: Tensor) -> Tensor:
        total = z.new_zeros(z.shape)
        for i, kernel in enumerate(KERNELS):
            self.change(self.w, kernel)
            self.norm.running_mean.copy_(BIAS * i)  # type: ignore[union-attr]
            y = F.conv2d(z, self.w.to(z.dtype) if z.dtype is not self.w.dtype else self.w, padding=1)
            total = total + (self.norm.to(z.dtype)(y) if i else y).tanh()
        return total


def swapped(w: Tensor, kernel: Tensor) -> None:
    w.data = kernel * 1


def through_a_view(w: Tensor, kernel: Tensor) -> None:
    w.view(-1)[:] = kernel.view(-1)


CHANGES = [Tensor.copy_, lambda w, k: w.data.copy_(k), swapped, through_a_view, lambda w, k: torch.mul(k, 1, out=w)]


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights_that_change_within_a_pass(
    change: Callable[[Tensor, Tensor], object], owned: bool, dtype: torch.dtype
) -> None:
    model = Kernels(change, owned)
    if dtype is torch.float32:
        model.w = nn.Parameter(model.w.float(), requires_grad=False) if owned else model.w.float()  # type: ignore[assignment]
        x, tangents = point(dtype)
        lanes = pushforward(model, x, tangents)[1]
        other = Kernels(Tensor.copy_)
        assert lanes is not None
        assert relative(lanes.double(), slopes(other, x.double(), tangents.double())) < 1e-4
    else:
        agrees(model)


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_between_passes(change: Callable[[Tensor, Tensor], object]) -> None:
    """Also by the model itself, in the pass: the next one must not find what was prepared for the last."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()
    x, tangents = point(torch.float32)
    with workspace(x):
        for kernel in KERNELS.float():
            with torch.no_grad():
                change(model[0].weight, kernel)  # type: ignore[arg-type]
                change(model[2].weight, kernel.flip(0))  # type: ignore[arg-type]
                model[1].running_var.mul_(2)  # type: ignore[union-attr, operator]
            if change is CHANGES[1]:
                continue_in_a_pass(model, change, kernel, x, tangents)
            lanes = pushforward(model, x, tangents)[1]
            assert relative(lanes, exact(model, x, tangents)) < 1e-5  # type: ignore[arg-type]


def continue_in_a_pass(
    model: nn.Module, change: Callable[[Tensor, Tensor], object], kernel: Tensor, x: Tensor, tangents: Tensor
) -> None:
    """A write into `.data` leaves no trace but the write itself, so it is seen where a pass is going on."""

    def function(z: Tensor) -> Tensor:
        for parameter in model.parameters():
            if parameter.ndim == 4:
                change(parameter, parameter.detach().clone())
        return model(z)  # type: ignore[no-any-return]

    pushforward(function, x, tangents)


def exact(model: nn.Module, x: Tensor, tangents: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([torch.func.jvp(model, (x,), (t,))[1] for t in tangents])


def entries() -> int:
    gc.collect()
    space = current_workspace()
    assert space is not None
    return len(space.entries)


class Standardised(nn.Conv2d):
    """Weight standardisation, whose weights are new tensors in each pass."""

    def forward(self, z: Tensor) -> Tensor:
        w = self.weight.flatten(1)
        w = (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True)
        return F.conv2d(z, w.view_as(self.weight), self.bias, padding=1)


class Renewed(nn.Module):
    """Makes a parameter in each pass."""

    def forward(self, z: Tensor) -> Tensor:
        return F.conv2d(z, nn.Parameter(KERNELS[0].float()))


def test_prepared_weights_do_not_grow() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    norms = [nn.BatchNorm2d(4) for _ in range(3)]
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), shared, norms[0], shared, norms[1], shared, norms[2],
        Standardised(4, 4, 3), parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)), Renewed(),
    ).eval()  # fmt: skip
    x, tangents = point(torch.float32)
    with workspace(x):
        pushforward(model, x, tangents)
        assert entries() == 2  # the parameters that live on, however often they are used
        for _ in range(3):
            norms[1].running_mean.add_(1)  # type: ignore[union-attr]
            lanes = pushforward(model, x, tangents)[1]
        assert entries() == 2
        assert relative(lanes, exact(model, x, tangents)) < 1e-4  # type: ignore[arg-type]
        del model, shared
        assert entries() == 0


def test_parameters_of_inference_mode_have_no_version_and_are_not_kept() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    x, tangents = point(torch.float32)
    with workspace(x):
        lanes = pushforward(model, x, tangents)[1]
        assert entries() == 0
    plain = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    plain.load_state_dict(model.state_dict())
    assert relative(lanes, exact(plain, x, tangents)) < 1e-5  # type: ignore[arg-type]


def flat(z: Tensor) -> Tensor:
    y = conv(z)
    y.flatten(1).mul_(z.mean())
    return y


def flat_source(z: Tensor) -> Tensor:
    y = conv(z)
    f = y.reshape(2, -1)
    y.mul_(z.mean())
    return f


def transposed(z: Tensor) -> Tensor:
    y = (z * 1).transpose(1, 2)
    y.reshape(-1).mul_(2)
    return y * z.mean()


def made_contiguous(z: Tensor) -> Tensor:
    y = conv(z)
    c = y.contiguous()
    c.mul_(z.mean())
    return y + c


def diagonal(z: Tensor) -> Tensor:
    y = z * 1
    y.diagonal(dim1=2, dim2=3).mul_(3)
    return y * z


def under_a_diagonal(z: Tensor) -> Tensor:
    y = z * 1
    d = y.diagonal(dim1=2, dim2=3)
    y.mul_(z.mean())
    return d


def strided(z: Tensor) -> Tensor:
    y = z * 1
    torch.as_strided(y, (2, 3), (100, 25)).mul_(5)
    return y * z


ALIASES = [flat, flat_source, transposed, made_contiguous, diagonal, under_a_diagonal, strided]


@pytest.mark.parametrize("function", ALIASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_may_be_a_view_in_torch(function: Function, dtype: torch.dtype) -> None:
    """Stacks lie in memory in their own way, so what is a view there may be a copy here, and the reverse."""
    agrees(function, dtype)


def test_a_write_that_nobody_else_can_see_needs_no_fallback() -> None:
    """As in the head of most networks: the map is gone once it has been flattened."""
    linear = nn.Linear(100, 6).double()

    def head(z: Tensor) -> Tensor:
        return F.relu(linear(F.relu(conv(z).flatten(1), inplace=True)), inplace=True)

    def tokens(z: Tensor) -> Tensor:
        y = conv(z).flatten(2).transpose(1, 2)
        y += BIAS
        y[:, 0] = 0
        return y.mul_(2)

    assert agrees(head) == []
    assert agrees(tokens) == []


def test_views_stay_views_when_a_fallback_writes() -> None:
    def function(z: Tensor) -> Tensor:
        y = z * 1
        part = y[:, 1:3]
        y.addcmul_(y, y)  # no rule
        part.erfinv_() if False else part.lgamma_()
        return y * part.mean(1, keepdim=True)

    assert "TensorBase.lgamma_" in agrees(function)


def test_a_stack_written_into_a_plain_tensor() -> None:
    def function(z: Tensor) -> Tensor:
        out = torch.zeros(2, 6, 5, 5, dtype=z.dtype)
        out[:, :4] = z**2
        out[:, 4:].copy_(z[:, :2])
        return out

    assert "writes a stacked tensor into a plain one" in agrees(function)[-1]


class Keeping(nn.Module):
    """Makes its mask on the first call and keeps it, and counts by the last image that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Tensor | None = None
        self.last: Tensor | None = None

    def forward(self, z: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = z.new_ones(z.shape[1:])
            self.mask[:, ::2] = 0.5
        out = z.sin() * self.mask
        if self.last is not None:
            out = torch.cat([out, self.last + 0 * out]) + self.last.mean()
        self.last = z
        return out


def test_what_a_model_keeps_is_a_constant_afterwards() -> None:
    model, (x, tangents) = Keeping(), point()
    pushforward(model, x * 2, tangents)
    assert isinstance(model.last, Stacked)
    assert type(model(x * 2)) is Tensor
    pushforward(model, x * 2, tangents)
    lanes = pushforward(model, x, tangents[:1])[1]
    other = Keeping()
    other(x * 2)
    kept = other.last

    def again(z: Tensor) -> Tensor:
        other.last = kept
        return other(z)  # type: ignore[no-any-return]

    torch.testing.assert_close(lanes, slopes(again, x, tangents[:1]), rtol=1e-8, atol=1e-9)
    assert model.last is not None
    assert model.last.mul_(2).mean().item() == pytest.approx(2 * float(x.mean()))
