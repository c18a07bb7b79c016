r"""Classification consistency under integer shifts.

.. math::
    \text{consistency} = \mathbb{E}_{x,\,s_1,\,s_2}\,
    \mathbb{1}\bigl[\arg\max f(\operatorname{shift}_{s_1} x) = \arg\max f(\operatorname{shift}_{s_2} x)\bigr]

Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019 (two shifts of the same image: circular ones
on CIFAR-10, crops of a larger image on ImageNet); Azulay & Weiss, JMLR 2019, compare with the unshifted image.
"""

from typing import Any

import torch
from torch import Tensor

from lee.errors import InputError, check_count, check_known
from lee.measure.checks import Output, check_input, check_output_name
from lee.measure.function import one_function
from lee.measure.looking import looked_at, warn_if_constant
from lee.metrics.errors import Model
from lee.metrics.motion import seeded
from lee.statistics import Estimate

BOUNDARIES = ("circular", "reflect", "crop")
REFERENCES = ("pair", "image")


def shifted(x: Tensor, shifts: Tensor, *, boundary: str = "circular", size: int | None = None) -> Tensor:
    """Each image of a batch moved by its own whole number of pixels.

    Args:
        x: Images (N, C, H, W).
        shifts: Rows and columns, (N, 2), integers: pixel (i, j) of the result is pixel (i + dy, j + dx) of the image, for
            `"crop"` counted from the corner.
        boundary: What comes in from outside: `"circular"`, `"reflect"` (edge pixels repeated), or `"crop"`: nothing, the
            result is a window of `size` pixels.
        size: Side of the window, for `"crop"` only.

    Raises:
        InputError: For an unknown boundary, a `size` that doesn't go with it, or a window that leaves the image.

    Examples:
        >>> shifted(torch.arange(4.0).view(1, 1, 1, 4), torch.tensor([[0, 1]]))
        tensor([[[[1., 2., 3., 0.]]]])
    """
    check_known("boundary", boundary, BOUNDARIES)
    if (size is None) == (boundary == "crop"):
        raise InputError("`size`, the side of the window in pixels, goes with boundary='crop' and with no other.")
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise InputError(
            f"Images must be a tensor (N, C, H, W); got {tuple(getattr(x, 'shape', ())) or type(x).__name__}."
        )
    if not isinstance(shifts, Tensor) or shifts.shape != (len(x), 2) or shifts.is_floating_point():
        got = f"{tuple(shifts.shape)} of {shifts.dtype}" if isinstance(shifts, Tensor) else type(shifts).__name__
        raise InputError(f"`shifts` must be a tensor of {len(x)} × 2 whole numbers; got {got}.")
    index = []
    for axis, length in enumerate(x.shape[-2:]):
        taken = torch.arange(size or length)[None, :] + shifts[:, axis, None].cpu()
        if boundary == "crop" and (int(taken.min()) < 0 or int(taken.max()) >= length):
            raise InputError(f"A window of {size} pixels leaves the image of {length} pixels at these shifts.")
        taken = taken.remainder(length if boundary == "circular" else 2 * length)
        index.append(torch.where(taken >= length, 2 * length - 1 - taken, taken).to(x.device))
    rows, columns = index[0][:, None, :, None], index[1][:, None, None, :]
    n, c = (torch.arange(k, device=x.device) for k in x.shape[:2])
    return x[n[:, None, None, None], c[None, :, None, None], rows, columns]


def _draw(x: Tensor, max_shift: int | None, size: int | None, random: torch.Generator) -> Tensor:
    """Uniform shifts (N, 2): within ± `max_shift` of the image, or of the centred window, or over all there are."""
    columns = []
    for length in x.shape[-2:]:
        low, high = (0, length - 1) if max_shift is None else (-max_shift, max_shift)
        if size is not None:
            room = length - size
            middle, reach = room // 2, room if max_shift is None else max_shift
            low, high = max(0, middle - reach), min(room, middle + reach)
        columns.append(torch.randint(low, high + 1, (len(x),), generator=random))
    return torch.stack(columns, 1)


