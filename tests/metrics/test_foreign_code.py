"""A model that writes into its input: its numbers are those of the same model that doesn't, and the images stay."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lee import datasets, metrics
from lee.datasets import ImageSet
from lee.errors import InputError
from lee.metrics import turntable, yardsticks
from lee.metrics.decibels import output_range
from lee.training import evaluate
from lee.training.penalty import moved_share


class Centred(nn.Module):
    """Scores of images from which 0.5 was taken, in place or not."""

    def __init__(self, writes: bool, nan: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)
            )
        self.writes, self.nan = writes, nan

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x.sub_(0.5) if self.writes else x - 0.5)
        return y / 0 * 0 if self.nan else y


def images() -> Tensor:
    return datasets.load("patches", n=6, size=16).images.clone()


def labelled(x: Tensor) -> ImageSet:
    return ImageSet("made", x, torch.arange(len(x)) % 10, ("a",) * 10, "CC0", "made", "0" * 64)


def every(made: dict[str, Any]) -> list[float]:
    return [float(v) for value in made.values() for v in (value if isinstance(value, list) else [value])]


MEASURES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "consistency": lambda net, x: metrics.consistency(net, x).value,
    "eq_t": lambda net, x: metrics.eq_t(net, x, draws=2).value,
    "eq_t_frac": lambda net, x: metrics.eq_t_frac(net, x, draws=2).value,
    "eq_r": lambda net, x: metrics.eq_r(net, x, draws=2).value,
    "output_range": output_range,
    "yardsticks": lambda net, x: yardsticks.yardsticks(net, x)["foreign"].tolist(),
    "turntable": lambda net, x: every(turntable.figures(net, x, torch.arange(len(x)), n_turned=2, degrees=(0, 30, 90))),
    "curves": lambda net, x: turntable.curves(
        net, x.expand(2, *x.shape), torch.arange(len(x)), (0, 90)
    ).probability.tolist(),
    "tangent": lambda net, x: turntable.tangent(net, x[0], 1, (0, 90)).probability.tolist(),
    "moved_share": lambda net, x: moved_share(net, x, ["rotation", "translation_x"]).value,
    "accuracy": lambda net, x: evaluate(net, labelled(x)),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_model_that_writes_into_its_input_has_the_numbers_of_one_that_does_not(name: str) -> None:
    measure, x, twice = MEASURES[name], images(), images()
    expected = measure(Centred(False).eval(), x)
    assert measure(Centred(True).eval(), x) == pytest.approx(expected, rel=1e-5)
    assert measure(Centred(True).eval(), x) == pytest.approx(expected, rel=1e-5)  # nor does the second see what it left
    assert torch.equal(x, twice)


@pytest.mark.parametrize("name", MEASURES)
def test_nan_is_not_a_result(name: str) -> None:
    with pytest.raises(InputError, match="NaN"):
        MEASURES[name](Centred(False, nan=True).eval(), images())
