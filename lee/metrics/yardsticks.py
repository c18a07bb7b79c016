r"""What the size of a Lie derivative is held against, image by image: the image's own speed, and foreign changes.

:math:`\lVert L_X f(x) \rVert^2` is small for three reasons that have nothing to do with symmetry: the image hardly changes
when it moves (a smooth one), the output hardly varies (flat probabilities), or the network reacts weakly to anything.
The first two are divided out by `speed` and by the size of the output. A *foreign change* divides out all three: it is the
velocity :math:`X \cdot x'` of another image `x'` of the same set, scaled to the length of the image's own,

.. math::
    F_X f(x) = J_f(x) \, \frac{\lVert X \cdot x \rVert}{\lVert X \cdot x' \rVert} \, (X \cdot x').

It changes `x` as strongly, and with waves of the same kind, but it is no motion of `x`. A network that has learned
nothing about the motion answers to both alike; one that has, less to the motion.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lee import memory
from lee.autodiff import workspace
from lee.autodiff.alternatives import MODES
from lee.errors import InputError, check_count, check_known
from lee.geometry.generators import AnyGenerator, Generator
from lee.measure.checks import check_input, select
from lee.measure.derivative import Model, automatic_chunk, told_apart
from lee.measure.function import one_function
from lee.measure.pushing import Pushing
from lee.measure.terms import infinitesimal_actions, sampler_of

#: The generators of translation, whose errors are added.
TRANSLATION = ("translation_x", "translation_y")


def foreign_changes(velocities: Tensor, seed: int = 0) -> Tensor:
    """The velocities of other images, each scaled to the length of the image's own.

    Args:
        velocities: (K, N, C, H, W), those of K generators on N images.
        seed: of the pairs: a random ring in which each image takes the velocity of the next.

    Returns:
        A tensor of the same shape.

    Raises:
        InputError: There is only one image, or one does not change at all under a generator.
    """
    n = velocities.shape[1]
    if n < 2:
        raise InputError("A foreign change needs another image: give two or more.")
    ring = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(ring)
    partner[ring] = ring.roll(-1)
    partner = partner.to(velocities.device)
    length = velocities.flatten(2).norm(dim=2)
    if not bool((length > 1e-5 * length.max()).all()):  # of a single colour only rounding is left
        raise InputError("An image does not change when it moves, as one of a single colour; leave it out.")
    scale = (length / length[:, partner])[..., None, None, None]
    return scale * velocities[:, partner]


def yardsticks(
    model: Model,
    images: Tensor,
    generators: Sequence[AnyGenerator] = TRANSLATION,
    *,
    seed: int = 0,
    kernel: str = "fourier",
    boundary: str = "reflect",
    mode: str = "auto",
    chunk: int | None = None,
) -> pd.DataFrame:
    r"""The Lie derivative of class scores, and what it is held against, summed over generators.

    Args:
        model: A classifier; its scores (N, K) are taken as they are, not as probabilities.
        images: (N, C, H, W) in [0, 1].
        generators: Generators that act on images; the rows are sums over them.
        seed: Which image lends its velocity to which.
        kernel: Interpolation kernel.
        boundary: Boundary extension.
        mode: How the model is differentiated, as for :func:`lee.lie_derivative`.
        chunk: Images per pass.

    Returns:
        One row per image: `own` (:math:`\sum_X \lVert L_X f \rVert^2 / K`), `foreign` (the same for the foreign change),
        `speed` (:math:`\sum_X \lVert X \cdot x \rVert^2 / CHW`) and `square` (:math:`\lVert f \rVert^2 / K`).

    Raises:
        InputError: For what can't be measured, a user's action among the generators, and as :func:`foreign_changes`.

    Examples:
        >>> scores = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
        >>> list(yardsticks(scores, torch.rand(4, 3, 8, 8)).columns)
        ['own', 'foreign', 'speed', 'square']
    """
    chosen = told_apart(generators)
    if not chosen or not all(isinstance(g, Generator) for g in chosen):
        raise InputError("`generators` must name one or more that act on images, such as 'rotation'.")
    check_known("mode", mode, MODES)
    check_input(model, images, image=True)
    if chunk is not None:
        check_count("chunk", chunk)
    k, sampler = len(chosen), sampler_of(images, kernel, boundary, False)
    with memory.kept(), one_function(model, _scores) as function, torch.no_grad():
        pushing = Pushing(function, mode)
        pushing.start(images, lambda z: infinitesimal_actions(chosen, z, sampler))
        own = infinitesimal_actions(chosen, images, sampler)
        tangents = torch.cat([own, foreign_changes(own, seed)])
        size = pushing.chunk(chunk) or automatic_chunk(images, 2 * k)
        with workspace(images):
            passes = [pushing(x, t) for x, t in zip(images.split(size), tangents.split(size, dim=1), strict=True)]
    values, lanes = torch.cat([p[0] for p in passes]), torch.cat([p[1] for p in passes], 1)
    squares = lanes.double().square().mean(-1)
    columns = {
        "own": squares[:k].sum(0),
        "foreign": squares[k:].sum(0),
        "speed": own.double().square().flatten(2).mean(-1).sum(0),
        "square": values.double().square().mean(-1),
    }
    return pd.DataFrame({name: np.asarray(column.cpu()) for name, column in columns.items()})


def _scores(result: object) -> Tensor:
    scores = select(result, "logits")
    if scores.ndim != 2:
        raise InputError(f"Expected class scores (N, K); the model returns {tuple(scores.shape)}.")
    return scores
