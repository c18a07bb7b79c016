"""What sits on a wrapper of `torch.compile` or `DataParallel` is part of the model; a bare wrapper is looked through."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import images
from torch import Tensor, nn

import lee
from lee.measure.checks import plain

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
torch.manual_seed(0)
NET = nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.GELU(), nn.Flatten(), nn.Linear(2 * 25, 3)).double().eval()


def tripled(z: Tensor) -> Tensor:
    return 3 * NET(z)  # type: ignore[no-any-return]


def shifted(z: Tensor) -> Tensor:
    return NET((z - 0.5) / 0.2)  # type: ignore[no-any-return]


class Shifting(nn.DataParallel[nn.Module]):
    def forward(self, z: Tensor) -> Any:
        return super().forward((z - 0.5) / 0.2)


class Named(nn.Module):
    """A user's own module with a child that has the name of the compiler's."""

    def __init__(self) -> None:
        super().__init__()
        self._orig_mod = NET

    def forward(self, z: Tensor) -> Tensor:
        return 3 * self._orig_mod(z)


def compiled() -> Any:
    return torch.compile(NET, backend="eager")


def hooked() -> Any:
    found = compiled()
    found.register_forward_hook(lambda module, args, output: 3 * output)
    return found


def hooked_before() -> nn.Module:
    found = nn.DataParallel(NET)
    found.register_forward_pre_hook(lambda module, args: ((args[0] - 0.5) / 0.2,))
    return found


def replaced(found: Any) -> Any:
    found.forward = tripled
    return found


CASES: dict[str, tuple[Callable[[], Any], Callable[[Tensor], Tensor]]] = {
    "hook": (hooked, tripled),
    "pre-hook": (hooked_before, shifted),
    "subclass": (lambda: Shifting(NET), shifted),
    "compiled.forward": (lambda: replaced(compiled()), tripled),
    "parallel.forward": (lambda: replaced(nn.DataParallel(NET)), tripled),
    "a child's name": (Named, tripled),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_wrapper_adds_is_measured(name: str) -> None:
    wrapped, meant = CASES[name]
    x = images(2, 12, 12)
    tangent = lee.warp(x, "rotation", 1e-6) - lee.warp(x, "rotation", -1e-6)
    with torch.no_grad():  # differences of the function that the wrapper computes
        known = (meant(x + tangent / 2) - meant(x - tangent / 2)) / 2e-6
    found = lee.lie_derivative(wrapped(), x, "rotation", output="logits")
    assert float((found - known).norm() / known.norm()) < 1e-6
    parts = lee.layerwise(wrapped(), x, "rotation", output="logits")
    assert parts.total.value == pytest.approx(float(known.square().mean()), rel=1e-5)


def test_a_hook_on_every_module_is_run_as_often_as_without_the_measurement() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        assert isinstance(plain(nn.DataParallel(NET)), nn.DataParallel)
    finally:
        handle.remove()


def test_bare_wrappers_are_looked_through() -> None:
    for module in (NET, NET[3]):  # torch puts a function of another kind around a layer of its own
        assert plain(torch.compile(module)) is module
        assert plain(nn.DataParallel(torch.compile(module))) is module
