"""Brackets: the algebra's table, what models make of it, and the bound on an error under a bracket."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import lee
from lee.errors import InputError
from lee.geometry.generators import (
    AFFINE,
    BRIGHTNESS,
    HYPERBOLIC,
    ROTATION,
    SCALE,
    SQUEEZE,
    TRANSLATION_X,
    TRANSLATION_Y,
    Generator,
)
from lee.measure.spectrum import ORTHOGONAL, unit_sized
from lee.statistics import EquivarianceGram
from lee.studies import brackets

# By hand, with ξ(p) = A p + b and [ξ, η] = (Dη) ξ - (Dξ) η; pairs that are not listed commute.
BY_HAND = {
    ("translation_x", "rotation"): "-translation_y",
    ("translation_y", "rotation"): "translation_x",
    ("translation_x", "scale"): "translation_x",
    ("translation_y", "scale"): "translation_y",
    ("translation_x", "squeeze"): "translation_x",
    ("translation_y", "squeeze"): "-translation_y",
    ("translation_x", "hyperbolic"): "translation_y",
    ("translation_y", "hyperbolic"): "translation_x",
    ("rotation", "squeeze"): "2 hyperbolic",
    ("rotation", "hyperbolic"): "-2 squeeze",
    ("squeeze", "hyperbolic"): "-2 rotation",
}


def homogeneous(g: Generator) -> Tensor:
    (a, b), (c, d) = g.matrix
    return torch.tensor([[a, b, g.offset[0]], [c, d, g.offset[1]], [0, 0, 0]], dtype=torch.float64)


def test_the_table_of_the_affine_algebra() -> None:
    found = brackets.table()
    assert len(found) == math.comb(6, 2)
    for row in found.itertuples():
        assert row.bracket == BY_HAND.get((row.first, row.second), "0"), row
        commutes, parents = row.bracket == "0", {row.first, row.second}
        inside = row.bracket.split()[-1].removeprefix("-") in parents
        assert row.kind == ("zero" if commutes else "inside" if inside else "new")
    assert found["kind"].value_counts().to_dict() == {"new": 7, "inside": 4, "zero": 4}


@pytest.mark.parametrize("generators", [AFFINE, ORTHOGONAL])
def test_constants_are_those_of_the_matrices_commutators(generators: tuple[Generator, ...]) -> None:
    c = brackets.structure_constants(generators)
    matrices = torch.stack([homogeneous(g) for g in generators])
    # Fields act by pulling back, so the bracket of fields is minus the commutator of their matrices.
    for i, j in combinations(range(6), 2):
        commutator = matrices[j] @ matrices[i] - matrices[i] @ matrices[j]
        assert torch.allclose(torch.einsum("k,kab->ab", c[i, j], matrices), commutator, atol=1e-12)
    assert torch.equal(c, -c.transpose(0, 1))
    jacobi = torch.einsum("ijl,lkm->ijkm", c, c)
    jacobi = jacobi + jacobi.permute(1, 2, 0, 3) + jacobi.permute(2, 0, 1, 3)
    assert jacobi.abs().max() < 1e-12


def test_constants_are_those_of_the_flows_commutators() -> None:
    """exp(tX) exp(tY) exp(-tX) exp(-tY) = exp(t² [M_X, M_Y]) up to t³."""
    c, t = brackets.structure_constants(), 1e-3
    for i, j in combinations(range(6), 2):
        x, y = ORTHOGONAL[i], ORTHOGONAL[j]
        loop = x.flow(t) @ y.flow(t) @ x.flow(-t) @ y.flow(-t)
        wanted = -sum(float(c[i, j, k]) * homogeneous(g) for k, g in enumerate(ORTHOGONAL))
        assert ((loop - torch.eye(3).double()) / t**2 - wanted).abs().max() < 10 * t


def test_what_is_no_algebra_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[translation_x, rotation\] leads out of the span"):
        brackets.structure_constants([TRANSLATION_X, ROTATION])
    with pytest.raises(InputError, match="spatial generators only"):
        brackets.structure_constants([TRANSLATION_X, BRIGHTNESS])


def gram_of(matrix: Tensor, n: int = 50, seed: int = 0) -> EquivarianceGram:
    """Per-image matrices over the basis fields whose mean is near `matrix`, over the orthogonal generators."""
    fields = torch.tensor([g.coefficients[:6] for g in ORTHOGONAL]).double()
    back = torch.linalg.inv(fields)
    root = torch.linalg.cholesky(matrix)
    rows = torch.randn(n, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ root.T
    return EquivarianceGram(back @ (rows.mT @ rows / 4) @ back.T, AFFINE, "fourier")


def test_errors_of_parents_and_brackets_are_read_at_equal_displacement() -> None:
    gram = gram_of(torch.diag(torch.arange(1.0, 7.0).double()))
    found = brackets.inheritance({"model": gram}).set_index("pair")
    assert len(found) == 7
    row = found.loc["rotation, squeeze"]
    assert row["bracket"] == "2 hyperbolic"
    assert row["first"] == pytest.approx(1.5 * gram.lee(ROTATION).value)  # rotation moves by 2/3 on average, squared
    assert row["error"] == pytest.approx(gram.lee(unit_sized(HYPERBOLIC)).value)
    assert row["parents"] == pytest.approx(math.sqrt(row["first"] * row["second"]))
    larger = SQUEEZE if row["second"] > row["first"] else ROTATION
    assert row["excess"] == pytest.approx(math.log(row["error"] / (1.5 * gram.lee(larger).value)))


def test_the_excess_s_standard_error_is_its_spread_over_samples() -> None:
    """300 samples of 200 images: the delta method within a fifth (a standard deviation of 300 numbers is known to 4 %)."""
    matrix = torch.diag(torch.tensor([1.0, 1, 1, 1, 3, 5]).double())
    rows = [brackets.inheritance({"m": gram_of(matrix, 200, seed)}).set_index("pair") for seed in range(300)]
    excess, stderr = (torch.tensor([r.loc["rotation, squeeze", c] for r in rows]) for c in ("excess", "stderr"))
    assert float(stderr.mean()) == pytest.approx(float(excess.std()), rel=0.2)


def profiles(kin: bool, n: int = 60) -> pd.DataFrame:
    """Errors of models whose special treatment of squeeze, hyperbolic and rotation is shared, or of unrelated ones."""
    rng = np.random.default_rng(0)
    logs = 0.3 * rng.normal(size=(n, 6)) + rng.normal(size=(n, 1))
    shared = rng.normal(size=n)
    tied = ("rotation", "squeeze", "hyperbolic") if kin else ("scale", "translation_x", "squeeze")
    for k, g in enumerate(ORTHOGONAL):
        logs[:, k] += shared * (g.name in tied)
    return pd.DataFrame(np.exp(logs), columns=[g.name for g in ORTHOGONAL])


def test_kinship_is_found_where_it_is_and_not_where_it_is_not() -> None:
    found, none = brackets.kinship(profiles(True)), brackets.kinship(profiles(False))
    assert found.p < 0.05 < none.p
    assert 0 < found.low < found.excess < found.high
    assert none.low < 0 < none.high
    assert found.value > none.value
    assert found.n == 60
    assert np.allclose(np.diag(found.correlation), 1)


def test_kinship_ignores_what_models_do_to_all_generators_alike() -> None:
    errors = profiles(True)
    louder = errors.mul(np.linspace(1, 100, len(errors)), axis=0)
    assert brackets.kinship(louder).value == pytest.approx(brackets.kinship(errors).value)
    assert brackets.kinship(pd.concat([errors] * 2), groups=[*range(60)] * 2).n == 60


def test_ties_count_the_brackets_by_hand() -> None:
    ties = (
        pd.DataFrame(brackets.ties(), *[[g.name for g in ORTHOGONAL]] * 2) * 28
    )  # seven brackets, two parents, both ways
    wanted = {("translation_x", "translation_y"): 4, ("translation_x", "rotation"): 1, ("rotation", "squeeze"): 2}
    assert {pair: ties.loc[pair] for pair in wanted} == pytest.approx(wanted)
    assert ties["scale"].sum() == 0
    assert np.allclose(ties, ties.T)


def test_kinship_refuses_what_it_cannot_compare() -> None:
    errors = profiles(True)
    with pytest.raises(InputError, match="no column 'rotation'"):
        brackets.kinship(errors.drop(columns="rotation"))
    with pytest.raises(InputError, match="positive errors"):
        brackets.kinship(errors * 0)
    with pytest.raises(InputError, match="four"):
        brackets.kinship(errors.head(3))


class CentreOfMass(torch.nn.Module):
    """Height of the centre of mass of an image of total mass one."""

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        y = (2 * torch.arange(side, dtype=x.dtype) + 1) / side - 1
        return (x.sum((1, 3)) * y).sum(1, keepdim=True)


def spots(across: Tensor, down: Tensor, side: int = 32, width: float = 0.16) -> Tensor:
    p = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    bump_x = torch.exp(-(((p - across[:, None]) / width) ** 2))
    bump_y = torch.exp(-(((p - down[:, None]) / width) ** 2))
    images = bump_y[:, :, None] * bump_x[:, None, :]
    return (images / images.sum((1, 2), keepdim=True))[:, None]


def test_two_small_errors_and_a_large_bracket() -> None:
    """Spots on the vertical axis: L_x f = 0, L_rotation f = ±u, small; their bracket's is ±1."""
    down = torch.linspace(-0.3, 0.3, 9).double()
    x = spots(0.01 * torch.ones(9).double(), down)
    gram = lee.equivariance_gram(CentreOfMass(), x, output="logits", progress=False)
    assert gram.lee(TRANSLATION_X).value < 1e-7  # the tails of the spots at the border
    assert gram.lee(ROTATION).value == pytest.approx(1e-4, rel=1e-3)
    assert gram.lee(TRANSLATION_Y).value == pytest.approx(1, rel=1e-3)


