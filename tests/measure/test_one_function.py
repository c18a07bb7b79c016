"""A model that is more than one function is held still or named, and put back bit by bit."""

import random
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from measure.test_verification import error, images, quietly, truth
from torch import Tensor, nn

import lee
import lee.measure.testing

torch.manual_seed(0)
NET = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(784, 3)
).double()


def lee_of(model: Any, x: Tensor | None = None, generator: str = "rotation", **options: Any) -> float:
    options = {"output": "logits", "progress": False, **options}
    return lee.local_equivariance_error(model, images() if x is None else x, generator, **options).value


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3).double(), nn.Linear(8, 3).double()

    def forward(self, z: Tensor) -> Tensor:
        return self.head(F.dropout(self.conv(z), 0.5, training=True).mean((2, 3)))  # type: ignore[no-any-return]


def noisy_by(draw: Callable[[], float]) -> Callable[[Tensor], Tensor]:
    return lambda z: z.tanh().mean((2, 3)) * (1 + draw())


@pytest.mark.parametrize(
    "model",
    [
        Dropping().eval(),
        noisy_by(lambda: float(np.random.rand())),  # noqa: NPY002
        noisy_by(random.random),
        noisy_by(lambda: float(torch.rand(()))),
    ],
    ids=["dropout", "numpy", "python", "torch"],
)
def test_a_random_function_is_held_still(model: Callable[[Tensor], Tensor]) -> None:
    x, states = images(), (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]  # noqa: NPY002
    with pytest.warns(lee.RandomFunctionWarning, match="random in eval mode"):
        gram = lee.equivariance_gram(model, x, output="logits", progress=False)
    with quietly():
        alone = lee_of(model, x)
        single = lee.lie_derivative(model, x, "rotation", output="logits")
        differences = lee_of(model, x, mode="differences")
    assert gram.lee("rotation").value == pytest.approx(alone, rel=1e-9)
    assert error(single) == pytest.approx(alone, rel=1e-9)
    assert differences == pytest.approx(alone, rel=1e-4)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == states[2]


class Branching(nn.Module):
    """Leaves out a branch at random, so that two calls in a row often give the same."""

    def __init__(self, source: Any, draw: Callable[[Any], float]) -> None:
        super().__init__()
        self.source, self.draw = source, draw

    def forward(self, z: Tensor) -> Tensor:
        return z.tanh().mean((2, 3)) + (z.square().mean((2, 3)) if self.draw(self.source) < 0.97 else 0)


SOURCES: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "torch": (lambda: None, lambda _: float(torch.rand(()))), "python": (lambda: None, lambda _: random.random()),
    "own torch": (lambda: torch.Generator().manual_seed(0), lambda g: float(torch.rand((), generator=g))),
    "own numpy": (lambda: np.random.default_rng(0), lambda g: float(g.random())),
    "own python": (lambda: random.Random(0), lambda g: g.random()),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_drawn_is_held_still_though_it_seldom_shows(name: str) -> None:
    torch.manual_seed(0)
    random.seed(0)
    source, draw = SOURCES[name]
    model, x = Branching(source(), draw).eval(), images(24)
    expected = truth(lambda z: z.tanh().mean((2, 3)) + z.square().mean((2, 3)), x, "rotation")
    first = [draw(model.source) for _ in range(3)]
    model.source = source()
    for measure in (lambda: lee_of(model, x), lambda: lee.metrics.eq_t(model, x, output="logits", draws=2)):
        with pytest.warns(lee.RandomFunctionWarning, match="random in eval mode"):
            measure()
    with quietly():
        assert lee_of(model, x) == pytest.approx(error(expected), rel=1e-6)
    if model.source is not None:  # nothing was drawn of it
        assert [draw(model.source) for _ in range(3)] == first


def test_a_seed_inside_makes_a_model_one_function() -> None:
    def model(z: Tensor) -> Tensor:
        torch.manual_seed(7)
        return (z + 0.1 * torch.randn(3, 16, 16, dtype=z.dtype)).tanh().mean((2, 3))

    assert lee_of(model) == pytest.approx(error(truth(model, images(), "rotation")), rel=1e-6)


