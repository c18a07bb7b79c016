"""Yardsticks: dense Jacobians, exact invariance, networks that know nothing, pairs of images, errors."""

import numpy as np
import pytest
import torch
from torch import nn

import lee
from lee import datasets, models
from lee.errors import InputError
from lee.metrics.yardsticks import foreign_changes, yardsticks


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return datasets.load("patches", n=8).images


def _velocities(x: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
    return torch.stack(
        [lee.lie_derivative(lambda z: z.flatten(1), x, name, output="logits").view_as(x) for name in names]
    )


@pytest.mark.parametrize("names", [("rotation",), ("translation_x", "translation_y")])
def test_of_a_small_network_they_follow_from_its_dense_jacobian(names: tuple[str, ...]) -> None:
    x = datasets.load("patches", n=5, size=8).images.double()
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.GELU(), nn.Linear(12, 4)).double()
    found = yardsticks(net, x, names, seed=3, chunk=2)
    own = _velocities(x, names)
    foreign = foreign_changes(own, seed=3)
    for i in range(len(x)):
        jacobian = torch.func.jacrev(net)(x[i : i + 1]).detach().reshape(4, 192)
        for column, moved in (("own", own), ("foreign", foreign)):
            expected = sum(float((jacobian @ moved[k, i].flatten()).square().mean()) for k in range(len(names)))
            assert found[column][i] == pytest.approx(expected, rel=1e-9)
        assert found["speed"][i] == pytest.approx(sum(float(own[k, i].square().mean()) for k in range(len(names))))
        assert found["square"][i] == pytest.approx(float(net(x[i : i + 1]).detach().square().mean()))


@pytest.mark.parametrize(("mode", "error"), [("forward", 1e-9), ("reverse", 1e-9), ("differences", 1e-5)])
def test_every_mode_gives_what_follows_from_the_dense_jacobian(mode: str, error: float) -> None:
    x = datasets.load("patches", n=3, size=8).images.double()
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.GELU(), nn.Linear(12, 4)).double()
    (own,), (foreign,) = (_velocities(x, ("rotation",)), foreign_changes(_velocities(x, ("rotation",))))
    jacobians = torch.stack([torch.func.jacrev(net)(one[None]).detach().reshape(4, 192) for one in x])
    found = yardsticks(net, x, ["rotation"], mode=mode, chunk=2)
    for column, moved in (("own", own), ("foreign", foreign)):
        expected = (jacobians @ moved.flatten(1)[..., None]).square().mean((1, 2))
        assert np.allclose(found[column], expected, rtol=error)


def test_a_network_without_forward_mode_is_measured_by_backward_passes_or_refused() -> None:
    """Distances to some centres: torch has no forward-mode formula for its own `cdist`."""
    x = datasets.load("patches", n=3, size=8).images.double()
    centres = torch.rand(4, 192, dtype=torch.float64)
    expected = yardsticks(lambda z: (z.flatten(1)[:, None] - centres).square().sum(2).sqrt(), x)
    torchs = lambda z: torch.cdist(z.flatten(1), centres)  # noqa: E731
    for mode in ("auto", "reverse"):
        assert np.allclose(yardsticks(torchs, x, mode=mode), expected, rtol=1e-9)
    with pytest.raises(InputError, match=r"no forward-mode derivative of .*cdist.*mode='reverse'"):
        yardsticks(torchs, x, mode="forward")
    with pytest.raises(InputError, match=r"Unknown mode 'foward'\. Did you mean 'forward'"):
        yardsticks(torchs, x, mode="foward")


def test_own_is_the_local_equivariance_error_of_the_scores(images: torch.Tensor) -> None:
    model = models.load("zoo/resnet-s")
    gram = lee.equivariance_gram(model, images, generators=["rotation", "scale"], output="logits", progress=False)
    expected = gram.lee_per_image("rotation") + gram.lee_per_image("scale")
    found = yardsticks(model, images, ["rotation", "scale"])["own"]
    assert np.allclose(found, expected, rtol=1e-3)


def test_foreign_changes_are_other_images_velocities_at_the_own_length(images: torch.Tensor) -> None:
    own = _velocities(images, ("translation_x", "rotation"))
    foreign = foreign_changes(own, seed=1)
    assert torch.allclose(foreign.flatten(2).norm(dim=2), own.flatten(2).norm(dim=2), rtol=1e-5)
    unit = lambda v: torch.nn.functional.normalize(v.flatten(2), dim=2)  # noqa: E731
    cosine = torch.einsum("kid,kjd->kij", unit(foreign), unit(own))
    partner = cosine.argmax(2)
    assert torch.allclose(cosine.max(2).values, torch.ones(2, 8), atol=1e-5)
    assert torch.equal(partner[0], partner[1])
    assert not (partner[0] == torch.arange(8)).any()
    assert sorted(partner[0].tolist()) == list(range(8))
    assert torch.equal(foreign, foreign_changes(own, seed=1))


def test_an_exactly_invariant_network_answers_to_foreign_changes_only(images: torch.Tensor) -> None:
    class Power(nn.Module):  # the power of each wave is blind to circular translation
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft2(x).abs().square()[..., :4, :4].flatten(1)

    found = yardsticks(Power().double(), images.double(), boundary="circular")
    assert found["own"].max() < 1e-20 * found["foreign"].max()


def test_a_network_that_knows_nothing_answers_to_both_alike() -> None:
    """A random linear map has no preferred direction: E own = E foreign, image by image and over many maps."""
    x = datasets.load("patches", n=24, size=16).images
    maps = nn.Sequential(nn.Flatten(), nn.Linear(768, 2000, bias=False))
    nn.init.normal_(maps[1].weight)
    found = yardsticks(maps, x)
    ratio = found["own"] / found["foreign"]
    assert (ratio - 1).abs().max() < 5 * (4 / 2000) ** 0.5


def test_a_brighter_copy_of_a_linear_network_changes_no_ratio(images: torch.Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10, bias=False))
    dim, bright = yardsticks(net, 0.5 * images), yardsticks(net, images)
    assert np.allclose(dim["own"] / dim["foreign"], bright["own"] / bright["foreign"], rtol=1e-3)
    assert np.allclose(dim["own"] / dim["speed"], bright["own"] / bright["speed"], rtol=1e-3)
    assert np.allclose(4 * dim["own"], bright["own"], rtol=1e-3)


def test_bad_input_is_named(images: torch.Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    with pytest.raises(InputError, match="two or more"):
        yardsticks(net, images[:1])
    with pytest.raises(InputError, match="single colour"):
        yardsticks(net, torch.cat([images[:2], torch.full((1, 3, 32, 32), 0.5)]))
    with pytest.raises(InputError, match="act on images"):
        yardsticks(net, images, [])
    with pytest.raises(InputError, match=r"must be a list of them, such as \['rotation'\]"):
        yardsticks(net, images, "rotation")
    with pytest.raises(InputError, match=r"class scores \(N, K\)"):
        yardsticks(nn.Conv2d(3, 4, 3), images)
