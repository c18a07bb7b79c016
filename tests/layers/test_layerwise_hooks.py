"""Tensors that reach the output by side doors (hooks, attributes, lists, containers): decomposed as in a model that returns them.

The oracle is a twin without side doors: the same modules, whose features are returned and given as arguments.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from torch import Tensor, nn

import lee
from lee.layers import Decomposition
from lee.layers.nested import changed, tensors
from lee.measure.state import ModuleState

GAIN = torch.rand(1, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
MODES = ("forward", "reverse")


def images(side: int = 16) -> Tensor:
    coarse = torch.rand(2, 3, side // 2, side // 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return nn.functional.interpolate(coarse, scale_factor=2, mode="bicubic")


class Block(nn.Module):
    """A residual block that also keeps its output, and its input where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()
        self.last: Tensor | None = None

    def forward(self, x: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        y = x + self.act(self.conv(x))
        self.last = y
        if kept is not None:
            kept.append(y)
        return y


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


class Returning(Backbone):
    """The same, but it returns what the others hand on unseen."""

    def forward(self, x: Tensor) -> Any:
        features = [self.stem(x)]
        for block in self.blocks:
            features.append(block(features[-1]))
        return features


class InList(Backbone):
    """Its blocks write into a list of its own."""

    kept: list[Tensor]

    def forward(self, x: Tensor) -> Any:
        self.kept = [x := self.stem(x)]
        for block in self.blocks:
            x = block(x, self.kept)
        return x


class Head(nn.Module):
    """Reads the features that it is given, or those that it finds."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Linear(4, 3)
        self.find: Callable[[], list[Tensor]] | None = None

    def forward(self, features: list[Tensor]) -> Tensor:
        if self.find is not None:
            features = self.find()
        mixed = self.mix(torch.cat([features[1], features[3].square()], 1))
        return self.out((mixed.tanh() * features[2]).mean((2, 3)))


class Net(nn.Module):
    """A backbone and a head, which reads what `find` returns."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, Head()
        self.find: Callable[[], list[Tensor]] = list

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        return self.head(features if isinstance(features, list) else self.find())


def net(kind: type[nn.Module] = Backbone) -> Any:
    torch.manual_seed(0)
    return Net(kind()).double().eval()


def by_dictionary(model: Any) -> None:
    kept: dict[int, Tensor] = {}
    for i, module in enumerate([model.backbone.stem, *model.backbone.blocks]):
        module.register_forward_hook(lambda m, a, o, i=i: kept.__setitem__(i, o))
    model.find = lambda: [kept[i] for i in range(4)]


def by_list(model: Any) -> None:
    kept: list[Tensor] = []
    model.register_forward_pre_hook(lambda m, a: kept.clear())
    for module in [model.backbone.stem, *model.backbone.blocks]:
        module.register_forward_hook(lambda m, a, o: kept.append(o))
    model.find = lambda: list(kept)


def by_input(model: Any) -> None:
    """Hooks that keep what comes in, as timm's `forward_pre` do; the last feature is the backbone's output."""
    kept: dict[int, Tensor] = {}
    for i, block in enumerate(model.backbone.blocks):
        block.register_forward_pre_hook(lambda m, a, i=i: kept.__setitem__(i, a[0]))
    model.backbone.register_forward_hook(lambda m, a, o: kept.__setitem__(3, o))
    model.find = lambda: [kept[i] for i in range(4)]


def by_attribute(model: Any) -> None:
    blocks = model.backbone.blocks
    model.backbone.stem.register_forward_hook(lambda m, a, o: setattr(m, "last", o))
    model.find = lambda: [model.backbone.stem.last, *(b.last for b in blocks)]


def in_the_head(model: Any) -> None:
    by_dictionary(model)
    model.head.find = model.find


def by_lists(model: Any) -> None:
    model.find = lambda: model.backbone.kept


def lazily(model: Any) -> None:
    """Hooks that the first pass registers, as those of Hugging Face's models are."""
    kept: list[Tensor] = []

    def install(module: Any, args: Any) -> None:
        kept.clear()
        if not getattr(module, "installed", False):
            module.installed = True
            for inner in [module.backbone.stem, *module.backbone.blocks]:
                inner.register_forward_hook(lambda m, a, o: kept.append(o))

    model.register_forward_pre_hook(install)
    model.find = lambda: list(kept)


#: How features are handed on, and which calls that leaves without a Lie derivative of their own.
DOORS: dict[str, tuple[type[nn.Module], Callable[[Any], None], set[str]]] = {
    "dictionary": (Backbone, by_dictionary, {"backbone"}),
    "list": (Backbone, by_list, {"backbone"}),
    "inputs": (Backbone, by_input, {"backbone"}),
    "attribute": (Backbone, by_attribute, {"backbone", *(f"backbone.blocks.{i}" for i in range(3))}),
    "the head's own": (Backbone, in_the_head, {"backbone", "head"}),
    "a list that blocks write into": (InList, by_lists, {"backbone", *(f"backbone.blocks.{i}" for i in range(3))}),
    "hooks of the first pass": (Backbone, lazily, {"backbone"}),
}


def norms(parts: Decomposition) -> pd.Series:
    rows = parts.frame[parts.frame.kind != "merged"]
    return rows.set_index("path").norm2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("door", DOORS)
def test_features_from_side_doors_count_as_returned_ones(door: str, mode: str) -> None:
    kind, open_door, merged = DOORS[door]
    model = net(kind)
    open_door(model)
    before = [(list(m._forward_pre_hooks), list(m._forward_hooks)) for m in model.modules()]
    parts = lee.layerwise(model, images(), "rotation", mode=mode)
    assert [(list(m._forward_pre_hooks), list(m._forward_hooks)) for m in model.modules()] == before
    assert set(parts.frame.path[parts.frame.kind == "merged"]) == merged
    assert parts.residual < 1e-10
    expected = norms(lee.layerwise(net(Returning), images(), "rotation", mode="reverse"))
    found = norms(parts)
    assert expected["backbone.stem"] > 0
    assert set(found.index) == set(expected.index) - merged
    pd.testing.assert_series_equal(found, expected[found.index], rtol=1e-8)


class Outer(nn.Module):
    """A network inside another, run twice on what a first layer makes of the image."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 3, 3, padding=1), inner, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.last(self.inner(z) + self.inner(z.flip(3)).tanh())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("door", DOORS)
def test_a_network_with_side_doors_is_measured_inside_another(door: str, mode: str) -> None:
    def outer(inner: nn.Module) -> nn.Module:
        torch.manual_seed(1)
        return Outer(inner).double().eval()

    kind, open_door, merged = DOORS[door]
    model = net(kind)
    open_door(model)
    parts = lee.layerwise(outer(model), images(), "rotation", mode=mode)
    assert set(parts.frame.path[parts.frame.kind == "merged"]) == {f"inner.{path}" for path in merged}
    assert parts.residual < 1e-10
    expected = lee.layerwise(outer(net(Returning)), images(), "rotation", mode="reverse").frame
    found = parts.frame.norm2[parts.frame.kind != "merged"]
    pd.testing.assert_series_equal(found, expected.norm2[found.index], rtol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_a_counter_in_an_argument_goes_on_counting(mode: str) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor, state: dict[str, int]) -> Tensor:
            state["calls"] += 1
            return self.conv(x) * state["calls"]

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 4, 3, padding=1), Counting()

        def forward(self, x: Tensor) -> Tensor:
            state, z = {"calls": 0}, self.stem(x)
            for _ in range(3):
                z = self.block(z.tanh(), state)
            return z.mean((2, 3)) / state["calls"]

    torch.manual_seed(0)
    parts = lee.layerwise(Counted().double().eval(), images(), "rotation", mode=mode)
    assert parts.residual < 1e-10
    assert list(parts.frame.path[parts.frame.kind == "merged"]) == ["block"] * 3
    assert "writes into a list or a dictionary that it is given" in parts.notes[0]


def test_what_is_counted_around_says_why() -> None:
    model = net()
    in_the_head(model)
    why = lee.explain_representations(model, images()).frame.set_index("path").why
    assert "used outside it without being returned" in why["backbone"]
    assert "uses a tensor that it is not given" in why["head"]


class Changed(nn.Module):
    """A module together with what its hooks do to its input and output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = inner.weight, inner.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x * GAIN, self.weight, self.bias, padding=1) * GAIN


