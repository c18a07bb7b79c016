"""Mean squared errors in decibels: against the range that outputs lie in."""

import math

import torch
from torch import Tensor

from lee.errors import InputError, check_count, check_number
from lee.measure.checks import Output, check_input, check_output_name
from lee.measure.function import one_function
from lee.measure.looking import looked_at
from lee.metrics.errors import Model
from lee.statistics import Estimate


def psnr(mse: Estimate, dynamic_range: float) -> Estimate:
    r"""The peak signal-to-noise ratio `10 log₁₀(I² / MSE)` in dB; infinite where the error is zero.

    Args:
        mse: A mean squared error.
        dynamic_range: `I`, the width of the interval that outputs lie in: 1 for probabilities and for images in [0, 1], 2 for
            images in [-1, 1] (Karras et al.), :func:`output_range` for features.

    Returns:
        The value in dB; its standard error by the delta method.

    Raises:
        InputError: If `dynamic_range` is not positive or the error is negative.

    Examples:
        >>> psnr(Estimate(0.01, 0.001, 9), 1.0).value
        20.0
    """
    if not isinstance(mse, Estimate):
        raise InputError(f"`mse` must be an estimate, as lee.metrics.eq_t gives it, not {mse!r}.")
    check_number("dynamic_range", dynamic_range, 0)
    if mse.value < 0:
        raise InputError(f"A mean squared error can't be negative: {mse.value!r}.")
    if mse.value == 0:
        return mse._replace(value=math.inf, stderr=0.0, unit="dB")
    value = 10 * math.log10(dynamic_range**2 / mse.value)
    return mse._replace(value=value, stderr=10 / math.log(10) * mse.stderr / mse.value, unit="dB", skew=-mse.skew)


def output_range(model: Model, images: Tensor, *, output: Output = "logits", chunk: int = 32) -> float:
    """Largest minus smallest number in the model's output over these images: the `I` of :func:`psnr` for features.

    Args:
        model: Any module or function of images.
        images: (N, C, H, W).
        output: `"logits"` (the output itself), `"probabilities"`, or a callable on it.
        chunk: Images per pass.

    Raises:
        InputError: For input that can't be measured.
    """
    check_output_name(output)
    check_input(model, images, image=False)
    check_count("chunk", chunk)
    with one_function(model, output) as function, torch.no_grad():
        values = looked_at(function, images, chunk)(images)
    if values.is_complex():
        raise InputError("The output is complex, so it has no range; select its real part or its size with `output`.")
    return float(values.max()) - float(values.min())
