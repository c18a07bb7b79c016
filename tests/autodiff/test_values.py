"""Which values stacked forward mode takes on, and what it does with the others: complex, mixed, constant, leaving torch."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import relative
from oracles import slopes
from torch import Tensor, nn

from lee.autodiff import ForwardModeError, LeavesTorchError, by_dual_numbers, pushforward, record_fallbacks
from lee.autodiff.pushforward import push_leaves

Function = Callable[[Tensor], Tensor]
WAYS = (pushforward, by_dual_numbers)
WEIGHT = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def point(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A place and two directions."""
    random = torch.Generator().manual_seed(1)
    x = torch.rand(2, 4, generator=random, dtype=torch.float64) + 0.2
    return x.to(dtype), torch.randn(2, 2, 4, generator=random, dtype=torch.float64).to(dtype)


def agrees(function: Function, way: Callable[..., tuple[Tensor, Tensor | None]] = pushforward) -> list[str]:
    """Compare with central differences; the fallbacks on the way."""
    x, tangents = point()
    with torch.no_grad(), record_fallbacks() as names:
        value, lanes = way(function, x, tangents)
    with torch.no_grad():
        torch.testing.assert_close(value, function(x.clone()).detach(), rtol=1e-12, atol=1e-14)
    assert lanes is not None
    torch.testing.assert_close(lanes, slopes(function, x, tangents), rtol=1e-7, atol=1e-8)
    return names


def times_i(z: Tensor) -> Tensor:
    c = z.to(torch.complex128) * 1j + z
    return torch.view_as_real(c.exp().flip(1)[:, ::2]).flatten(1)


def real_part_changed(z: Tensor) -> Tensor:
    c = z + 1j * z.square()
    c.real.mul_(2)
    return c.abs()


def spectrum_into_a_real_buffer(z: Tensor) -> Tensor:
    out = torch.zeros_like(z)
    out += torch.fft.fft(z).real
    return out * z