def in_place(module: nn.Module, args: Any, output: Tensor) -> None:
    output.mul_(GAIN)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda m, a: a[0] * GAIN, lambda m, a, o: o * GAIN),
        (lambda m, a: (a[0] * GAIN,), in_place),
    ],
)
def test_hooks_that_change_what_goes_in_and_out_belong_to_the_call(
    before: Callable[..., Any], after: Callable[..., Any], mode: str
) -> None:
    seen: list[Tensor] = []
    model, twin = net(Returning), net(Returning)
    conv = model.backbone.blocks[1].conv
    conv.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    conv.register_forward_pre_hook(before)
    conv.register_forward_hook(after)
    conv.register_forward_hook(lambda m, a, o: None)
    twin.backbone.blocks[1].conv = Changed(twin.backbone.blocks[1].conv)
    parts = lee.layerwise(model, images(), "rotation", mode=mode)
    assert parts.residual < 1e-10
    expected = norms(lee.layerwise(twin, images(), "rotation", mode="reverse"))
    pd.testing.assert_series_equal(norms(parts), expected, rtol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_a_hook_that_keeps_the_output_before_it_changes_it_leaves_the_call_to_the_one_around(mode: str) -> None:
    model = net(Returning)
    kept: list[Tensor] = []

    def keep_and_change(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        kept[:] = [output]
        return output * GAIN

    model.backbone.blocks[1].act.register_forward_hook(keep_and_change)
    model.head.register_forward_hook(lambda m, a, o: o + kept[0].square().mean((2, 3))[:, :3])
    parts = lee.layerwise(model, images(), "rotation", mode=mode)
    assert parts.residual < 1e-10
    assert {"backbone.blocks.1.act", "backbone.blocks.1", "backbone", "head"} == set(
        parts.frame.path[parts.frame.kind == "merged"]
    )


@pytest.mark.parametrize("scope", ["module", "features"])
def test_discrete_errors_of_layers_are_those_without_side_doors(scope: str) -> None:
    model, twin = net(), net(Returning)
    by_list(model)
    found, expected = (lee.metrics.layer_errors(m, images(), [("rotation", 0.3)], scope=scope) for m in (model, twin))
    leaves = found.path[found.leaf]
    assert len(leaves) > 5
    columns = ["path", *found.columns.difference(expected.columns[:5])]
    pd.testing.assert_frame_equal(found[found.leaf][columns], expected[expected.leaf][columns])


def test_features_of_timm_by_hooks_are_those_of_its_lists() -> None:
    def decomposed(kind: str) -> Decomposition:
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", features_only=True, feature_cls=kind).double().eval()
        return lee.layerwise(
            model, images(32), "rotation", output=lambda features: torch.cat([f.mean((2, 3)) for f in features[1:]], 1)
        )

    lists, hooks = decomposed("list"), decomposed("hook")
    assert hooks.residual < 1e-10
    found, expected = norms(hooks), norms(lists)
    found.index = found.index.str.removeprefix("body.")
    shared = found.index.intersection(expected.index)
    assert len(shared) > 40
    pd.testing.assert_series_equal(found[shared], expected[shared], rtol=1e-7)
    assert not found.drop(shared).any()  # what follows the last feature


class Entries(OrderedDict[str, Any]):
    """As Hugging Face's `ModelOutput`: fields and entries at once; pytree does not know it."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(entries)
        self.__dict__.update(entries)


@dataclass(frozen=True)
class Fields:
    first: Tensor
    states: tuple[Tensor, ...]
    name: str = "fields"


class Closed:
    """An object that nothing is known of."""

    __slots__ = ("first", "states")

    def __init__(self, first: Tensor, states: tuple[Tensor, ...]) -> None:
        self.first, self.states = first, states


class Wrapping(Returning):
    wrap: Callable[..., Any] = Entries

    def forward(self, x: Tensor) -> Any:
        first, *states = super().forward(x)
        return type(self).wrap(first=first, states=tuple(states))


class Reading(Head):
    def forward(self, features: Any) -> Tensor:
        states = features["states"] if isinstance(features, dict) else features.states
        return super().forward([features.first, *states])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrap", [Entries, Fields, SimpleNamespace, Closed])
def test_containers_that_pytree_does_not_know_are_opened_or_counted_around(wrap: Callable[..., Any], mode: str) -> None:
    torch.manual_seed(0)
    model: Any = Net(type("Wrapped", (Wrapping,), {"wrap": wrap})())
    model.head.__class__ = Reading
    model.forward = lambda x: model.head(model.backbone(x))
    parts = lee.layerwise(model.double().eval(), images(), "rotation", mode=mode)
    merged = {"backbone", "head"} if wrap is Closed else set()
    assert set(parts.frame.path[parts.frame.kind == "merged"]) == merged
    assert parts.residual < 1e-10
    expected = norms(lee.layerwise(net(Returning), images(), "rotation", mode="reverse"))
    found = norms(parts)
    pd.testing.assert_series_equal(found, expected[found.index], rtol=1e-8)


def test_nested_tensors_are_found_and_replaced_in_the_same_order() -> None:
    a, b, c = torch.zeros(1), torch.ones(2), torch.ones(3)
    inner = Fields(b, (c, torch.tensor(1)))
    inner_list = type("Mine", (list,), {})([a])
    given = (Entries(first=a, states=[inner]), {"name": "x", "more": SimpleNamespace(inner=inner_list)}, 3)
    assert [len(v) for v in tensors(given)] == [1, 2, 3, 1]
    made = changed(given, lambda v, i: v + 10 * (i + 1))
    assert [float(v[0]) for v in tensors(made)] == [10, 21, 31, 40]
    assert made[0].first is made[0]["first"]
    assert type(made[0]) is Entries
    assert type(made[1]["more"].inner).__name__ == "Mine"
    assert [float(v[0]) for v in tensors(given)] == [0, 1, 1, 0]
    assert (made[0].states[0].name, made[2]) == ("fields", 3)


def test_a_container_that_holds_itself_is_opened_once() -> None:
    node = SimpleNamespace(value=torch.ones(1))
    node.me = node
    made = changed(node, lambda v, i: v + 1)
    assert (float(made.value), made.me is made, len(tensors(node))) == (2, True, 1)


def test_hooks_that_a_model_registers_in_a_pass_go_with_the_attribute_that_says_so() -> None:
    model = net()
    lazily(model)
    state = ModuleState([model])
    for _ in range(3):
        state.restore(hooks=False)
        model(images())
    assert len(model.backbone.stem._forward_hooks) == 1


def test_buffers_that_a_model_writes_into_carry_nothing_over_to_the_next_trace() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.register_buffer("kept", torch.zeros(1, 4, 16, 16))

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            if len(y) == 1:
                self.kept.copy_(y.detach())
            return y.mean((2, 3))

    model = Cached().eval()
    first, second = (lee.explain_representations(model, images().float()).frame for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert not [name for name in vars(model.kept) if name.startswith("_lee")]


class Catching(nn.Module):
    """Goes on without a layer that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong, self.right, self.head = nn.Conv2d(5, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        try:
            h = self.wrong(x)
        except RuntimeError:
            h = self.right(x)
        return self.head(h.tanh().flatten(1))


def test_a_model_that_catches_what_a_layer_raises_is_refused() -> None:
    with pytest.raises(lee.InputError, match="'wrong' raised an exception that 'the model' caught"):
        lee.layerwise(Catching(), torch.rand(2, 3, 8, 8), "rotation")


@pytest.mark.parametrize("measure", [
    lambda net, x, wrong: lee.explain_representations(net, x, wrong),
    lambda net, x, wrong: lee.metrics.layer_errors(net, x, [("rotation", 0.3)], representations=wrong),
])  # fmt: skip
def test_patterns_that_match_nothing_are_refused(measure: Callable[..., Any]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(lee.InputError, match="matches no module call"):
        measure(net, torch.rand(1, 3, 8, 8), {"tail.*": None})


class Spectral(nn.Module):
    """Weighs the spectrum of what it is given, which is complex already."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 1, 1, dtype=torch.complex64))

    def forward(self, z: Tensor) -> Tensor:
        return z * self.weight


class OfSpectra(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = Spectral(), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.ifft2(self.inner(torch.fft.fft2(x))).real.square().mean((2, 3)))


def test_complex_numbers_are_named_as_the_reason() -> None:
    found = lee.layerwise(OfSpectra(), torch.rand(2, 3, 8, 8), "rotation", output="logits")
    said = "\n".join(found.notes)
    assert "inner (Spectral): takes in or hands on complex numbers" in said
    assert "not given" not in said
