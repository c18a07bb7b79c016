r"""How a generator acts on a tensor: on images, feature maps, tokens, vector fields, and (trivially) on scores.

For a generator `X` with vector field `ξ(p) = A p + b` and flow `Φ_t`, the finite action is `ρ(exp tX) z = z ∘ Φ_t` and
the infinitesimal action `X·z = d/dt|₀ ρ(exp tX) z` is `ξ·∇z` on scalars. A contravariant vector field (an optical flow)
carries the inverse Jacobian of the flow, `X·v = ξ·∇v - A v`; a covariant one (a gradient) `X·w = ξ·∇w + Aᵀ w`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from lee.errors import InputError
from lee.geometry.generators import Generator
from lee.geometry.sampling import Registration, Sampler, transport
from lee.process.alone import without_autocast

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision's rgb_to_grayscale


class Representation:
    """A generator's action on tensors of one layout. Subclasses say what a spatial generator does to it."""

    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """`X_k·z` for K generators and a batch `z` (N, ...): shape (K, N, ...).

        Args:
            generators: K spatial generators; of images, photometric ones too.
            z: A batch (N, ...).
            sampler: How samples stand for a continuous map.
        """
        raise NotImplementedError

    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """`ρ(exp tX) z` for a batch `z` (N, ...), same shape.

        Args:
            generator: `X`.
            t: How far, in the generator's unit.
            z: A batch (N, ...).
            sampler: How samples stand for a continuous map.
        """
        raise NotImplementedError

    def maps(self, z: Tensor) -> Tensor | None:
        """The entries of `z` (N, ...) that have a place, as maps (N, C, h, w); None where none has.

        Args:
            z: A batch (N, ...).
        """
        return None


@dataclass(frozen=True)
class Trivial(Representation):
    """An invariant quantity, for instance class scores: nothing happens."""

    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """Zero, shape (K, N, ...)."""
        return z.new_zeros(len(generators), *z.shape)

    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """`z` itself."""
        return z


@dataclass(frozen=True)
class Map(Representation):
    """A scalar feature map with channels first, (N, C, H, W), or last, (N, H, W, C). Photometry leaves it alone.

    Args:
        channels_last: Whether the layout is (N, H, W, C).
        registration: Where its samples lie in the image; None: evenly over all of it.
    """

    channels_last: bool = False
    registration: Registration | None = field(default=None, kw_only=True, repr=False)

    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """`ξ·∇z`, shape (K, N, ...)."""
        out = transport(generators, self.maps(z), sampler.on(self.registration))
        return out.movedim(2, -1) if self.channels_last else out

    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """`z ∘ Φ_t`."""
        out = sampler.on(self.registration).warp(self.maps(z), generator, t)
        return out.movedim(1, -1) if self.channels_last else out

    def maps(self, z: Tensor) -> Tensor:
        """The map with its channels first.

        Args:
            z: A batch (N, C, H, W) or (N, H, W, C).

        Raises:
            InputError: For another shape.
        """
        if z.ndim != 4:
            raise InputError(f"A feature map has 4 dimensions; got shape {tuple(z.shape)}.")
        return z.movedim(-1, 1) if self.channels_last else z


@dataclass(frozen=True)
class Image(Map):
    """An image (N, C, H, W) whose values are light: spatial generators move it, photometric ones change its values.

    Brightness multiplies by `exp t`; contrast scales by `exp t` about the image's mean luma; saturation about each
    pixel's luma (RGB only). All three are one-parameter groups. Values are in the units in which the image is given:
    keep a model's input normalisation inside the model.
    """

    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """`ξ·∇z` plus the photometric part, shape (K, N, C, H, W)."""
        out = super().infinitesimal(generators, z, sampler)
        centres = {i: _centre(i, z) for i in range(3) if any(g.photometric[i] for g in generators)}
        for k, generator in enumerate(generators):
            for i, centre in centres.items():
                if generator.photometric[i]:
                    out[k] += generator.photometric[i] * (z - centre)
        return out

    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """The warped image, its values scaled about their centre.

        Raises:
            InputError: For a mixture of spatial and photometric parts (or of several photometric ones), whose finite
                action has no closed form.
        """
        active = [i for i, c in enumerate(generator.photometric) if c]
        if not active:
            return super().finite(generator, t, z, sampler)
        if not generator.is_photometric or len(active) > 1:
            raise InputError(
                f"The finite action of the mixture {generator.name!r} has no closed form; apply its spatial and "
                "photometric parts one after the other."
            )
        centre = _centre(active[0], z)
        gain = torch.exp(torch.as_tensor(t, dtype=z.dtype, device=z.device) * generator.photometric[active[0]])
        return centre + gain * (z - centre)


