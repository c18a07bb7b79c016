"""The layer-wise estimator that the paper describes, from its description: the baseline of `benchmarks/layerwise.py`.

For one image, every leaf module `m` (a module that calls no other) with input `h` contributes
`v_m = df_after · Λ_m`, where `Λ_m = d/dt|₀ ρ_out(-t) m(ρ_in(t) h)` is its own Lie derivative. The paper differentiates
a finite, bilinear transform at `t = 0` by double backward, and estimates `‖v_m‖² = E_u ⟨u, v_m⟩²` from random probes `u`
at the model's output with `E u uᵀ = 1`: one backward pass per probe gives `⟨u, v_m⟩ = ⟨uᵀ df_after, Λ_m⟩` for every leaf.

Three things are kept out of this baseline on purpose, so that it shows the estimator at its best: each tensor is moved
by the representation that it has (given by the caller), an in-place module reads its input rather than its output, and
the transform is the identity at `t = 0` to the last bit, so that rounding flips no ReLU.

Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023, arXiv 2210.02984 (the layer-wise decomposition and its estimator).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from lee.geometry.generators import Generator
from lee.geometry.representations import Map, Representation, Scattered, Tokens, Trivial
from lee.geometry.sampling import Sampler

Key = tuple[str, int]  # path of a module, and which of its calls
Readings = Mapping[Key, tuple[Sequence[Representation | None], Sequence[Representation | None]]]


@lru_cache(maxsize=64)
def rounded_positions(size: int, dtype: torch.dtype) -> Tensor:
    """Pixel coordinates 0 … size-1 as `affine_grid` gives them at `t = 0`: integers up to rounding, (size,).

    A bilinear sampler has a kink at each of them, and its `floor` takes the side that the rounding error is on.
    """
    grid = F.affine_grid(torch.eye(2, 3, dtype=dtype)[None], [1, 1, size, size], align_corners=True)[0, 0, :, 0]
    return ((grid + 1) / 2) * (size - 1)


def _reflected(index: Tensor, size: int) -> Tensor:
    return (size - 1 - (size - 1 - index.abs()).abs()).clamp(0, size - 1)


def warp(z: Tensor, t: Tensor, generator: Generator, sampler: Sampler) -> Tensor:
    """Pull maps `z` (N, C, H, W) back along a spatial generator by `t`, bilinearly; twice differentiable at `t = 0`.

    Like the released code, it reflects at the border and places the outer pixels' centres on it (align_corners=True).
    """
    field_ = sampler.fields([generator], *z.shape[-2:])[0].to(z)
    positions, cells, fractions = sampler.coordinates(*z.shape[-2:]), [], []
    for axis, size in ((0, z.shape[-1]), (1, z.shape[-2])):
        spacing = float(positions[axis][1] - positions[axis][0]) if size > 1 else float("inf")
        node, start = torch.arange(size).to(z), rounded_positions(size, z.dtype) if size > 1 else z.new_zeros(1)
        along = (1, -1) if axis == 0 else (-1, 1)
        moved = t * field_[axis] / spacing
        cell = (start.view(along) + moved.detach()).floor()
        cells.append(cell.long())
        fractions.append(node.view(along) - cell + moved)
    (left, top), (u, v) = cells, fractions
    out = z.new_zeros(())
    for row, down in ((top, 1 - v), (top + 1, v)):
        for column, across in ((left, 1 - u), (left + 1, u)):
            taps = z[:, :, _reflected(row, z.shape[-2]), _reflected(column, z.shape[-1])]
            out = out + taps * (down * across)
    return out


def act(representation: Representation, z: Tensor, t: Tensor, generator: Generator, sampler: Sampler) -> Tensor:
    """`ρ(exp tX) z` of a tensor with any of the layouts that are inferred from a model."""
    if isinstance(representation, Trivial):
        return z.clone()  # an in-place module may change it
    if isinstance(representation, Map):
        maps = z.movedim(-1, 1) if representation.channels_last else z
        out = warp(maps, t, generator, sampler)
        return out.movedim(1, -1) if representation.channels_last else out
    if isinstance(representation, Tokens):
        grid, prefix = representation.grid, representation.prefix
        moved = warp(z[:, prefix:].mT.unflatten(-1, grid), t, generator, sampler)
        return torch.cat([z[:, :prefix], moved.flatten(-2).mT], 1)
    if isinstance(representation, Scattered):
        samples, index = z.reshape(-1, representation.numel), representation.index
        moved = warp(samples[:, index].mT.unflatten(-1, representation.grid), t, generator, sampler)
        flat = moved.flatten(-2).mT.flatten(1)
        return samples.scatter(1, index.flatten().expand(len(samples), -1), flat).reshape(z.shape)
    raise NotImplementedError(f"No bilinear transform of {representation}.")


@dataclass
class Leaf:
    """One call of a leaf module.

    Args:
        path: Dotted path of the module.
        call: 0 for its first call, 1 for its second, …
        outputs: Its output tensors, in the graph of the traced pass.
        local: Its own Lie derivative `Λ`, one tensor per output; None where a tensor has no known representation.
        samples: `⟨u, v⟩² / dim` of every probe, (probes,), float64.
    """

    path: str
    call: int
    outputs: list[Tensor]
    local: list[Tensor] | None
    samples: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    @property
    def norm2(self) -> float:
        """The estimate of `‖v‖² / dim`."""
        return float(self.samples.mean())

    @property
    def stderr(self) -> float:
        """Its standard error over probes."""
        return float(self.samples.std() / len(self.samples) ** 0.5)


def floats(value: Any) -> list[Tensor]:
    """The floating-point tensors in nested arguments or outputs."""
    return [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor) and v.is_floating_point()]


def _rebuilt(value: Any, replace: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with its floating-point tensors replaced, in their order."""
    leaves, spec = pytree.tree_flatten(value)
    new = [replace(v) if isinstance(v, Tensor) and v.is_floating_point() else v for v in leaves]
    return pytree.tree_unflatten(new, spec)


