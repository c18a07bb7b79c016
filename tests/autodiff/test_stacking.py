"""Every rule of stacked forward mode against `torch.func.jvp` in float64, and whole models without a fallback."""

import pytest
import timm
import torch
import torch.nn.functional as F
from cases import build, images
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lee.autodiff import Stacked, pushforward, record_fallbacks, workspace

OTHER = torch.rand(4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
LOWER = torch.rand(2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
MASK = OTHER > 1.0
WEIGHT = torch.rand(6, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
BIAS = torch.arange(6.0, dtype=torch.float64)


def in_place(name: str, *args: object):  # type: ignore[no-untyped-def]
    def call(x: Tensor) -> Tensor:
        y = x * 1.5
        getattr(y, name)(*args)
        return y

    return call


def set_rows(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 1:3] = x[:, :2] ** 2
    out[:, 0] = 1.0
    return out * x


def two_views(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0].add_(y[:, 1])
    return y


def defer_then_change(x: Tensor) -> Tensor:
    """A convolution whose input changes in place before its output is read."""
    y = x * 1
    out = F.conv2d(y, WEIGHT, BIAS, padding=1)
    y.mul_(2)
    return out.mean(1, keepdim=True) + y


def conv_used_twice(x: Tensor) -> Tensor:
    y = F.conv2d(x, WEIGHT, BIAS)
    z = F.batch_norm(y, BIAS, BIAS + 1, BIAS + 2, BIAS - 1)
    return y * z.sigmoid()


FUNCTIONS = {  # x: (2, 4, 6, 6), positive
    "view": lambda x: x.view(2, -1),
    "reshape": lambda x: x.transpose(1, 2).reshape(2, -1),
    "flatten": lambda x: x.flatten(2),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.mT,
    "movedim": lambda x: x.movedim(1, -1),
    "unsqueeze": lambda x: x.unsqueeze(-1) * x.unsqueeze(0).squeeze(0).unsqueeze(4),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "squeeze all": lambda x: x[:1, :1].squeeze(),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "expand more": lambda x: x.expand(3, 2, 4, 6, 6),
    "repeat": lambda x: x.repeat(2, 1, 1, 1, 2),
    "slice": lambda x: x[:, ::2, 1:-1],
    "select": lambda x: x[:, -1],
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "chunk": lambda x: x.chunk(2, -1)[1],
    "unbind": lambda x: torch.stack(x.unbind(1), -1),
    "tensor unfold": lambda x: x.unfold(2, 3, 2),
    "cumsum": lambda x: x.cumsum(-2),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0])),
    "flip": lambda x: x.flip(-1, 1),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "tril": lambda x: x.tril(),
    "gather": lambda x: x.gather(1, torch.randint(0, 4, (2, 2, 6, 6), generator=torch.Generator().manual_seed(0))),
    "index": lambda x: x[:, torch.tensor([3, 1, 1])],
    "index pair": lambda x: x[:, :, torch.tensor([0, 1]), torch.tensor([2, 3])],
    "index mask": lambda x: x[:, MASK],
    "cat": lambda x: torch.cat([x, LOWER], 1),
    "stack": lambda x: torch.stack([LOWER, x * x], 2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=3.0),
    "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, size=(9, 5), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, size=(4, 11), mode="bicubic"),
    "area": lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    "global pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "shuffle": lambda x: F.pixel_shuffle(x, 2),
    "unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "im2col": lambda x: F.unfold(x, 3),
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean() * x,
    "sum dim": lambda x: x.sum((1, -1)),
    "mean dim": lambda x: x.mean(-2, keepdim=True) * x,
    "zeros_like": set_rows,
    "views": two_views,
    "add": lambda x: x + x.mean(1, keepdim=True),
    "add constant": lambda x: OTHER + x,
    "add wider": lambda x: x[:, 0] + LOWER.transpose(0, 1),
    "add alpha": lambda x: torch.add(x, x * x, alpha=-2.5),
    "sub": lambda x: OTHER - x,
    "rsub": lambda x: 1 - x,
    "scalar": lambda x: (x + 2) / 3 - 1,
    "mul": lambda x: x * x.sum(2, keepdim=True),
    "mul constant": lambda x: OTHER * x,
    "mul wider": lambda x: x[:, 0] * LOWER.transpose(0, 1),
    "div": lambda x: x / (1 + x.mean(1, keepdim=True)),
    "rdiv": lambda x: 2 / x,
    "div constant": lambda x: x / OTHER,
    "where": lambda x: torch.where(x > 0.5, x * x, OTHER),
    "where stacked": lambda x: torch.where(MASK, x * x, -x),
    "masked_fill": lambda x: x.masked_fill(MASK, -2.0) * x,
    "maximum": lambda x: torch.maximum(x, OTHER - 0.5),
    "minimum": lambda x: torch.minimum(x, x.flip(1)),
    "neg": lambda x: -x,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "sin": torch.sin,
    "cos": torch.cos,
    "abs": lambda x: (x - 0.5).abs(),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "pow": lambda x: x**3.5,
    "square": lambda x: x**2,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x - 0.5, approximate="tanh"),
    "silu": lambda x: F.silu(x - 0.5),
    "mish": lambda x: F.mish(x - 0.5),
    "hardswish": lambda x: F.hardswish(8 * x - 4),
    "hardsigmoid": lambda x: F.hardsigmoid(8 * x - 4),
    "hardtanh": lambda x: F.hardtanh(x, 0.2, 0.7),
    "relu6": lambda x: F.relu6(12 * x - 3),
    "leaky": lambda x: F.leaky_relu(x - 0.5, 0.1),
    "elu": lambda x: F.elu(x - 0.5, 1.3),
    "celu": lambda x: F.celu(x - 0.5, 1.3),
    "softplus": lambda x: F.softplus(x - 0.5, 2),
    "clamp": lambda x: x.clamp(0.2, 0.8),
    "clamp min": lambda x: x.clamp(min=0.4),
    "relu": lambda x: F.relu(x - 0.5),
    "relu in place": lambda x: F.relu(x - 0.5, inplace=True) * x,
    "prelu": lambda x: F.prelu(x - 0.5, BIAS[1:5]),
    "add_": in_place("add_", OTHER),
    "mul_": in_place("mul_", 2.5),
    "sub_": in_place("sub_", OTHER),
    "div_": in_place("div_", OTHER),
    "silu_": lambda x: F.silu(x * 1, inplace=True),
    "masked_fill_": in_place("masked_fill_", MASK, 0.5),
    "clamp_": in_place("clamp_", 0.3, 0.9),
    "linear": lambda x: F.linear(x, OTHER[0], BIAS),
    "mm": lambda x: x[0, 0] @ OTHER[0],
    "mm left": lambda x: OTHER[0] @ x[0, 0],
    "mm both": lambda x: x[0, 0] @ x[1, 1].mT,
    "matmul": lambda x: x @ x.mT,
    "matmul constant": lambda x: x @ OTHER,
    "bmm left": lambda x: OTHER @ x[0],
    "bmm both": lambda x: torch.bmm(x[0], x[1]),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "addmm": lambda x: torch.addmm(BIAS, x[0, 0], OTHER[0], beta=0.5, alpha=2),
    "baddbmm": lambda x: torch.baddbmm(x[0], x[1], OTHER),
    "conv": lambda x: F.conv2d(x, WEIGHT, BIAS, 2, 1),
    "conv dilated": lambda x: F.conv2d(x, WEIGHT[:, :2], None, 1, (2, 1), (2, 1), 2),
    "conv same": lambda x: F.conv2d(x, WEIGHT, BIAS, padding="same"),
    "conv transposed": lambda x: F.conv_transpose2d(x, WEIGHT.transpose(0, 1), BIAS, 2),
    "conv1d": lambda x: F.conv1d(x[:, 0], WEIGHT[:, :1, 0].expand(-1, 6, -1), BIAS),
    "conv3d": lambda x: F.conv3d(x[:, None], WEIGHT[:, :1, None], BIAS),
    "conv changed": defer_then_change,
    "conv twice": conv_used_twice,
    "conv unread": lambda x: F.conv2d(x, WEIGHT, BIAS)[:, :3].relu_().sum(1),
    "batch_norm": lambda x: F.batch_norm(x, BIAS[:4], BIAS[1:5], BIAS[2:], BIAS[:4]),
    "batch_norm plain": lambda x: F.batch_norm(x, BIAS[:4], BIAS[1:5]),
    "layer_norm": lambda x: F.layer_norm(x, (6,), BIAS, BIAS),
    "layer_norm plain": lambda x: F.layer_norm(x, (6, 6)),
    "group_norm": lambda x: F.group_norm(x, 2, BIAS[:4], BIAS[:4]),
    "instance_norm": lambda x: F.instance_norm(x),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "cross": lambda x: F.normalize(x, dim=1),
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max": lambda x: x.max(1)[0],
    "amax": lambda x: x.amax((2, 3)),
    "topk": lambda x: x.topk(2, 1)[0],
    "logsumexp": lambda x: x.logsumexp(1),
    "std": lambda x: x.std(-1),
    "var_mean": lambda x: torch.var_mean(x, 1)[0],
    "attention": lambda x: F.scaled_dot_product_attention(x, x * x, x.sin()),
    "attention mask": lambda x: F.scaled_dot_product_attention(x, x * x, x.sin(), attn_mask=OTHER),
    "attention bool": lambda x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=MASK | torch.eye(6, dtype=torch.bool)
    ),
    "attention causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "cross attention": lambda x: F.scaled_dot_product_attention(x[:, :, :3], x, x, scale=0.3),
    "no derivative": lambda x: x * (x > 0.5) + x.argmax(1, keepdim=True) * x.round() * x,
    "item": lambda x: x * float(x.mean() > 0),
    "new_zeros": lambda x: torch.cat([x.new_zeros(2, 1, 6, 6), x], 1),
    "to": lambda x: x.to(torch.float64) * 2,
    "contiguous": lambda x: x.mT.contiguous() * OTHER,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last).flatten(1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("prepared", [False, True])
def test_rule_agrees_with_functorch(name: str, prepared: bool) -> None:
    function = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 4, 6, 6, dtype=torch.float64, generator=generator)
    tangents = torch.randn(3, 2, 4, 6, 6, dtype=torch.float64, generator=generator)
    with record_fallbacks() as fallbacks:
        if prepared:
            with workspace(x):
                value, lanes = pushforward(function, x, tangents)
        else:
            value, lanes = pushforward(function, x, tangents)
    assert not any("whole function" in f for f in fallbacks), fallbacks
    assert lanes is not None
    with sdpa_kernel(SDPBackend.MATH):
        for tangent, lane in zip(tangents, lanes, strict=True):
            expected, direction = torch.func.jvp(function, (x,), (tangent,))
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(lane, direction, rtol=1e-10, atol=1e-12)


