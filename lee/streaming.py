"""The local equivariance error as a torchmetrics metric: update, compute, reset, also across processes."""

import math
from typing import Any

import torch
from torch import Tensor

from lee.derivative import Model, equivariance_gram
from lee.errors import InputError
from lee.generators import AnyGenerator, get
from lee.statistics import Estimate, unit_of

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("lee.LocalEquivarianceError needs torchmetrics: pip install torchmetrics") from error


class LocalEquivarianceError(Metric):
    """Local equivariance error of a model along one generator, accumulated over batches.

    Args:
        model: The model; not a submodule of the metric.
        generator: A name, a mixture or an action.
        **options: Keywords of :func:`lee.equivariance_gram`, such as `output` or `kernel`.

    Examples:
        >>> metric = LocalEquivarianceError(torch.nn.Flatten(), "rotation", output="logits")
        >>> metric.update(torch.ones(2, 1, 4, 4))
        >>> abs(metric.compute().value) < 1e-9
        True
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, model: Model, generator: AnyGenerator, **options: Any) -> None:
        super().__init__()
        self._measured = [model]  # in a list, so that it doesn't become a submodule and move with the metric
        self.generator = get(generator)
        self.options = {"progress": False, **options}
        for state in ("total", "squares", "count"):
            self.add_state(state, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Tensor) -> None:
        """Add a batch of images (N, C, H, W)."""
        gram = equivariance_gram(self._measured[0], images, generators=[self.generator], **self.options)
        samples = gram.lee_per_image(self.generator).to(self.total.device)
        self.total += samples.sum()
        self.squares += samples.square().sum()
        self.count += len(samples)

    def compute(self) -> Estimate:
        """The mean over all images so far with its standard error.

        Raises:
            InputError: If no batch was given yet.
        """
        n = int(self.count)
        if n == 0:
            raise InputError("No images were given yet; call update(images) first.")
        mean = float(self.total) / n
        variance = max(0.0, float(self.squares) / n - mean**2) * n / (n - 1) if n > 1 else math.nan
        kernel = str(self.options.get("kernel", "fourier"))
        return Estimate(mean, math.sqrt(variance / n), n, unit_of(self.generator), kernel, self.generator.name)
