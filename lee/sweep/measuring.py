"""One task measured: the numbers of every image, and where they come from. No file is read or written here."""

import time
import warnings
from collections.abc import Mapping
from functools import cache
from math import radians
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lee import metrics, provenance
from lee.datasets import ImageSet
from lee.derivative import equivariance_gram
from lee.errors import InputError
from lee.measuring import plain, select, untouched
from lee.models import Normalized, input_size
from lee.sweep.spec import Measurement
from lee.sweep.table import Part, packed
from lee.sweep.tasks import Task, images_of, model_of

#: Images per plain forward pass.
CHUNK = 64

Columns = dict[str, "np.ndarray[Any, Any]"]


def measure(task: Task, device: str = "cpu") -> Part:
    """Measure a task; whatever its model raises becomes a row with the error."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", FutureWarning)  # torch's own deprecated parts
        try:
            columns, basis = _columns(task, device)
        except Exception as error:  # whatever a model may raise
            return failed(task, _in_a_sentence(error), device)
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    seconds = round(time.perf_counter() - began, 3)
    described = {**task.described, "basis": list(basis), "error": None, "warnings": notes, "seconds": seconds}
    return Part.of(task.key, described, _origin(device), columns)


def failed(task: Task, message: str, device: str = "cpu") -> Part:
    """The row of a task that could not be measured."""
    described = {**task.described, "basis": [], "error": message, "warnings": [], "seconds": None}
    return Part.of(task.key, described, _origin(device), {"error": np.array([message], dtype=object)})


def _origin(device: str) -> dict[str, Any]:
    """What tasks of one run have in common."""
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "commit": provenance.commit(),
        **provenance.versions(),
    }


@cache
def _commit() -> str | None:
    """The commit at the start: it is asked for once per process."""
    return provenance.commit()


def _in_a_sentence(error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class Features(nn.Module):
    """What a model's own classifier reads: its features, pooled over the image, (N, D).

    Args:
        model: with timm's `forward_features` and `forward_head`.

    Raises:
        InputError: the model's class has no such methods.
    """

    def __init__(self, model: Normalized) -> None:
        super().__init__()
        if not (hasattr(model.net, "forward_features") and hasattr(model.net, "forward_head")):
            raise InputError(
                f"A {type(model.net).__name__} doesn't say where its features end; measure another output."
            )
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of images (N, C, H, W) in [0, 1]."""
        net: Any = self.model.net
        pooled: Tensor = net.forward_head(net.forward_features(self.model.normalize(x)), pre_logits=True)
        return pooled


def _columns(task: Task, device: str) -> tuple[Columns, tuple[str, ...]]:
    way = task.measurement
    model = model_of(task.model, way.weights, device)
    chosen = images_of(way.dataset, way.split, way.n, way.seed, way.size or input_size(model))
    _check_digests(task, model, chosen)
    x = chosen.images.to(device)
    subject, output = (Features(model), "logits") if way.output == "features" else (model, way.output)
    gram = equivariance_gram(
        subject, x, generators=way.generators or None, output=output, kernel=way.kernel, boundary=way.boundary,
        align_corners=way.align_corners, progress=False,
    )  # fmt: skip
    if not bool(torch.isfinite(gram.per_image).all()):
        raise InputError("The Lie derivatives are not finite.")
    scores = _passed(model, x)
    value = select(scores if subject is model else _passed(subject, x), output).flatten(1)
    columns: Columns = {"image": np.arange(len(x)), "output_square": value.square().mean(1).numpy()}
    columns |= _predictions(scores, chosen)
    columns |= _discrete(model, subject, x, output, way)
    return columns | packed(gram.per_image.numpy()), gram.basis


def _check_digests(task: Task, model: Normalized, chosen: ImageSet) -> None:
    """Refuse weights or images other than those that the task is named after: another machine may have others."""
    if chosen.sha256 != task.data_sha256:
        raise InputError(
            f"{chosen.name} isn't here what it was when the sweep was planned; its digest is {chosen.sha256}."
        )
    if provenance.weights_sha256(model) != task.weights_sha256:
        raise InputError(f"The weights of {task.model} aren't here what they were when the sweep was planned.")


def _passed(model: nn.Module, x: Tensor) -> Tensor:
    """The output for all images, float64."""
    inner = plain(model)
    with untouched(inner), torch.no_grad():
        return torch.cat([select(inner(part), "logits").cpu() for part in x.split(CHUNK)]).double()


def _predictions(scores: Tensor, chosen: ImageSet) -> Columns:
    """What a model says about each image. Right or wrong are only predictions over the data set's own classes."""
    columns: Columns = {} if chosen.labels is None else {"label": chosen.labels.numpy()}
    if scores.ndim != 2 or scores.shape[1] < 2:
        return columns
    columns["confidence"], columns["prediction"] = (found.numpy() for found in scores.softmax(1).max(1))
    if chosen.labels is not None and len(chosen.class_names) == scores.shape[1]:
        columns["correct"] = columns["prediction"] == columns["label"]
        columns["loss"] = cross_entropy(scores, chosen.labels, reduction="none").numpy()
    return columns


def _discrete(model: Normalized, subject: nn.Module, x: Tensor, output: str, way: Measurement) -> Columns:
    """The discrete measures of each image; all models see the same shifts and angles."""
    columns: Columns = {}
    if "consistency" in way.discrete:
        options = way.discrete["consistency"]
        columns["consistency"] = metrics.agreement(model, x, random=_seeded(way), **options).numpy()
    shifts = {name: _motions(name, x, way) for name in ("eq_t", "eq_t_frac") if name in way.discrete}
    turns = {name: _motions(name, x, way) for name in ("eq_r",) if name in way.discrete}
    for motions in (shifts, turns):
        columns |= _errors(subject, x, motions, output, way, band_limit=motions is turns)
    return columns


def _motions(name: str, x: Tensor, way: Measurement) -> list[metrics.Motion]:
    options = dict(way.discrete[name])
    if name == "eq_r":
        return metrics.rotations(options["draws"], max_angle=radians(options["max_angle"]), random=_seeded(way))
    return metrics.translations(x, integer=name == "eq_t", random=_seeded(way), **options)


def _errors(
    model: nn.Module,
    x: Tensor,
    motions: Mapping[str, list[metrics.Motion]],
    output: str,
    way: Measurement,
    *,
    band_limit: bool,
) -> Columns:
    """Mean squared differences of each image for several lists of motions, from one call."""
    if not motions:
        return {}
    every = [motion for listed in motions.values() for motion in listed]
    all_of = metrics.differences(
        model, x, every, output=output, kernel=way.kernel, boundary=way.boundary, band_limit=band_limit
    )
    columns: Columns = {}
    start = 0
    for name, listed in motions.items():
        own = slice(start, start := start + len(listed))
        mine = metrics.Differences(all_of.squares[own], all_of.counts[own], tuple(listed), way.kernel)
        columns[name] = mine.per_image.numpy()
    return columns


def _seeded(way: Measurement) -> torch.Generator:
    return torch.Generator().manual_seed(way.seed)
