"""Central differences of a plain function at one generic image: what a derivative is held against."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lee.autodiff.tensor import has_tangents, tensors_of
from lee.errors import InputError, LeeError, reason
from lee.measure.function import Function
from lee.memory import is_shortage, unless_refused
from lee.process.alone import computed_once

DITHER = 0.01  # how far the checked image is moved towards noise of the same range
# Steps move an image by so much of its norm, the best first: small ones cross few kinks, large ones drown rounding.
_STEPS = {
    torch.float64: (1e-7, 1e-5, 1e-9, 1e-3, 1e-2, 3e-2, 0.1),
    torch.float32: (3e-3, 1e-2, 1e-3, 3e-4, 3e-2, 0.1),
}
_COARSE = (3e-2, 3e-3, 1e-2, 0.1, 0.3)


def generic(x: Tensor) -> Tensor:
    """`x` (N, ...) moved a little towards noise, within its own range."""
    random = torch.Generator().manual_seed(0)
    noise = torch.rand(x.shape, generator=random, dtype=torch.float32).to(x)
    low, high = x.amin(), x.amax()
    return x + DITHER * (low + (high - low) * noise - x)


def weights_of(tangents: Tensor, lanes: Tensor | None) -> Tensor:
    """Signs and sizes (K,) of a combination of K tangents (K, N, ...) that counts each with the same change of the output.

    Where a model hardly answers to one generator, an error there would drown beside the others. Lanes that are smaller
    than rounding leaves them are not enlarged further.

    Args:
        tangents: The tangents.
        lanes: What was pushed along them, (K, N, ...); None counts the tangents themselves with the same norm.
    """
    random = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (len(tangents),), generator=random) * 2.0 - 1
    sizes = (tangents if lanes is None else lanes).detach().flatten(1).abs().double().norm(dim=1).cpu()
    if not bool(torch.isfinite(sizes).all()) or not bool(sizes.any()):
        sizes = tangents.flatten(1).double().norm(dim=1).cpu()
        lanes = None
    floor = 0.0 if lanes is None else torch.finfo(lanes.dtype).eps ** 0.5 / 3 * float(sizes.max())
    sizes = sizes.clamp(min=floor)
    return torch.where(sizes > 0, signs * sizes.max() / sizes.clamp(min=1e-300), 0)


def combined(tangents: Tensor, weights: Tensor) -> Tensor:
    """The combination (1, N, ...) of K tangents or lanes (K, N, ...)."""
    return torch.einsum("k,k...->...", weights.to(tangents.device, tangents.dtype), tangents)[None]


class Reference:
    """Central differences of a plain function at one image.

    Args:
        function: The function.
        x: One image at a generic point, (1, ...), or two that interact.
        v: A tangent of the same shape.
        plain: The function's value at `x`.

    Attributes:
        double: Whether the modules are converted to double precision.
        dtype: The precision of the differences.
    """

    def __init__(self, function: Function, x: Tensor, v: Tensor, plain: Tensor) -> None:
        self.function, self.x, self.v, self.plain = function, x, v, plain
        self._slopes: dict[float, Tensor] = {}
        own = plain.dtype.to_real() if plain.is_complex() else plain.dtype
        coarse = max(x.dtype, own, key=lambda dtype: torch.finfo(dtype).eps)
        self.double, self.dtype = False, coarse
        if coarse != torch.float64 and function.convertible:
            self.double, self.dtype = True, torch.float64
            try:
                self._check_double()
            except Exception:  # whatever a user's model may raise when it meets another dtype
                self.double, self.dtype = False, coarse

    @property
    def steps(self) -> tuple[float, ...]:
        """The table of relative steps, the one to be tried alone first."""
        return _STEPS.get(self.dtype, _COARSE)

    def _pair(self, above: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        """The values at two points; together, unless they would meet other random numbers or each other."""
        function = self.function
        if not self.double:
            return function.value(above), function.value(below)
        if function.one_by_one or function.interacts or function.changes:
            values = function.in_double(above), function.in_double(below)
        else:
            values = function.in_double(torch.cat([above, below])).split(len(above))
        return values

    def slope(self, step: float, v: Tensor | None = None) -> Tensor:
        """The difference quotient along `v` (or another tangent) with one relative step, flat, in double precision."""
        if v is None and step in self._slopes:
            return self._slopes[step]
        first, second, h = self._values(step, self.v if v is None else v)
        slope = (flat(first) - flat(second)) / (2 * h)
        if v is None:
            self._slopes[step] = slope
        return slope

    def _distance(self, step: float, v: Tensor) -> float:
        """The `h` of a relative step along `v`."""
        size = float(v.double().norm())
        return step * (float(self.x.double().norm()) or 1e-3) / size if size > 0 else 1.0

    def _values(self, step: float, v: Tensor) -> tuple[Tensor, Tensor, float]:
        """The function's values at `x ± h v`, and `h`."""
        above, below, h = self._points(step, v)
        return *self._pair(above, below), h

    def _points(self, step: float, v: Tensor) -> tuple[Tensor, Tensor, float]:
        tangent, x, h = v.double(), self.x.double(), self._distance(step, v)
        above, below = x + h * tangent, x - h * tangent
        if not self.double:  # what the function really sees, after rounding
            above, below = above.to(self.x.dtype), below.to(self.x.dtype)
        return above, below, h

    def _check_double(self) -> None:
        """Take the first slope in double precision.

        Raises:
            TypeError: If the value that is known is not half way between the two: the converted model is another function.
        """
        step = self.steps[0]
        first, second, h = self._values(step, self.v)
        apart = flat(first + second) / 2 - flat(self.plain)
        eps = max(torch.finfo(v.dtype).eps for v in (self.plain, self.x))
        allowed = 10 * eps**0.5 * float(flat(self.plain).norm()) + 1e-30
        if torch.finfo(first.dtype).eps > 1e-15 or not float(apart.norm()) <= allowed:
            raise TypeError("no double precision")
        self._slopes[step] = (flat(first) - flat(second)) / (2 * h)

    def rounding(self, step: float) -> float:
        """What rounding of the values may at least do to the slope at a relative step."""
        return torch.finfo(self.dtype).eps * float(flat(self.plain).norm()) / self._distance(step, self.v)

    def _table(self) -> tuple[list[float], list[Tensor]]:
        """The steps that the model bears, ascending, and the slopes; fewer than two are refused."""
        steps, table, refusal = [], [], None
        for step in sorted(self.steps):
            try:
                table.append(self.slope(step))
                steps.append(step)
            except Exception as error:  # a model may refuse what lies outside a table of its own, say
                if isinstance(error, LeeError) or is_shortage(error):
                    raise
                refusal = error
        if len(steps) < 2 and refusal is not None:
            raise InputError(
                f"The model fails on images that differ a little from the given ones ({reason(refusal)}), so its derivative can't "
                "be checked. Keep what it accepts away from the border, or measure with verify=False."
            ) from refusal
        return steps, table

    @computed_once
    def best(self) -> tuple[Tensor, float, float]:
        """The slope at a step that a neighbour agrees with, how far that is (or rounding, if that is more), and the step.

        It is the usual step, or the smallest whose neighbour is nearly as close as any: larger ones cross more kinks at other
        images.
        Steps that are too small for a function with stairs (rounding, quantised weights) give exactly zero; they say nothing
        where larger ones don't.
        """
        steps, table = self._table()
        moving = [i for i, slope in enumerate(table) if bool(slope.any())]
        first = min(moving[0], len(table) - 2) if moving else 0
        kept = range(first, len(table))
        noises = {i: min(float((table[i] - table[j]).norm()) for j in (i - 1, i + 1) if j in kept) for i in kept}
        noises = {i: max(n, self.rounding(steps[i])) for i, n in noises.items()}
        quietest = min(noises, key=noises.__getitem__)
        enough = max(3 * noises[quietest], 1e-6 * float(table[quietest].norm()))
        usual = steps.index(self.steps[0])
        chosen = usual if noises.get(usual, math.inf) <= enough else min(i for i, n in noises.items() if n <= enough)
        return table[chosen], noises[chosen], steps[chosen]

    @computed_once
    def response(self) -> float:
        """Norm of the slope along a random tangent as long as `v`: the scale on which a slope counts as zero.

        The smaller of two, with the step of :meth:`best` and with the largest: small steps may give nothing but the rounding of a
        function that computes in single precision inside, which is no scale.
        """
        random = torch.Generator().manual_seed(2)
        direction = torch.randn(self.v.shape, generator=random, dtype=torch.float32).to(self.v)
        direction *= self.v.norm() / direction.norm().clamp(min=1e-30)
        sizes = [float(self.slope(self.best[2], direction).norm())]
        with unless_refused():  # so far from the image a model may refuse what it is given
            sizes.append(float(self.slope(max(self._table()[0]), direction).norm()))
        return min(filter(None, sizes), default=0.0)

    @computed_once
    def narrowing(self) -> str:
        """A sentence for a function that rounds double precision away inside; empty for others."""
        above, below, _ = self._points(self.steps[0], -self.v)
        found = narrowed(lambda: self._pair(above, below))
        return f"the model computes in {found} inside, whatever it is given" if found else ""


def narrowed(run: Callable[[], Any]) -> str:
    """The name of a lower precision that something in double precision is converted to while it runs; empty if nothing is."""
    watching = _Narrowing()  # type: ignore[no-untyped-call]
    with unless_refused(), watching:  # a model's own modes or tensors may not go together with this one
        run()
    return watching.found


class _Narrowing(TorchDispatchMode):
    """Notes a lower precision that something in double precision is converted to."""

    found = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.dtype for t in tensors_of(args)}
        if given & {torch.float64, torch.complex128}:
            lower = [t.dtype for t in tensors_of([out]) if has_tangents(t) and torch.finfo(t.dtype).eps > 1e-12]
            self.found = self.found or "".join(str(dtype).removeprefix("torch.") for dtype in lower[:1])
        return out


def flat(value: Tensor) -> Tensor:
    """All entries in a row, in double precision on the CPU."""
    wide = torch.complex128 if value.is_complex() else torch.float64
    return value.detach().to("cpu", wide).flatten()


def norms(values: Tensor) -> Tensor:
    """The norm of what belongs to each image (n, ...): (n,), float64 on the CPU."""
    wide = torch.complex128 if values.is_complex() else torch.float64
    return values.reshape(len(values), -1).to("cpu", wide).norm(dim=1)