def test_dropout_that_is_left_on_in_a_model_in_eval_mode_is_named() -> None:
    model = nn.Sequential(NET.eval(), nn.Dropout(0.5)).eval()
    expected = lee_of(model)
    model[1].train()
    with pytest.warns(lee.TrainingModeWarning, match="A Dropout that the model reaches is in training mode"):
        assert lee_of(model) == expected
    assert model[1].training


def test_random_numbers_that_can_not_be_held_are_refused() -> None:
    source = random.SystemRandom()
    with pytest.raises(lee.InputError, match="another value at every call"):
        lee_of(lambda z: z.mean((2, 3)) * source.random())


def test_images_that_interact_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double().eval()  # fmt: skip
    with pytest.warns(lee.BatchInteractionWarning, match="chunk"):
        whole = lee_of(model, chunk=4)
    with quietly():
        alone, differences = lee_of(model, chunk=1), lee_of(model, chunk=4, mode="differences")
    assert whole != pytest.approx(alone, rel=0.1)
    assert differences == pytest.approx(whole, rel=1e-4)
    with quietly(), pytest.raises(lee.InputError, match="images of a batch interact"):
        lee_of(model, mode="reverse")
    with pytest.warns(lee.BatchInteractionWarning):
        lee.metrics.eq_t(model, images(), output="logits", draws=2)


@pytest.mark.parametrize("model", [
    lambda z: z.tanh().mean((2, 3)) + z.square().mean((2, 3)).cumsum(0),
    lambda z: z.tanh().mean((2, 3)) + z.square().mean((2, 3)).flip(0).cumsum(0).flip(0),
    lambda z: z.tanh().mean((2, 3)) * torch.arange(1, len(z) + 1).to(z)[:, None],
], ids=["those before", "those behind", "its place"])  # fmt: skip
@pytest.mark.parametrize("n", [2, 3, 4])
def test_an_image_may_depend_on_others_on_one_side_alone(model: Callable[[Tensor], Tensor], n: int) -> None:
    """As in networks for films, where the batch is time."""
    with pytest.warns(lee.BatchInteractionWarning, match="chunk"):
        lee_of(model, images(n))


@pytest.mark.parametrize("offset", [300.0, 3e3])
def test_images_that_interact_beside_a_large_constant_are_named(offset: float) -> None:
    """In single precision the constant hides what images do to each other from every comparison that is relative to it."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    x = images(6).float()
    found = []
    for constant in (0.0, offset):
        with pytest.warns(lee.BatchInteractionWarning):
            error = lee.local_equivariance_error(
                lambda z, b=constant: b + net(z) - net(z).mean(0), x, "rotation", output="logits"
            )
        found.append(float(error.value))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_kernels_that_round_differently_are_no_interaction() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9216, 10)
    ).eval()
    lee_of(model, images().float())


class Holder:
    def __init__(self, net: nn.Module) -> None:
        self.parts = {"net": [net]}

    def __call__(self, z: Tensor) -> Tensor:
        return self.parts["net"][0](z)  # type: ignore[no-any-return]

    def predict(self, z: Tensor) -> Tensor:
        return self(z)


def closure(net: nn.Module) -> Callable[[Tensor], Tensor]:
    def inner(z: Tensor, scale: float = 1.0) -> Tensor:
        return net(z) * scale  # type: ignore[no-any-return]

    return partial(lambda z, f: f(z), f=inner)


def by_a_global(z: Tensor) -> Tensor:
    return NET(z)  # type: ignore[no-any-return]


class Hidden(nn.Module):
    """Keeps its backbone in a list, so that it isn't registered."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.backbone = [net]

    def forward(self, z: Tensor) -> Tensor:
        return self.backbone[0](z)  # type: ignore[no-any-return]


class Inheriting(Holder):
    teachers = (NET,)

    def __init__(self) -> None:
        pass

    def __call__(self, z: Tensor) -> Tensor:
        return self.helper(z)

    def helper(self, z: Tensor) -> Tensor:
        return self.teachers[0](z)  # type: ignore[no-any-return]


