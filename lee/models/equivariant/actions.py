"""How fields of several orders move with an image: what `lee.layerwise` must know to measure inside a steerable network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lee.errors import InputError
from lee.geometry.generators import Generator
from lee.geometry.representations import Map, Representation
from lee.geometry.sampling import Sampler
from lee.models.equivariant.harmonics import dimension, rotation_matrix


@dataclass(frozen=True)
class Fields(Representation):
    """Fields of orders 0, 1, 2, ...; channels are sorted by order, the two of a field side by side.

    Under a generator with the matrix `A`, the maps move like scalars and a field of order `m` turns at `m` times the rate of
    `A`'s antisymmetric part. (Shears and stretches have no action on such fields that is a group's; they turn them likewise.)

    Args:
        counts: number of fields of order 0, 1, 2, ...
    """

    counts: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Channels of a map (N, channels, H, W) of these fields."""
        return sum(count * dimension(order) for order, count in enumerate(self.counts))

    @property
    def turning(self) -> int:
        """Number of fields of order 1 and above."""
        return sum(self.counts[1:])

    def turn_values(self, z: Tensor, angle: float | Tensor) -> Tensor:
        """Apply `R(m · angle)` to every field of order `m`, pixel by pixel; the maps stay where they are.

        Args:
            z: (N, channels, H, W).
            angle: in radians, counter-clockwise as one sees it.
        """
        return self._by_order(z, lambda m: rotation_matrix(m, torch.as_tensor(angle, dtype=torch.float64)))

    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """`ξ·∇z` and the turning of the values, shape (K, N, channels, H, W)."""
        moved = Map().infinitesimal(generators, z, sampler)
        spun = self._by_order(z, lambda m: m * torch.tensor([[0.0, -1.0], [1.0, 0.0]]) if m else torch.zeros(1, 1))
        rates = torch.tensor([_rate(g) for g in generators], dtype=torch.float64).to(z)
        return moved + rates.view(-1, 1, 1, 1, 1) * spun

    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """The warped maps, their values turned."""
        amount = t.double() if isinstance(t, Tensor) else t
        return self.turn_values(Map().finite(generator, t, z, sampler), _rate(generator) * amount)

    def _by_order(self, z: Tensor, matrix_of: Callable[[int], Tensor]) -> Tensor:
        """Multiply the fields of each order by its matrix."""
        if z.ndim != 4 or z.shape[1] != self.channels:
            raise InputError(f"Fields {self.counts} have shape (N, {self.channels}, H, W); got {tuple(z.shape)}.")
        parts = z.split([count * dimension(order) for order, count in enumerate(self.counts)], 1)
        fields = [
            (order, part.unflatten(1, (-1, dimension(order)))) for order, part in enumerate(parts) if part.shape[1]
        ]
        turned = [torch.einsum("ab,nfbhw->nfahw", matrix_of(order).to(z), field) for order, field in fields]
        return torch.cat([field.flatten(1, 2) for field in turned], 1)


def _rate(generator: Generator) -> float:
    """How fast a generator turns what it moves, counter-clockwise as one sees it (the y axis of images points down)."""
    matrix = generator.matrix
    return float(matrix[1][0] - matrix[0][1]) / 2
