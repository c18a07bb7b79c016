"""What the places of an operator's result claim, held to which entries change when one entry of its input does."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import lee
from lee.layers.places import Follow, Unknown, grid, label, placed_image, places_of, tracker
from lee.layers.places.operators import ENTRYWISE, FACTORIES, MOVES, NORMALISING, rule_of, unknown
from lee.layers.places.rules import constant, copied, gated, move, plain_name, pointwise, restrided

pytestmark = pytest.mark.xdist_group("operators")  # its fixtures are made once

Function = Callable[[Tensor], Any]
#: Rules whose results claim to depend on nothing but the entries of their own place.
LOCAL = {pointwise, move, copied, constant, gated, restrided, unknown}
aten = torch.ops.aten


class Claims:
    """The places that a function's results claim, when every entry of its input has a place of its own."""

    def __init__(self, function: Function, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.function, self.x = function, x
        random = torch.Generator().manual_seed(1)
        parts = (torch.rand(x.shape, dtype=torch.float64, generator=random) for _ in range(2))
        self.given = torch.complex(*parts)
        used: list[Any] = []

        def noted(func: Any) -> Any:
            used.append(func)
            return rule_of(func)

        with monkeypatch.context() as patched, Follow():
            patched.setattr(tracker, "rule_of", noted)
            self.places = [places_of(v) for v in self._results(label(x.clone(), self.given))]
        self.operators = {plain_name(f) for f in used}
        self.local = {rule_of(f) for f in used} <= LOCAL and not self.operators & set(NORMALISING)

    def _results(self, z: Tensor) -> list[Tensor]:
        torch.default_generator.manual_seed(0)
        return [v for v in pytree.tree_leaves(self.function(z)) if isinstance(v, Tensor)]

    def reached(self) -> Iterator[tuple[int, list[Tensor]]]:
        """For each entry of the input, which entries of the results change with it."""
        if not self.local and all(p is not None for p in self.places):
            return  # nothing is claimed here that a single entry could refute
        known = [v.clone() for v in self._results(self.x.clone())]
        for i in range(self.x.numel()):
            z = self.x.clone()
            z.view(-1)[i] += 0.05 * (-1) ** i  # odd, so that the order of some entries changes
            yield i, [(a != b) & ~(a.isnan() & b.isnan()) for a, b in zip(known, self._results(z), strict=True)]

    def wrong(self) -> str | None:
        """A claim that is not true: what depends on the image has no place, or it depends on another place."""
        for i, changes in self.reached():
            place = self.given.view(-1)[i]
            for claim, change in zip(self.places, changes, strict=True):
                if claim is None and bool(change.any()):
                    return f"{self.operators}: claims to be constant"
                elsewhere = (
                    isinstance(claim, Tensor) and self.local and ~claim.isinf() & ~((claim - place).abs() < 1e-12)
                )
                if isinstance(elsewhere, Tensor) and bool((change & elsewhere).any()):
                    return f"{self.operators}: depends on another place"
        return None


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def samples() -> Iterator[tuple[str, Function, Tensor]]:
    """Up to three small inputs of each operator in torch's database, also in place."""
    for info in op_db:
        if torch.float64 not in info.dtypes or info.name in ("empty_like", "new_empty", "new_empty_strided"):
            continue  # what is never written is different each time
        given = [s for s, _ in zip(info.sample_inputs_func(info, "cpu", torch.float64, False), range(12), strict=False)]
        small = [
            s
            for s in given
            if isinstance(s.input, Tensor) and s.input.is_floating_point() and 0 < s.input.numel() < 130
        ]
        for sample in small[:3]:
            for variant in filter(None, (info.op, info.inplace_variant)):

                def function(z: Tensor, variant: Any = variant, sample: Any = sample) -> Any:
                    return variant(z, *sample.args, **sample.kwargs)

                if sample.input.layout is torch.strided and _runs(function, sample.input):
                    yield info.name, function, sample.input


def _runs(function: Function, x: Tensor) -> bool:
    try:
        function(x.clone())
    except Exception:
        return False
    return True


#: Operators that torch's database calls with a list, or not at all.
OTHERS: dict[str, Function] = {
    "alias": aten.alias,
    "detach": lambda z: z.detach(),
    "lift_fresh": aten.lift_fresh,
    "_to_copy": lambda z: z.float(),
    "_reshape_alias": lambda z: aten._reshape_alias(z, [9, 8], [8, 1]),
    "_unsafe_index": lambda z: aten._unsafe_index(z, [None, torch.tensor([2, 0])]),
    "cat": lambda z: torch.cat([z, torch.ones(1, 4, 6), z.flip(0)]),
    "flip": lambda z: z.flip(0, 2),
    "rot90": lambda z: torch.rot90(z, 1, (1, 2)),
    "channel_shuffle": lambda z: F.channel_shuffle(z, 2),
    "native_channel_shuffle": lambda z: aten.native_channel_shuffle(z[None], 3),
    "slice_scatter": lambda z: torch.slice_scatter(torch.ones(4, 4, 6), z[:2], 0, 1, 3),
    "index assignment": lambda z: z.clone().index_put_((torch.tensor([0, 2]),), z[1]),
    "unsafe_split_with_sizes": lambda z: aten.unsafe_split_with_sizes(z, [1, 3], 1),
    "native_dropout": lambda z: aten.native_dropout(z, 0.5, True),
    "complex numbers": lambda z: [c := torch.complex(z, z * 2), c.real, c.imag.exp(), c.conj().resolve_conj()],
    "transposed in place": lambda z: z.clone().transpose_(0, 2).squeeze_().unsqueeze_(1),
    "written into a slice": lambda z: torch.ones(3, 4, 8).index_fill_(2, torch.tensor([0]), 2.0)[..., 1:7].copy_(z),
    "overwritten by zeros": lambda z: z.clone().zero_(),
    "overwritten by an entry": lambda z: torch.ones(3).fill_(z[0, 1, 2]),
    "gated": lambda z: F.glu(torch.cat([z, z], 1), 1),
}


@pytest.mark.filterwarnings("ignore")
def test_no_operator_of_torch_depends_on_another_place_than_it_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [*samples(), *((name, function, numbers(3, 4, 6)) for name, function in OTHERS.items())]
    found, wrong, exercised = Counter[str](), [], set()
    for name, function, x in cases:
        claims = Claims(function, x, monkeypatch)
        known = [p for p in claims.places if not isinstance(p, Unknown)]
        found["known" if known else "unknown"] += 1
        exercised |= claims.operators if known and claims.local else set()
        problem = claims.wrong() if known else None
        wrong += [f"{name}, {problem}"] if problem else []
    assert not wrong
    assert set(MOVES) | set(ENTRYWISE) <= exercised
    assert found["known"] > 900  # else the test would be of nothing
    assert set(FACTORIES) & exercised


@pytest.mark.parametrize("name", OTHERS)
def test_what_moves_data_is_followed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = Claims(OTHERS[name], numbers(3, 4, 6), monkeypatch)
    assert not any(isinstance(p, Unknown) for p in claims.places[:1])


#: Everything here keeps the place of each entry, and reads the others in no order: it commutes with every permutation.
STATISTICS: dict[str, Function] = {
    "softmax over channels": lambda z: z.softmax(1),
    "softmax over columns": lambda z: z.softmax(3),
    "log-softmax over rows": lambda z: z.log_softmax(2),
    "attention's softmax": lambda z: aten._safe_softmax(z, -1),
    "layer norm over channels": lambda z: F.layer_norm(z.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "layer norm over channels and places": lambda z: F.layer_norm(z, (4, 6, 5)),
    "RMS norm": lambda z: F.rms_norm(z, (4, 6, 5)),
    "group norm": lambda z: F.group_norm(z, 2),
    "instance norm": lambda z: F.instance_norm(z),
    "batch norm": lambda z: F.batch_norm(z, torch.zeros(4).double(), torch.ones(4).double()),
    "batch norm of this batch": lambda z: F.batch_norm(z, None, None, training=True),
    "fused norm": lambda z: aten._fused_rms_norm(z, [6, 5], None, 1e-6)[0],
    "batch norm without training": lambda z: aten._native_batch_norm_legit_no_training(
        z, None, None, torch.zeros(4).double(), torch.ones(4).double(), 0.1, 1e-5
    )[0],
    "normalised across channels": lambda z: F.normalize(z, dim=1),
    "response norm across channels": lambda z: F.local_response_norm(z, 3),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_normalisation_keeps_places_and_commutes_with_every_permutation_of_them(name: str) -> None:
    function, x = STATISTICS[name], numbers(1, 4, 6, 5)
    with torch.no_grad(), Follow():
        image = placed_image(x)
        found = places_of(function(image))
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, grid(6, 5).expand(x.shape))
    for axis, order in ((2, [3, 0, 5, 1, 2, 4]), (3, [4, 2, 0, 1, 3])):
        at = torch.tensor(order)
        torch.testing.assert_close(function(x.index_select(axis, at)), function(x).index_select(axis, at))


#: What covers the image anew, and how many pixels of its input a result sees on each side of its place.
REACHES: dict[str, tuple[Function, float]] = {
    "1x1 convolution": (lambda z: F.conv2d(z, numbers(3, 4, 1, 1)), 0),
    "3x3 convolution": (lambda z: F.conv2d(z, numbers(3, 4, 3, 3), padding=1), 1),
    "dilated convolution": (lambda z: F.conv2d(z, numbers(3, 4, 3, 3), padding=2, dilation=2), 2),
    "depthwise convolution": (lambda z: F.conv2d(z, numbers(4, 1, 3, 3), padding=1, groups=4), 1),
    "patch embedding": (lambda z: F.conv2d(z, numbers(3, 4, 4, 4), stride=4), 1.5),
    "strided convolution": (lambda z: F.conv2d(z, numbers(3, 4, 3, 3), padding=1, stride=2), 1),
    "transposed convolution": (lambda z: F.conv_transpose2d(z, numbers(4, 3, 2, 2), stride=2), 0.25),
    "average pooling": (lambda z: F.avg_pool2d(z, 2), 0.5),
    "max pooling": (lambda z: F.max_pool2d(z, 3, 2, 1), 1),
    "adaptive pooling": (lambda z: F.adaptive_avg_pool2d(z, 4), 0.5),
    "adaptive max pooling": (lambda z: F.adaptive_max_pool2d(z, 4), 0.5),
    "nearest neighbours": (lambda z: F.interpolate(z, scale_factor=2), 0.25),
    "bilinear": (lambda z: F.interpolate(z, scale_factor=2, mode="bilinear"), 0.75),
    "bicubic": (lambda z: F.interpolate(z, scale_factor=2, mode="bicubic"), 1.75),
    "pixel shuffle": (lambda z: F.pixel_shuffle(z, 2), 0.25),
    "pixel unshuffle": (lambda z: F.pixel_unshuffle(z, 2), 0.5),
    "frames": (lambda z: F.conv3d(z[:, :, None].repeat(1, 1, 2, 1, 1), numbers(3, 4, 2, 3, 3), padding=(0, 1, 1)), 1),
    "channels in the batch": (
        lambda z: F.conv2d(F.pad(z.view(4, 1, 8, 8), (1, 1, 1, 1), "replicate"), numbers(2, 1, 3, 3)).view(1, 8, 8, 8),
        1,
    ),
    "windows": (lambda z: F.unfold(z, 3, padding=1, stride=2), 1),
    "windows and back": (lambda z: F.fold(F.unfold(z, 2, stride=2), (8, 8), 2, stride=2), 0),
    "windows that overlap, and back": (lambda z: F.fold(F.unfold(z, (3, 5)).flip(1), (8, 8), (3, 5)), 4),
}


@pytest.mark.parametrize("name", REACHES)
def test_what_covers_the_image_anew_sees_its_kernel_and_no_more(name: str) -> None:
    function, reach = REACHES[name]
    x = numbers(1, 4, 8, 8)
    with torch.no_grad(), Follow():
        found = places_of(function(placed_image(x)))
    assert isinstance(found, Tensor)
    farthest, given, known = 0.0, grid(8, 8).expand(x.shape).flatten(), function(x)
    for i in range(x.numel()):
        z = x.clone()
        z.view(-1)[i] += 3.0
        away = (found - given[i])[function(z) != known]
        farthest = max([farthest, *(8 * away.real.abs()).tolist(), *(8 * away.imag.abs()).tolist()])
    assert farthest == pytest.approx(reach)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z.cumsum(2),
        lambda z: z.cumprod(3),
        lambda z: z.logcumsumexp(1),
        lambda z: z.cummax(2).values,
        lambda z: z.sort(3).values,
        lambda z: z.flatten(2).topk(24, -1).values,
        lambda z: torch.fft.fft2(z),
        lambda z: torch.fft.irfft2(torch.fft.rfft2(z), s=(4, 6)),
        lambda z: F.grid_sample(z, torch.rand(1, 4, 6, 2, dtype=z.dtype) - 0.5, align_corners=False),
        lambda z: z.flatten(2).gather(2, z.flatten(2).argsort(2)),
        lambda z: z.index_add(3, torch.arange(5, -1, -1), z),
        lambda z: z.clone().index_put_((torch.tensor([0]),), z.flip(3), accumulate=True),
        lambda z: z.clone().cumsum_(2),
        lambda z: z.as_strided((1, 5, 4, 6), (120, 24, 1, 4)),
        lambda z: torch.cdist(z[0], z[0]),
        lambda z: torch.baddbmm(z[0].flip(2), z[0], torch.ones(5, 6, 6, dtype=z.dtype)),
        lambda z: torch.ops.lee_tests.reversed(z),
        lambda z: z * z.cumsum(2),
        lambda z: torch.nn.LSTM(6, 2, batch_first=True).double()(z.flatten(0, 1))[0],
    ],
)
def test_what_reads_other_places_in_an_order_is_unknown(function: Function) -> None:
    with torch.library._scoped_library("lee_tests", "DEF") as library:
        library.define("reversed(Tensor x) -> Tensor")
        library.impl("reversed", lambda x: x.flip(2), "CompositeExplicitAutograd")
        with torch.no_grad(), Follow():
            found = places_of(function(placed_image(numbers(1, 5, 4, 6))))
    assert isinstance(found, Unknown)


def test_a_residual_branch_of_unknown_places_leaves_the_sum_where_the_stream_is() -> None:
    with torch.no_grad(), Follow():
        image = placed_image(numbers(1, 5, 4, 6))
        found = places_of(image + image.cumsum(2))
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, grid(4, 6).expand(1, 5, 4, 6))


def test_a_layer_that_turns_its_input_has_the_same_share_however_it_is_written() -> None:
    def shares(turn: Function) -> list[float]:
        class Turn(torch.nn.Module):
            def forward(self, z: Tensor) -> Tensor:
                return turn(z)

        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh(), Turn(), torch.nn.Conv2d(4, 4, 3), torch.nn.Tanh(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3),
        )  # fmt: skip
        return list(lee.layerwise(net.double(), numbers(2, 3, 8, 8), "rotation", output="logits").frame.self_share)

    written = shares(lambda z: z.transpose(2, 3).flip(2))
    assert shares(lambda z: torch.rot90(z, 1, (2, 3))) == pytest.approx(written, abs=1e-12)
    assert written[3] == pytest.approx(0, abs=1e-12)
