"""What a sweep measures beside the Gram matrix: numbers of every image, which become columns, and figures of the whole set.

A figure is what is no mean over the rows: an accuracy on more images, a ratio of means, a distance between sets, a curve.
"""

from dataclasses import dataclass, replace
from math import radians
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lee import metrics
from lee.datasets import ImageSet
from lee.errors import InputError
from lee.layers import aliased_part
from lee.measure.derivative import default_generators, lie_derivative
from lee.measure.function import one_function
from lee.metrics import turntable
from lee.metrics.distances import features, frechet_distance
from lee.metrics.yardsticks import yardsticks
from lee.models import Normalized, input_size
from lee.models.classes import right_outputs
from lee.sweep.spec import Measurement
from lee.sweep.tasks import images_of, of_measures
from lee.training import evaluate
from lee.training.penalty import moved_share

#: Images per plain forward pass, for an accuracy, of moved images, for a penalty, and that layers see on finer grids.
CHUNK, SCORED, MOVED, PENALISED, ALIASED = 64, 500, 32, 50, 16

Columns = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Measured:
    """What measures are given."""

    model: Normalized  # the classifier
    subject: nn.Module  # what is differentiated,
    output: str  # and which output of it
    chosen: ImageSet  # the images with their labels,
    x: Tensor  # and the same images (N, C, H, W) where the model is
    way: Measurement  # what the specification asks for
    known: tuple[str, ...]  # the class of each output, as far as somebody says
    chunk: int | None  # images per pass, at most; None for as many as usual

    @property
    def random(self) -> torch.Generator:
        """A new source of finite motions: all models see the same shifts and angles."""
        return torch.Generator().manual_seed(self.way.seed or 0)


def columns(given: Measured, value: Tensor) -> Columns:
    """The measures of every image: arrays (N,), NaN where only the first images are measured; `value` is the output, (N, D)."""
    way, found = given.way, Columns()
    if "consistency" in way.measures:
        options = way.measures["consistency"]
        agreed = metrics.agreement(given.model, given.x, random=given.random, chunk=given.chunk or CHUNK, **options)
        found["consistency"] = agreed.numpy()
    for name in ("eq_t", "eq_t_frac", "eq_r"):
        if name in way.measures:
            found[name] = metrics.differences(
                given.subject, given.x, _motions(name, given), output=given.output, kernel=way.kernel, boundary=way.boundary,
                band_limit=name == "eq_r", chunk=given.chunk or MOVED,
            ).per_image.numpy()  # fmt: skip
    if "yardsticks" in way.measures:
        few = given.x[: way.measures["yardsticks"]["images"]]
        table = yardsticks(
            given.model, few, seed=way.seed or 0, kernel=way.kernel, boundary=way.boundary, chunk=given.chunk
        )
        for name in ("speed", "foreign"):
            found[name] = np.pad(table[name], (0, len(given.x) - len(few)), constant_values=np.nan)
    if "absolute" in way.measures:
        for i, generator in enumerate(way.generators or [g.name for g in default_generators(given.x)]):
            derivative = lie_derivative(
                given.subject, given.x, generator, output=given.output, kernel=way.kernel, boundary=way.boundary,
                align_corners=way.align_corners, chunk=given.chunk, verify=False,
            )  # fmt: skip
            found[f"absolute_{i}"] = derivative.double().abs().flatten(1).mean(1).cpu().numpy()
    if "deviation" in way.measures:  # its mean is the variance, with n - 1
        found["deviation"] = ((value - value.mean(0)).square().mean(1) * (len(value) / max(1, len(value) - 1))).numpy()
    return found


def figures(given: Measured) -> dict[str, dict[str, Any]]:
    """The measures of the whole set, by name; numbers, or lists of them over the angle."""
    way, found = given.way, dict[str, dict[str, Any]]()
    read = of_measures(way, way.size or input_size(given.model))
    if "accuracy" in way.measures:
        data = images_of(*read["accuracy"])
        found["accuracy"] = {
            "accuracy": evaluate(given.model, _by_outputs(given, data), batch_size=given.chunk or SCORED),
            "images": len(data),
        }
    if options := way.measures.get("aliasing"):
        few = given.x[: options["images"]]
        part = aliased_part(
            given.subject, few, options["generators"], factor=options["factor"], output=given.output, kernel=way.kernel,
            boundary=way.boundary, chunk=min(ALIASED, given.chunk or ALIASED),
        )  # fmt: skip
        found["aliasing"] = {str(c): part.frame[c].tolist() for c in part.frame} | {"left_out": list(part.left_out)}
    if options := way.measures.get("moved"):
        share, other = (
            moved_share(given.model, given.x, options[of], chunk=given.chunk or PENALISED, kernel=way.kernel)
            for of in ("generators", "other")
        )
        found["moved"] = {"moved": share.value, "moved_se": share.stderr, "other": other.value}
    if options := way.measures.get("distance"):
        home = images_of(*read["distance"])
        here, there = given.x[: options["images"]], home.images.to(given.x)
        distance = frechet_distance(*(features(given.model, x, batch=given.chunk or CHUNK) for x in (here, there)))
        found["distance"] = {"distance": distance.value, "limit": distance.limit}
    if options := way.measures.get("turntable"):
        labels = _by_outputs(given, given.chosen).labels
        if labels is None:
            raise InputError(f"The data set {way.dataset!r} has no labels to follow over the angle.")
        how = {"n_turned": options["images"], "degrees": range(0, 181, options["step"]), "chunk": given.chunk}
        found["turntable"] = turntable.figures(given.model, given.x, labels, **how)
    return found


def _by_outputs(given: Measured, data: ImageSet) -> ImageSet:
    """Images whose labels count the model's outputs, not the data set's classes; none where there are no labels.

    Raises:
        InputError: the model doesn't say which of its outputs stands for which class of the images.
    """
    if data.labels is None:
        return data
    with one_function(given.model) as function:
        outputs = function.checked(given.x[:1]).shape[-1]
    true = right_outputs(data, given.known, outputs)
    if true is None:
        raise InputError(
            f"Which of the {outputs} outputs is right for the classes of {data.name!r} isn't known: the model says of "
            f"{len(given.known) or 'none'} of its outputs which class they stand for. A network of your own says so by an "
            "attribute `class_names` with a name for each output, all classes of the images among them."
        )
    return replace(data, labels=true)


def _motions(name: str, given: Measured) -> list[metrics.Motion]:
    options = dict(given.way.measures[name])
    if name == "eq_r":
        return metrics.rotations(options["draws"], max_angle=radians(options["max_angle"]), random=given.random)
    return metrics.translations(given.x, integer=name == "eq_t", random=given.random, **options)
