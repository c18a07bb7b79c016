"""The local equivariance error as a torchmetrics metric: update, compute, reset, also across processes."""

import inspect
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lee.autodiff.alternatives import MODES
from lee.errors import InputError, check_known, nearest
from lee.geometry.generators import AnyGenerator, get
from lee.geometry.interpolation import KERNELS
from lee.geometry.sampling import Sampler
from lee.measure.checks import check_model, check_output_name
from lee.measure.derivative import Model, equivariance_gram
from lee.provenance import weights_sha256
from lee.statistics import Estimate, Verification, unit_of

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("lee.LocalEquivarianceError needs torchmetrics: pip install torchmetrics") from error

#: Keywords of torchmetrics' own; all others are those of :func:`lee.equivariance_gram`.
_OF_METRIC = {
    "compute_on_cpu", "compute_with_cache", "dist_sync_fn", "dist_sync_on_step", "distributed_available_fn",
    "process_group", "sync_on_compute",
}  # fmt: skip
_OF_MEASUREMENT = set(inspect.signature(equivariance_gram).parameters) - {"model", "images", "generators"}
_OF_SAMPLER = {"kernel", "boundary", "align_corners"}
_SUMS = ("total", "squares", "count", "doubts")


class _Measured:
    """Holds the model without making it a submodule, and lets a copy of the metric measure the same model.

    A copied model would no longer follow the training of the original. Only where the model is copied together with the
    metric, before it, the copy is measured.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Measured":
        return _Measured(memo.get(id(self.model), self.model))


class LocalEquivarianceError(Metric):
    """Local equivariance error of a model along one generator, accumulated over batches.

    `compute()` gives the value as a tensor of no axes, as torchmetrics and Lightning's `self.log` expect it; `estimate` has
    the standard error, unit and number of images, too. The sums are float64 whatever the metric is cast to, and stay on the
    CPU where a device has no float64. Copies and clones measure the same model.

    Args:
        model: The model; not a submodule of the metric, so it neither moves with it nor is it saved with it.
        generator: A name, a mixture or an action.
        **options: Keywords of :func:`lee.equivariance_gram`, such as `output` or `kernel`, and of `torchmetrics.Metric`, such
            as `sync_on_compute`.

    Raises:
        InputError: An unknown keyword; the nearest is suggested.

    Examples:
        >>> metric = LocalEquivarianceError(torch.nn.Flatten(), "brightness", output="logits")
        >>> metric.update(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(2, 1, 2, 2))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
        >>> print(metric.estimate)
        LEE brightness = 1 ± 0 per e-fold² (n = 2, kernel fourier)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    __jit_unused_properties__: ClassVar[list[str]] = [*Metric.__jit_unused_properties__, "estimate"]
    total: Tensor
    squares: Tensor
    count: Tensor
    doubts: Tensor
    identity: Tensor

    def __init__(self, model: Model, generator: AnyGenerator, **options: Any) -> None:
        for name in options:
            if name not in _OF_METRIC | _OF_MEASUREMENT:
                hint = nearest(name, _OF_METRIC | _OF_MEASUREMENT)
                raise InputError(f"LocalEquivarianceError has no option {name!r}.{hint}")
        check_model(model)
        super().__init__(**{name: value for name, value in options.items() if name in _OF_METRIC})
        self._measured = _Measured(model)
        self.generator = get(generator)
        self.options = {"progress": False, **{name: v for name, v in options.items() if name in _OF_MEASUREMENT}}
        check_output_name(self.options.get("output", "probabilities"))
        check_known("mode", self.options.get("mode", "auto"), MODES)
        check_known("kernel", self.options.get("kernel", "fourier"), KERNELS)
        Sampler(**{name: self.options[name] for name in _OF_SAMPLER & self.options.keys()})
        self._verification: Verification | None = None  # of the last batch
        self._doubt: Verification | None = None  # of the first one that was not verified; `doubts` counts them all
        for state in _SUMS:
            self.add_state(state, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        # A `MetricCollection` measures metrics once whose states agree after the first batch, to a tolerance of 1e-5. Small
        # numbers always do, so that each metric has a state of its own that is never another's.
        self.add_state("identity", default=_unique(), dist_reduce_fx="max")

    def update(self, images: Tensor) -> None:
        """Add a batch of images (N, C, H, W).

        Args:
            images: A batch (N, C, H, W).
        """
        gram = equivariance_gram(self._measured.model, images, generators=[self.generator], **self.options)
        self._verification = found = gram.verification
        if found is not None and not found.verified:
            self._doubt = self._doubt if self.doubts and self._doubt else found  # the first since a reset
            self.doubts = self.doubts + 1
        samples = gram.lee_per_image(self.generator).detach().double().to(self.total.device)
        # Not in place: states made in inference mode, as Lightning validates, may not be written to outside of it.
        self.total = self.total + samples.sum()
        self.squares = self.squares + samples.square().sum()
        self.count = self.count + len(samples)

    def compute(self) -> Tensor:
        """The mean over all images so far: a tensor of no axes, float64 (float32 where the device has none).

        Raises:
            InputError: If no batch was given yet.
        """
        n = int(self.count)
        if n == 0:
            raise InputError("No images were given yet; call update(images) first.")
        mean = float(self.total) / n
        variance = max(0.0, float(self.squares) / n - mean**2) * n / (n - 1) if n > 1 else math.nan
        kernel = str(self.options.get("kernel", "fourier"))
        error = math.sqrt(variance / n)
        unit, name = unit_of(self.generator), self.generator.name
        found = self._verification
        if self.doubts and found is not None:
            found = self._doubt or replace(
                found, verified=False, note="another process has batches that were not verified"
            )
        self._estimate = Estimate(mean, error, n, unit, kernel, name, verification=found)
        return (self.total / n).to(self.device, _widest(self.device))

    @property
    def estimate(self) -> Estimate:
        """What `compute` gives with its standard error, number of images, unit, kernel, and what this process has checked.

        Raises:
            InputError: If no batch was given yet.
        """
        self.compute()
        return self._estimate

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the images of another metric of the same measurement, or of its state.

        Args:
            incoming_state: The metric, or its state as torchmetrics gives it.

        Raises:
            InputError: If the other one has another generator, other options, or a model with other weights.
        """
        if isinstance(incoming_state, LocalEquivarianceError):
            for what in ("generator", "options"):
                if getattr(self, what) != getattr(incoming_state, what):
                    raise InputError(f"Metrics can be merged only if they measure the same; their {what} differ.")
            mine, its = self._measured.model, incoming_state._measured.model
            known = mine is not its and isinstance(mine, nn.Module) and isinstance(its, nn.Module)
            if known and len({*map(weights_sha256, (mine, its))}) > 1:  # type: ignore[arg-type]
                raise InputError(
                    "Metrics can be merged only if they measure the same; the weights of their models differ."
                )
        self._computed = None  # torchmetrics keeps what was computed before
        super().merge_state(incoming_state)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> nn.Module:
        """Move the states to where the metric goes, but never to another precision."""
        self._computed = None
        super()._apply(fn, exclude_state=[*exclude_state, *self._defaults])
        for name, default in self._defaults.items():
            assert isinstance(default, Tensor)
            device = self.device if default.dtype == torch.int64 or _widest(self.device) == torch.float64 else "cpu"
            self._defaults[name] = default.to(device)
            setattr(self, name, getattr(self, name).to(device))
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is another metric: its model may be another, too."""
        super().__setstate__(state)
        self.identity = self._defaults["identity"] = _unique().to(self.identity.device)


def _unique() -> Tensor:
    """Sixteen numbers below 256 that no other metric has; integers, so that they differ by more than a tolerance."""
    return torch.tensor(list(uuid.uuid4().bytes))


def _widest(device: torch.device) -> torch.dtype:
    """The widest floating-point numbers that a device can hold: Apple's have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