class Slotted:
    __slots__ = ("net",)

    def __init__(self, net: nn.Module) -> None:
        self.net = weakref.ref(net)

    def __call__(self, z: Tensor) -> Tensor:
        return self.net()(z)  # type: ignore[misc, no-any-return]


@pytest.mark.parametrize(
    "model",
    [
        Inheriting(), Slotted(NET), torch.no_grad()(NET), torch.autocast("cpu", enabled=False)(NET),
        NET.forward, partial(NET.forward), lambda z: NET(z), closure(NET), Holder(NET), Holder(NET).predict, by_a_global,
        Hidden(NET), lambda z: by_a_global(z),
    ],
    ids=[
        "class attribute", "slots and a weak reference", "no_grad", "autocast", "bound method", "partial", "lambda", "closure",
        "object", "its method", "global", "hidden", "function of a function",
    ],
)  # fmt: skip
def test_training_mode_behind_a_function_is_eval_mode(model: Callable[[Tensor], Tensor]) -> None:
    NET.train()
    before = {k: v.clone() for k, v in NET.state_dict().items()}
    expected = lee_of(NET)
    NET.train()
    with pytest.warns(lee.TrainingModeWarning, match=r"training mode; it is measured in eval"):
        found = lee_of(model)
    assert found == pytest.approx(expected, rel=1e-9)
    assert all(m.training for m in NET.modules())
    assert all(torch.equal(before[k], v) for k, v in NET.state_dict().items())


head = nn.LazyLinear(2)


def test_an_attribute_is_no_global_of_its_name() -> None:
    """`self.head` has nothing to do with a `head` that lies in the same file or notebook."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = NET

        def forward(self, z: Tensor) -> Tensor:
            return self.head(z)

    assert lee_of(Model()) == lee_of(NET)


def test_the_output_may_reach_modules_too() -> None:
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).double().train()
    with pytest.warns(lee.TrainingModeWarning):
        found = lee_of(NET.eval(), output=lambda h: head(h))
    assert found == pytest.approx(lee_of(nn.Sequential(NET, head).eval()), rel=1e-9)


class Filtered(nn.Module):
    """Prepares its filter when it is put into eval mode, and drops it in training mode, as escnn's convolutions do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3, dtype=torch.float64))

    def train(self, mode: bool = True) -> "Filtered":
        if mode and hasattr(self, "filter"):
            del self.filter
        elif not mode:
            self.register_buffer("filter", self.weight.detach().flip(-1))
        return super().train(mode)

    def forward(self, z: Tensor) -> Tensor:
        return F.conv2d(z, self.weight.flip(-1) if self.training else self.filter).tanh().mean((2, 3))  # type: ignore[arg-type]


def test_a_module_is_put_into_eval_mode_by_its_own_method() -> None:
    torch.manual_seed(0)
    model = Filtered().train()
    known = truth(lambda z: F.conv2d(z, model.weight.detach().flip(-1)).tanh().mean((2, 3)), images(), "rotation")
    assert lee_of(nn.Sequential(model)) == pytest.approx(error(known), rel=1e-5)
    assert not hasattr(model, "filter")
    assert model.training


class ActNorm(nn.Module):
    """Takes scale and shift from the first batch that it sees (Glow)."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.scale = (nn.Parameter(torch.zeros(1, 3, 1, 1, dtype=torch.float64)) for _ in range(2))
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, z: Tensor) -> Tensor:
        if not self.ready:
            with torch.no_grad():
                self.shift.data.copy_(z.detach().mean((0, 2, 3), keepdim=True))
                self.scale.data.copy_(z.detach().std((0, 2, 3), keepdim=True))
                self.ready.fill_(True)  # type: ignore[operator]
        return ((z - self.shift) / self.scale).tanh().mean((2, 3))  # type: ignore[no-any-return]


class Counting(nn.Module):
    """Updates running means and a counter also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, z: Tensor) -> Tensor:
        self.count += 1  # type: ignore[operator]
        self.mean.lerp_(z.detach().mean((0, 2, 3)), 0.1)  # type: ignore[operator]
        return (z - self.mean[:, None, None]).square().mean((2, 3))  # type: ignore[index]


