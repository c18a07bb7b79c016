"""Models by name: normalisation inside, seeds that disturb nothing, and weights that are what they claim."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import lee
from lee import datasets, models, provenance
from lee.errors import InputError
from lee.models import cards, imagenet, recipes
from lee.models.architectures import resnet
from lee.models.recipes import load_spec
from lee.training import evaluate

ZOO = [name for name in models.names() if name.startswith("zoo/")]
OTHERS = [name for name in models.names() if name not in ZOO and recipes.has_recipe(name)]


def fixed(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def no_module() -> int:
    return 3


HERE = f"{__name__}:"


def state_equal(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ZOO)
def test_zoo_architectures_are_small_and_take_32_pixel_images(name: str) -> None:
    model = models.load(name, trained=False)
    assert not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_500_000
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert models.input_size(model) == 32


@pytest.mark.parametrize("name", ZOO)
def test_zoo_weights_agree_with_their_cards(name: str) -> None:
    """Trained weights: the recorded digest, small enough, and as accurate as was asked for."""
    card = models.card(name)
    path = cards.check_weights(load_spec(name))
    assert path.stat().st_size == card["bytes"] <= 3 * 2**20
    assert card["test_accuracy"] >= {"zoo/resnet-s": 0.80, "zoo/vit-s": 0.70, "zoo/mixer-s": 0.70}.get(name, 0.40)
    assert card["test_accuracy_before_rounding"] - card["test_accuracy"] <= 0.002
    trained, initial = models.load(name), models.load(name, trained=False)
    assert all(parameter.dtype == torch.float32 for parameter in trained.parameters())
    assert not state_equal(trained, initial)
    assert card["parameters"] == sum(parameter.numel() for parameter in trained.parameters())


def test_resnet_has_no_stride_in_its_stem() -> None:
    net: Any = resnet()
    assert net.maxpool(net.act1(net.bn1(net.conv1(torch.rand(1, 3, 32, 32))))).shape == (1, 32, 32, 32)


def test_normalisation_is_inside() -> None:
    spec = load_spec("zoo/vit-s")
    model = models.build(spec).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    assert torch.equal(model(images), model.net((images - mean) / std))


def test_timm_normalisation_and_size_come_from_its_configuration() -> None:
    model = models.load("test_vit")
    assert model.net.pretrained_cfg["mean"] == pytest.approx(model.normalize.mean.flatten().tolist())
    assert model.net.pretrained_cfg["std"] == pytest.approx(model.normalize.std.flatten().tolist())
    assert models.input_size(model) == 160
    assert models.input_size(models.load("test_vit", img_size=64, num_classes=5)) == 64
    assert not model.training


def test_seed_decides_untrained_weights_and_leaves_the_global_state() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (models.load("test_resnet", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert state_equal(first, again)
    assert not state_equal(first, other)


def test_factory_gets_its_arguments_and_optional_normalisation() -> None:
    model = models.load(f"{HERE}fixed", width=6)
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 6)
    assert isinstance(model.normalize, nn.Identity)
    assert models.input_size(model) is None
    images = torch.rand(2, 3, 8, 8)
    normalised = models.load(f"{HERE}fixed", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert torch.equal(normalised(images), normalised.net((images - 0.5) / 0.25))
    with pytest.raises(InputError, match="both mean and std"):
        models.load(f"{HERE}fixed", mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS", ".pth"])
def test_local_weights_in_half_precision_are_loaded_in_float32(tmp_path: Path, suffix: str) -> None:
    state = {key: torch.randn_like(value).half() for key, value in fixed().state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    model = models.load(f"{HERE}fixed", weights=path)
    loaded = model.net.state_dict()
    assert all(loaded[key].dtype == torch.float32 for key in state)
    assert all(torch.equal(loaded[key], state[key].float()) for key in state)


class Unsafe:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def _bad_files(folder: Path) -> dict[str, Path]:
    good = fixed().state_dict()
    save_file(good, folder / "good.safetensors")
    save_file({**good, "extra": torch.zeros(1)}, folder / "extra.safetensors")
    save_file({"0.weight": good["0.weight"]}, folder / "lacking.safetensors")
    save_file({**good, "0.bias": torch.zeros(7)}, folder / "shape.safetensors")
    save_file({**good, "0.weight": good["0.weight"].to(torch.int8)}, folder / "whole.safetensors")
    torch.save({**good, "0.bias": good["0.bias"] * 1j}, folder / "complex.pth")
    (folder / "truncated.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:-9])
    (folder / "noise.pth").write_bytes(b"noise")
    torch.save({"model": Unsafe()}, folder / "unsafe.pth")
    torch.save([1, 2], folder / "list.pth")
    return {path.stem: path for path in folder.iterdir()} | {"missing": folder / "none.safetensors"}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("missing", "There is no weight file .*none.safetensors"),
        ("truncated", "truncated.safetensors is damaged"),
        ("extra", "has extra, which the model lacks"),
        ("lacking", "it lacks 0.bias"),
        ("shape", r"0.bias of shape \(7,\), not \(4,\)"),
        ("whole", "0.weight of whole numbers, not floating-point ones"),
        ("complex", "0.bias of complex numbers, not floating-point ones"),
        ("noise", "noise.pth is damaged"),
        ("unsafe", "holds more than tensors"),
        ("list", "holds no state dict"),
    ],
)
def test_bad_weight_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = _bad_files(tmp_path)[file]
    with pytest.raises(InputError, match=message):
        models.load(f"{HERE}fixed", weights=path)
    assert not (tmp_path / "executed").exists()


def test_weights_that_do_not_fit_leave_the_module_as_it_was(tmp_path: Path) -> None:
    save_file({"0.weight": torch.ones(4, 3, 3, 3)}, tmp_path / "part.safetensors")
    net = fixed()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(InputError):
        models.load_weights(net, tmp_path / "part.safetensors")
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("zoo/vits", {}, "Did you mean 'zoo/vit-s'"),
        ("resnet5", {}, "Did you mean 'resnet5"),
        ("xyzzyplugh", {}, "Known are those of `lee models list`, timm's, and package.module:factory"),
        ("lee.nowhere:model", {}, "can't be imported"),
        (f"{HERE}missing", {}, "can't be imported"),
        (f"{HERE}HERE", {}, "not callable"),
        (f"{HERE}no_module", {}, "returned no torch.nn.Module but something of type int"),
        (f"{HERE}fixed", {"depth": 3}, "can't be built with .*depth"),
        ("test_vit", {"device": "abacus"}, "device 'abacus' can't be used"),
        ("zoo/vit-s", {"trained": False, "depth": 3}, "takes no further arguments"),
        ("zoo/vit-s", {"pretrained": True}, "pretrained=True is for timm"),
        ("test_vit", {"pretrained": True, "weights": "x"}, "excludes weights"),
    ],
)
def test_bad_input_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.load(name, **options)


def test_pretrained_without_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("the hub can't be reached\nand a long story")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        InputError, match=r"timm's weights for test_vit can't be had: the hub can't be reached and a long story\.$"
    ):
        models.load("test_vit", pretrained=True)


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one tiny model with a card."""
    text = f"""
models:
  tiny:
    factory: "{HERE}fixed"
    recipe: {{dataset: digits, epochs: 2}}
"""
    (tmp_path / "zoo.yaml").write_text(text)
    save_file(fixed().state_dict(), tmp_path / "tiny.safetensors")
    digest = lee.paths.file_sha256(tmp_path / "tiny.safetensors")
    cards.write_card(
        {"name": "zoo/tiny", "family": "tiny", "parameters": 1, "test_accuracy": 0.5, "sha256": digest},
        "# tiny\n",
        tmp_path / "tiny.md",
    )
    monkeypatch.setattr(recipes, "FILES", {"zoo": str(tmp_path / "zoo.yaml"), "absent": "absent/absent.yaml"})
    return tmp_path