MODELS_WITHOUT_FALLBACK = [
    "cnn",
    "vit",
    "mixer",
    "convnext",
    "swin",
    "resnet10t",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
]


@pytest.mark.parametrize("name", MODELS_WITHOUT_FALLBACK)
def test_model_needs_no_fallback(name: str) -> None:
    model, x = build(name), images(1) if name in ("vit", "mixer", "swin") else images(1, 64, 64)
    with record_fallbacks() as fallbacks:
        value, lanes = pushforward(model, x, torch.stack([x, x.flip(-1)]))
    assert fallbacks == []
    with sdpa_kernel(SDPBackend.MATH):
        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        expected, direction = torch.func.jvp(model, (x,), (x.flip(-1),))
    torch.testing.assert_close(value, expected.detach(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(lanes[1], direction.detach(), rtol=1e-9, atol=1e-11)


def test_fallback_for_an_unknown_function() -> None:
    x = torch.rand(2, 3, dtype=torch.float64)
    with record_fallbacks() as names:
        value, lanes = pushforward(lambda z: torch.special.i0e(z) * 2, x, torch.ones(1, 2, 3, dtype=torch.float64))
    assert names == ["special_i0e"]
    torch.testing.assert_close(lanes[0], torch.func.jvp(torch.special.i0e, (x,), (torch.ones_like(x),))[1] * 2)
    torch.testing.assert_close(value, 2 * torch.special.i0e(x))


def test_dual_numbers_take_what_neither_rules_nor_functorch_can() -> None:
    """Writing into a plain tensor that the function made itself."""

    def function(z: Tensor) -> Tensor:
        out = torch.zeros(2, 3, dtype=z.dtype)
        out[:, :2] = z[:, :2] ** 2
        return out

    x = torch.rand(2, 3, dtype=torch.float64)
    with record_fallbacks() as names:
        value, lanes = pushforward(function, x, torch.ones(1, 2, 3, dtype=torch.float64))
    assert names[-1].startswith("whole function")
    torch.testing.assert_close(value, function(x))
    expected = 2 * x
    expected[:, 2] = 0
    torch.testing.assert_close(lanes[0], expected)


def test_torch_multihead_attention_has_its_attention() -> None:
    """In eval mode torch takes a fused path without a forward-mode derivative, unless something prevents it."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    x = torch.rand(2, 5, 8, dtype=torch.float64)
    value, lanes = pushforward(layer, x, x[None])
    step = 1e-5
    with torch.no_grad():
        expected = (layer(x * (1 + step)) - layer(x * (1 - step))) / (2 * step)
        torch.testing.assert_close(value, layer(x))
    torch.testing.assert_close(lanes[0], expected, rtol=1e-6, atol=1e-8)


def test_stacked_tensor_looks_like_its_primal() -> None:
    stack = Stacked(torch.rand(3, 2, 4))
    assert stack.shape == (2, 4)
    assert stack.dtype is torch.float32
    assert "Stacked" in repr(stack)


def test_timm_model_in_float32_matches_float64() -> None:
    """Channels last and folded BatchNorm (float32 only) change rounding, nothing else."""
    model = timm.create_model("resnet10t", num_classes=5).eval()
    x = torch.rand(2, 3, 64, 64)
    low = pushforward(model, x, x[None])[1]
    high = pushforward(model.double(), x.double(), x[None].double())[1]
    torch.testing.assert_close(low.double(), high, rtol=1e-3, atol=1e-5)