COMPLEX: dict[str, Function] = {
    "cast": lambda z: torch.fft.fft(z.to(torch.complex128)).abs(),
    "sum with 0j": lambda z: (z + 0j).abs() ** 2,
    "irfft of a real tensor": torch.fft.irfft,
    "hfft of a real tensor": torch.fft.hfft,
    "rfft": lambda z: torch.fft.rfft(z).abs(),
    "times i": times_i,
    "polar": lambda z: torch.polar(z, z * z).imag * z,
    "angle": lambda z: torch.angle(z + 1j * z * z),
    "convolution": lambda z: torch.view_as_real(
        F.conv1d((z + 0j)[:, None], torch.ones(1, 1, 2, dtype=torch.complex128) * 1j)
    ),
    "mean": lambda z: torch.complex(z, z.square()).mean(1).abs(),
    "conjugate": lambda z: (torch.complex(z, z * z).conj() * torch.complex(z, z)).imag,
    "real part in place": real_part_changed,
    "into a real buffer": spectrum_into_a_real_buffer,
    "normalised": lambda z: F.normalize(z + 1j * z * z, dim=1).real,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_values_are_carried(name: str, way: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    agrees(COMPLEX[name], way)


MIXED: dict[str, Function] = {
    "sum": lambda z: z.float() + torch.ones(4, dtype=torch.float64),
    "product of a number": lambda z: z.float().mean() * torch.tensor(2.0, dtype=torch.float64),
    "cat": lambda z: torch.cat([z.float(), z]),
    "where": lambda z: torch.where(z > 0.5, z.float(), torch.ones(4, dtype=torch.float64)),
    "written": lambda z: torch.zeros(2, 4, dtype=torch.float64).add(z).copy_(z.float()) + z,
    "matrix": lambda z: z.float().sum() * (z @ WEIGHT),
    "integers": lambda z: z.float() * torch.arange(4) + torch.tensor(3),
    "to half and back": lambda z: z.half().float(),
}


@pytest.mark.parametrize("name", MIXED)
def test_precisions_mix_as_in_torch(name: str) -> None:
    function, (x, tangents) = MIXED[name], point()
    value, lanes = pushforward(function, x, tangents)
    known = function(x.clone())
    assert value.dtype is known.dtype
    torch.testing.assert_close(value, known)
    assert lanes is not None
    torch.testing.assert_close(
        lanes.double(), slopes(function, x, tangents, 3e-2 if "half" in name else 1e-2).double(), rtol=2e-2, atol=2e-2
    )


def test_autocast_is_refused_by_name() -> None:
    def function(z: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.linear(z, WEIGHT.float().mT)

    with pytest.raises(ForwardModeError, match="linear under autocast"):
        pushforward(function, *point(torch.float32))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ForwardModeError, match="under autocast"):
        pushforward(torch.sin, *point(torch.float32))


def inside_inference_mode(z: Tensor) -> Tensor:
    with torch.inference_mode():
        y = F.conv1d(z[:, None], torch.ones(1, 1, 2, dtype=z.dtype))
        y = torch.special.i0e(F.linear(y, WEIGHT[:3])).softmax(-1)
    return y * 2


@pytest.mark.parametrize("way", WAYS)
def test_inference_mode_stops_no_tangent(way: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    agrees(inside_inference_mode, way)
    x, tangents = point()
    with torch.inference_mode():
        lanes = way(torch.special.i0e, x.clone(), tangents.clone())[1]
    torch.testing.assert_close(lanes, slopes(torch.special.i0e, x, tangents), rtol=1e-7, atol=1e-8)


LINEAR = nn.Linear(4, 3).double()


def force(z: Tensor) -> Tensor:
    with torch.enable_grad():
        q = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((F.linear(q.sin(), WEIGHT.mT) ** 2 * q.sum()).sum(), q)
    return gradient * z


def adapted(z: Tensor) -> Tensor:
    """A part of the loss depends on the parameters alone, and so has a graph whatever happens to the rest."""
    with torch.enable_grad():
        loss = LINEAR(z).square().sum() + LINEAR.weight.pow(2).sum()
        gradient = torch.autograd.grad(loss, [LINEAR.weight])[0]
    return F.linear(z, LINEAR.weight.detach() - 0.1 * gradient)


def stepped(z: Tensor) -> Tensor:
    """Langevin dynamics without noise: each step starts from a leaf of its own."""
    for _ in range(2):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(z.cos().pow(3).sum(), z)
        z = z.data - 0.3 * gradient
    return z


def accumulated(z: Tensor) -> Tensor:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        z.cos().sum().backward()  # type: ignore[no-untyped-call]
    return z.grad * z  # type: ignore[operator]


@pytest.mark.parametrize("function", [force, adapted, stepped])
def test_gradients_inside_of_a_function(function: Function) -> None:
    with torch.no_grad():
        assert "gradients are taken inside the function" in agrees(function)[0]


def test_accumulated_gradients_have_no_tangents() -> None:
    with pytest.raises(ForwardModeError, match="derivative of grad"):
        pushforward(accumulated, *point())


def test_what_backward_passes_should_not_see_belongs_to_the_value_all_the_same() -> None:
    class Reversal(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, z: Tensor) -> Tensor:
            return z.view_as(z)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return -gradient

    assert agrees(lambda z: Reversal.apply(z) ** 2 / z.detach().sum()) == []  # type: ignore[no-untyped-call]
    agrees(lambda z: z.sin() * z.detach() + z.data, by_dual_numbers)


LEAVING: dict[str, Function] = {
    "item": lambda z: z * z.mean().item(),
    "__float__": lambda z: z * float(z.mean()),
    "tolist": lambda z: z + torch.tensor(z.tolist(), dtype=z.dtype),
    "numpy": lambda z: torch.from_numpy(z.detach().numpy()) * z,
    "__array__": lambda z: torch.as_tensor(__import__("numpy").asarray(z.detach())) * z,
    "__dlpack__": lambda z: torch.from_dlpack(z.detach()) * z,
    "full_like": lambda z: z * torch.full_like(z, z[0, 0]),  # type: ignore[arg-type]
    "addcmul": lambda z: torch.addcmul(z, z, z, value=z[0, 0]),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LEAVING)
def test_what_leaves_torch_is_named(name: str, way: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    with torch.no_grad(), pytest.raises(LeavesTorchError, match=f"{name} takes a value .* mode='differences'"):
        way(LEAVING[name], *point())


def test_a_number_that_torch_itself_reads_is_named() -> None:
    with pytest.raises(LeavesTorchError, match="item takes a value"):
        pushforward(lambda z: z * torch.full((4,), z.mean()), *point())  # type: ignore[call-overload]


def counted(z: Tensor) -> Tensor:
    """Whole numbers, truth values and constants may leave: they have no derivative."""
    n = int((z > 0).sum()) + z.argmax().item() * 0 + int(z.mean() * 10)
    scale = z.new_full((1,), 3.0).item() if bool(z.mean()) and z.max() > 0 else 1.0
    return z * n * scale * (z.sum() - z.sum() + 2).round().item()


@pytest.mark.parametrize("way", WAYS)
def test_constants_may_leave(way: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    agrees(counted, way)


def test_copies_move_too() -> None:
    agrees(lambda z: copy.deepcopy(z) * torch.as_tensor(z) * nn.Parameter(z))


@torch.library.custom_op("lee_tests::cubed", mutates_args=())
def cubed(z: Tensor) -> Tensor:
    return torch.from_numpy(z.detach().numpy() ** 3)


@torch.library.custom_op("lee_tests::ones", mutates_args=())
def ones(z: Tensor) -> Tensor:
    return torch.ones(z.shape, dtype=z.dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("partly", [False, True])
def test_operators_without_any_derivative_are_named(
    way: Callable[..., tuple[Tensor, Tensor | None]], partly: bool
) -> None:
    """Torch takes their outputs for constants."""
    with torch.no_grad(), pytest.raises(ForwardModeError, match="derivative of cubed"):
        way(lambda z: cubed(z) + (z if partly else 0), *point())
    with torch.no_grad(), pytest.raises(ForwardModeError, match="special_airy_ai"):
        way(lambda z: torch.special.airy_ai(z) * z, *point())


def test_what_ignores_its_input_is_a_constant() -> None:
    agrees(lambda z: ones(z) * z)
    agrees(lambda z: torch.ones_like(z) * z, by_dual_numbers)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_dynamic_quantisation_is_named() -> None:
    engine = torch.ops.quantized.linear_dynamic
    packed = torch.ops.quantized.linear_prepack(
        torch.quantize_per_tensor(WEIGHT.float().mT.contiguous(), 0.05, 0, torch.qint8), None
    )
    for way in WAYS:
        with torch.no_grad(), pytest.raises(ForwardModeError, match="derivative of linear_dynamic"):
            way(lambda z: engine(z, packed) + z[:, :3], *point(torch.float32))
        with torch.no_grad(), pytest.raises(ForwardModeError, match="derivative of quantize_per_tensor"):
            way(lambda z: torch.quantize_per_tensor(z, 0.1, 0, torch.quint8).dequantize() * z, *point(torch.float32))
        with torch.no_grad(), pytest.raises(ForwardModeError, match="derivative of view"):
            way(lambda z: z.view(torch.int32).view(torch.float32) * z, *point(torch.float32))


@pytest.mark.parametrize("output", ["softmax", "log_softmax", "sigmoid", "tanh"])
@pytest.mark.parametrize("gap", [2.0, 12.0, 30.0])
def test_saturated_outputs_keep_their_digits_in_single_precision(output: str, gap: float) -> None:
    """Of a confident network: the top class's chance is 1 to rounding, and all scores move together by far more than apart."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 10, generator=random)
    x[:, 4] += gap
    x = x if "softmax" in output else x.abs().clamp(min=gap / 3)
    tangents = torch.randn(4, 3, 10, generator=random) + (50 if "softmax" in output else 0)
    arguments = (-1,) if "softmax" in output else ()
    low = pushforward(lambda z: getattr(z, output)(*arguments), x, tangents)[1]
    high = pushforward(lambda z: getattr(z, output)(*arguments), x.double(), tangents.double())[1]
    assert low is not None
    assert high is not None
    assert float(((low.double() - high).norm(dim=-1) / high.norm(dim=-1)).max()) < 1e-4


def test_statistics_of_a_norm_move_too() -> None:
    def layer(z: Tensor) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(z, (4,), None, None, 1e-5)
        return torch.cat([y, mean.sin(), rstd], 1)

    def group(z: Tensor) -> Tensor:
        y, mean, rstd = torch.native_group_norm(z[:, :, None], None, None, 2, 4, 1, 2, 1e-5)
        return torch.cat([y[..., 0], mean.sin(), rstd], 1)

    for function in (layer, group):
        assert agrees(function) == []


def test_numbers_without_axes() -> None:
    """A tensor without axes must not take the stack's own for one."""
    assert agrees(lambda z: z.mean().sin() * z) == []
    for reduce in (torch.sum, torch.mean, lambda n: n.max(0)[0], lambda n: n.softmax(0), lambda n: n.flatten()):
        agrees(lambda z, reduce=reduce: reduce(z.norm()) * z)
    assert agrees(lambda z: z.flip(())) == []
    assert agrees(lambda z: z * 0 ** torch.zeros(4, dtype=z.dtype) + z**0) == []


def test_random_numbers_are_those_of_the_function() -> None:
    def function(z: Tensor) -> Tensor:
        return F.dropout(z, training=True) * z + torch.randn_like(z) * z.sin()

    x, tangents = point()
    for way in WAYS:
        torch.manual_seed(3)
        value, lanes = way(function, x, tangents)
        torch.manual_seed(3)
        torch.testing.assert_close(value, function(x))
        assert lanes is not None

        def seeded(z: Tensor) -> Tensor:
            torch.manual_seed(3)
            return function(z)

        torch.testing.assert_close(lanes, slopes(seeded, x, tangents), rtol=1e-7, atol=1e-8)


def test_the_random_state_is_that_of_one_call_also_after_a_fallback() -> None:
    def function(z: Tensor) -> Tensor:
        y = z * torch.rand(4, dtype=z.dtype)
        buffer = torch.zeros(2, 4, dtype=z.dtype)
        buffer[:] = y
        return buffer * torch.rand(4, dtype=z.dtype)

    x, tangents = point()
    torch.manual_seed(3)
    value = pushforward(function, x, tangents)[0]
    after = torch.rand(1)
    torch.manual_seed(3)
    torch.testing.assert_close(value, function(x))
    torch.testing.assert_close(after, torch.rand(1))


def test_a_function_s_own_error_is_its_own() -> None:
    def function(z: Tensor) -> Tensor:
        raise KeyError("my own")

    with pytest.raises(KeyError, match="my own"):
        pushforward(function, *point())


def test_what_only_plain_tensors_can_do_is_refused() -> None:
    """Then a backward pass, or differences, may do."""
    with pytest.raises(ForwardModeError, match="cannot resize variables that has a forward grad"):
        pushforward(lambda z: (z * 1).resize_(4, 2), *point())


def test_outputs_that_move_in_some_directions_only() -> None:
    def switched(z: Tensor) -> Tensor:
        return z * 2 if type(z) is Tensor else (_ for _ in ()).throw(TypeError("plain tensors only"))  # type: ignore[return-value]

    x, tangents = point()
    tangents[0] = 0
    assert relative(pushforward(switched, x, tangents)[1], 2 * tangents) < 1e-12  # type: ignore[arg-type]
    values, lanes = push_leaves(lambda v: [v[0] * 2, torch.ones(3), "text"], [x], [tangents])
    assert values[2] == "text"
    assert lanes[1] is None
    assert lanes[2] is None