def test_zoo_file_must_agree_with_its_card(zoo: Path) -> None:
    assert models.load("zoo/tiny")(torch.rand(1, 3, 8, 8)).shape == (1, 4)
    assert models.card("zoo/tiny")["name"] == "zoo/tiny"
    assert cards.verify()[0] == ("zoo/tiny", True, "weights agree with the model card")
    weights = zoo / "tiny.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"tiny\.safetensors is damaged.*lee train zoo/tiny"):
        models.load("zoo/tiny")
    (_, ok, message), *_ = cards.verify()
    assert not ok
    assert "damaged" in message
    weights.unlink()
    with pytest.raises(InputError, match=r"tiny\.safetensors is missing.*lee train zoo/tiny"):
        models.load("zoo/tiny")
    (zoo / "tiny.md").write_text("no front matter")
    with pytest.raises(InputError, match="no YAML front matter"):
        models.load("zoo/tiny")
    (zoo / "tiny.md").unlink()
    with pytest.raises(InputError, match=r"no model card tiny\.md yet"):
        models.load("zoo/tiny")
    assert isinstance(models.load("zoo/tiny", trained=False)(torch.rand(1, 3, 8, 8)), Tensor)


def test_a_prefix_whose_file_is_not_here_is_no_network(zoo: Path) -> None:
    assert models.names() == ("zoo/tiny", *imagenet.names())
    with pytest.raises(InputError, match=r"absent\.yaml\. Clone the repository"):
        models.load("absent/tiny")


@pytest.mark.parametrize(
    ("name", "meant"), [("rotmnist/p5", "rotmnist/p4"), ("penalty/resnt", "penalty/resnet"), ("zo/vit-s", "zoo/vit-s")]
)
def test_an_unknown_network_is_refused_with_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        models.load(name)


@pytest.mark.parametrize("prefix", recipes.FILES)
def test_a_name_without_its_seed_is_the_same_recipe(prefix: str) -> None:
    specs = {name: spec for name, spec in recipes.load_specs().items() if name.startswith(f"{prefix}/")}
    others = {name: specs[recipes.without_seed(name)] for name in specs if recipes.without_seed(name) != name}
    assert others
    for name, first in others.items():
        assert replace(specs[name].recipe, seed=first.recipe.seed) == first.recipe
        assert (specs[name].factory, specs[name].arguments) == (first.factory, first.arguments)


@pytest.mark.parametrize("name", OTHERS)
def test_weights_and_cards_of_all_networks_are_of_one_format(name: str) -> None:
    card, spec = models.card(name), load_spec(name)
    assert (card["name"], card["command"], card["family"]) == (name, f"lee train {name}", spec.family)
    assert card.keys() - {"train_accuracy_before_rounding"} == models.card("zoo/vit-s").keys()  # on newer cards
    assert provenance.weights_sha256(models.load(name)) != provenance.weights_sha256(models.load(name, trained=False))


@pytest.mark.parametrize("name", ZOO)
def test_zoo_is_as_accurate_as_its_card_says(name: str) -> None:
    """On 500 of the test images, within four standard errors."""
    if not os.environ.get("LEE_DATA"):
        pytest.skip("LEE_DATA is not set")
    claimed = models.card(name)["test_accuracy"]
    found = evaluate(models.load(name), datasets.load("cifar10", n=500))
    assert abs(found - claimed) < 4 * (claimed * (1 - claimed) / 500) ** 0.5
