"""The Fréchet distance: closed forms, an independent matrix square root, its bias, and the features it is taken of."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn

from lee import datasets, models
from lee.errors import InputError
from lee.metrics.distances import Distance, between_gaussians, features, frechet_distance, moments


def _gaussian(seed: int, d: int = 5) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    factor = torch.randn(d, d, generator=random, dtype=torch.float64)
    return torch.randn(d, generator=random, dtype=torch.float64), factor @ factor.T


def test_commuting_covariances_have_a_closed_form() -> None:
    """In a common basis of eigenvectors d² = |μ₁ − μ₂|² + Σ (√λ₁ − √λ₂)²."""
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    a, b = torch.tensor([4.0, 1.0, 0.0, 9.0]).double(), torch.tensor([1.0, 1.0, 4.0, 16.0]).double()
    mean = torch.tensor([1.0, -2.0, 0.0, 2.0]).double()
    first = torch.zeros(4).double(), basis @ a.diag() @ basis.T
    second = mean, basis @ b.diag() @ basis.T
    assert between_gaussians(first, second) == pytest.approx(9 + 1 + 0 + 4 + 1, rel=1e-12)


def test_any_covariances_agree_with_scipys_square_root_of_their_product() -> None:
    (mean, a), (other, b) = _gaussian(1), _gaussian(2)
    root = sqrtm((a @ b).numpy()).real
    expected = float((mean - other).square().sum()) + float(np.trace(a.numpy() + b.numpy() - 2 * root))
    assert between_gaussians((mean, a), (other, b)) == pytest.approx(expected, rel=1e-10)


def test_it_is_symmetric_and_zero_only_for_equal_sets() -> None:
    a, b = torch.randn(40, 6), 1.5 * torch.randn(40, 6) + 0.2
    assert frechet_distance(a, b).value == pytest.approx(frechet_distance(b, a).value, rel=1e-10)
    assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, a).limit == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, b).value > 0.1


def test_its_square_root_obeys_the_triangle_inequality() -> None:
    """d is a metric (the 2-Wasserstein distance of Gaussians)."""
    a, b, c = (_gaussian(seed) for seed in (3, 4, 5))
    ab, bc, ac = (math.sqrt(between_gaussians(*pair)) for pair in ((a, b), (b, c), (a, c)))
    assert ac <= ab + bc
    assert ab <= ac + bc


def test_fewer_images_than_features_are_no_trouble() -> None:
    """With n < D both covariances are singular; a shift of all features by v alone is at |v|²."""
    a = torch.randn(8, 30, dtype=torch.float64)
    assert frechet_distance(a, a + 0.5).value == pytest.approx(30 * 0.25, rel=1e-9)


def test_covariance_is_the_unbiased_one() -> None:
    x = torch.randn(12, 3, dtype=torch.float64)
    assert np.allclose(moments(x)[1].numpy(), np.cov(x.numpy().T))
    assert moments(x[:, :1])[1].shape == (1, 1)


def test_few_images_exaggerate_the_distance_and_the_limit_does_not() -> None:
    """Standard normals against normals of half the deviation, shifted by 1/2: d² = D (1/4 + 1/4) exactly."""
    d, n, rounds = 10, 100, 40
    truth = d * 0.5
    found = [frechet_distance(torch.randn(n, d), 0.5 * torch.randn(n, d) + 0.5) for _ in range(rounds)]
    value, limit = (torch.tensor([getattr(f, name) for f in found]) for name in ("value", "limit"))
    bias, se = float(value.mean()) - truth, float(value.std()) / rounds**0.5
    assert bias > 4 * se
    assert abs(float(limit.mean()) - truth) < min(bias / 3, 4 * float(limit.std()) / rounds**0.5)


def test_equal_distributions_have_a_limit_around_zero() -> None:
    found = [frechet_distance(torch.randn(200, 10), torch.randn(200, 10)) for _ in range(20)]
    value, limit = (torch.tensor([getattr(f, name) for f in found]) for name in ("value", "limit"))
    assert float(value.min()) > 0.2
    assert abs(float(limit.mean())) < 0.2 * float(value.mean())


def test_a_limit_below_zero_is_told_as_noise() -> None:
    assert str(Distance(0.5, -1.9, 64, 1.2)) == "0.5, extrapolated -1.9 ± 1.2, noise around 0 (n = 64 each)"
    assert str(Distance(5.0, 4.0, 64, 1.2)) == "5, extrapolated 4 ± 1.2 (n = 64 each)"


def test_features_are_what_the_last_layer_reads() -> None:
    x = datasets.load("patches", n=5).images
    for name in ("zoo/resnet-s", "zoo/vit-s", "zoo/mixer-s"):
        model = models.load(name)
        read: list[Tensor] = []
        head = model.net.get_classifier()
        handle = head.register_forward_hook(lambda _m, args, _out, read=read: read.append(args[0]))
        with torch.no_grad():
            model(x)
        handle.remove()
        assert torch.allclose(features(model, x, batch=2), read[0].double(), atol=1e-4)


def test_features_leave_the_model_as_it_was() -> None:
    model = models.load("zoo/resnet-s").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features(model, datasets.load("patches", n=2).images)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="equally many images, 4 or more; got 5 and 6"):
        frechet_distance(torch.randn(5, 2), torch.randn(6, 2))
    with pytest.raises(InputError, match="one length; got 2 and 3"):
        frechet_distance(torch.randn(5, 2), torch.randn(5, 3))
    with pytest.raises(InputError, match="finite features"):
        moments(torch.full((3, 2), torch.nan))
    with pytest.raises(InputError, match="Linear has no forward_features"):
        features(nn.Linear(2, 2), torch.rand(1, 3, 8, 8))


def test_few_dimensions_are_those_of_the_second_set_and_have_an_error() -> None:
    """Two axes carry all of the second set; the error is that of many repetitions."""
    random, basis = torch.Generator().manual_seed(0), torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))[0]
    scale = torch.tensor([3.0, 2.0] + [0.1] * 10).double()

    def drawn() -> Tensor:
        return torch.randn(200, 12, generator=random, dtype=torch.float64) * scale @ basis

    found = [frechet_distance(drawn() + basis[0] + basis[5], drawn(), dimensions=2) for _ in range(60)]
    limits = torch.tensor([one.limit for one in found])
    assert float(limits.mean()) == pytest.approx(
        1, abs=4 * float(limits.std()) / 60**0.5
    )  # the shift along the first axis only
    told = torch.tensor([one.stderr for one in found]).square().mean().sqrt()
    assert float(told / limits.std()) == pytest.approx(1, abs=0.3)
    assert math.isnan(frechet_distance(torch.randn(20, 3), torch.randn(20, 3)).stderr)
    with pytest.raises(InputError, match="`dimensions` must be from 1 to 3"):
        frechet_distance(torch.randn(20, 3), torch.randn(20, 3), dimensions=4)
