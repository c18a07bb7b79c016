"""Deterministic training: order, augmentation and schedule follow from the recipe alone.

Everything random in epoch e is drawn from generators seeded by (seed, e), and the learning rate is a
function of the step, so a training that was killed resumes from its last epoch and ends with exactly
the weights it would have had. (Bit for bit on the same kind of device, versions and number of threads.)
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lee.datasets import ImageSet
from lee.errors import InputError, reason
from lee.models import Normalized, build
from lee.models.recipes import Recipe, ZooSpec
from lee.process.alone import alone
from lee.training.augmentation import seeded
from lee.training.batches import batches, fraction
from lee.training.checkpoints import EpochRecord, origin_of, read, save, snapshot
from lee.training.masked import MaskedAutoencoder
from lee.training.optimisation import learning_rate, optimizer_of, prepare, pseudo_loss
from lee.training.penalty import EquivariancePenalty, moved_share, scores_and_derivative

__all__ = [
    "train", "TrainResult", "EpochRecord", "evaluate", "learning_rate", "MaskedAutoencoder",
    "EquivariancePenalty", "scores_and_derivative", "moved_share",
]  # fmt: skip


#: Images, labels, and images without labels, if those are learned from too.
_Chosen = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class TrainResult:
    """A trained model, in eval mode, and how it got there.

    Args:
        model: the network, with its normalisation.
        history: one record per epoch.
        train_size: how many labelled images it was trained on.
        train_accuracy: on these images, unchanged, in [0, 1], in eval mode and float32.
        data_sha256: digests of the training set and of the test set.
    """

    model: Normalized
    history: tuple[EpochRecord, ...]
    train_size: int
    train_accuracy: float
    data_sha256: dict[str, str]

    @property
    def minutes(self) -> float:
        """Wall time of all epochs, interrupted sittings included."""
        return sum(record.seconds for record in self.history) / 60


@dataclass(frozen=True)
class _Phase:
    """One stretch of a training with an optimiser and a schedule of its own."""

    name: str
    module: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    start: int
    epochs: int
    lr: float
    warmup: float
    augmentation: str


def evaluate(model: nn.Module, data: ImageSet, *, batch_size: int = 500, precision: str = "float32") -> float:
    """Return the share of `data` whose largest output is the label; the model's mode is restored.

    Args:
        model: takes images in [0, 1], returns (N, classes).
        data: images whose labels are the outputs that are right for them (`lee.models.classes.right_outputs`).
        batch_size: images per forward pass.
        precision: `float32`, or `bfloat16` autocast for a quicker, slightly rounded score.

    Raises:
        InputError: the data set has no labels, or the scores are not finite.
    """
    if data.labels is None:
        raise InputError(f"The data set {data.name!r} has no labels, so accuracy is undefined.")
    device = next(model.parameters()).device
    was_training, correct = model.training, 0
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            for images, labels in data.batches(batch_size):
                assert labels is not None
                scores = model(images.to(device, copy=True))
                if not bool(torch.isfinite(scores).all()):
                    raise InputError(
                        f"The scores for {data.name!r} hold NaN or infinity, so accuracy is undefined: the training diverged."
                    )
                correct += int((scores.argmax(1).cpu() == labels).sum())
    finally:
        model.train(was_training)
    return correct / len(data)


def train(
    spec: ZooSpec,
    train_set: ImageSet,
    test_set: ImageSet,
    *,
    checkpoint: Path | None = None,
    snapshots: Path | None = None,
    device: str = "cpu",
    progress: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainResult:
    """Train `spec` on `train_set`, scoring `test_set` as often as the recipe says.

    A recipe with `pretrain_epochs` first learns to fill in masked patches (`MaskedAutoencoder`), without
    labels and on all training images, and then to classify the recipe's fraction of them. One with a
    `penalty` adds that much of `EquivariancePenalty` to the loss of the classification, in float32
    whatever the precision of the rest; one with `pseudo_labels` adds that much of the unlabelled images' loss.

    Args:
        spec: architecture and recipe.
        train_set: labelled images; the recipe's `fraction` of them is used.
        test_set: labelled images.
        checkpoint: written after each epoch; if it exists, the training resumes from it.
        snapshots: folder for the weights after supervised epochs 1, 2, 3, 5, 8, 13, ... and the last, each in a file
            `EPOCH.safetensors`.
        device: where to compute.
        progress: show a bar per epoch.
        on_epoch: called after each epoch, once its checkpoint is safe.

    Returns:
        The model in eval mode with its history.

    Raises:
        InputError: no labels, fewer images than a batch, a network that doesn't fit the images or names their classes in another
            order, a checkpoint of another recipe, other data or another network, or a full disk.
    """
    recipe = spec.recipe
    images, labels, rest = fraction(train_set, recipe)
    model = prepare(build(spec), recipe)
    origin = origin_of(spec, model, train_set, test_set)
    content, history = read(checkpoint, origin)
    assert train_set.labels is not None  # fraction refuses a set without
    _check_fit(spec, model, train_set, int(train_set.labels.max()) + 1)
    training = _Training(model, recipe, int(train_set.labels.max()) + 1, test_set, device, progress)
    with _repeatable(device):
        for phase in _phases(model, recipe):
            module = phase.module.to(device)
            optimizer = optimizer_of(module, recipe, phase.lr)
            if content is not None and phase.start < len(history) <= phase.start + phase.epochs:
                module.load_state_dict(content["model"])
                optimizer.load_state_dict(content["optimizer"])
            chosen: _Chosen = (images, labels, rest if recipe.pseudo_labels else None)
            if phase.name == "masked":
                chosen = (train_set.images, labels, None)
            for epoch in range(max(len(history), phase.start), phase.start + phase.epochs):
                history.append(record := training.epoch(phase, optimizer, chosen, epoch))
                if snapshots is not None and phase.name == "supervised":  # before the checkpoint: a kill loses none
                    snapshot(snapshots, model.net, epoch + 1 - phase.start, phase.epochs)
                if checkpoint is not None:
                    save(checkpoint, origin, module, optimizer, history)
                if on_epoch is not None:
                    on_epoch(record)
    digests = {"train": train_set.sha256, "test": test_set.sha256}
    accuracy = evaluate(model.to(device), replace(train_set, images=images, labels=labels))
    return TrainResult(model.eval(), tuple(history), len(images), accuracy, digests)


def _check_fit(spec: ZooSpec, model: Normalized, data: ImageSet, classes: int) -> None:
    """Refuse a network that can't read the images, or has not a score for each class."""
    some, was_training = next(iter(data.batches(2)))[0], model.training
    try:
        with torch.no_grad():
            scores = model.eval()(some.clone())
    except Exception as error:  # whatever torch makes of other shapes
        raise InputError(
            f"{spec.name}: the network can't read the images of {data.name!r}, {tuple(some.shape[1:])} ({reason(error)}). Change "
            "`input_size` or `arguments`."
        ) from error
    finally:
        model.train(was_training)
    if scores.ndim != 2 or scores.shape[1] < classes:
        raise InputError(
            f"{spec.name}: the network gives {tuple(scores.shape)} for two images, but {data.name!r} has {classes} classes. Change "
            "their number in `arguments`."
        )
    said = tuple(map(str, getattr(model.net, "class_names", None) or data.class_names))  # what measures go by
    if said[: len(data.class_names)] != data.class_names:
        raise InputError(
            f"{spec.name}: output k learns class k of {data.name!r}, but the network's `class_names` begin with "
            f"{', '.join(said[:3])}. Give them the order of the data set."
        )