def _centre(kind: int, z: Tensor) -> Tensor:
    """The value that brightness (0), contrast (1) or saturation (2), which only RGB images have, leaves fixed."""
    if kind == 0:
        return torch.zeros_like(z[:, :1])
    if z.shape[1] == 3:
        luma = (z * z.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    elif kind == 2:
        raise InputError(f"Saturation needs RGB images (N, 3, H, W); got {z.shape[1]} channels.")
    else:
        luma = z.mean(1, keepdim=True)
    return luma.mean((-2, -1), keepdim=True) if kind == 1 else luma


@dataclass(frozen=True)
class VectorField(Representation):
    """Pairs of channels (N, 2M, H, W) that hold x and y components, contravariant (a flow) or covariant (a gradient).

    Args:
        covariant: Whether the vectors transform like a gradient.
    """

    covariant: bool = False

    @without_autocast()
    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """`ξ·∇v - A v`, or `ξ·∇w + Aᵀ w`, shape (K, N, 2M, H, W)."""
        moved = transport(generators, self.maps(z), sampler)
        matrix = torch.tensor([g.matrix for g in generators], dtype=z.dtype, device=z.device)
        turn = matrix.mT if self.covariant else -matrix
        pairs = z.unflatten(1, (-1, 2))
        return moved + torch.einsum("kij,nmjhw->knmihw", turn, pairs).flatten(2, 3)

    @without_autocast()
    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """The warped field, its vectors turned by the Jacobian of the flow."""
        moved = sampler.warp(self.maps(z), generator, t).unflatten(1, (-1, 2))
        jacobian = generator.flow(t)[:2, :2]
        turn = (jacobian.mT if self.covariant else torch.linalg.inv(jacobian)).to(z.dtype).to(z.device)
        return torch.einsum("ij,nmjhw->nmihw", turn, moved).flatten(1, 2)

    def maps(self, z: Tensor) -> Tensor:
        """The components as they are.

        Args:
            z: A batch (N, 2M, H, W).

        Raises:
            InputError: For another shape.
        """
        if z.ndim != 4 or z.shape[1] % 2:
            raise InputError(f"A vector field has shape (N, 2M, H, W); got {tuple(z.shape)}.")
        return z


@dataclass(frozen=True)
class Tokens(Representation):
    """A sequence (N, prefix + h·w, C): `prefix` tokens without a place, then a grid of `h` × `w` in row order.

    Args:
        grid: Rows and columns `(h, w)` of the grid.
        prefix: Tokens before it that have no place, such as a class token.
        registration: Where the grid lies in the image; None: evenly over all of it.
    """

    grid: tuple[int, int]
    prefix: int = 0
    registration: Registration | None = field(default=None, kw_only=True, repr=False)

    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """`ξ·∇z` on the grid, zero on the prefix, shape (K, N, L, C)."""
        out = z.new_zeros(len(generators), *z.shape)
        moved = transport(generators, self.maps(z), sampler.on(self.registration))
        out[:, :, self.prefix :] = moved.flatten(-2).mT
        return out

    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """The tokens of the warped grid; the prefix is unchanged."""
        moved = sampler.on(self.registration).warp(self.maps(z), generator, t)
        return torch.cat([z[:, : self.prefix], moved.flatten(-2).mT], dim=1)

    def maps(self, z: Tensor) -> Tensor:
        """The grid of tokens, without the prefix.

        Args:
            z: A batch (N, prefix + h·w, C).

        Raises:
            InputError: For another shape.
        """
        if z.ndim != 3 or z.shape[1] != self.prefix + prod(self.grid):
            raise InputError(
                f"Tokens with a {self.grid[0]}×{self.grid[1]} grid and {self.prefix} prefix tokens have shape "
                f"(N, {self.prefix + prod(self.grid)}, C); got {tuple(z.shape)}."
            )
        return z[:, self.prefix :].mT.unflatten(-1, self.grid)


@dataclass(frozen=True, eq=False)
class Scattered(Representation):
    """Any arrangement of the entries of a grid, such as Swin's windows folded into the batch, or heads split apart.

    Args:
        grid: Height and width of the grid.
        index: Flat positions within one sample of the channels at each place, (h·w, C). Entries that it does not name have
            no place and do not move.
        numel: Number of entries of one sample.
        registration: Where the grid lies in the image; None: evenly over all of it.
    """

    grid: tuple[int, int]
    index: Tensor
    numel: int
    registration: Registration | None = field(default=None, kw_only=True, repr=False)

    def infinitesimal(self, generators: Sequence[Generator], z: Tensor, sampler: Sampler) -> Tensor:
        """`ξ·∇z` at every entry that has a place, zero elsewhere, shape `(K, *z.shape)`."""
        moved = transport(generators, self.maps(z), sampler.on(self.registration)).flatten(-2).mT  # (K, N, h·w, C)
        out = z.new_zeros(len(generators), *self._samples(z).shape)
        out[:, :, self.index.to(z.device)] = moved
        return out.reshape(len(generators), *z.shape)

    def finite(self, generator: Generator, t: Tensor | float, z: Tensor, sampler: Sampler) -> Tensor:
        """The entries of the warped grid; those without a place are unchanged."""
        out = self._samples(z).clone()
        out[:, self.index.to(z.device)] = sampler.on(self.registration).warp(self.maps(z), generator, t).flatten(-2).mT
        return out.reshape(z.shape)

    def _samples(self, z: Tensor) -> Tensor:
        if z.numel() % self.numel:
            raise InputError(f"Expected {self.numel} entries per sample; got shape {tuple(z.shape)}.")
        return z.reshape(-1, self.numel)

    def maps(self, z: Tensor) -> Tensor:
        """The grid that the entries are put back into.

        Args:
            z: A batch of (N, ...) entries in any arrangement.
        """
        return self._samples(z)[:, self.index.to(z.device)].mT.unflatten(-1, self.grid)

    def __str__(self) -> str:
        return f"Scattered(grid={self.grid}, channels={self.index.shape[1]})"
