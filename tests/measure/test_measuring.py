"""A user's model is left as it was, and input that can't be measured is refused in a sentence."""

import math
import warnings

import pytest
import torch
from cases import build, images, relative
from torch import Tensor, nn

import lee


class Caching(nn.Module):
    """Keeps what it saw, counts its calls, and works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head, self.calls = nn.BatchNorm2d(3), nn.Linear(3, 4), 0
        self.seen: dict[str, Tensor | None] = {"last": None}
        self.history: list[Tensor] = []

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        self.calls += 1
        self.seen["last"] = self.latest = x
        self.history.append(x)
        x = self.norm(x)
        x += 1
        x = nn.functional.relu(x, inplace=True)
        return self.head(x.mean((2, 3)))


def test_model_is_left_as_it_was() -> None:
    model, x = Caching().double().train(), images(3)
    model.head.eval()
    handle = model.register_forward_hook(lambda *_: None)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.head.weight.grad = torch.ones_like(model.head.weight)
    lee.equivariance_gram(model, x, progress=False)
    assert (model.training, model.norm.training, model.head.training) == (True, True, False)
    assert model.calls == 0
    assert model.seen == {"last": None}
    assert model.history == []
    assert not hasattr(model, "latest")
    assert len(model._forward_hooks) == 1
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    handle.remove()


def test_model_is_left_as_it_was_after_an_exception() -> None:
    class Failing(Caching):
        def forward(self, x: Tensor, fail: bool = True) -> Tensor:
            super().forward(x)
            raise KeyError("the user's own error")

    model = Failing().double().train()
    with pytest.raises(KeyError, match="the user's own error"):
        lee.lie_derivative(model, images(1), "scale")
    assert model.training
    assert model.calls == 0
    assert not hasattr(model, "latest")


def test_training_mode_is_measured_in_eval_mode() -> None:
    model, x = build("cnn"), images(2)
    expected = lee.lie_derivative(model, x, "rotation")
    assert relative(lee.lie_derivative(model.train(), x, "rotation"), expected) < 1e-14
    assert model.training


def bad_inputs() -> list[tuple[object, str]]:
    x = images(1)
    nan = x.clone()
    nan[0, 0, 0, 0] = math.nan
    return [
        (x[0], r"\(N, C, H, W\)"), ((x * 255).to(torch.uint8), "x.float\\(\\) / 255"), (nan, "NaN"), (x / 0, "infinity"),
        (x[:0], "empty"), (x[..., :1], "2 pixels"), (x.numpy(), "torch tensor"), (x.float(), "float32.*float64"),
    ]  # fmt: skip


@pytest.mark.parametrize(("x", "message"), bad_inputs())
def test_bad_images_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(lee.InputError, match=message):
        lee.lie_derivative(build("cnn"), x, "rotation")


def test_wrong_device_is_refused() -> None:
    with pytest.raises(lee.InputError, match="device meta"):
        lee.lie_derivative(build("cnn").to("meta"), images(1), "rotation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "rotatoin"}, "Did you mean 'rotation'"), ({"generator": 3}, "int"),
        ({"kernel": "fourrier"}, "Did you mean 'fourier'"), ({"boundary": "reflct"}, "Did you mean 'reflect'"),
        ({"output": "logit"}, "Did you mean 'logits'"), ({"chunk": 0}, "`chunk` must be"),
        ({"kernel": "authors"}, "align_corners=True"),
        ({"representations": "trivail"}, "Did you mean 'trivial'"), ({"representations": {"head": "map"}}, "'output'"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    arguments = {"generator": "rotation", **options}
    name = arguments.pop("generator")
    with pytest.raises(lee.InputError, match=message):
        lee.lie_derivative(build("cnn"), images(1), name, **arguments)  # type: ignore[arg-type]


def test_unselected_outputs_are_refused() -> None:
    x, tuple_message = images(1), r"output=lambda o: o\[0\]"
    with pytest.raises(lee.InputError, match=r"output=lambda o: o\['logits'\]"):
        lee.lie_derivative(lambda z: {"logits": z.mean((2, 3))}, x, "scale")
    with pytest.raises(lee.InputError, match=tuple_message):
        lee.lie_derivative(lambda z: (z, z), x, "scale")
    with pytest.raises(lee.InputError, match="class scores"):
        lee.lie_derivative(lambda z: z, x, "scale")
    with pytest.raises(lee.InputError, match="several ways"):
        lee.lie_derivative(lambda z: z.flatten(2), x, "scale", output="logits")
    chosen = lee.lie_derivative(lambda z: {"logits": z.mean((2, 3))}, x, "brightness", output=lambda o: o["logits"])
    assert relative(chosen, x.mean((2, 3))) < 1e-12


def test_empty_inputs_are_refused() -> None:
    with pytest.raises(lee.InputError, match="no batch"):
        lee.equivariance_gram(build("cnn"), [], progress=False)
    with pytest.raises(lee.InputError, match="empty"):
        lee.equivariance_gram(build("cnn"), images(1), generators=[], progress=False)


def test_a_constant_output_is_said() -> None:
    x = images(1)
    with pytest.raises(lee.InputError, match="does not depend on its input"):
        lee.lie_derivative(lambda z: torch.ones(1, 3, dtype=z.dtype), x, "scale")
    with pytest.warns(lee.ConstantOutputWarning, match="no evidence"):
        lee.lie_derivative(lambda z: z.mean((2, 3)) * 0, x, "scale")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lee.lie_derivative(lambda z: z.mean((2, 3)), x, "scale")


def test_wrapped_and_scripted_models_are_measured_too() -> None:
    model, x = build("cnn"), images(2)
    expected = lee.lie_derivative(model, x, "rotation")
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.jit.script(model)):
        wrapped.train()
        assert relative(lee.lie_derivative(wrapped, x, "rotation"), expected) < 1e-12
        assert wrapped.training
