"""The equivariance penalty: against the exact Gram matrix, against finite differences, and as part of a training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lee
from lee import datasets
from lee.errors import InputError
from lee.measure.spectrum import displacement_metric
from lee.models.architectures import resnet, vit
from lee.models.recipes import Recipe, ZooSpec, load_spec, load_specs, recipe_file
from lee.training import EpochRecord, EquivariancePenalty, train
from lee.training.penalty import _REPLACED, _batch_norm, scores_and_derivative, unit_generators

GENERATORS = ("translation_x", "translation_y", "rotation")
SMALL_VIT: dict[str, Any] = {
    "img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "class_token": False, "global_pool": "avg",
    "num_classes": 5,
}  # fmt: skip


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6, affine=False),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "convolutional": convolutional,
    "resnet": lambda: resnet(channels=(4, 4, 4, 4), num_classes=5, activation="gelu", blur=True, oversampling=2),
    "vit": lambda: vit(**SMALL_VIT),
    "vit-blur": lambda: vit(blur=True, **SMALL_VIT),
}


def made(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETS[name]().double()


def images(n: int = 6, side: int = 8) -> Tensor:
    noise = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(3)).double()
    return F.avg_pool2d(F.pad(noise, [1] * 4, mode="reflect"), 3, stride=1)


def held(model: nn.Module, x: Tensor) -> nn.Module:
    """The network in eval mode with the statistics of `x`: running ones that are replaced by one batch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(x)
    variances = [m.running_var for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    counts = [x.numel() / 3, x.numel() / 3 / 4]
    for variance, count in zip(variances, counts, strict=True):
        assert variance is not None
        variance *= (count - 1) / count  # torch stores the unbiased variance, and normalises by the other
    return model.eval()


@pytest.mark.parametrize("name", ["convolutional", "vit"])
def test_the_exact_penalty_is_the_trace_of_the_gram_matrix_over_the_variance_of_scores(name: str) -> None:
    x, model = images(), made(name)
    frozen = held(made(name), x) if name == "convolutional" else made(name).eval()
    basis = unit_generators(GENERATORS)
    centred = lambda z: z - z.mean(-1, keepdim=True)  # noqa: E731
    gram = lee.equivariance_gram(frozen, x, generators=basis, output=centred, progress=False)
    with torch.no_grad():
        scores = centred(frozen(x))
    per_pixel = (2 / 8) ** 2 * sum(gram.lee(g).value for g in basis) * 5
    expected = per_pixel / float(scores.var(0, correction=0).sum())
    found = EquivariancePenalty(GENERATORS, "exact")(model.train(), x)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_random_directions_are_unbiased_for_the_trace_and_for_its_gradient() -> None:
    x, model = images(2), made("convolutional").train()
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(0)

    def draw(penalty: EquivariancePenalty, pictures: Tensor) -> Tensor:
        value = penalty(model, pictures, generator)
        gradient = torch.autograd.grad(value, parameters)
        return torch.cat([value.detach()[None], *(g.flatten() for g in gradient)])

    exact = draw(EquivariancePenalty(GENERATORS, "exact"), x)
    random = EquivariancePenalty(GENERATORS)
    draws = torch.stack([draw(random, x) for _ in range(300)])
    error = draws.std(0) / len(draws) ** 0.5
    z = ((draws.mean(0) - exact) / error)[error > 1e-9 * exact.abs().max()]
    assert abs(z[0]) < 3.5
    assert float(z.square().mean()) < 2.0  # one on average if unbiased; parameters are correlated
    assert float(draws[:, 0].std() / exact[0]) > 0.1  # a single draw is far off, so the agreement says something


@pytest.mark.parametrize("estimator", ["random", "exact"])
@pytest.mark.parametrize("name", list(NETS))
def test_the_gradient_is_that_of_finite_differences(name: str, estimator: str) -> None:
    x, model = images(3, 16 if name == "resnet" else 8), made(name).train()
    penalty = EquivariancePenalty(GENERATORS, estimator)

    def value() -> Tensor:
        return penalty(model, x, torch.Generator().manual_seed(5))

    value().backward()
    torch.manual_seed(1)
    steps = [torch.randn_like(p) for p in model.parameters()]
    gradients = [p.grad for p in model.parameters()]
    slope = sum(float((g * s).sum()) for g, s in zip(gradients, steps, strict=True) if g is not None)
    with torch.no_grad():
        values = []
        for epsilon in (1e-6, -2e-6):
            for p, s in zip(model.parameters(), steps, strict=True):
                p.add_(epsilon * s)
            values.append(value().item())
    assert abs(slope) > 1e-4
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_larger_scores_and_constants_do_not_change_it() -> None:
    x, model = images(), made("convolutional").train()
    penalty = EquivariancePenalty(GENERATORS, "exact")
    *_, last = (m for m in model.modules() if isinstance(m, nn.Linear))
    before = penalty(model, x).item()
    with torch.no_grad():
        last.weight *= 3.0
        last.bias.add_(torch.randn(5))
    assert penalty(model, x).item() == pytest.approx(before, rel=1e-9)
    with torch.no_grad():  # a network that answers to something else has another one
        last.weight[1:] = 0.0
    assert penalty(model, x).item() != pytest.approx(before, rel=1e-2)


def test_one_image_does_not_move_another_and_nothing_is_left_behind() -> None:
    x, model = images(), made("convolutional").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tangent = torch.zeros_like(x)
    tangent[2] = 1.0
    moved = scores_and_derivative(model, x, tangent)[1].flatten(1).abs().sum(1)
    assert moved[2] > 0
    assert not moved[[0, 1, 3, 4, 5]].any()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert isinstance(model, nn.Sequential)
    model.append(nn.Conv2d(1, 1, 1).double())
    with pytest.raises(RuntimeError):
        scores_and_derivative(model, x, tangent)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k in before)
    assert torch.autograd.forward_ad._current_level == -1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replaced_functions_compute_what_torch_computes(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    tolerance: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.03}
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[:, 0] = True
    calls: list[tuple[Callable[..., Tensor], tuple[Tensor, ...], dict[str, object]]] = [
        (F.softmax, (q,), {"dim": 1}),
        (torch.softmax, (q,), {"dim": -1, "dtype": torch.float32}),
        (F.log_softmax, (100 * q,), {"dim": -1}),
        (F.scaled_dot_product_attention, (q, k, v), {}),
        (F.scaled_dot_product_attention, (q, k, v), {"is_causal": True, "scale": 0.3}),
        (F.scaled_dot_product_attention, (q, k, v), {"attn_mask": mask}),
        (F.scaled_dot_product_attention, (q, k, v), {"attn_mask": torch.randn(6, 6).to(dtype)}),
    ]
    for function, args, kwargs in calls:
        torch.testing.assert_close(_REPLACED[function](*args, **kwargs), function(*args, **kwargs), **tolerance)


