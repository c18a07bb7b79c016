r"""The two terms of a Lie derivative, `J_f(x)·(X·x)` and `X·f(x)`, for many generators at once.

No warp is differentiated: one spatial gradient of the image gives all the tangents `X_k·x`, and one stacked forward pass
(:mod:`lee.autodiff`) pushes them through the model.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lee.errors import InputError, LeeError, OutputWarning, check_known, reason
from lee.geometry.generators import Action, Generator
from lee.geometry.interpolation import KERNELS
from lee.geometry.outputs import Representations, of_output
from lee.geometry.representations import Image, Map, Trivial
from lee.geometry.sampling import Sampler
from lee.measure.actions import check_actions, check_output_actions, velocity_of
from lee.measure.judgement import ZERO
from lee.measure.pushing import Pushing
from lee.measure.reference import norms
from lee.measure.warned import warn_of_constant
from lee.memory import is_shortage


def sampler_of(x: Tensor, kernel: str, boundary: str, align_corners: bool) -> Sampler:
    """The sampler of inputs `x` (N, ...), with the field of view of images."""
    check_known("kernel", kernel, KERNELS)
    sampler = Sampler(kernel, boundary, align_corners)
    return sampler.for_image(*x.shape[-2:]) if x.ndim == 4 else sampler


def infinitesimal_actions(generators: Sequence[Generator | Action], x: Tensor, sampler: Sampler) -> Tensor:
    """`X_k·x` of K generators on a batch of inputs (N, ...): shape (K, N, ...).

    Args:
        generators: K generators or actions.
        x: Inputs (N, C, H, W); for actions any (N, ...).
        sampler: How samples stand for a continuous image.
    """
    named = [g for g in generators if isinstance(g, Generator)]
    moved = iter(Image().infinitesimal(named, x, sampler)) if named else iter(())
    return torch.stack([next(moved) if isinstance(g, Generator) else velocity_of(g.function, x) for g in generators])


def _actions_on_output(
    generators: Sequence[Generator | Action], z: Tensor, x: Tensor, sampler: Sampler, given: Representations
) -> Tensor | None:
    """`X_k·f(x)`: shape (K, N, ...); None where every one is zero."""
    named = [g for g in generators if isinstance(g, Generator)]
    representation = of_output(z, x, given) if named else Trivial()
    if given is None and isinstance(representation, Image) and any(not g.is_spatial for g in named):
        warnings.warn(
            "The output has the shape of the image, so colours are taken to change on it as they do on the image; say "
            "representations='image' to confirm it, or 'map' where its channels are no colours, such as scores of classes.",
            OutputWarning,
            stacklevel=2,
        )
    turning = any(any(map(any, g.matrix)) for g in named)
    if given is None and type(representation) is Map and z.shape[1] == 2 and turning:
        warnings.warn(
            "The output's two channels are taken for maps of scores; say representations='map' to confirm it, or 'vector' where "
            "they are the components of one, such as a flow, which turn with the image.",
            OutputWarning,
            stacklevel=2,
        )
    if isinstance(representation, Trivial) and all(not isinstance(g, Action) or g.output is None for g in generators):
        return None
    moved = iter(representation.infinitesimal(named, z, sampler)) if named else iter(())
    parts = []
    for generator in generators:
        if isinstance(generator, Generator):
            parts.append(next(moved))
        else:
            parts.append(torch.zeros_like(z) if generator.output is None else velocity_of(generator.output, z))
    return torch.stack(parts)


@dataclass
class Terms:
    """The terms of Lie derivatives of one function, chunk by chunk.

    Args:
        pushing: The function, and how it is differentiated.
        generators: K of them.
        sampler: Kernel, boundary and pixel convention, with the images' field of view.
        representations: How the output transforms, where given.
    """

    pushing: Pushing
    generators: Sequence[Generator | Action]
    sampler: Sampler
    representations: Representations
    _checked: bool = field(default=False, repr=False)
    _asked: bool = field(default=False, repr=False)

    def tangents(self, x: Tensor) -> Tensor:
        """`X_k·x`: shape (K, N, ...)."""
        return infinitesimal_actions(self.generators, x, self.sampler)

    def start(self, x: Tensor) -> None:
        """Check the user's actions and the function on the first images; nothing the second time."""
        if not self.pushing.started:
            check_actions(self.generators, x)
        self.pushing.start(x, self.tangents)

    def explain(self, error: Exception, x: Tensor) -> None:
        """Say in a sentence why the calls of these images can't be followed, unless it is the model's own complaint.

        Raises:
            LeeError: If it is to be seen from the function as a whole, or that runs.
        """
        if isinstance(error, LeeError) or is_shortage(error):
            return
        try:
            self.start(x)
            self.pushing.function.value(x[:1])
        except LeeError:
            raise
        except Exception:  # the model's own complaint, which is known already
            return
        raise InputError(
            f"The model runs, but its tensors can't be followed from call to call ({reason(error)}), so the layers can't be told "
            "apart. Measure the whole model with lee.local_equivariance_error."
        ) from error

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The output (N, ...) of one chunk, `J_f(x)·(X_k·x)` and `X_k·f(x)`, (K, N, ...) each; the last is None if zero."""
        tangents = self.tangents(x)
        value, lanes = self.pushing(x, tangents)
        if not self._checked:
            check_output_actions(self.generators, value)
            self._checked = True
        still = not bool(lanes.any()) or (self.doubtful and not self._asked)
        if still and bool(tangents.any()):
            self._warn_if_constant(x)
        return value, lanes, _actions_on_output(self.generators, value, x, self.sampler, self.representations)

    def derivatives(self, x: Tensor) -> Tensor:
        """`L_k f(x)` of one chunk: shape (K, N, ...)."""
        _, lanes, moved = self(x)
        found = lanes if moved is None else lanes - moved
        self.pushing.decide(x, self.tangents, found, moved)
        return found

    @property
    def doubtful(self) -> bool:
        """Whether the derivative was zero, up to rounding, where it was checked."""
        verification = self.pushing.verification
        return verification is not None and ZERO in verification.note

    def nothing(self, x: Tensor) -> Tensor:
        """Whose Lie derivatives are what rounding leaves of zero, (n,), see :func:`is_rounding`."""

        def derive(z: Tensor) -> Tensor:
            _, lanes, moved = self(z)
            return lanes if moved is None else lanes - moved

        return is_rounding(derive, x)

    def _warn_if_constant(self, x: Tensor) -> None:
        """Tell an exactly invariant model from one that ignores its input, by its derivative in a random direction."""
        self._asked = self._asked or self.doubtful
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        if bool(is_rounding(lambda z: self.pushing(z, direction[None])[1], x).all()):
            warn_of_constant()


def is_rounding(derive: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Whose derivatives (K, n, ...) of images (n, ...) are what rounding leaves of zero, (n,).

    They are others once the last digits of an image are. How large they are says little: what cancelled inside is not known.
    """
    first = derive(x)
    if not bool(first.any()):
        return torch.ones(len(x), dtype=torch.bool)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).to(x)
    second = derive(x * (1 + 8 * torch.finfo(x.dtype).eps * noise))
    gaps, *sizes = (norms(lanes.transpose(0, 1)) for lanes in (first - second, first, second))
    return ~(gaps < 0.3 * torch.maximum(*sizes))
