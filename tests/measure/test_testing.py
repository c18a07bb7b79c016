"""The assertions that ship with lee: they pass what commutes, and say by how much the rest fails."""

import re

import pytest
import torch
from torch import Tensor, nn

from lee.errors import InputError
from lee.measure.testing import assert_equivariant, assert_invariant, equivariance_deviation

X = torch.rand(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def quarter(z: Tensor) -> Tensor:
    return z.rot90(1, (2, 3))


def test_deviation_has_the_value_of_its_definition() -> None:
    """`f(x) = w·x` summed, with `w = 1` in the upper left entry and 0 elsewhere: the difference of two entries."""
    found = equivariance_deviation(lambda z: z[:, :, 0, 0], X, quarter)
    expected = (X[:, :, 0, -1] - X[:, :, 0, 0]).abs().max() / X[:, :, 0, 0].abs().max()
    assert found == pytest.approx(float(expected), rel=1e-12)


def test_what_commutes_passes() -> None:
    assert assert_equivariant(nn.AvgPool2d(2), X, quarter, quarter) < 1e-15
    assert assert_invariant(lambda z: z.mean((2, 3)), X, quarter) < 1e-15


def test_what_does_not_commute_fails_with_both_figures() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, 3, padding=1).double()
    deviation = equivariance_deviation(convolution, X, quarter, quarter)
    assert deviation > 0.1
    said = re.escape(f"Conv2d is not equivariant: it deviates by {deviation:.2e} of its largest output; 1e-05 was")
    with pytest.raises(AssertionError, match=said):
        assert_equivariant(convolution, X, quarter, quarter)
    with pytest.raises(AssertionError, match="The function is not invariant"):
        assert_invariant(lambda z: z[:, 0, 0], X, quarter)
    assert assert_equivariant(convolution, X, quarter, quarter, tolerance=10.0) == deviation


def test_what_would_pass_for_no_good_reason_is_refused() -> None:
    with pytest.raises(InputError, match="same for all inputs"):
        assert_invariant(lambda z: torch.ones(len(z), 4), X, quarter)
    with pytest.raises(InputError, match="same for all inputs"):
        assert_invariant(lambda z: 0 * z, X, quarter)
    with pytest.raises(InputError, match="NaN or infinity"):
        assert_invariant(lambda z: z.sum((2, 3)) / 0, X, quarter)
    with pytest.raises(InputError, match=r"shape \(3, 2, 4, 6\) and g f\(x\) the shape \(3, 2, 6, 4\)"):
        assert_equivariant(lambda z: z[:, :, 1:-1], X, quarter, lambda z: z.mT.rot90(1, (2, 3)).mT)


@pytest.mark.parametrize("n", [1, 3])
def test_a_constant_that_is_added_hides_no_deviation(n: int) -> None:
    def corner(z: Tensor) -> Tensor:
        return z[:, :, 0, 0]

    with pytest.raises(AssertionError, match=r"of its largest output, .* of how far outputs are apart; 1e-05 was"):
        assert_invariant(lambda z: corner(z) + 1e6, X[:n], quarter)
    assert assert_invariant(lambda z: z.mean((2, 3)) + 1e6, X[:n], quarter) < 1e-15  # equal up to rounding


def test_a_constant_is_refused_for_a_single_input_too() -> None:
    for function in (lambda z: z.new_ones(len(z), 4), lambda z: 0 * z.mean((2, 3)) + 2):
        with pytest.raises(InputError, match="same for all inputs"):
            assert_invariant(function, X[:1], quarter)
    assert assert_invariant(lambda z: z.mean((2, 3)), 0 * X[:1] + 0.5, quarter) < 1e-15  # a grey image


def test_a_module_is_run_in_eval_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5)).double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert_equivariant(model, X, quarter, quarter)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_action_on_the_output_may_write_into_it() -> None:
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    deviations = [
        equivariance_deviation(lambda z: z.square(), x, lambda z: 2 * z, own)
        for own in (lambda z: 3 * z, lambda z: z.mul_(3))
    ]
    assert deviations[0] == deviations[1] == pytest.approx(1)