def _check(x: Tensor, shifts: int, max_shift: int | None, boundary: str, size: int | None, reference: str) -> None:
    check_count("shifts", shifts)
    if max_shift is not None:
        check_count("max_shift", max_shift)
    if size is not None:
        check_count("size", size)
    if boundary == "reflect" and (max_shift is None or max_shift > min(x.shape[-2:])):
        raise InputError("boundary='reflect' needs `max_shift`, a number of pixels up to the image's side.")
    check_known("reference", reference, REFERENCES)
    if boundary == "crop" and (size is None or not 0 < size < min(x.shape[-2:])):
        raise InputError(
            f"boundary='crop' needs `size`, a window smaller than the images of {x.shape[-2]} × {x.shape[-1]} pixels."
        )


def agreement(
    model: Model,
    images: Tensor,
    *,
    shifts: int = 8,
    max_shift: int | None = None,
    boundary: str = "circular",
    size: int | None = None,
    reference: str = "pair",
    random: torch.Generator | None = None,
    output: Output = "logits",
    chunk: int = 64,
) -> Tensor:
    """How often the top-1 class of each image stays the same, (N,), float64 in [0, 1].

    Args:
        model: Any module or function of images that gives class scores (N, K).
        images: (N, C, H, W), floating point.
        shifts: Draws per image (pairs of shifts, or single ones).
        max_shift: Largest shift in pixels along each axis; None for all there are (which `"reflect"` doesn't allow).
        boundary: `"circular"` (Zhang's CIFAR-10 protocol), `"crop"` (his ImageNet protocol: windows of a larger image, so
            that nothing is invented), or `"reflect"`.
        size: Side of the windows, for `"crop"`.
        reference: `"pair"`: two random shifts are compared (Zhang). `"image"`: one is compared with the unshifted image.
        random: Source of the shifts; None for seed 0.
        output: `"logits"` for the scores themselves, or a callable that selects them.
        chunk: Images per pass.

    Raises:
        InputError: For input that can't be measured; the message says why.
    """
    check_output_name(output)
    check_input(model, images, image=True)
    _check(images, shifts, max_shift, boundary, size, reference)
    check_count("chunk", chunk)
    random = seeded(random)
    with one_function(model, output) as function, torch.no_grad():
        agreed = torch.zeros(len(images), dtype=torch.float64)  # not a tensor of inference mode
        some = images[:chunk]
        still = torch.zeros(len(some), 2, dtype=torch.long)
        values = looked_at(function, shifted(some, still, boundary=boundary, size=size), chunk)

        def classes(moves: Tensor) -> Tensor:
            parts = zip(images.split(chunk), moves.split(chunk), strict=True)
            return torch.cat([_top(values(shifted(x, s, boundary=boundary, size=size))) for x, s in parts])

        middle = [(n - size) // 2 if size is not None else 0 for n in images.shape[-2:]]
        fixed = classes(torch.tensor(middle).expand(len(images), 2)) if reference == "image" else None
        for _ in range(shifts):
            first = classes(_draw(images, max_shift, size, random)) if fixed is None else fixed
            agreed += (first == classes(_draw(images, max_shift, size, random))).double()
        if bool((agreed == shifts).all()):
            warn_if_constant(function, shifted(some, still, boundary=boundary, size=size)[:3])
    return agreed / shifts


def _top(scores: Tensor) -> Tensor:
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.is_complex():
        kind = "complex numbers of " if scores.is_complex() else ""
        raise InputError(f"Consistency needs class scores (N, K) with K ≥ 2; got {kind}shape {tuple(scores.shape)}.")
    return scores.argmax(1).cpu()


def consistency(model: Model, images: Tensor, *, boundary: str = "circular", **options: Any) -> Estimate:
    """Fraction of shifts under which the top-1 class stays the same, with its standard error over images.

    Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019; against the unshifted image: Azulay
    & Weiss, JMLR 2019.

    Args:
        model: Any module or function of images that gives class scores (N, K).
        images: (N, C, H, W), floating point.
        boundary: As for :func:`agreement`, and so are the options.
        **options: Its keyword arguments.

    Raises:
        InputError: For input that can't be measured; the message says why.
    """
    samples = agreement(model, images, boundary=boundary, **options)
    return Estimate.of(samples, name=f"{boundary} shifts", quantity="consistency")
