"""Models that `torch.compile` has wrapped, in whole or in part, are measured as the plain ones; nothing is compiled for that."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import images, relative
from torch import Tensor, nn

import lee
from lee.autodiff import record_fallbacks

Backend = Callable[..., Any]
#: The compiler itself looks at the gradients of tensors that have none.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), block, nn.Flatten(), nn.Linear(4 * 28 * 28, 5)
    )
    return net.double().eval()


def never(graph: Any, inputs: Any) -> Any:
    raise AssertionError("the compiler was asked")


def whole(net: nn.Sequential, backend: Backend | str) -> Callable[..., Any]:
    wrapped: Callable[..., Any] = torch.compile(net, backend=backend)
    return wrapped


def in_place(net: nn.Sequential, backend: Backend | str) -> nn.Module:
    net.compile(backend=backend)
    return net


def a_part(net: nn.Sequential, backend: Backend | str) -> nn.Module:
    net[3] = torch.compile(net[3], backend=backend)  # type: ignore[assignment]
    return net


def a_part_in_place(net: nn.Sequential, backend: Backend | str) -> nn.Module:
    net[3].compile(backend=backend)
    return net


def a_function(net: nn.Sequential, backend: Backend | str) -> Callable[..., Any]:
    wrapped: Callable[..., Any] = torch.compile(lambda x: net(x), backend=backend)
    return wrapped


WAYS = [whole, in_place, a_part, a_part_in_place, a_function]


@pytest.mark.parametrize("way", WAYS)
def test_forward_mode_compiles_nothing(way: Callable[..., Any]) -> None:
    x = images(2)
    expected = lee.lie_derivative(model(), x, "rotation")
    with record_fallbacks() as fallbacks:
        found = lee.lie_derivative(way(model(), never), x, "rotation")
    assert relative(found, expected) < 1e-12
    assert fallbacks == []


@pytest.mark.parametrize("way", [in_place, a_part])
def test_what_runs_compiled_stays_so_and_is_measured_as_it_is(way: Callable[..., Any]) -> None:
    """Compiled before and after: a measurement between two passes changes neither."""
    x, net = images(2), model()
    expected, before = lee.lie_derivative(net, x, "rotation"), net(x)
    graphs: list[Any] = []

    def counted(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    ready = way(net, counted)
    assert relative(ready(x), before) < 1e-12
    compiled = len(graphs)
    assert compiled > 0
    assert relative(lee.lie_derivative(ready, x, "rotation"), expected) < 1e-12
    assert relative(ready(x), before) < 1e-12
    assert len(graphs) == compiled


@pytest.mark.parametrize("mode", ["reverse", "differences"])
def test_the_other_modes_of_a_model_with_a_compiled_part(mode: str) -> None:
    x = images(2)
    expected = lee.lie_derivative(model(), x, "rotation", mode=mode)
    found = lee.lie_derivative(a_part(model(), "aot_eager"), x, "rotation", mode=mode)
    assert relative(found, expected) < 1e-8  # differences of a step of 1e-6


def test_the_fallback_on_dual_numbers_compiles_nothing() -> None:
    """A model that looks at its input's memory can't be stacked, and runs on dual numbers."""

    def shy(x: Tensor) -> Tensor:
        if type(x) is not Tensor:
            raise TypeError("plain tensors only")
        return x.square().mean((2, 3))

    x = images(2)
    with record_fallbacks() as fallbacks:
        found = lee.lie_derivative(torch.compile(shy, backend=never), x, "brightness", output="logits")
    assert any("plain tensors only" in name for name in fallbacks)
    torch.testing.assert_close(found, 2 * x.square().mean((2, 3)))  # d/dt mean((e^t x)²)
