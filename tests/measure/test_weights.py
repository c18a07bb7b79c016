"""Weights that are no plain tensors in memory: quantised ones, and those that are fetched when a module runs."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import lee

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Quantised(Tensor):
    """Weights of 8 bits that have no memory of their own, and are single precision to whoever computes with them."""

    def __new__(cls, weight: Tensor) -> "Quantised":
        return Tensor._make_wrapper_subclass(cls, weight.shape, dtype=torch.float32)

    def __init__(self, weight: Tensor) -> None:
        self.bits = weight

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(args[0].bits)
        plain = tree_map_only(cls, lambda w: w.bits / 100, (args, kwargs or {}))
        return func(*plain[0], **plain[1])


def test_weights_that_compute_in_their_own_way_are_asked() -> None:
    """The rule of a convolution read their memory, and the process ended."""
    torch.manual_seed(0)
    wanted = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(784, 5))
    model = copy.deepcopy(wanted)
    for i in (0, 4):
        rounded = (100 * wanted[i].weight.detach()).round().to(torch.int8)
        model[i].weight = nn.Parameter(Quantised(rounded), requires_grad=False)
        wanted[i].weight = nn.Parameter(rounded / 100)
    a, b = (lee.lie_derivative(m, X, "rotation") for m in (model, wanted))
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-6 * float(b.abs().max()))
    a, b = (torch.tensor(lee.layerwise(m, X, "rotation").frame.norm2.to_numpy()) for m in (model, wanted))
    assert torch.allclose(a, b, rtol=1e-3)


class Fetched(nn.Module):
    """A layer whose weight is on the device meta between its calls, as a mapping that can't be listed has the values."""

    class Files(Mapping[str, Tensor]):
        def __init__(self, held: dict[str, Tensor]) -> None:
            self.held = held

        def __getitem__(self, name: str) -> Tensor:
            return self.held[f"0.{name}"]

        def __iter__(self) -> Iterator[str]:
            return iter(self.held)

        def __len__(self) -> int:
            return len(self.held)

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3 * 16 * 16, 5)
        self.files = self.Files({"0.weight": self.inner.weight.detach()})
        self._leave()

    def _leave(self) -> None:
        self.inner.weight = nn.Parameter(torch.empty_like(self.inner.weight, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        self.inner.weight = nn.Parameter(self.files["weight"].view(self.inner.weight.shape))
        found: Tensor = self.inner(x.flatten(1))
        self._leave()
        return found


class Freed(nn.Module):
    """A layer that frees the memory of its gathered weight after each call, which keeps its shape, as FSDP does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3 * 16 * 16, 5)
        self.shard = self.inner.weight.detach().clone()
        self.gathered = self.inner.weight.detach()
        del self.inner.weight
        self.gathered.untyped_storage().resize_(0)

    def forward(self, x: Tensor) -> Tensor:
        self.gathered.untyped_storage().resize_(self.shard.nbytes)
        with torch.no_grad():
            self.gathered.copy_(self.shard)
        found = nn.functional.linear(x.flatten(1), self.gathered.clone(), self.inner.bias)
        self.gathered.untyped_storage().resize_(0)
        return found


@pytest.mark.parametrize("kind", [Fetched, Freed])
def test_weights_that_lie_elsewhere_between_two_calls(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind()
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    found, wanted = (lee.lie_derivative(m, X, "rotation") for m in (model, plain))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(model(X), plain(X))


class Doubled(torch.Tensor):
    """A weight of which layers see the double."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            x, weight, *rest = args
            return func(x, 2 * weight.as_subclass(torch.Tensor), *rest, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("verify", [True, False])
def test_a_weight_of_a_class_that_computes_in_its_own_way_is_asked(verify: bool) -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).double(), torch.rand(2, 3, 8, 8).double()
    known = 2 * lee.lie_derivative(net, x, "rotation", output="logits")
    net[1].weight = nn.Parameter(net[1].weight.detach().as_subclass(Doubled))
    assert torch.allclose(lee.lie_derivative(net, x, "rotation", output="logits", verify=verify), known)
