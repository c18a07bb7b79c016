"""A mean over images with its standard error."""

import math
from typing import NamedTuple

from torch import Tensor

from lee.errors import InputError
from lee.statistics.verification import Verification


class Estimate(NamedTuple):
    """A mean over images with its standard error.

    Args:
        value: The mean.
        stderr: Its standard error; NaN for a single image.
        n: Number of images.
        unit: Unit of the value.
        kernel: Interpolation kernel that the value depends on.
        name: What was measured: the generator, say.
        quantity: Which measure it is.
        verification: What was checked of the derivative behind it; None where nothing was.

    Examples:
        >>> print(Estimate(0.0123456, 0.00123, 100, "per half side²", "fourier", "translation_x"))
        LEE translation_x = 0.0123 ± 0.0012 per half side² (n = 100, kernel fourier)
    """

    value: float
    stderr: float
    n: int
    unit: str = ""
    kernel: str = ""
    name: str = ""
    quantity: str = "LEE"
    verification: Verification | None = None

    @classmethod
    def of(
        cls, samples: Tensor, *, unit: str = "", kernel: str = "", name: str = "", quantity: str = "LEE"
    ) -> "Estimate":
        """Mean and standard error of one number per image, (n,).

        Args:
            samples: One number per image, (n,).
            unit: Unit of the numbers.
            kernel: Interpolation kernel that they depend on.
            name: What was measured.
            quantity: Which measure it is.

        Raises:
            InputError: If there is no image.
        """
        n = samples.numel()
        if n == 0:
            raise InputError("There are no images to average over.")
        samples = samples.double().cpu()
        stderr = float(samples.std(correction=1) / math.sqrt(n)) if n > 1 else math.nan
        return cls(float(samples.mean()), stderr, n, unit, kernel, name, quantity)

    @property
    def digits(self) -> str:
        """`value ± stderr` alone, with two significant digits of the error."""
        return _digits(self.value, self.stderr)

    def __str__(self) -> str:
        details = f"(n = {self.n}" + (f", kernel {self.kernel})" if self.kernel else ")")
        title = f"{self.quantity} {self.name} = " if self.name else ""
        return " ".join(p for p in (f"{title}{self.digits}", self.unit, details) if p)


def _digits(value: float, stderr: float) -> str:
    if not math.isfinite(stderr) or stderr <= 0:
        return f"{value:.4g} ± {stderr:.2g}"
    if value and not 1e-4 <= abs(value) < 1e5:
        exponent = math.floor(math.log10(abs(value)))
        inner = _digits(value / 10**exponent, stderr / 10**exponent)
        return f"({inner})e{exponent:+03d}"
    places = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{places}f} ± {stderr:.{places}f}"