class Adapting(nn.Module):
    """Test-time adaptation: a gradient step on its own weights in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3).double()

    def forward(self, z: Tensor) -> Tensor:
        with torch.enable_grad():
            loss = self.head(z.detach().mean((2, 3))).square().sum()
            for p, g in zip(
                self.head.parameters(), torch.autograd.grad(loss, list(self.head.parameters())), strict=True
            ):
                p.data -= 0.1 * g
        return self.head(z.mean((2, 3))).tanh()  # type: ignore[no-any-return]


class Remembering(nn.Module):
    """Its state is a Python attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        return z.tanh().mean((2, 3)) * self.calls


@pytest.mark.parametrize("kind", [ActNorm, Counting, Adapting, Remembering])
def test_a_model_that_changes_itself_starts_from_the_same_state(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), images()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with quietly():
        gram = lee.equivariance_gram(model, x, output="logits", progress=False, chunk=1)
        alone = lee_of(model, x, chunk=1)
        differences = lee_of(model, x, chunk=1, mode="differences")
        lee.metrics.eq_r(model, x, output="logits", draws=2)
    assert gram.lee("rotation").value == pytest.approx(alone, rel=1e-5)
    assert differences == pytest.approx(alone, rel=1e-4)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert getattr(model, "calls", 0) == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lee_of(model, x)
    # What a first batch sets is seen as images that interact; the others also change the next output.
    kinds = {w.category for w in caught}
    assert (lee.BatchInteractionWarning if kind is ActNorm else lee.StateWarning) in kinds