def test_batch_norm_without_a_tangent_is_torchs() -> None:
    x, weight, bias = torch.randn(5, 3, 4, 4), torch.randn(3), torch.randn(3)
    expected = F.batch_norm(x, None, None, weight, bias, True)
    torch.testing.assert_close(_batch_norm(x, None, None, weight, bias, True), expected)
    mean, variance = torch.randn(3), torch.rand(3)
    args = (x, mean, variance, None, None, False)
    torch.testing.assert_close(_batch_norm(*args), F.batch_norm(*args))


def test_generators_move_pixels_equally_far() -> None:
    scaled = unit_generators(["translation_x", "rotation", "scale", "shear_x"])
    assert displacement_metric(scaled).diagonal().tolist() == pytest.approx([1.0] * 4)
    assert [g.name for g in scaled] == ["translation_x", "rotation", "scale", "shear_x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one generator"),
        ((["rotaton"],), "Did you mean 'rotation'"),
        ((["brightness"],), "brightness"),
        ((["rotation"], "exct"), "Did you mean 'exact'"),
    ],
)
def test_a_wrong_penalty_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EquivariancePenalty(*arguments)  # type: ignore[arg-type]


def test_a_network_that_ignores_its_input_and_a_single_image_are_refused() -> None:
    penalty = EquivariancePenalty(GENERATORS)
    constant = nn.Embedding(2, 3).double()
    constant.forward = lambda x: constant.weight[:1].expand(len(x), -1)  # type: ignore[assignment,method-assign]
    with pytest.raises(InputError, match="does not depend on its input"):
        penalty(constant, images())
    with pytest.raises(InputError, match="2 or more, not 1"):
        penalty(made("convolutional"), images(1))


def digits_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip


