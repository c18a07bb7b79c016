"""Training: everything follows from the recipe, also across an interruption; and what is written at its end."""

import errno
import math
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from lee import datasets, models
from lee.datasets import ImageSet
from lee.errors import InputError, LeeWarning
from lee.models.cards import check_weights
from lee.models.recipes import Recipe, ZooSpec, load_spec, load_specs
from lee.paths import package_data
from lee.training import EpochRecord, TrainResult, evaluate, learning_rate, optimisation, train, zoo
from lee.training.augmentation import flip_crop, seeded
from lee.training.batches import batches, fraction
from lee.training.optimisation import pseudo_loss


def small_net(width: int = 8, classes: int = 10) -> nn.Module:
    """A network with all that a state can hold: weights, batch statistics and a counter, and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.MaxPool2d(2),
        nn.Flatten(1),
        nn.Linear(16 * width, classes),
    )


def backwards() -> nn.Module:
    """A network that says of its outputs what they are not taught."""
    net = small_net()
    net.class_names = "9876543210"  # type: ignore[assignment]
    return net


RECIPE = Recipe("digits", epochs=3, batch_size=32, lr=0.02, label_smoothing=0.1, augmentation="flip-crop")
SPEC = ZooSpec("small", f"{__name__}:small_net", RECIPE, input_size=(1, 8, 8), mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def sets() -> tuple[ImageSet, ImageSet]:
    return datasets.load("digits", n=640, split="train"), datasets.load("digits", n=100)


def states_equal(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def quiet(spec: ZooSpec, sets: tuple[ImageSet, ImageSet], **options: Any) -> TrainResult:
    return train(spec, *sets, progress=False, **options)


def test_learning_rate_warms_up_linearly_and_ends_at_zero() -> None:
    rates = [learning_rate(0.1, step, 40, 10.0) for step in range(41)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) / 11 for step in range(10)])
    assert rates[10] == max(rates) == 0.1
    assert rates[25] == pytest.approx(0.05)  # half a cosine is half-way at its middle
    assert rates[40] == pytest.approx(0.0, abs=1e-17)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0.1, 0, 40, 0.0) == 0.1


@pytest.mark.parametrize("shape", [(9, 3, 8, 8), (5, 1, 7, 11)])
def test_flip_crop_equals_padding_cropping_and_flipping_one_by_one(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    generator = seeded("test")
    shifts = torch.randint(-4, 5, (2, shape[0], 1), generator=generator).squeeze(-1)
    flips = torch.rand(shape[0], 1, generator=generator).squeeze(-1) < 0.5
    assert flips.any()
    assert not flips.all()
    found = flip_crop(images, seeded("test"))
    for image, dy, dx, flip, other in zip(images, *shifts.tolist(), flips.tolist(), found, strict=True):
        mirrored = image.flip(-1) if flip else image
        wide = nn.functional.pad(mirrored[None], (4, 4, 4, 4), mode="reflect")[0]
        assert torch.equal(other, wide[:, 4 + dy : 4 + dy + shape[2], 4 + dx : 4 + dx + shape[3]])


def test_generators_of_different_parts_are_unrelated() -> None:
    draws = [torch.rand(64, generator=seeded(*parts)) for parts in ((0, 1), (1, 0), (0, 1, "x"), (0, 1))]
    assert torch.equal(draws[0], draws[3])
    assert abs(float(torch.corrcoef(torch.stack(draws[:2]))[0, 1])) < 0.4
    assert not torch.equal(draws[0], draws[2])


def test_training_learns_and_repeats_bit_for_bit(sets: tuple[ImageSet, ImageSet]) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    spec = replace(SPEC, recipe=replace(RECIPE, augmentation="none"))
    first = quiet(spec, sets)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    second = quiet(spec, sets)
    assert states_equal(first.model, second.model)
    assert [record.loss for record in first.history] == [record.loss for record in second.history]
    assert (first.history[-1].accuracy or 0) > 0.8
    assert first.history[-1].loss < first.history[0].loss
    assert not first.model.training
    other = quiet(replace(spec, recipe=replace(spec.recipe, seed=1)), sets)
    assert not states_equal(first.model, other.model)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_training_resumes_to_the_same_weights(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, optimizer: str
) -> None:
    spec = replace(SPEC, recipe=replace(RECIPE, optimizer=optimizer, clip_norm=1.0))
    whole = quiet(spec, sets)
    checkpoint = tmp_path / "small.checkpoint.pt"

    def kill(record: EpochRecord) -> None:
        if record.epoch < 2:
            raise KeyboardInterrupt

    for _ in range(2):  # killed after the first epoch, and after the second
        with pytest.raises(KeyboardInterrupt):
            quiet(spec, sets, checkpoint=checkpoint, on_epoch=kill)
    resumed = quiet(spec, sets, checkpoint=checkpoint, on_epoch=kill)
    assert states_equal(whole.model, resumed.model)
    assert [record.loss for record in whole.history] == [record.loss for record in resumed.history]
    assert [record.accuracy for record in whole.history] == [record.accuracy for record in resumed.history]


def test_snapshots_hold_the_weights_of_spaced_epochs_across_an_interruption(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    spec = replace(SPEC, recipe=replace(RECIPE, epochs=7, warmup_epochs=0.5))
    seen: dict[str, dict[str, Tensor]] = {}
    whole, checkpoint = tmp_path / "whole", tmp_path / "small.checkpoint.pt"

    def kill(record: EpochRecord) -> None:
        content = torch.load(checkpoint, weights_only=True)["model"]
        seen[str(record.epoch + 1)] = {key.removeprefix("net."): value for key, value in content.items()}
        if record.epoch in (0, 1, 3):
            raise KeyboardInterrupt

    result = quiet(spec, sets, snapshots=whole)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            quiet(spec, sets, checkpoint=checkpoint, snapshots=tmp_path / "parts", on_epoch=kill)
    quiet(spec, sets, checkpoint=checkpoint, snapshots=tmp_path / "parts", on_epoch=kill)
    for epoch in ("1", "2", "3", "5", "7"):
        first, second = (load_file(tmp_path / folder / f"{epoch}.safetensors") for folder in ("whole", "parts"))
        assert first.keys() == second.keys() == seen[epoch].keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert all(torch.equal(first[key], seen[epoch][key]) for key in first)
    assert len(list(whole.iterdir())) == len(list((tmp_path / "parts").iterdir())) == 5
    assert all(torch.equal(first[key], value) for key, value in result.model.net.state_dict().items())


def test_a_kill_in_the_middle_of_an_epoch_or_of_writing_loses_only_that_epoch(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quiet(SPEC, sets)
    checkpoint = tmp_path / "small.checkpoint.pt"
    save = torch.save

    def half_written(content: dict[str, Any], path: Path) -> None:
        save(content, path)
        if len(content["history"]) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_written)
        with pytest.raises(KeyboardInterrupt):
            quiet(SPEC, sets, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    epochs: list[int] = []
    resumed = quiet(SPEC, sets, checkpoint=checkpoint, on_epoch=lambda record: epochs.append(record.epoch))
    assert epochs == [1, 2]
    assert states_equal(whole.model, resumed.model)


def test_a_full_disk_is_said_and_keeps_the_epoch_before(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, save = tmp_path / "small.checkpoint.pt", torch.save

    def full(content: dict[str, Any], path: Path) -> None:
        if len(content["history"]) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(InputError, match=r"can't be written.*No space left.*goes on from the epoch before"):
            quiet(SPEC, sets, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    assert states_equal(quiet(SPEC, sets, checkpoint=checkpoint).model, quiet(SPEC, sets).model)


def test_a_foreign_or_damaged_checkpoint_is_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    checkpoint = tmp_path / "small.checkpoint.pt"
    one = replace(SPEC, recipe=replace(RECIPE, epochs=2))
    quiet(one, sets, checkpoint=checkpoint)
    with pytest.raises(InputError, match=r"belongs to another recipe\. .* delete the checkpoint"):
        quiet(SPEC, sets, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(InputError, match=r"can't be read. Delete it"):
        quiet(one, sets, checkpoint=checkpoint)


def _first_epoch(spec: ZooSpec, sets: tuple[ImageSet, ImageSet], checkpoint: Path) -> None:
    def kill(record: EpochRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet(spec, sets, checkpoint=checkpoint, on_epoch=kill)


def test_a_checkpoint_of_other_data_is_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    checkpoint = tmp_path / "small.checkpoint.pt"
    _first_epoch(SPEC, sets, checkpoint)
    learned, tested = sets
    assert learned.labels is not None
    others = [
        (replace(learned, labels=learned.labels.flip(0)), tested),
        (replace(learned, class_names=("nought", *learned.class_names[1:])), tested),
        (learned, replace(tested, sha256="0")),
    ]
    for other in others:
        with pytest.raises(InputError, match=r"belongs to other data: .* have changed since\. Bring that back"):
            quiet(SPEC, other, checkpoint=checkpoint)
    assert states_equal(quiet(SPEC, sets, checkpoint=checkpoint).model, quiet(SPEC, sets).model)


def test_a_checkpoint_of_an_edited_network_is_refused(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoint, spec = tmp_path / "small.checkpoint.pt", replace(SPEC, factory="nets_of_mine:net", arguments={})
    source = "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU())\n"
    (tmp_path / "nets_of_mine.py").write_text(source)
    _first_epoch(spec, sets, checkpoint)
    for edited in (source.replace("ReLU", "GELU"), source + "# the same weights and modules, but who knows\n"):
        (tmp_path / "nets_of_mine.py").write_text(edited)
        sys.modules.pop("nets_of_mine")
        with pytest.raises(InputError, match=r"belongs to another network: .* delete the checkpoint"):
            quiet(spec, sets, checkpoint=checkpoint)
    sys.modules.pop("nets_of_mine")


def test_a_checkpoint_from_before_it_said_so_goes_on(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    checkpoint = tmp_path / "small.checkpoint.pt"
    _first_epoch(SPEC, sets, checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    torch.save({name: value for name, value in content.items() if name not in ("data", "network")}, checkpoint)
    epochs: list[int] = []
    found = quiet(SPEC, sets, checkpoint=checkpoint, on_epoch=lambda record: epochs.append(record.epoch))
    assert epochs == [1, 2]
    assert states_equal(found.model, quiet(SPEC, sets).model)


def test_blurs_leave_autocast_and_nothing_else_changes() -> None:
    spec = load_spec("resnet-blur", package_data() / "fitted" / "fitted.yaml")
    plain, prepared = models.build(spec), optimisation.prepare(models.build(spec), spec.recipe)
    images = torch.rand(2, 3, 32, 32, generator=seeded("images"))
    dtypes = set()
    for module in prepared.modules():
        if type(module).__name__ == "BlurPool2d":
            module.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            rounded = prepared.eval()(images)
        assert (rounded.dtype, dtypes) == (torch.bfloat16, {torch.float32})
        torch.testing.assert_close(prepared.double()(images.double()), plain.eval().double()(images.double()))


def test_fraction_draws_the_same_part_each_time(sets: tuple[ImageSet, ImageSet]) -> None:
    spec = replace(SPEC, recipe=replace(RECIPE, fraction=0.25, epochs=2))
    first, second = quiet(spec, sets), quiet(spec, sets)
    assert first.train_size == 160
    assert states_equal(first.model, second.model)
    with pytest.raises(InputError, match="A batch has 32 images, but only 6"):
        quiet(replace(SPEC, recipe=replace(RECIPE, fraction=0.01)), sets)


def test_unlabelled_images_follow_the_labelled_ones_which_stay_as_they_were(sets: tuple[ImageSet, ImageSet]) -> None:
    recipe = replace(RECIPE, fraction=0.9, pseudo_labels=1.0)
    images, labels, rest = fraction(sets[0], recipe)
    assert (len(images), len(rest)) == (576, 64)
    assert torch.equal(torch.cat([images, rest]).sum((1, 2, 3)).sort()[0], sets[0].images.sum((1, 2, 3)).sort()[0])
    options: dict[str, Any] = {"augmentation": "none", "classes": 10, "device": "cpu"}
    alone = list(batches(recipe, images, labels, 3, **options))
    both = list(batches(recipe, images, labels, 3, **options, unlabelled=rest))
    assert len(both) == 18
    for (one, target), (two, same) in zip(alone, both, strict=True):
        assert torch.equal(one, two[:32])
        assert torch.equal(target, same)
    drawn = torch.cat([batch[32:] for batch, _ in both])
    order = [int((rest == image).flatten(1).all(1).nonzero()[0]) for image in drawn]
    assert sorted(order[:64]) == list(range(64))
    assert order[:64] != list(range(64))
    assert order[64:128] == order[:64]  # 18 batches want more images than there are


def test_pseudo_labels_are_the_surest_class_of_sure_images() -> None:
    scores = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.1], [0.0, 5.0, 0.0]], requires_grad=True)
    loss = pseudo_loss(scores, 0.95)
    expected = nn.functional.cross_entropy(scores[[0, 2]], torch.tensor([0, 1]), reduction="sum") / 3
    torch.testing.assert_close(loss, expected)
    (found,) = torch.autograd.grad(loss, scores)
    (wanted,) = torch.autograd.grad(expected, scores)
    torch.testing.assert_close(found, wanted)
    assert not found[1].any()


def test_pseudo_labels_are_learned_from_and_repeat(sets: tuple[ImageSet, ImageSet]) -> None:
    few = replace(
        RECIPE, fraction=0.2, epochs=25, pseudo_labels=1.0, pseudo_threshold=0.5, score_every=25, augmentation="none"
    )
    first, second = quiet(replace(SPEC, recipe=few), sets), quiet(replace(SPEC, recipe=few), sets)
    assert first.train_size == 128
    assert states_equal(first.model, second.model)
    assert (first.history[-1].accuracy or 0) > 0.6
    # Batch statistics alone don't make the difference: no image is as sure as 1.
    doubtful = quiet(replace(SPEC, recipe=replace(few, pseudo_threshold=1.0)), sets)
    assert not states_equal(first.model, doubtful.model)


def test_only_matrices_and_kernels_are_decayed() -> None:
    optimizer = optimisation.optimizer_of(small_net(), RECIPE, RECIPE.lr)
    decayed, spared = optimizer.param_groups
    assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
    assert {parameter.ndim for parameter in spared["params"]} == {1}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (RECIPE.weight_decay, 0.0)


class Brightest(nn.Module):
    """Predicts the brightest of the first ten pixels; has a parameter so that it has a device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1)[:, :10]