def local_derivative(
    module: Callable[..., Any], args: Any, kwargs: Any, inputs: Sequence[Representation], outputs: Sequence[Representation],
    generator: Generator, sampler: Sampler,
) -> list[Tensor]:  # fmt: skip
    """`d/dt|₀ ρ_out(-t) m(ρ_in(t) h)`, by double backward, one tensor per output."""

    def moved(t: Tensor) -> tuple[Tensor, ...]:
        ways = iter(inputs)
        there = _rebuilt((args, kwargs), lambda z: act(next(ways), z, t, generator, sampler))
        found = floats(module(*there[0], **there[1]))
        return tuple(act(r, z, -t, generator, sampler) for r, z in zip(outputs, found, strict=True))

    zero = torch.zeros((), dtype=floats((args, kwargs))[0].dtype)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        return list(torch.autograd.functional.jvp(moved, zero, torch.ones_like(zero))[1])


@contextmanager
def recorded(model: nn.Module, readings: Readings, generator: Generator, sampler: Sampler) -> Iterator[list[Leaf]]:
    """Collect every leaf's call in a forward pass, with its local derivative, as the pass goes."""
    leaves: list[Leaf] = []
    seen: Counter[str] = Counter()
    stash: dict[str, tuple[Any, Any]] = {}
    busy = False

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not busy:
                stash[path] = _rebuilt((args, kwargs), lambda z: z.detach().clone())

        return hook

    def after(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            nonlocal busy
            if busy:
                return None
            inputs, outputs = readings.get((path, seen[path]), ((None,), (None,)))
            known, local = [r for r in (*inputs, *outputs) if r is not None], None
            if len(known) == len(inputs) + len(outputs):
                busy = True
                try:
                    local = local_derivative(
                        module, *stash[path], known[: len(inputs)], known[len(inputs) :], generator, sampler
                    )
                finally:
                    busy = False
            del stash[path]
            leaves.append(Leaf(path, seen[path], floats(output), local))
            seen[path] += 1
            return _rebuilt(output, lambda z: z.clone())  # the recorded tensors must survive an in-place successor

        return hook

    handles = []
    for path, module in model.named_modules():
        if next(module.children(), None) is None:
            handles += [
                module.register_forward_pre_hook(before(path), with_kwargs=True),
                module.register_forward_hook(after(path), with_kwargs=True),
            ]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


def estimate(
    model: nn.Module,
    x: Tensor,
    generator: Generator,
    readings: Readings,
    *,
    probes: int = 100,
    output: Callable[[Tensor], Tensor] = lambda z: z.softmax(-1),
    seed: int = 0,
    weight_gradients: bool = False,
) -> list[Leaf]:
    """The paper's estimate of `‖v‖² / dim` for every call of a leaf module, for one image (1, C, H, W).

    Args:
        model: In eval mode.
        x: The image.
        generator: A spatial generator.
        readings: Representations of the floating-point inputs and outputs of each call; a call that is missing or has an
            unknown one gets no estimate.
        probes: Gaussian vectors at the output; one backward pass each.
        output: What is measured, of the model's output.
        seed: Of the probes.
        weight_gradients: Whether each backward pass computes the gradients of the parameters too, which nobody needs, as a
            plain `.backward()` does.

    Returns:
        The calls in the order in which they ended.
    """
    sampler = Sampler("authors", "reflect", align_corners=True).for_image(*x.shape[-2:])
    with recorded(model, readings, generator, sampler) as leaves, torch.enable_grad():
        result = output(model(x.detach().clone().requires_grad_()))
    tensors = [z for leaf in leaves for z in leaf.outputs if z.requires_grad]
    wanted = [*tensors, *(p for p in model.parameters() if weight_gradients and p.requires_grad)]
    random, rows = torch.Generator().manual_seed(seed), []
    for _ in range(probes):
        u = torch.randn(result.shape, dtype=result.dtype, generator=random)
        back = iter(torch.autograd.grad(result, wanted, u, retain_graph=True, allow_unused=True))
        rows.append([_inner(leaf, [next(back) if z.requires_grad else None for z in leaf.outputs]) for leaf in leaves])
    samples = torch.tensor(rows, dtype=torch.float64) ** 2 / prod(result.shape[1:])
    for leaf, column in zip(leaves, samples.T, strict=True):
        leaf.samples = column if leaf.local is not None else column * torch.nan
    return leaves


def _inner(leaf: Leaf, cotangents: Sequence[Tensor | None]) -> float:
    """`⟨uᵀ df_after, Λ⟩` of one leaf."""
    if leaf.local is None:
        return 0.0
    return sum(float((g * d).sum()) for g, d in zip(cotangents, leaf.local, strict=True) if g is not None)