class Warming(nn.Module):
    """Behaves otherwise after its first calls; an integer counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.ema = 0, torch.zeros(3).double()

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        self.ema.mul_(0.9).add_(1)
        return z.tanh().mean((2, 3)) * (1 if self.calls < 4 else 3)


def test_a_counter_and_a_plain_tensor_are_put_back_before_each_pass() -> None:
    model, x = Warming(), images(8)
    expected = lee_of(lambda z: z.tanh().mean((2, 3)), x)
    with quietly():
        assert lee_of(model, x, chunk=1) == pytest.approx(expected, rel=1e-9)
    assert (model.calls, model.ema.tolist()) == (0, [0, 0, 0])


def test_a_gradient_taken_inside_leaves_nothing() -> None:
    head = nn.Linear(3, 2).double()

    def model(z: Tensor) -> Tensor:
        with torch.enable_grad():
            head(z.detach().mean((2, 3))).sum().backward()
        return z.tanh().mean((2, 3))

    with quietly():
        lee_of(model)
    assert head.weight.grad is None


def test_images_that_interact_from_three_on_are_named() -> None:
    def crowded(z: Tensor) -> Tensor:
        return z.tanh().mean((2, 3)) * (1 if len(z) < 3 else z.mean())

    with pytest.warns(lee.BatchInteractionWarning):
        lee_of(crowded, chunk=4)


def test_lazy_modules_are_refused_and_stay_usable() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(lee.InputError, match=r"LazyConv2d.*no parameters yet: run the model once"):
        lee_of(model, images().float())
    model(images().float())
    lee_of(model, images().float())


class Overwriting(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        z.sub_(0.5).div_(0.25)
        return z.tanh().mean((2, 3))


def test_foreign_code_gets_copies() -> None:
    x, pure = images(), lambda z: ((z - 0.5) / 0.25).tanh().mean((2, 3))
    kept = x.clone()
    measures: list[Callable[[Any], Any]] = [
        lambda f: lee_of(f, x), lambda f: lee_of(f, x, mode="reverse"), lambda f: lee_of(f, x, mode="differences"),
        lambda f: lee.metrics.eq_t(f, x, output="logits", draws=3).value,
        lambda f: lee.metrics.sampled_invariance(f, x, "scale", radius=0.1, output="logits").value,
        lambda f: lee.metrics.consistency(f, x, output="logits").value,
        lambda f: lee.metrics.output_range(f, x),
        lambda f: lee.measure.testing.equivariance_deviation(f, x, lambda z: z.flip(-1)),
    ]  # fmt: skip
    for measure in measures:
        assert measure(Overwriting()) == pytest.approx(measure(pure), rel=1e-6, abs=1e-12)
        assert torch.equal(x, kept)


class Failing(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.before, self.value = nn.Conv2d(3, 3, 3).double(), value
        self.log = Shifted(value)
        self.head = nn.Linear(3, 3).double()

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.log(self.before(z)).mean((2, 3)))  # type: ignore[no-any-return]


class Shifted(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z: Tensor) -> Tensor:
        return z + self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_an_error_that_names_the_module(value: float) -> None:
    model = Failing(value)
    calls: list[Callable[[], Any]] = [
        lambda: lee_of(model), lambda: lee.lie_derivative(model, images(), "scale", output="logits", verify=False),
        lambda: lee.metrics.eq_t(model, images(), output="logits"), lambda: lee.metrics.consistency(model, images()),
        lambda: lee.layerwise(model, images(), "scale", output="logits"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(lee.InputError, match=r"NaN or infinity.*first in the module log \(Shifted\)"):
            call()


def test_nan_in_some_outputs_and_in_weights_is_an_error() -> None:
    with pytest.raises(lee.InputError, match="NaN or infinity for image 1"):
        lee_of(lambda z: torch.where(z.new_tensor([False, True, False, False])[:, None], z.mean((2, 3)), float("nan") * 0 + 1) / 0
               if len(z) > 4 else z.mean((2, 3)) / (torch.arange(len(z)) != 1)[:, None], chunk=4)  # fmt: skip
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    model[0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(lee.InputError, match=r"weight of the module 0 \(Conv2d\) holds NaN"):
        lee_of(model)


def test_a_derivative_that_is_not_finite_is_an_error() -> None:
    with quietly(), pytest.raises(lee.LeeError):
        lee_of(
            lambda z: (z - z.mean((2, 3), keepdim=True)).square().mean((2, 3)).sqrt(),
            torch.ones(2, 3, 8, 8).double(),
            verify=False,
        )


def test_an_action_must_be_one() -> None:
    x = images()
    with pytest.raises(lee.InputError, match="as it is at t = 0"):
        lee_of(lambda z: z.mean((2, 3)), x, lee.Action(lambda z, t: z + 1 + t))
    with pytest.raises(lee.InputError, match="use t as a tensor"):
        lee_of(lambda z: z.mean((2, 3)), x, lee.Action(lambda z, t: z * (1 + t.detach())))


def test_backward_passes_are_given_up_where_images_turn_out_to_interact_in_large_batches() -> None:
    class Double(torch.autograd.Function):  # without a rule for forward mode
        @staticmethod
        def forward(ctx: Any, z: Tensor) -> Tensor:
            return torch.from_numpy(2 * z.detach().numpy())

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            return 2 * grad

    def model(z: Tensor) -> Tensor:
        value = Double.apply(z).square().mean((2, 3))
        return value - value.mean(0) if len(z) > 3 else value

    x = images(5)
    with quietly():
        found = lee.equivariance_gram(model, x, generators=["brightness"], output="logits", progress=False)
    assert found.lee("brightness").value == pytest.approx(error(truth(model, x, "brightness")), rel=1e-4)
    assert found.verification is not None
    assert found.verification.mode == "differences"


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_masks_make_nested_tensors_inside() -> None:
    """Torch's encoder drops masked tokens in eval mode; its modules hand on nested tensors."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    patches, encoder = nn.Conv2d(3, 8, 4, 4).double().eval(), nn.TransformerEncoder(layer, 2).double().eval()

    def model(z: Tensor) -> Tensor:
        tokens = patches(z).flatten(2).mT
        mask = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        mask[:, -3:] = True
        return encoder(tokens, src_key_padding_mask=mask)[:, :13].mean(1)  # type: ignore[no-any-return]

    x = images()
    assert lee_of(model, x) == pytest.approx(error(truth(model, x, "rotation")), rel=1e-4)