def test_evaluate_counts_the_largest_output_and_restores_the_mode() -> None:
    images = torch.zeros(10, 1, 4, 4)
    images.flatten(1)[torch.arange(10), torch.arange(10)] = 1.0
    labels = torch.arange(10)
    labels[:3] = 9
    data = ImageSet("pixels", images, labels, (), "", "", "")
    model = Brightest().train()
    assert evaluate(model, data, batch_size=4) == 0.7
    assert model.training
    with pytest.raises(InputError, match="'pixels' has no labels"):
        evaluate(model, replace(data, labels=None))
    with pytest.raises(InputError, match="'pixels' has no labels"):
        train(SPEC, replace(data, labels=None), data, progress=False)


RECIPE_FILE = {
    "defaults": {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5], "recipe": {"dataset": "digits"}},
    "models": {
        "small": {
            "title": "A small network",
            "factory": f"{__name__}:small_net",
            "recipe": {"epochs": 2, "batch_size": 64, "lr": 0.02},
        }
    },
}


def test_train_zoo_writes_half_precision_weights_and_a_card_that_agrees(tmp_path: Path) -> None:
    file = tmp_path / "zoo.yaml"
    file.write_text(yaml.safe_dump(RECIPE_FILE))
    card = zoo.train_zoo("small", recipes=file, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.md", "small.safetensors", "zoo.yaml"]
    path = check_weights(load_spec("small", file))
    text = (tmp_path / "small.md").read_text()
    assert yaml.safe_load(text.split("---\n")[1]) == card
    assert f"**Test accuracy {100 * card['test_accuracy']:.2f} %**" in text
    model = models.build(load_spec("small", file)).eval()
    models.load_weights(model.net, path)
    assert evaluate(model, datasets.load("digits")) == card["test_accuracy"] > 0.7
    seen = evaluate(model, datasets.load("digits", split="train"))
    assert card["train_accuracy_before_rounding"] == pytest.approx(seen, abs=0.003)
    assert f"{100 * card['train_accuracy_before_rounding']:.2f} % on the 1,297 training images" in " ".join(
        text.split()
    )
    assert card["weights_dtype"] == "float16"
    assert card["bytes"] == path.stat().st_size < 2 * card["parameters"] + 2000
    assert card["data"]["train_images"] == 1297
    assert card["recipe"]["epochs"] == 2
    assert card["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("able", [True, False])
def test_a_processor_without_bfloat16_trains_in_float32_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    file = tmp_path / "zoo.yaml"
    small = RECIPE_FILE["models"]["small"]
    recipe = {**small["recipe"], "precision": "bfloat16"}
    file.write_text(yaml.safe_dump({**RECIPE_FILE, "models": {"small": {**small, "recipe": recipe}}}))
    monkeypatch.setattr(zoo, "_has_bfloat16", lambda: able)
    with nullcontext() if able else pytest.warns(LeeWarning, match="no instructions for bfloat16"):
        card = zoo.train_zoo("small", recipes=file, progress=False)
    assert card["recipe"]["precision"] == ("bfloat16" if able else "float32")
    assert f"test accuracy, in {card['recipe']['precision']}" in (tmp_path / "small.md").read_text()


def test_the_command_on_a_card_names_the_recipes_and_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert zoo.train_command("zoo/vit-s") == "lee train zoo/vit-s"
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / "data" / "own.yaml", tmp_path.parent / "far.yaml"
    assert zoo.train_command("p4", recipes=inside) == "lee train --recipes data/own.yaml p4"
    assert (
        zoo.train_command("p4", recipes=inside, out=Path("my nets"))
        == "lee train --recipes data/own.yaml p4 --out 'my nets'"
    )
    assert zoo.train_command("p4", recipes=outside, budget="full") == "lee train --recipes far.yaml p4 --budget full"


def test_weights_that_half_precision_would_spoil_stay_in_single(tmp_path: Path) -> None:
    model = models.build(SPEC).eval()
    with torch.no_grad():
        model.net.get_parameter("0.weight").mul_(1e6)  # beyond 65504, the largest number of float16
    card = zoo.publish(SPEC, TrainResult(model, (), 0, 1.0, {}), datasets.load("digits", n=50), tmp_path)
    assert card["weights_dtype"] == "float32"
    assert card["test_accuracy"] == card["test_accuracy_before_rounding"]
    with torch.no_grad():
        model.net.get_parameter("0.weight").mul_(torch.nan)
    with pytest.raises(InputError, match="not finite: the training diverged"):
        zoo.publish(SPEC, TrainResult(model, (), 0, 1.0, {}), datasets.load("digits", n=50), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"augmentation": "flip"}, "Did you mean 'flip-crop'"),
        ({"precision": "float16"}, "Did you mean 'bfloat16'"),
        ({"epochs": 0}, "epochs is 0, which is out of range"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"pseudo_labels": 1.0}, "pseudo_labels is 1.0"),
        ({"pseudo_threshold": 1.5}, "pseudo_threshold is 1.5"),
        ({"warmup_epochs": 9.0}, "warmup_epochs is 9.0"),
        (
            {"epochs": 1},
            r"from 0, below `epochs` \(1\)\. Write such a one, as `warmup_epochs: 0`; without any it is 1\.",
        ),
        ({"lr": math.nan}, "lr is nan"),
    ],
)
def test_recipes_refuse_what_they_do_not_know(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(RECIPE, **fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("models: [", "not valid YAML"),
        ("model: {}", "needs a mapping `models:`"),
        ("models: {a: 3}", "models: `a` must be a mapping, not 3"),
        ("models: {a: {factory: x, recipe: {epoch: 3}}}", "unknown field 'epoch'. Did you mean 'epochs'"),
        ("models: {a: {factroy: x, recipe: {dataset: d, epochs: 3}}}", "Did you mean 'factory'"),
        ("models: {a: {factory: x, recipe: {epochs: 3}}}", "recipe: .*dataset"),
        (
            "models: {a: {factory: x, recipe: {dataset: d, epochs: many}}}",
            "models, a, recipe: `epochs` must be a whole number, not 'many'",
        ),
    ],
)
def test_recipe_files_are_checked(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "recipes.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        load_specs(file)
    with pytest.raises(InputError, match="can't be read"):
        load_specs(tmp_path / "none.yaml")


def test_unknown_zoo_models_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'zoo/mixer-"):
        load_spec("zoo/mixer-m")


def test_the_digest_of_a_recipe_ignores_only_its_title() -> None:
    assert SPEC.digest() == replace(SPEC, title="another").digest()
    assert SPEC.digest() != replace(SPEC, recipe=replace(RECIPE, lr=0.021)).digest()
    assert SPEC.digest() != replace(SPEC, arguments={"width": 9}).digest()
    assert SPEC.digest() == replace(SPEC, recipe=replace(RECIPE, pseudo_threshold=0.5)).digest()
    part = replace(RECIPE, fraction=0.5, pseudo_labels=1.0)
    assert replace(SPEC, recipe=part).digest() != replace(SPEC, recipe=replace(part, pseudo_labels=0.0)).digest()
    assert replace(SPEC, recipe=part).digest() != replace(SPEC, recipe=replace(part, pseudo_threshold=0.5)).digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3},
            r"small: the network can't read the images of 'digits'",
        ),
        ({"arguments": {"width": 8, "classes": 3}}, r"small: the network gives \(2, 3\) .* 'digits' has 10 classes"),
        ({"factory": f"{__name__}:backwards"}, "`class_names` begin with 9, 8, 7. Give them the order of the data set"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(
    sets: tuple[ImageSet, ImageSet], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        quiet(replace(SPEC, **change), sets)
