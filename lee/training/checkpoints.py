"""Checkpoints and snapshots of a training: written whole or not at all; a checkpoint of anything else is refused."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lee import provenance
from lee.datasets import ImageSet
from lee.errors import InputError
from lee.models import Normalized
from lee.models.reading import write_state
from lee.models.recipes import ZooSpec
from lee.paths import atomic_path

_CHANGED = {
    "spec": "another recipe",
    "data": "other data: images, labels or names of classes have changed since",
    "network": "another network: its modules or its source have changed since",
}


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch reports.

    Args:
        epoch: its number, from 0, pretraining included.
        loss: mean training loss.
        accuracy: on the test set, in [0, 1], in the recipe's precision; None where it was not scored.
        seconds: wall time.
        phase: `masked` (pretraining) or `supervised`.
    """

    epoch: int
    loss: float
    accuracy: float | None
    seconds: float
    phase: str = "supervised"


def save(
    path: Path,
    origin: Mapping[str, str],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[EpochRecord],
) -> None:
    """Write a checkpoint, see :func:`origin_of`; a kill while writing leaves the one before."""
    states = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    content = {**origin, **states, "history": [asdict(record) for record in history]}
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise InputError(
            f"The checkpoint {path} can't be written ({error}). Make room and start again: "
            f"the training goes on from the epoch before."
        ) from error


def snapshot(folder: Path, net: nn.Module, done: int, epochs: int) -> None:
    """Write a network's weights to `folder/DONE.safetensors` if `done` is 1, 2, 3, 5, 8, 13, ... or the last of `epochs`.

    The epochs are Fibonacci's numbers, which are spaced evenly in the logarithm. Weights stay in their own dtype.
    """
    due, following = 1, 2
    while due < done:
        due, following = following, due + following
    if done in (due, epochs):
        write_state(net.state_dict(), folder / f"{done}.safetensors")


def origin_of(spec: ZooSpec, model: Normalized, *sets: ImageSet) -> dict[str, str]:
    """Digests of all that a training follows from: the recipe, the images with their labels, and the network.

    Not of the initial weights: they follow from network and recipe, but in their last digits on the machine as well.
    """
    data = hashlib.sha256("".join(images.labelled_sha256 for images in sets).encode()).hexdigest()
    return {"spec": spec.digest(), "data": data, "network": provenance.structure_sha256(model, spec.factory)}


def read(path: Path | None, origin: Mapping[str, str]) -> tuple[dict[str, Any] | None, list[EpochRecord]]:
    """Return a checkpoint's content (None where there is none) and the history so far.

    One that belongs to another recipe, other data or another network is refused. Those of earlier versions say nothing of the last
    two, which is no contradiction.
    """
    if path is None or not path.exists():
        return None, []
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        known = {name: content.get(name, now) for name, now in origin.items()} | {"spec": content["spec"]}
        history = [EpochRecord(**record) for record in content["history"]]
    except Exception as error:  # torch.load raises half a dozen unrelated types on a damaged file
        raise InputError(f"The checkpoint {path} can't be read. Delete it to start again.") from error
    if changed := next((name for name in origin if known[name] != origin[name]), None):
        raise InputError(
            f"The checkpoint {path} belongs to {_CHANGED[changed]}. Bring that back to go on, or delete the checkpoint to start "
            "again."
        )
    return content, history