class Remembering(nn.Module):
    """Keeps what it has seen in containers inside of containers, and in an array."""

    def __init__(self) -> None:
        super().__init__()
        self.log: dict[str, Any] = {"seen": [], "sums": {"all": torch.zeros(1)}}
        self.largest = [torch.zeros(1)]
        self.counts = np.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        self.log["seen"].append(len(x))
        self.log["sums"]["all"] += x.detach().mean().float()
        self.largest[0] = torch.maximum(self.largest[0], x.detach().amax().float())
        self.counts += 1
        return x.flatten(1) * self.largest[0].to(x)


def test_what_is_kept_deep_inside_attributes_is_noticed_and_put_back() -> None:
    model = Remembering()
    with pytest.warns(lee.LeeWarning):
        lee.local_equivariance_error(model, torch.rand(3, 1, 4, 4), "brightness", output="logits", progress=False)
    assert model.log == {"seen": [], "sums": {"all": torch.zeros(1)}}
    assert model.largest == [torch.zeros(1)]
    assert not model.counts.any()


class Frozen(OrderedDict[str, Any]):
    """A configuration that may be emptied, but not filled again."""

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError("frozen")


def test_a_dictionary_that_nobody_may_write_into_is_left_alone() -> None:
    """It was emptied, and then the measurement broke off."""
    model = nn.Linear(3, 2)
    model.configuration = Frozen(size=3, names={"a": 1})  # type: ignore[assignment]
    x = torch.rand(2, 3)
    with pytest.raises(TypeError):
        model.configuration.update(size=4)  # type: ignore[operator]
    lee.local_equivariance_error(model, x, lee.Action(lambda z, t: z * t.exp()), progress=False)
    assert dict(model.configuration) == {"size": 3, "names": {"a": 1}}  # type: ignore[call-overload]


class Competing(nn.Module):
    """Experts with places for some images of a batch: those that come first get them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router, self.experts = (
            nn.Linear(3, 2).double(),
            nn.ModuleList([nn.Linear(3, 4).double() for _ in range(2)]),
        )

    def forward(self, z: Tensor) -> Tensor:
        h = z.tanh().mean((2, 3))
        chosen, out = self.router(h).argmax(1), h.new_zeros(len(h), 4)
        for i, expert in enumerate(self.experts):
            places = (chosen == i).nonzero()[:, 0][: (len(h) + 3) // 4]
            out = out.index_add(0, places, expert(h[places]))
        return out


MEASURES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "gram": lambda net, x: lee.equivariance_gram(net, x, output="logits", progress=False),
    "layers": lambda net, x: lee.layerwise(net, x, "rotation", output="logits"),
    "consistency": lambda net, x: lee.metrics.consistency(net, x, shifts=1),
    "sampled": lambda net, x: lee.metrics.sampled_invariance(net, x, "rotation", radius=0.1, draws=1, output="logits"),
}


@pytest.mark.parametrize("name", MEASURES)
def test_images_that_compete_are_named_though_the_first_never_loses(name: str) -> None:
    with pytest.warns(lee.BatchInteractionWarning):
        MEASURES[name](Competing().eval(), images(8))


def test_images_that_compete_have_no_maps_of_their_own() -> None:
    with pytest.warns(lee.BatchInteractionWarning), pytest.raises(lee.InputError, match="chunk=1"):
        lee.error_map(Competing().eval(), images(8), "rotation", output="logits")


def test_a_model_of_one_image_is_given_one_at_a_time() -> None:
    def model(z: Tensor) -> Tensor:
        if len(z) != 1:
            raise AssertionError("Guard failed: input.size()[0] == 1")
        return z.tanh().mean((2, 3))

    assert lee_of(model) == pytest.approx(error(truth(lambda z: z.tanh().mean((2, 3)), images(), "rotation")), rel=1e-5)
    assert lee.metrics.eq_t(model, images(), draws=1, output="logits").n == 4


def test_a_model_of_another_number_of_images_says_so() -> None:
    def model(z: Tensor) -> Tensor:
        if len(z) != 4:
            raise ValueError("four images, please")
        return z.tanh().mean((2, 3))

    with pytest.raises(lee.InputError, match="not on one to three of them"):
        lee_of(model)
