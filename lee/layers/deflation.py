r"""Where to look exactly and where at random: the directions of class probabilities along which terms are pulled back.

With `p = softmax(z)` every layer's term is :math:`v = S\,v_z`, with :math:`S = \mathrm{diag}(p) - p\,p^\top`, whose spectrum decays
fast for a network that is sure of its answer. So `r` orthonormal directions, eigenvectors of `S`, hold nearly all of
:math:`\|v\|^2`, and Gaussian probes `u` of their complement estimate the rest without bias:

.. math:: \|v\|^2 = \sum_{k \le r} \langle e_k, v\rangle^2 + \mathbb{E}\,\langle u, v\rangle^2 .

One more direction is the derivative `L` itself, which makes the signed shares :math:`\langle v, L\rangle` exact. What the
directions leave is foreseen from the spectrum, not from the probes: a number of probes that depended on what they show would bias
the mean.

Source: Meyer, Musco, Musco & Woodruff, *Hutch++: Optimal stochastic trace estimation*, SOSA 2021 (deflation).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

TOP = 128  # classes whose block of S is diagonalised: the others hold next to nothing where deflation pays


@dataclass(frozen=True)
class Directions:
    """Where the terms of some images are pulled back from.

    Args:
        exact: Orthonormal directions of every image, (n, C, k), float64.
        probes: How many Gaussian probes of their complement there are; 0 only if that is empty.
        variance: What they are foreseen to leave: variance over probes of the sum of the images' squared norms.
    """

    exact: Tensor
    probes: int
    variance: float = 0.0

    @property
    def passes(self) -> int:
        """Backward passes."""
        return self.exact.shape[2] + self.probes

    def rows(self, random: torch.Generator) -> Tensor:
        """The directions and the drawn probes, (n, C, k + probes)."""
        n, classes = self.exact.shape[:2]
        drawn = torch.randn(n, self.probes, classes, generator=random, dtype=torch.float64).mT
        return torch.cat([self.exact, drawn - self.exact @ (self.exact.mT @ drawn)], 2)

    @property
    def weights(self) -> Tensor:
        """What the squared products with :meth:`rows` count in a squared norm, (k + probes,)."""
        exact = torch.ones(self.exact.shape[2], dtype=torch.float64)
        return torch.cat([exact, torch.full((self.probes,), 1 / max(self.probes, 1), dtype=torch.float64)])


@dataclass(frozen=True)
class Deflation:
    """How many directions and probes it takes for a standard error, and what has been measured so far.

    Args:
        tolerance: Standard error over probes of a mean over images, relative to it.
        images: How many there will be; None if nobody knows, then every part meets the tolerance by itself.
        seen: How many have been measured.
        size: Sum of their `‖L‖²`.
        spent: Sum of the variances that were foreseen for theirs.
    """

    tolerance: float
    images: int | None
    seen: int = 0
    size: float = 0.0
    spent: float = 0.0

    def after(self, derivative: Tensor, taken: Directions | None = None) -> "Deflation":
        """The same after some more images with derivatives (n, C), measured along directions, or exactly if there are none."""
        size = self.size + float(derivative.square().sum())
        spent = self.spent + (0.0 if taken is None else taken.variance)
        return replace(self, seen=self.seen + len(derivative), size=size, spent=spent)

    def directions(self, p: Tensor, derivative: Tensor) -> Directions:
        r"""The cheapest directions for some more images.

        A term without a preferred direction in the scores has the share :math:`\rho = 1 - \sum_k \|S e_k\|^2 / \|S\|_F^2` of its
        squared norm outside, of which `P` probes are wrong by :math:`\rho \sqrt{2 / P}`. The larger an image's error, the more that
        counts. What images before these have left of their part of the variance that is allowed is theirs.

        Args:
            p: Probabilities, (n, C), float64.
            derivative: `L`, (n, C), float64.
        """
        n, classes = p.shape
        vectors, left = _deflated(p)
        sizes, after = derivative.square().sum(1), self.after(derivative)
        each = self.tolerance**2 * (after.size / after.seen) ** 2 * max(self.images or 0, after.seen)
        allowed = max(each * n, each * after.seen - self.spent if self.images else 0.0)
        spread = 2 * (sizes[:, None] * left).square().sum(0)
        probes = (spread / allowed).ceil().clamp(1, classes) if allowed > 0 else torch.ones(len(spread))
        r = int((probes + torch.arange(1, len(probes) + 1)).argmin()) + 1
        if 1 + r + int(probes[r - 1]) >= classes:
            return Directions(torch.eye(classes, dtype=torch.float64).expand(n, -1, -1), 0)
        along = derivative / derivative.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        basis = torch.linalg.qr(torch.cat([along[:, :, None], vectors[:, :, :r]], 2))[0]
        return Directions(basis, int(probes[r - 1]), float(spread[r - 1] / probes[r - 1]))


def _deflated(p: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors of `S` on the most probable classes, (n, C, m), and what the first 1, 2, … of them leave of `‖S‖²`, (n, m)."""
    n, classes = p.shape
    top = p.topk(min(TOP, classes), dim=1).indices
    q = p.gather(1, top)
    found = torch.linalg.eigh(torch.diag_embed(q) - q[:, :, None] * q[:, None, :])[1].flip(2)
    vectors = p.new_zeros(n, classes, top.shape[1])
    vectors.scatter_(1, top[:, :, None].expand_as(found), found)
    images = p[:, :, None] * (vectors - (p[:, None, :] @ vectors))
    squares = p.square().sum(1)
    whole = squares - 2 * p.pow(3).sum(1) + squares.square()
    held = images.square().sum(1).cumsum(1) / whole.clamp(min=torch.finfo(p.dtype).tiny)[:, None]
    return vectors, torch.where(whole[:, None] > 0, 1 - held, 0).clamp(min=0)  # certain of one class: nothing is left
