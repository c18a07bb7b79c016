"""One task measured: the numbers of every image, and where they come from. No file is read or written here."""

import gc
import time
import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lee import memory, provenance
from lee.datasets import ImageSet
from lee.errors import InputError, reason
from lee.measure.checks import select
from lee.measure.derivative import automatic_chunk, default_generators, equivariance_gram
from lee.measure.function import one_function
from lee.metrics.distances import Features
from lee.models import Normalized, classes, input_size
from lee.statistics import EquivarianceGram
from lee.sweep import quantities
from lee.sweep.quantities import CHUNK, Columns, Measured
from lee.sweep.table import Part, packed
from lee.sweep.tasks import Task, digest_of_images, digests_of, forget, images_of, model_of

Numbers = tuple[Columns, dict[str, Any], EquivarianceGram | None]
#: Images per pass, at most, where memory is short: first as many as usual (None), then fewer, in the end one by one.
STEPS = (None, 8, 1)


def measure(task: Task, device: str = "cpu", chunk: int | None = None) -> Part:
    """Measure a task; whatever its model raises becomes a row with the error.

    Where memory runs out, the task is tried again with fewer images per pass (:data:`STEPS`).

    Args:
        task: what to measure.
        device: where to compute.
        chunk: images per pass, at most; None for as many as usual.
    """
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", FutureWarning)  # torch's own deprecated parts
        try:
            columns, figures, gram = _within_memory(task, device, chunk)
        except (Exception, SystemExit) as error:  # whatever a model may raise
            return failed(task, reason(error), device)
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    seconds = round(time.perf_counter() - began, 3)
    basis = [] if gram is None else list(gram.basis)
    said = {"basis": basis, "figures": figures, "error": None, "warnings": notes, "seconds": seconds}
    described = {**task.described, **said}
    if gram is not None and gram.verification is not None:
        described |= gram.verification.row()
    return Part.of(task.key, described, _origin(device), columns)


def _within_memory(task: Task, device: str, chunk: int | None) -> Numbers:
    """The numbers of a task, with fewer images per pass each time that memory runs out; the last shortage is raised."""
    *larger, smallest = (chunk, *(step for step in STEPS if step is not None and (chunk is None or step < chunk)))
    for limit in larger:
        try:
            return _limited(task, device, limit)
        except Exception as error:
            if not memory.is_shortage(error):
                raise
        forget()  # outside of the handler, whose exception holds on to the tensors
        gc.collect()
        torch.cuda.empty_cache()  # gives the device back what nobody uses any more; does nothing without one
    return _limited(task, device, smallest)


def _limited(task: Task, device: str, chunk: int | None) -> Numbers:
    """The numbers of a task with a limit on the images per pass, which a note then tells of."""
    found = _numbers(task, device, chunk)
    if chunk is not None:
        warnings.warn(f"Memory was short: measured with at most {chunk} images per pass.", stacklevel=2)
    return found


def failed(task: Task, message: str, device: str = "cpu") -> Part:
    """The row of a task that could not be measured."""
    described = {**task.described, "basis": [], "figures": {}, "error": message, "warnings": [], "seconds": None}
    return Part.of(task.key, described, _origin(device), {"error": np.array([message], dtype=object)})


def _origin(device: str) -> dict[str, Any]:
    """What tasks of one run have in common."""
    return {"device": device, "threads": torch.get_num_threads(), "commit": _commit(), **provenance.versions()}


_commit = cache(provenance.commit)  # as it was at the start: it is asked for once per process


def _numbers(task: Task, device: str, chunk: int | None) -> Numbers:
    way = task.measurement
    model = model_of(task.model, way.weights, device)
    chosen = images_of(way.dataset, way.split, way.n, way.seed, way.size or input_size(model))
    _check_digests(task, model, chosen)
    x = chosen.images.to(device)
    subject, output = (Features(model), "logits") if way.output == "features" else (model, way.output)
    given = Measured(model, subject, output, chosen, x, way, classes.of_model(task.model, model.net), chunk)
    if way.generators is None:
        return {"image": np.arange(0)}, quantities.figures(given), None
    usual = automatic_chunk(x, len(way.generators) or len(default_generators(x)))
    gram = equivariance_gram(
        subject, x, generators=way.generators or None, output=output, kernel=way.kernel, boundary=way.boundary,
        align_corners=way.align_corners, progress=False, chunk=min(usual, chunk or usual),
    )  # fmt: skip
    if not bool(torch.isfinite(gram.per_image).all()):
        raise InputError("The Lie derivatives are not finite.")
    scores = _passed(model, x, chunk or CHUNK)
    value = select(scores if subject is model else _passed(subject, x, chunk or CHUNK), output).flatten(1)
    columns: Columns = {"image": np.arange(len(x)), "output_square": value.square().mean(1).numpy()}
    columns |= _predictions(scores, chosen, given.known)
    return columns | quantities.columns(given, value) | packed(gram.per_image.numpy()), quantities.figures(given), gram


def _check_digests(task: Task, model: Normalized, chosen: ImageSet) -> None:
    """Refuse weights or images other than those that the task is named after: another machine may have others."""
    way = task.measurement
    if chosen.sha256 != task.data_sha256:
        raise InputError(
            f"{chosen.name} isn't here what it was when the sweep was planned; its digest is {chosen.sha256}."
        )
    if digest_of_images(way) != task.images_sha256:
        raise InputError(
            f"The images that {way.name!r} compares with, or labels or names of classes, aren't here what they were when the sweep "
            "was planned."
        )
    weights, structure = digests_of(model, task.model)
    if weights != task.weights_sha256:
        raise InputError(f"The weights of {task.model} aren't here what they were when the sweep was planned.")
    if ":" in task.model and structure != task.architecture_sha256:  # the others' source has a version
        raise InputError(
            f"{task.model} isn't here what it was when the sweep was planned: its source, or what it reads, has changed, or "
            "this process imported it before. Start again, and workers too."
        )


def _passed(model: nn.Module, x: Tensor, chunk: int) -> Tensor:
    """The output for all images, float64, `chunk` images per pass."""
    with one_function(model) as function:
        return torch.cat([function.checked(part).cpu() for part in x.split(chunk)]).double()


def _predictions(scores: Tensor, chosen: ImageSet, known: tuple[str, ...]) -> Columns:
    """What a model says about each image. It is right or wrong only about classes that it knows by name.

    `label` counts the data set's classes and `prediction` the model's, `known`; the two may differ.
    """
    columns: Columns = {} if chosen.labels is None else {"label": chosen.labels.numpy()}
    if scores.ndim != 2 or scores.shape[1] < 2:
        return columns
    columns["confidence"], columns["prediction"] = (found.numpy() for found in scores.softmax(1).max(1))
    true = classes.right_outputs(chosen, known, scores.shape[1])
    if true is not None:
        columns["correct"] = columns["prediction"] == true.numpy()
        columns["loss"] = cross_entropy(scores, true, reduction="none").numpy()
    return columns
