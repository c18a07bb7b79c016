"""Deflated probes against the exact modes, and one choice of sides at kinks in all passes."""

import math
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import lee
from lee.errors import InputError
from lee.layers.deflation import Deflation, _deflated

CLASSES = 40


def sure(depth: int = 1, gain: float = 30.0) -> nn.Module:
    """A network of many classes whose probabilities lie on a few of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        body = [part for _ in range(depth) for part in (nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())]
        head = nn.Linear(4, CLASSES)
        with torch.no_grad():
            head.weight.mul_(gain)
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]
        return nn.Sequential(*layers).double().eval()


def images(n: int = 3) -> Tensor:
    return torch.rand(n, 3, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def measure(model: nn.Module, x: Any, **options: Any) -> pd.DataFrame:
    return lee.layerwise(model, x, "rotation", verify=False, **options).frame


def spread(p: Tensor) -> Tensor:
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def test_the_mean_over_seeds_is_the_exact_decomposition_and_the_error_that_is_reported_is_theirs() -> None:
    model, x, seeds = sure(), images(), 120
    exact = measure(model, x, mode="reverse")
    # so rough that one direction and one probe do, and each image has its own
    runs = [measure(model, x, mode="deflated", tolerance=0.9, seed=seed, chunk=1) for seed in range(seeds)]
    norms = torch.tensor([run.norm2.tolist() for run in runs], dtype=torch.float64)
    told = torch.tensor([run.probe_se.tolist() for run in runs], dtype=torch.float64)
    truth = torch.tensor(exact.norm2.tolist(), dtype=torch.float64)
    estimated = norms.std(0) > 1e-6 * truth
    estimated[0] = False  # the total lies in the directions that are exact
    assert int(estimated.sum()) >= 5
    scores = ((norms.mean(0) - truth) / (norms.std(0) / seeds**0.5))[estimated]
    assert float(scores.abs().max()) < 4
    ratio = (told.square().mean(0).sqrt() / norms.std(0))[estimated]
    assert 0.6 < float(ratio.min()) <= float(ratio.max()) < 1.6


def test_signed_shares_are_exact() -> None:
    model, x = sure(), images()
    exact = measure(model, x, mode="reverse")
    found = measure(model, x, mode="deflated", tolerance=0.5)
    for column in ("share", "self_share", "share_se"):
        assert float((found[column] - exact[column]).abs().max()) < 1e-9
    assert found.self_share.sum() == pytest.approx(1, abs=1e-9)


def test_a_smaller_tolerance_takes_more_directions_and_gives_a_smaller_error() -> None:
    model, x = sure(), images(2)
    exact, errors = measure(model, x, mode="reverse"), []
    moving = exact.norm2 > 1e-3 * exact.norm2.max()
    for tolerance in (0.3, 0.03, 0.003):
        found = measure(model, x, mode="deflated", tolerance=tolerance)
        errors.append(float((found.probe_se / exact.norm2)[moving].median()))
        assert 0 < errors[-1] < 3 * tolerance
    assert errors[0] > errors[2]
    everything = measure(model, x, mode="deflated", tolerance=1e-9)  # no fewer directions than classes
    assert "probe_se" not in everything
    assert float((everything.norm2 - exact.norm2).abs().max()) < 1e-12 * exact.norm2.max()


def test_many_images_need_fewer_directions_each_than_one() -> None:
    p = torch.full((1, 200), 0.1 / 199, dtype=torch.float64)
    p[0, :6] = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.06, 0.04], dtype=torch.float64)
    p, derivative = p / p.sum(), torch.ones(1, 200, dtype=torch.float64)
    alone, among = (Deflation(0.01, n).directions(p, derivative).passes for n in (1, 100))
    assert among < alone
    later = Deflation(0.01, None, seen=99, size=99 * 200.0).directions(p, derivative).passes
    assert later == among  # nobody said how many there would be
    dominant = Deflation(0.01, 100, seen=99, size=99 * 2.0).directions(p, derivative).passes
    assert dominant > among
    saved, used = (
        Deflation(0.01, 100, seen=50, size=50 * 200.0, spent=spent).directions(p, derivative).passes
        for spent in (0.0, 1e9)
    )
    assert saved < used == among  # what others left of the allowed variance is handed on


def test_directions_are_orthonormal_and_probes_lie_in_their_complement() -> None:
    p = (4 * torch.randn(2, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).softmax(1)
    derivative = torch.randn(2, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = Deflation(0.1, 2).directions(p, derivative)
    basis = found.exact
    assert 2 < basis.shape[2] < 60
    torch.testing.assert_close(basis.mT @ basis, torch.eye(basis.shape[2]).double().expand(2, -1, -1))
    left = derivative - (basis @ (basis.mT @ derivative[:, :, None]))[..., 0]
    assert float(left.norm()) < 1e-12
    rows = found.rows(torch.Generator().manual_seed(2))
    assert float((basis.mT @ rows[:, :, basis.shape[2] :]).abs().max()) < 1e-12
    assert rows.shape[2] == found.passes == len(found.weights)


def test_what_the_directions_leave_is_the_tail_of_the_spectrum() -> None:
    p = (3 * torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).softmax(1)
    squares = torch.linalg.eigvalsh(spread(p)).square().flip(1)
    tail = 1 - squares.cumsum(1) / squares.sum(1, keepdim=True)
    torch.testing.assert_close(_deflated(p)[1], tail.clamp(min=0), atol=1e-12, rtol=0)


def test_auto_deflates_where_that_takes_half_as_long_and_is_exact_elsewhere() -> None:
    deep, x = sure(40), images(2)
    assert lee.layerwise(deep, x, "rotation", tolerance=0.1).mode == "deflated"
    assert lee.layerwise(deep, x, "rotation", tolerance=0).mode != "deflated"
    assert lee.layerwise(deep, x, "rotation", tolerance=0.1, output="logits").mode == "forward"
    assert lee.layerwise(sure(40, gain=0.01), x, "rotation", tolerance=0.01).mode == "forward"  # nothing to deflate


def test_parts_of_deflated_probes_are_checked_against_the_total() -> None:
    found = lee.layerwise(sure(), images(), "rotation", mode="deflated", tolerance=0.1)
    assert found.residual < 1e-10
    assert found.verification is not None
    assert "the parts sum to it" in str(found.verification)


@pytest.mark.parametrize("tolerance", [-0.01, 1, math.nan, math.inf, "1 %", True, None])
def test_a_tolerance_is_a_number_from_0_up_to_1(tolerance: Any) -> None:
    with pytest.raises(InputError, match="`tolerance` must be a number from 0 up to 1"):
        measure(sure(), images(), tolerance=tolerance)


@pytest.mark.parametrize("options", [{"output": "logits"}, {"tolerance": 0}, {"output": lambda z: z.softmax(-1)}])
def test_deflation_needs_probabilities_and_a_tolerance(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="mode='deflated' needs output='probabilities'"):
        measure(sure(), images(), mode="deflated", **options)


# One choice of sides at kinks


def at_kinks() -> tuple[nn.Module, Tensor]:
    """Flat areas seen by filters that sum to zero: what enters the ReLU is rounding, so that its sign differs from pass to pass."""
    x = torch.full((3, 3, 32, 32), 0.3)
    x[:, :, 8:20, 10:24] = 0.7
    x[1], x[2] = 0.9 * x[1].mT, 1.1 * x[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        edges = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        with torch.no_grad():
            edges.weight -= edges.weight.mean((2, 3), keepdim=True)
        net = nn.Sequential(
            edges, nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
        )  # fmt: skip
    return net.eval(), x


class Around(nn.Module):
    """A container with operations of its own, so that its children are run again inside of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.mul(1.5)).relu().tanh()


@pytest.mark.parametrize("mode", ["forward", "reverse", "deflated", "probes"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_parts_add_up_in_single_precision_where_rounding_decides(mode: str, wrapped: bool) -> None:
    """Forty-eight per cent were left when every pass took its own side."""
    net, x = at_kinks()
    model = Around(net) if wrapped else net
    assert lee.layerwise(model, x, "rotation", mode=mode, probes=4, verify=False).residual < 1e-5


def test_an_image_that_is_certain_of_one_class_leaves_nothing() -> None:
    p = torch.zeros(2, 300, dtype=torch.float64)
    p[0, 7], p[1] = 1, 1 / 300
    left = _deflated(p)[1]
    assert not left[0].any()
    assert bool(torch.isfinite(left).all())


def test_probes_of_an_image_are_the_same_in_every_chunk() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()
    x = torch.rand(5, 3, 8, 8).double()
    first, *others = (
        lee.layerwise(model, given, "rotation", mode="probes", probes=8, seed=3, chunk=chunk).frame
        for given, chunk in ((x, None), (x, 3), (x.split(2), None))
    )
    for other in others:
        pd.testing.assert_frame_equal(first, other)