def test_the_bound_is_met_by_a_linear_function_and_holds_for_waves() -> None:
    t = torch.linspace(-1, 1, 41).double()[:, None, None]
    assert float(brackets.rate_bound(3 * t, 0.05)) == pytest.approx(3)  # g = 3t: sup|g|/T = 3 = g'(0)
    frequencies = torch.tensor([0.5, 2.0, 8.0, 20.0]).double()[None, :, None]
    phases = torch.linspace(0, 3, 7).double()
    for phase in phases:
        wave = torch.sin(frequencies * t + phase)
        slope = (frequencies * torch.cos(phase)).abs().flatten()
        assert (brackets.rate_bound(wave, 0.05) >= slope * (1 - 1e-2)).all()  # bends are seen through a grid of 0.05
    fast = brackets.rate_bound(torch.sin(20 * t), 0.05)
    assert float(fast) < 1.2 * math.sqrt(2 * 20**2)  # Hadamard: √(2 sup|g| sup|g''|)


def test_the_bound_holds_for_a_model_under_a_bracket() -> None:
    """A smooth random network on smooth images: |L_[X,Y] f| is below the bounds of both orders together."""
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(1024, 5, generator=random, dtype=torch.float64) / 8

    def model(x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ weights)

    place = 0.3 * torch.randn(2, 6, generator=random, dtype=torch.float64)
    x, step = 30 * spots(place[0], place[1]), 0.02
    sampler = lee.Sampler()
    for a, b in ((TRANSLATION_X, ROTATION), (TRANSLATION_Y, HYPERBOLIC), (ROTATION, SQUEEZE)):
        total = torch.zeros(6, dtype=torch.float64)
        for one, other in ((a, b), (b, a)):
            samples = brackets.along(
                lambda z, g=one: lee.lie_derivative(model, z, g, output="logits"),
                lambda z, t, g=other: sampler.warp(z, g, t), x, step, 10,
            )  # fmt: skip
            assert samples.shape == (21, 6, 5)
            total += brackets.rate_bound(samples, step)
        truth = lee.lie_derivative(model, x, lee.bracket(a, b), output="logits").norm(dim=1)
        assert (truth <= total).all()
        assert (total < 100 * truth.mean()).all()  # and says something


