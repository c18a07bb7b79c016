r"""How much of a network's equivariance error is aliasing: the folded part of every layer's term, pushed to the output.

A layer `m` acts on samples, but most layers would act on the continuous signal through them just as well: a pointwise
non-linearity or an attention at any places, a convolution with a stride at every pixel. Read there, low-passed to what the grid
of the output holds, and then sampled, a layer gives :math:`m^\circ(h)`, its output without aliasing. What is left,

.. math::
    a_m(h) = m(h) - m^\circ(h),

are the waves that have been folded. The Lie derivative is linear in the function, so a layer's local term falls into two,
:math:`\Lambda_m = \Lambda_{m^\circ} + \Lambda_{a_m}` with :math:`\Lambda_{a_m} = J_{a_m}(X \cdot h) - X \cdot a_m(h)`. By the chain
rule the terms of all layers, each pushed to the output by the derivative :math:`P_m` of the layers after it, sum to the total:

.. math::
    L = v + w, \qquad v = \sum_m P_m \Lambda_{a_m}, \qquad
    \text{share} = \mathbb{E}\,\langle v, L\rangle \,/\, \mathbb{E}\,\lVert L\rVert^2 .

The shares of `v` and `w` sum to 1. On periodic signals a layer that commutes with whole shifts of its output's grid has
:math:`\Lambda_{m^\circ} = 0`: all of its error is aliasing, and a network of such layers has share 1. What remains to `w` are
borders (padding, what enters the picture), position embeddings, layers that mix places by fixed weights, and waves too fine for
the finer grid.

Which layers are read between the samples, and how:

- What commutes with every exchange of places (non-linearities, normalisation, attention) is applied on a grid `factor`
  times as fine in both directions, as in :class:`lee.geometry.FilteredActivation`.
- What has a stride is run with stride 1, and low-passed before it is thinned out. (Of a max-pool that misses the waves which the
  maximum makes beyond its input's grid.)
- What is linear without a stride folds nothing.
- All else is taken to fold nothing, and so is what happens between the modules: then `share` leaves something out.
  :attr:`AliasedPart.left_out` names these layers.

Sources: Gruver et al., ICLR 2023 (aliasing, and the layerwise decomposition); Karras et al., NeurIPS 2021 (a layer's continuous
counterpart).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lee.autodiff.pushforward import push_leaves
from lee.errors import InputError, check_count
from lee.geometry.generators import AnyGenerator, Generator
from lee.geometry.representations import Trivial
from lee.geometry.sampling import Sampler
from lee.layers.between import Layer, is_inside, readable
from lee.layers.calls import Call, Watch, check_modules
from lee.layers.families import FAMILIES
from lee.layers.forward import Run, push_together
from lee.layers.local import ForwardError, action
from lee.layers.readings import Overrides
from lee.layers.trace import Traced, check_call, hooks_of, trace_alike
from lee.measure.checks import Output, check_input
from lee.measure.derivative import told_apart
from lee.measure.function import one_function
from lee.measure.pushing import Pushing
from lee.measure.terms import Terms, sampler_of
from lee.statistics import Estimate


@dataclass(frozen=True, eq=False)
class AliasedPart:
    """The part `v` of a network's Lie derivative `L` that is aliasing.

    Args:
        total: `‖L‖²/dim` of every image, (n,).
        parts: `⟨v, L⟩/dim` and `‖v‖²/dim` of every image, (n, 2), for each family of layers; `"all"` is for all together.
        left_out: Names of the layers that are taken to fold nothing and might, with their types.
    """

    total: Tensor = field(repr=False)
    parts: dict[str, Tensor] = field(repr=False)
    left_out: tuple[str, ...] = ()

    def share(self, family: str = "all") -> Estimate:
        """`E⟨v, L⟩ / E‖L‖²`, with its error over images to first order (the delta method).

        Args:
            family: One of `parts`.
        """
        along, mean = self.parts[family][:, 0], self.total.mean()
        value = along.mean() / mean
        return Estimate.of(value + (along - value * self.total) / mean, name=family, quantity="share")

    @property
    def frame(self) -> pd.DataFrame:
        """A row per family: `family`, its `share` with the 95 % interval `low` and `high`, `norm2` for `E‖v‖² / E‖L‖²`, and `n`."""
        rows = []
        for name, numbers in self.parts.items():
            share = self.share(name)
            low, high = share.interval()
            norm2 = float(numbers[:, 1].mean() / self.total.mean())
            rows.append({"family": name, "share": share.value, "low": low, "high": high, "norm2": norm2, "n": share.n})
        return pd.DataFrame(rows)


def aliased_part(
    model: nn.Module,
    images: Tensor,
    generators: Sequence[AnyGenerator] = ("translation_x", "translation_y"),
    *,
    factor: int = 4,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    chunk: int = 8,
) -> AliasedPart:
    """Push the folded part of every layer's term to the output, and set it beside the whole Lie derivative.

    Args:
        model: Any module; left as it was.
        images: Images (N, C, H, W).
        generators: Affine generators, names or mixtures, whose squared errors are added.
        factor: How many times finer the grid is on which non-linearities are read; finer waves count as not folded.
        output: As for :func:`lee.lie_derivative`, and so are the next two.
        kernel: Interpolation kernel.
        boundary: Boundary extension.
        chunk: Images per pass.

    Raises:
        InputError: For a generator that isn't affine, a factor or chunk below 1, and as :func:`lee.layerwise`.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        >>> found = aliased_part(net, torch.rand(2, 1, 8, 8), output="logits", boundary="circular", factor=16)
        >>> bool(found.share().value > 0.95)  # periodic, and of layers that commute with whole shifts
        True
    """
    affine = told_apart(generators)
    if not affine or not all(isinstance(g, Generator) and g.is_spatial for g in affine):
        raise InputError("Only affine motions of the image fold waves; give a list of affine generators.")
    check_count("factor", factor)
    check_count("chunk", chunk)
    inner = check_modules(model)
    check_input(inner, images, image=True)
    rows = []
    with one_function(inner, output) as function, torch.no_grad():
        terms = Terms(
            Pushing(function, "auto", True), affine, sampler_of(images, kernel, boundary, align_corners=False), None
        )
        terms.start(images)
        found = trace_alike(inner, images, Overrides(None))
        inputs = _inputs(inner, function, images[:1], found)
        layers, missed = readable(inner, inputs, found, factor, boundary)
        missed += _not_followed(inputs, layers, found)
        families = [f for f in FAMILIES if f in {name for name, _ in layers.values()}]
        for x in images.split(chunk):
            whole = terms.derivatives(x).flatten(2).double().cpu()
            inputs = _inputs(inner, function, x, found)
            total = torch.zeros(len(families) + 1, len(x), 3, dtype=torch.float64)
            for generator, derivative in zip(affine, whole, strict=True):
                assert isinstance(generator, Generator)
                v = whole.new_zeros(len(families), *derivative.shape)
                if layers:
                    folded = {
                        i: (families.index(name), _folded(layer, inputs[i], found[i], generator, terms.sampler))
                        for i, (name, layer) in layers.items()
                    }
                    try:
                        v = push_together(inner, function, x, folded, found).flatten(2).double().cpu()
                    except ForwardError as error:
                        raise InputError(
                            f"What the layers fold can't be pushed to the output of this model: {error}"
                        ) from error
                v = torch.cat([v, v.sum(0, keepdim=True)])
                total += torch.stack([v * derivative, v.square(), derivative.square().expand_as(v)], -1).mean(2)
            rows.append(total)
    numbers = torch.cat(rows, 1)
    parts = dict(zip([*families, "all"], numbers[..., :2], strict=True))
    return AliasedPart(numbers[-1, :, 2], parts, missed)


def _inputs(model: nn.Module, run: Run, x: Tensor, found: list[Traced]) -> dict[int, Tensor]:
    """The input of every call with one input and one output that have places."""
    kept = {}

    def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
        check_call(call, found)
        traced = found[call.index]
        if call.index and traced.placed and len(traced.inputs) == len(traced.outputs) == 1 and len(args) == 1:
            kept[call.index] = args[0].clone()

    with Watch(model, before, hooks=hooks_of(found)):
        run(x.clone())
    return kept


def _not_followed(inputs: Mapping[int, Tensor], layers: Collection[int], found: list[Traced]) -> tuple[str, ...]:
    """Names of layers with more than one tensor, or with one of unknown places, which are not tried at all."""
    return tuple(
        f"{t.call.name} ({t.call.type})" for t in found
        if t.leaf and not t.vanishes and t.call.index not in inputs and not is_inside(t.call.index, layers, found)
        and any(not isinstance(r.representation, Trivial) for r in (*t.inputs, *t.outputs))
    )  # fmt: skip


def _folded(layer: Layer, h: Tensor, traced: Traced, generator: Generator, sampler: Sampler) -> list[Tensor]:
    r""":math:`\Lambda_{a_m} = J_{a_m}(X \cdot h) - X \cdot a_m(h)`."""
    moving = action(traced.inputs[0].representation, h, generator, sampler)
    assert moving is not None
    (value,), (lane,) = push_leaves(lambda values: [layer(values[0])], [h], [moving])
    moved = action(traced.outputs[0].representation, value, generator, sampler)
    assert moved is not None
    return [-moved[0] if lane is None else lane[0] - moved[0]]