def _phases(model: Normalized, recipe: Recipe) -> list[_Phase]:
    """The stretches of a training; each optimiser is made when its phase begins."""
    penalty = EquivariancePenalty(recipe.penalty_generators, recipe.penalty_estimator) if recipe.penalty else None

    def supervised(batch: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            output = model(batch)
        output, guessed = output.float().tensor_split([len(target)])
        loss = nn.functional.cross_entropy(output, target, label_smoothing=recipe.label_smoothing)
        if len(guessed):
            loss = loss + recipe.pseudo_labels * pseudo_loss(guessed, recipe.pseudo_threshold)
        if penalty is None:
            return loss
        return loss + recipe.penalty * penalty(model, batch[: recipe.penalty_images or None])

    first, phases = recipe.pretrain_epochs, []
    if first:
        with alone(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(recipe.seed, "decoder").initial_seed())
            autoencoder = MaskedAutoencoder(model.net, model.normalize, mask_ratio=recipe.mask_ratio)

        def masked(batch: Tensor, target: Tensor) -> Tensor:
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                loss: Tensor = autoencoder(batch)
            return loss

        # The labels' changes (mixup, CutMix) mean nothing to an autoencoder; the images' own changes stay, so that
        # digits, for example, are not mirrored.
        changes = "flip-crop" if recipe.augmentation == "strong" else recipe.augmentation
        warmup = min(recipe.warmup_epochs, first / 4)
        phases.append(_Phase("masked", autoencoder, masked, 0, first, recipe.pretrain_lr, warmup, changes))
    tuned = _Phase(
        "supervised", model, supervised, first, recipe.epochs, recipe.lr, recipe.warmup_epochs, recipe.augmentation
    )
    return [*phases, tuned]


@dataclass(frozen=True)
class _Training:
    """What stays the same from epoch to epoch."""

    model: Normalized
    recipe: Recipe
    classes: int
    test_set: ImageSet
    device: str
    progress: bool

    def epoch(self, phase: _Phase, optimizer: torch.optim.Optimizer, chosen: _Chosen, epoch: int) -> EpochRecord:
        """Take one pass over the images and, where it is due, score the test set."""
        start = time.perf_counter()
        with alone(), torch.random.fork_rng(devices=[] if self.device == "cpu" else None):
            torch.manual_seed(seeded(self.recipe.seed, epoch, "model").initial_seed())
            loss = self._pass(phase, optimizer, chosen, epoch)
        done = epoch + 1 - phase.start
        due = phase.name == "supervised" and (done % self.recipe.score_every == 0 or done == phase.epochs)
        accuracy = evaluate(self.model, self.test_set, precision=self.recipe.precision) if due else None
        return EpochRecord(epoch, loss, accuracy, time.perf_counter() - start, phase.name)

    def _pass(self, phase: _Phase, optimizer: torch.optim.Optimizer, chosen: _Chosen, epoch: int) -> float:
        """Take one pass over the images; return the mean loss."""
        phase.module.train()
        recipe, (images, labels, unlabelled) = self.recipe, chosen
        steps = len(images) // recipe.batch_size
        done, total = (epoch - phase.start) * steps, torch.zeros((), device=self.device)
        how: dict[str, Any] = {"augmentation": phase.augmentation, "classes": self.classes, "device": self.device}
        stream = batches(recipe, images, labels, epoch, unlabelled=unlabelled, **how)
        bar = tqdm(stream, total=steps, disable=not self.progress, mininterval=5.0)
        bar.set_description(f"{phase.name} epoch {epoch - phase.start + 1}/{phase.epochs}")
        for step, (batch, target) in enumerate(bar):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(phase.lr, done + step, phase.epochs * steps, phase.warmup * steps)
            loss = phase.loss(batch, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip_norm > 0:
                nn.utils.clip_grad_norm_(phase.module.parameters(), recipe.clip_norm)
            optimizer.step()
            total += loss.detach()
        return float(total) / steps


@contextmanager
def _repeatable(device: str) -> Iterator[None]:
    """Choose deterministic kernels on an accelerator, where torch has them; the CPU's are."""
    if device == "cpu":
        yield
        return
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.backends.cudnn.benchmark = benchmark