def test_bounds_need_a_grid() -> None:
    with pytest.raises(InputError, match=r"got shape \(4, 1, 1\)"):
        brackets.rate_bound(torch.zeros(4, 1, 1), 0.1)
    with pytest.raises(InputError, match="step 0"):
        brackets.rate_bound(torch.zeros(5, 1, 1), 0)


def test_scale_commutes_with_turns() -> None:
    found = brackets.table([SCALE, ROTATION])
    assert found["bracket"].tolist() == ["0"]
    assert not brackets.ties([SCALE, ROTATION]).any()


def test_the_interval_of_kinship_leaves_out_zero_where_its_p_value_is_below_a_fortieth() -> None:
    # Relabelings that change nothing tie with the value itself, so that a quantile among them may differ from it by rounding.
    random, names = np.random.default_rng(0), [g.name for g in ORTHOGONAL]
    found = [brackets.kinship(pd.DataFrame(np.exp(random.normal(size=(5, 6))), columns=names)) for _ in range(400)]
    assert [k.high < 0 for k in found] == [k.p_less < 0.025 for k in found]
    assert [k.low > 0 for k in found] == [k.p < 0.025 for k in found]
    assert min(sum(k.high < 0 for k in found), sum(k.low > 0 for k in found)) > 3
    assert all(k.low <= k.high for k in found)
