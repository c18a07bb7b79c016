"""Shares of pixels in the error of images, of one generator or of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lee import memory
from lee.errors import InputError, check_count
from lee.geometry.generators import AnyGenerator
from lee.statistics import EquivarianceGram, Estimate


@dataclass(frozen=True, eq=False)
class ErrorMap:
    r"""Which pixels of n images (and which places of a dense output) hold the error along one or several generators.

    What belongs to several generators is kept for every pair of them, as the Gram matrix is, so :meth:`along` gives the map of
    every mixture.

    Args:
        products: :math:`(J^\top L_b)(p) \cdot (X_a \cdot x)(p) / \dim`, shape (n, K, K, H, W).
        moved: The same of the output's own motion, :math:`-\langle X_a \cdot f(x), L_b \rangle / \dim`, (n, K, K), float64; zero
            for class scores. With the sum of `products` over pixels it makes `gram`.
        gram: Inner products of the Lie derivatives, verified.
        outputs: For an output that is a map itself, :math:`\langle L_a(q), L_b(q) \rangle / C` at its places `q`: (n, K, K, h, w);
            None for others.
        residual: How far the sum over pixels is from the derivative that was verified, relative to it: the largest of all
            images. Rounding, and in single precision kinks that two passes see from different sides.
    """

    products: Tensor
    moved: Tensor
    gram: EquivarianceGram
    outputs: Tensor | None = None
    residual: float = 0.0

    def along(self, generator: AnyGenerator) -> "ErrorMap":
        """The map of one generator in the span of those that were measured.

        Args:
            generator: A name, a mixture or an action.

        Raises:
            InputError: If it is not in their span.
        """
        c = self.gram.coefficients(generator)

        def mixed(pairs: Tensor) -> Tensor:
            weights = c.to(pairs)
            return torch.einsum("a,nab...,b->n...", weights, pairs, weights)[:, None, None]

        outputs = None if self.outputs is None else mixed(self.outputs)
        return ErrorMap(mixed(self.products), mixed(self.moved), self.gram.only(generator), outputs, self.residual)

    @property
    def share(self) -> Tensor:
        """Signed share of every pixel in `‖L‖²` of its image, (n, H, W); NaN for an image whose error is zero."""
        return self._single(self.products) / self._squares[:, None, None].to(self.products)

    @property
    def moved_share(self) -> Tensor:
        """Share of the output's own motion, (n,): 0 for class scores. With the pixels' shares it makes 1."""
        return self._single(self.moved) / self._squares

    @property
    def total(self) -> Estimate:
        """Local equivariance error of the images."""
        self._single(self.moved)
        return self.gram.lee(self.gram.generators[0])

    @property
    def output_map(self) -> Tensor | None:
        """For an output that is a map, `‖L(q)‖² / C` at its places `q`, (n, h, w), the mean of which is the image's error."""
        return None if self.outputs is None else self._single(self.outputs)

    def patches(self, size: int | tuple[int, int]) -> Tensor:
        """Shares of patches of pixels, such as those that a transformer makes its tokens of, (n, rows, columns).

        Args:
            size: Side of a patch in pixels, or its height and width.

        Raises:
            InputError: If the patches don't fill the image.
        """
        return in_patches(self.share, size)

    def mean(self, chosen: Tensor | Sequence[int] | None = None) -> Tensor:
        r"""Share of every pixel in the error of several images, :math:`E\langle v_p, L\rangle / E\|L\|^2`, (H, W), float64.

        As in :func:`lee.layerwise`, an image counts with its error. With the mean of :attr:`moved_share`, taken in the same way,
        the shares sum to 1.

        Args:
            chosen: Which images, (n,) booleans (`labels == 3`: those of a class) or indices; None for all.

        Raises:
            InputError: If no image is chosen, or their error is zero.
        """
        n = len(self.products)
        with memory.retold(InputError, "`chosen` must hold indices of images or a boolean for each ({})."):
            index = torch.arange(n)
            if chosen is not None:  # an empty list is one of indices
                index = index[torch.as_tensor(chosen, dtype=None if len(chosen) else torch.long).cpu()]
        squares = self._squares[index].sum()
        if not len(index) or not squares > 0:
            raise InputError(f"There is no error to share out: {len(index)} of {n} images are chosen.")
        return self._single(self.products)[index.to(self.products.device)].double().sum(0) / squares.to(
            self.products.device
        )

    @property
    def _squares(self) -> Tensor:
        """`‖L‖² / dim` of every image, (n,), float64."""
        return self.gram.per_image[:, 0, 0]

    def _single(self, pairs: Tensor) -> Tensor:
        if len(self.gram.generators) > 1:
            raise InputError(
                f"This map holds {len(self.gram.generators)} generators ({', '.join(self.gram.basis)}); choose one, or a mixture, "
                "with .along(…)."
            )
        return pairs[:, 0, 0]

    def __str__(self) -> str:
        height, width = self.products.shape[-2:]
        return "\n".join(
            [str(self.gram), f"shares of {height} × {width} pixels, which sum to it to {self.residual:.1g}"]
        )


def in_patches(share: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Sums of (n, H, W) over patches, (n, rows, columns); patches that don't fill the image are refused."""
    rows, columns = size if isinstance(size, tuple | list) else (size, size)
    for side in (rows, columns):
        check_count("size", side)
    height, width = share.shape[-2:]
    if height % rows or width % columns:
        raise InputError(f"Patches of {rows} × {columns} pixels don't fill an image of {height} × {width}.")
    return share.unflatten(-2, (-1, rows)).unflatten(-1, (-1, columns)).sum((-3, -1))
