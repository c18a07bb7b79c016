r"""How far one set of images lies from another, as a network sees them: the Fréchet distance between its features.

Two sets become two Gaussians, with the means and covariances of their features, at the squared distance

.. math::
    d^2 = \lVert \mu_1 - \mu_2 \rVert^2 + \operatorname{tr} \Sigma_1 + \operatorname{tr} \Sigma_2
          - 2 \operatorname{tr} \bigl(\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2}\bigr)^{1/2}.

Sources: D. C. Dowson & B. V. Landau, *The Fréchet distance between multivariate normal distributions*, Journal of
Multivariate Analysis 12, 1982; as a distance between sets of images M. Heusel et al., *GANs trained by a two time-scale
update rule converge to a local Nash equilibrium*, NeurIPS 2017 (their features are those of another network, so the
numbers here are comparable with one another only). Few images make any two sets look further apart, by an amount in
proportion to 1/n: M. J. Chong & D. Forsyth, *Effectively unbiased FID and Inception Score*, CVPR 2020.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lee.errors import InputError, check_count
from lee.measure.checks import check_input, plain
from lee.measure.function import one_function
from lee.measure.looking import looked_at

BLOCKS = 10  # of images, left out one at a time


class Distance(NamedTuple):
    """A squared Fréchet distance between two sets of equally many images.

    Args:
        value: Between the Gaussians of all `n` images; too large by an amount in proportion to 1/n.
        limit: Extrapolated to infinitely many images; noisier, and around zero, of either sign, for equal distributions.
        n: Number of images in each set.
        stderr: Standard error of `limit` over images, by the jackknife; NaN for fewer than 40 images.
    """

    value: float
    limit: float
    n: int
    stderr: float = math.nan

    def __str__(self) -> str:
        none = ", noise around 0" if self.limit <= 0 else ""  # no squared distance is negative
        return f"{self.value:.4g}, extrapolated {self.limit:.4g} ± {self.stderr:.2g}{none} (n = {self.n} each)"


class Features(nn.Module):
    """What a model's own classifier reads: its features, pooled over the image, (N, D).

    Args:
        model: A model of `lee.models.load` or one of timm, which has `forward_features` and `forward_head`.

    Raises:
        InputError: If it has no such methods.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        if not (hasattr(self._net, "forward_features") and hasattr(self._net, "forward_head")):
            raise InputError(
                f"{type(self._net).__name__} has no forward_features and forward_head, as timm's models have, to say where its "
                "features end. Measure another output, or pass the features themselves to frechet_distance."
            )

    @property
    def _net(self) -> Any:
        return getattr(self.model, "net", self.model)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of images.

        Args:
            x: (N, C, H, W).
        """
        prepared = getattr(self.model, "normalize", nn.Identity())(x)
        pooled: Tensor = self._net.forward_head(self._net.forward_features(prepared), pre_logits=True)
        return pooled


def features(model: nn.Module, images: Tensor, *, batch: int = 64) -> Tensor:
    """Features before a network's last layer, (N, D), float64.

    Args:
        model: A model of `lee.models.load`, or one of timm: with `forward_features` and `forward_head`, itself or in `.net`.
        images: (N, C, H, W) in [0, 1].
        batch: Images per forward pass.

    Raises:
        InputError: If the model has no such methods, or the images can't be measured.
    """
    subject = Features(plain(model))
    check_input(subject, images, image=True)
    check_count("batch", batch)
    subject.training = getattr(subject.model, "training", True)
    with one_function(subject) as function, torch.no_grad():
        return looked_at(function, images, batch)(images).flatten(1).double().cpu()


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) of features, float64: the Gaussian that stands for a set of images.

    Args:
        features: One row per image, (N, D).

    Raises:
        InputError: If there are fewer than two rows, or a number is not finite.
    """
    if features.ndim != 2 or len(features) < 2 or not bool(torch.isfinite(features).all()):
        raise InputError(f"Expected finite features (N, D) of two images or more; got shape {tuple(features.shape)}.")
    values = features.double()
    return values.mean(0), torch.atleast_2d(torch.cov(values.T))


def between_gaussians(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    r"""The squared Fréchet distance of two Gaussians, not negative.

    The last trace is the sum of the singular values of :math:`\Sigma_1^{1/2} \Sigma_2^{1/2}`, which stays accurate where
    a covariance is singular, as with fewer images than features.

    Source: D. C. Dowson & B. V. Landau, *The Fréchet distance between multivariate normal distributions*, Journal of
    Multivariate Analysis 12, 1982.

    Args:
        first: Mean and covariance of one, as :func:`moments` returns them.
        second: Those of another, of as many dimensions.

    Raises:
        InputError: If they have another number of dimensions.
    """
    (mean, covariance), (other, there) = first, second
    if len(mean) != len(other):
        raise InputError(
            f"The features must have one length; got {len(mean)} and {len(other)}. Use one network for both."
        )
    traces = covariance.trace() + there.trace()
    common = torch.linalg.svdvals(_root(covariance) @ _root(there)).sum()
    return max(0.0, float((mean - other).square().sum() + traces - 2 * common))


def _root(covariance: Tensor) -> Tensor:
    """The positive semi-definite square root; eigenvalues within rounding of zero are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    return (vectors * values.where(values > rounding, 0).sqrt()) @ vectors.T


def frechet_distance(first: Tensor, second: Tensor, *, dimensions: int | None = None) -> Distance:
    r"""The squared Fréchet distance between two sets of features, and its limit for infinitely many images.

    With :math:`d^2(n) \approx d^2 + a / n`, twice the distance from `n` images less the mean of that from their first
    and that from their second halves is free of `a`. A covariance that is estimated from fewer images than it has dimensions is
    singular, and the next term of the bias then isn't small: take fewer dimensions.

    Sources: M. Heusel et al., NeurIPS 2017 (the distance between sets of images); M. J. Chong & D. Forsyth, CVPR 2020
    (its bias).

    Args:
        first: (N, D) features of one set, N of 4 or more.
        second: (N, D) features of another, equally many: the bias depends on their number.
        dimensions: Look at so many principal axes of the second set only, of which the others would be compared with; None for
            all D.

    Raises:
        InputError: If the sets differ in size, are too small, or have features of another length, or there are fewer dimensions.
    """
    n = len(first)
    if len(second) != n or n < 4:
        raise InputError(f"Fréchet distances need equally many images, 4 or more; got {n} and {len(second)}.")
    if dimensions is not None:
        if not 1 <= dimensions <= second.shape[1]:
            raise InputError(f"`dimensions` must be from 1 to {second.shape[1]}, not {dimensions!r}.")
        axes = torch.linalg.eigh(moments(second)[1])[1][:, -dimensions:]
        first, second = first.double() @ axes, second.double() @ axes
    value, limit = _extrapolated(first, second)
    stderr = math.nan
    if n >= 4 * BLOCKS:
        parts = torch.arange(n) % BLOCKS
        left = torch.tensor([_extrapolated(first[parts != k], second[parts != k])[1] for k in range(BLOCKS)])
        stderr = float((left.var(correction=0) * (BLOCKS - 1)).sqrt())
    return Distance(value, limit, n, stderr)


def _extrapolated(first: Tensor, second: Tensor) -> tuple[float, float]:
    whole = between_gaussians(moments(first), moments(second))
    pairs = zip(first.split(len(first) // 2)[:2], second.split(len(first) // 2)[:2], strict=True)
    halves = [between_gaussians(moments(a), moments(b)) for a, b in pairs]
    return whole, 2 * whole - sum(halves) / 2
