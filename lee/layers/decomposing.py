"""The entry of the decomposition: images in chunks, one mode of differentiation, moments joined."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lee import memory
from lee.autodiff import workspace
from lee.errors import InputError, check_count, check_known, check_number
from lee.geometry.generators import Action, AnyGenerator, Generator, get
from lee.geometry.outputs import Representations
from lee.layers.calls import check_modules
from lee.layers.decomposition import Decomposition, Moments, table
from lee.layers.deflation import Deflation
from lee.layers.folds import FoldError
from lee.layers.passes import Pass, Setting
from lee.layers.readings import Overrides
from lee.layers.trace import Traced, trace
from lee.layers.verified import Measuring, parents_of
from lee.measure.checks import Output, batches_of, check_input, check_output_name, count_of
from lee.measure.derivative import automatic_chunk
from lee.measure.function import one_function
from lee.measure.pushing import Pushing
from lee.measure.terms import Terms, sampler_of
from lee.statistics import Estimate, Verification, unit_of

MODES = ("auto", "forward", "reverse", "deflated", "probes")
GRIDS = ("registered", "centred")
LANES = 12  # lanes that keep the plain part of a stacked pass small beside them


def layerwise(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    generator: AnyGenerator,
    *,
    mode: str = "auto",
    tolerance: float = 0.01,
    probes: int = 100,
    seed: int = 0,
    output: Output = "probabilities",
    kernel: str = "fourier",
    boundary: str = "reflect",
    align_corners: bool = False,
    grids: str = "registered",
    representations: Representations = None,
    chunk: int | None = None,
    verify: bool = True,
    progress: bool = False,
) -> Decomposition:
    r"""Decompose a model's Lie derivative over its module calls, exactly and completely.

    By the chain rule :math:`L_X f = \sum_m v_m` over the parts `m` of a model, each with its local Lie derivative
    :math:`\Lambda_m = J_m (X \cdot h_m) - X \cdot m(h_m)` pushed to the output. Every call of every module is measured, leaf
    and container; what a container's children leave unexplained (residual additions, attention, position embeddings) is
    its self term. Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023 (layerwise decomposition), made exact and complete.

    Args:
        model: Any module; left as it was.
        images: Images (N, C, H, W), or an iterable of such batches, or of `(batch, labels, …)`.
        generator: An affine or photometric generator, a name or a mixture.
        mode: `"forward"` (one lane per call) and `"reverse"` (one vector-Jacobian product per output) are exact. `"deflated"`, for
            probabilities of many classes, is exact in the directions in which each image's probabilities can move most, and
            estimates what is left of `norm2` from one or a few random ones (`lee.layers.deflation`); shares stay exact.
            `"probes"` estimates everything from random directions, shares too, as the paper does. `"auto"` takes the cheaper exact
            one, or deflates where that takes less than half as long.
        tolerance: In mode `"deflated"`, the standard error over probes that is aimed at for a call's `norm2`, relative to it. It
            holds for a call whose term has no preferred direction in the class scores; `probe_se` says what was reached. If 0,
            `"auto"` stays exact.
        probes: Random directions per image in mode `"probes"`.
        seed: Seed of the random directions.
        output: As for :func:`lee.lie_derivative`, and so are the kernel, the boundary and the pixel convention.
        kernel: Interpolation kernel.
        boundary: Boundary extension.
        align_corners: Pixel convention.
        grids: `"registered"`: a map's samples lie where its layers put them, output `i` of a convolution or pooling with
            kernel `k`, stride `s`, padding `p` and dilation `d` at `i s + d (k - 1)/2 - p` of its input. `"centred"`: every map
            covers the image evenly. With `align_corners=True` every map covers it from border to border, as in the paper's code.
        representations: How tensors transform where that can't be followed: a mapping from patterns of module paths to
            a representation of the matching modules' outputs, or None to count them in the module around; `"output"` names
            the model's own output.
        chunk: Images times lanes per pass, which bounds the memory; None chooses by size.
        verify: Whether to check, on the first images, that the total is the derivative of the function's values, and that
            the parts sum to it.
        progress: Whether to show a progress bar.

    Returns:
        The decomposition. Its frame has one row per call: `path`, `type`, `call`, `depth`, `parent` (row of the caller),
        `kind` (`leaf`, `container`, or `merged` where a tensor has no known representation or is handed on by a hook or an
        attribute, so that the call is part of its parent's self term), `norm2` :math:`= E\|v\|^2/\dim`,
        `share` :math:`= E\langle v, L\rangle / E\|L\|^2`, the same of the self term (`self_norm2`, `self_share`: these shares
        sum to 1, estimated ones but for their noise), standard errors over images (`…_se`), and `cumulative`, the running sum of
        `self_norm2` in the order in which calls end. Where `norm2` is estimated, `probe_se` is its standard error over
        random directions.

    Raises:
        InputError: For input that can't be measured, with the module's path where there is one.
        VerificationError: If the derivative disagrees with the function's values, or the parts with the derivative.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> parts = layerwise(net, torch.rand(2, 1, 8, 8), "rotation")
        >>> round(float(parts.frame.self_share.sum()), 4)
        1.0

        Of many classes, without a pass for each of them:

        >>> many = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 500))
        >>> parts = layerwise(many, torch.rand(2, 3, 8, 8), "rotation", mode="deflated", tolerance=0.2)
        >>> bool((parts.frame.probe_se <= parts.frame.norm2).all())
        True
    """
    resolved = _checked(generator, output, mode, tolerance, probes, seed, chunk)
    check_known("grids", grids, GRIDS)
    inner = check_modules(model)
    overrides = Overrides(representations)
    random = torch.Generator().manual_seed(seed)
    traces: dict[tuple[int, ...], list[Traced]] = {}
    measured: list[Pass] = []
    total = count_of(images)
    deflation = Deflation(tolerance, total) if output == "probabilities" and tolerance > 0 else None
    measuring: Measuring | None = None
    given = representations
    if isinstance(representations, Mapping):
        given = {"output": representations["output"]} if "output" in representations else None
    with (
        memory.kept(), one_function(inner, output) as function, torch.no_grad(),
        tqdm(total=total, unit="image", disable=not progress, leave=False) as bar,
    ):  # fmt: skip
        pushing = Pushing(function, "auto", verify)
        for batch in batches_of(images):
            check_input(inner, batch, image=True)
            terms = Terms(pushing, [resolved], sampler_of(batch, kernel, boundary, align_corners), given)
            if batch.shape[1:] not in traces:
                try:
                    traces[batch.shape[1:]] = trace(inner, batch[:1], overrides, centred=grids == "centred")
                except Exception as error:
                    terms.explain(error, batch)
                    raise
            terms.start(batch)
            first = next(iter(traces.values()))
            steered = traces[batch.shape[1:]][0].steered  # then every image may be laid out in its own way
            for images_alike in batch.split(1) if steered else [batch]:
                found = traces[batch.shape[1:]]
                if steered:
                    found = trace(inner, images_alike, overrides, centred=grids == "centred")
                if [(t.call, t.placed) for t in found] != [(t.call, t.placed) for t in first]:
                    raise InputError(
                        "The images make different module calls, or some of a call's tensors can be followed for one image and not "
                        "for another, so there is no common list of layers. Measure images that are alike together."
                    )
                if measuring is None:
                    setting = Setting(
                        inner, resolved, terms.sampler, terms, mode, probes, deflation, random, found, parents_of(found)
                    )
                    measuring = Measuring(setting, verify)
                measuring.turn_to(terms, found)
                for part in _measured(measuring, images_alike, pushing.chunk(chunk)):
                    measured.append(part)
                    bar.update(len(part.moments.total))
    if measuring is None:
        raise InputError("There are no images: the iterable gave no batch.")
    overrides.check_used([t.call.path for t in found])
    return _summed(measured, found, parents_of(found), resolved, output, kernel, measuring.verification)


def _checked(
    generator: AnyGenerator, output: Output, mode: str, tolerance: float, probes: int, seed: int, chunk: int | None
) -> Generator:
    resolved = get(generator)
    if isinstance(resolved, Action):
        raise InputError(
            "A decomposition needs an affine or photometric generator; an action (x, t) -> x says nothing of hidden layers."
        )
    check_output_name(output)
    check_known("mode", mode, MODES)
    check_number("tolerance", tolerance, 0, 1, least=True)
    if mode == "deflated" and (output != "probabilities" or tolerance == 0):
        raise InputError(
            "mode='deflated' needs output='probabilities' and a tolerance above 0; use 'forward' or 'reverse' for exact numbers, "
            "or 'probes' for random directions alone."
        )
    check_count("probes", probes, 2)
    check_count("seed", seed, 0)
    if chunk is not None:
        check_count("chunk", chunk)
    return resolved


def _measured(measuring: Measuring, batch: Tensor, chunk: int | None) -> Iterator[Pass]:
    """The batch in parts; halves the chunk when memory runs out, and goes image by image where a fold can't be followed."""
    lanes_times_images = chunk or automatic_chunk(batch, 0)
    start, singly = 0, False
    while start < len(batch):
        n = 1 if singly else max(1, lanes_times_images // LANES)
        part = batch[start : start + n]
        try:
            with workspace(part):
                measured = measuring(part, max(1, lanes_times_images // len(part)))
        except FoldError:
            singly = True
            continue
        except Exception as error:
            if lanes_times_images == 1 or not memory.is_shortage(error):
                raise
            lanes_times_images //= 2
            warnings.warn(f"Out of memory: going on with chunk={lanes_times_images}.", stacklevel=3)
            continue
        yield measured
        start += len(part)


def _summed(
    measured: list[Pass],
    found: list[Traced],
    parents: list[int],
    generator: Generator,
    output: Output,
    kernel: str,
    verification: Verification | None,
) -> Decomposition:
    moments = Moments.joined([m.moments for m in measured])
    unit, name = unit_of(generator), generator.name
    total = Estimate.of(moments.total, unit=unit, kernel=kernel, name=name)._replace(verification=verification)
    frame = table(found, moments, parents)
    # Relative to the largest term where the total is smaller: terms that cancel leave their rounding behind.
    size = max(float(moments.total.mean()), float(moments.norm2.mean(0).max())) or 1.0
    # The median image: in single precision rounding puts an entry of a few images on the other side of a kink.
    left = [float(torch.cat([m.gap for m in measured]).median())]
    left += [float(moments.self_norm2[:, i].mean()) for i in _pure_sequences(found, parents)]
    notes = tuple(f"{t.call.name} ({t.call.type}): {t.why}" for t, p in zip(found, parents, strict=True) if p == -2)
    spoken = output if isinstance(output, str) else getattr(output, "__name__", "callable")
    modes = {m.mode for m in measured}
    mode = "deflated" if "deflated" in modes else measured[0].mode
    return Decomposition(frame, total, (max(left) / size) ** 0.5, name, spoken, kernel, mode, notes, verification)


def _pure_sequences(found: list[Traced], parents: list[int]) -> list[int]:
    """Measured calls of `nn.Sequential` all of whose direct children are measured: their self terms must vanish."""
    hidden = {t.call.parent for t, p in zip(found, parents, strict=True) if p == -2}
    return [
        i for i, t in enumerate(found)
        if t.call.type == "Sequential" and parents[i] != -2 and i not in hidden and t.call.index > 0 and not t.leaf
    ]  # fmt: skip
