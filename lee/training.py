"""Deterministic training: order, augmentation and schedule follow from the recipe alone.

Everything random in epoch e is drawn from generators seeded by (seed, e), and the learning rate is a
function of the step, so a training that was killed resumes from its last epoch and ends with exactly
the weights it would have had. (Bit for bit on the same machine, versions and number of threads.)
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lee.augmentation import flip_crop, seeded
from lee.datasets import ImageSet
from lee.errors import InputError
from lee.models import Normalized, build
from lee.paths import atomic_path
from lee.recipes import Recipe, ZooSpec


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch reports: mean training loss, test accuracy in [0, 1] (in the recipe's
    precision), wall time in seconds."""

    epoch: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """A trained model, in eval mode, and how it got there."""

    model: Normalized
    history: tuple[EpochRecord, ...]
    train_size: int
    data_sha256: dict[str, str]

    @property
    def minutes(self) -> float:
        """Wall time of all epochs, interrupted sittings included."""
        return sum(record.seconds for record in self.history) / 60


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up to `recipe.lr`, then half a cosine that reaches 0 after the last step."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / (recipe.epochs * steps_per_epoch - warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))


def evaluate(model: nn.Module, data: ImageSet, *, batch_size: int = 500, precision: str = "float32") -> float:
    """Return the share of `data` whose largest output is the label; the model's mode is restored.

    Args:
        model: takes images in [0, 1], returns (N, classes).
        data: labelled images.
        batch_size: images per forward pass.
        precision: `float32`, or `bfloat16` autocast for a quicker, slightly rounded score.

    Raises:
        InputError: the data set has no labels.
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
                correct += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
    finally:
        model.train(was_training)
    return correct / len(data)


def train(
    spec: ZooSpec,
    train_set: ImageSet,
    test_set: ImageSet,
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    progress: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainResult:
    """Train `spec` on `train_set`, scoring `test_set` after each epoch.

    Args:
        spec: architecture and recipe.
        train_set: labelled images; the recipe's `fraction` of them is used.
        test_set: labelled images.
        checkpoint: written after each epoch; if it exists, the training resumes from it.
        device: where to compute.
        progress: show a bar per epoch.
        on_epoch: called after each epoch, once its checkpoint is safe.

    Returns:
        The model in eval mode with its history.

    Raises:
        InputError: no labels, fewer images than a batch, or a checkpoint of another recipe.
    """
    recipe = spec.recipe
    images, labels = _fraction(train_set, recipe)
    model = _prepare(build(spec), recipe).to(device)
    optimizer = _optimizer(model, recipe)
    history = _restore(checkpoint, spec, model, optimizer)
    for epoch in range(len(history), recipe.epochs):
        start = time.perf_counter()
        with torch.random.fork_rng(devices=[] if device == "cpu" else None):
            torch.manual_seed(seeded(recipe.seed, epoch, "model").initial_seed())
            loss = _run_epoch(model, optimizer, recipe, images, labels, epoch, progress)
        accuracy = evaluate(model, test_set, precision=recipe.precision)
        record = EpochRecord(epoch, loss, accuracy, time.perf_counter() - start)
        history.append(record)
        if checkpoint is not None:
            _save(checkpoint, spec, model, optimizer, history)
        if on_epoch is not None:
            on_epoch(record)
    digests = {"train": train_set.sha256, "test": test_set.sha256}
    return TrainResult(model.eval(), tuple(history), len(images), digests)


def _fraction(data: ImageSet, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the recipe's seeded fraction of the images and their labels."""
    if data.labels is None:
        raise InputError(f"The data set {data.name!r} has no labels, so nothing can be trained on it.")
    count = round(recipe.fraction * len(data))
    if count < recipe.batch_size:
        raise InputError(f"A batch has {recipe.batch_size} images, but only {count} are left to train on.")
    if count == len(data):
        return data.images, data.labels
    chosen = torch.randperm(len(data), generator=seeded(recipe.seed, "fraction"))[:count]
    return data.images[chosen], data.labels[chosen]


def _prepare(model: Normalized, recipe: Recipe) -> Normalized:
    """Set memory format and attention kernel; both only change speed and rounding."""
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if not recipe.fused_attention and hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    return model


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimiser; biases, norms and other vectors are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.lr)


def _batches(recipe: Recipe, images: Tensor, labels: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of an epoch; all randomness comes from (seed, epoch)."""
    generator = seeded(recipe.seed, epoch, "data")
    order = torch.randperm(len(images), generator=generator)
    for step in range(len(images) // recipe.batch_size):
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        batch = images[chosen]
        if recipe.augmentation == "flip-crop":
            batch = flip_crop(batch, generator)
        if recipe.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        yield batch, labels[chosen]


def _run_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    epoch: int,
    progress: bool,
) -> float:
    """Take one pass over the images; return the mean loss."""
    model.train()
    device = next(model.parameters()).device
    steps = len(images) // recipe.batch_size
    total = torch.zeros((), device=device)
    bar = tqdm(_batches(recipe, images, labels, epoch), total=steps, disable=not progress, mininterval=5.0)
    bar.set_description(f"epoch {epoch + 1}/{recipe.epochs}")
    for step, (batch, target) in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch * steps + step, steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            output = model(batch.to(device))
        loss = nn.functional.cross_entropy(output.float(), target.to(device), label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip_norm > 0:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        total += loss.detach()
    return float(total) / steps


def _save(
    path: Path, spec: ZooSpec, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[EpochRecord]
) -> None:
    """Write a checkpoint; a kill while writing leaves the one before."""
    content = {
        "spec": spec.digest(),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [asdict(record) for record in history],
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def _restore(path: Path | None, spec: ZooSpec, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[EpochRecord]:
    """Load a checkpoint into model and optimiser, and return the history so far."""
    if path is None or not path.exists():
        return []
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        known = content["spec"]
    except Exception as error:  # torch.load raises half a dozen unrelated types on a damaged file
        raise InputError(f"The checkpoint {path} can't be read. Delete it to start again.") from error
    if known != spec.digest():
        raise InputError(f"The checkpoint {path} belongs to another recipe. Delete it to start again.")
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return [EpochRecord(**record) for record in content["history"]]