RECIPE = Recipe("digits", epochs=3, batch_size=32, lr=0.02, precision="bfloat16", penalty=0.5, penalty_images=8)
SPEC = ZooSpec("digits", f"{__name__}:digits_net", RECIPE, input_size=(1, 8, 8), mean=(0.5,), std=(0.5,))


def test_a_penalised_training_is_more_equivariant_repeats_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    sets = datasets.load("digits", n=320, split="train"), datasets.load("digits", n=100)
    whole = train(SPEC, *sets, progress=False)

    def kill(record: EpochRecord) -> None:
        raise KeyboardInterrupt

    checkpoint = tmp_path / "digits.checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, *sets, progress=False, checkpoint=checkpoint, on_epoch=kill)
    resumed = train(SPEC, *sets, progress=False, checkpoint=checkpoint)
    assert [record.loss for record in whole.history] == [record.loss for record in resumed.history]
    states = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    free = train(replace(SPEC, recipe=replace(RECIPE, penalty=0.0)), *sets, progress=False)
    measure = EquivariancePenalty(RECIPE.penalty_generators, "exact")
    found, without = (measure(result.model, sets[1].images).item() for result in (whole, free))
    assert found < 0.8 * without
    counter = whole.model.state_dict()["net.1.num_batches_tracked"]
    assert int(counter) == 3 * 10  # steps, and not the penalty's passes


def test_recipes_without_a_penalty_keep_their_digest() -> None:
    old = "ae527a69a89e56767cf0d5247e4a31b828eb5fd3b30d0b731d753f247063ff25"
    spec = load_spec("zoo/vit-s")
    assert spec.digest() == old
    assert replace(spec, recipe=replace(spec.recipe, penalty_images=3)).digest() == old
    one, two = (replace(spec, recipe=replace(spec.recipe, penalty=w)).digest() for w in (1.0, 2.0))
    assert len({old, one, two}) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("penalty", -1.0),
        ("penalty_images", 1),
        ("penalty_images", 33),
        ("penalty_generators", ()),
        ("penalty_generators", "rotation"),
        ("penalty_estimator", "some"),
    ],
)
def test_a_wrong_recipe_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(RECIPE, **{field: value})  # type: ignore[arg-type]


def test_blurred_patches_are_the_kernel_at_every_pixel_then_two_blurpools() -> None:
    arguments = {**SMALL_VIT, "img_size": 32}
    torch.manual_seed(0)
    plain = vit(**arguments)
    torch.manual_seed(0)
    blurred = vit(blur=True, **arguments)
    assert {k.replace("proj.proj", "proj") for k in blurred.state_dict()} == set(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    before, after = (cast(Any, net).patch_embed.proj for net in (plain, blurred))
    dense = F.conv2d(x, before.weight, before.bias)  # one entry per corner of a patch
    found = after(x)
    assert found.shape == (2, 8, 8, 8)
    torch.testing.assert_close(found[..., 2:6, 2:6], _twice_blurred(dense), atol=1e-5, rtol=1e-5)


def _twice_blurred(dense: Tensor) -> Tensor:
    """A map (N, 8, 29, 29) blurred and thinned out twice, at pixels 8, 12, 16 and 20."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(taps, taps).expand(8, 1, 5, 5)
    once = F.conv2d(dense, kernel, groups=8)[..., ::2, ::2]  # at pixels 2, 4, …, 26
    twice = F.conv2d(once, kernel, groups=8)  # at pixels 6, 8, …, 22
    return twice[..., 1::2, 1::2]


def test_blurred_patches_need_a_power_of_two() -> None:
    with pytest.raises(InputError, match="power of 2, not 6"):
        vit(blur=True, **{**SMALL_VIT, "img_size": 12, "patch_size": 6})


def test_every_recipe_of_the_chapter_can_be_built_and_shares_its_epochs() -> None:
    specs = load_specs(recipe_file("penalty"))
    assert len({spec.digest() for spec in specs.values()}) == len(specs)
    for family in ("resnet", "vit"):
        own = [spec for spec in specs.values() if spec.family == family]
        assert len({(s.recipe.epochs, s.recipe.lr, s.recipe.fraction, s.recipe.penalty_images) for s in own}) == 1
        assert {s.recipe.penalty for s in own} == {0.0, 0.1, 1.0, 10.0}
    assert {name.removesuffix("-seed1") for name in specs} == {name for name in specs if "seed" not in name}
