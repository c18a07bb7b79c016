"""Torch's own operator database as functions of one tensor, and what becomes of their tangents."""

import itertools
import os
import random
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from lee.autodiff import pushforward, record_fallbacks
from lee.autodiff.functorch import load_formulas
from lee.errors import LeeError

Function = Callable[[Tensor], Tensor | None]
LARGEST = 3000  # entries of an argument that is moved
#: What has no values that could be compared: uninitialised memory, and kernels that are compiled for a GPU.
WITHOUT_VALUES = ("empty", "new_empty", "jiterator")
#: Casts to fewer digits are steps on a small scale, with the identity's derivative; the tangents are rounded like the values.
ROUNDING = {"bfloat16": 2**-8, "chalf": 2**-11, "half": 2**-11}
#: Torch's own values of the Bessel function are good to 1e-7 only, so its slope is.
ROUGH = {"special_bessel_j1": 1e-5, **ROUNDING}


@cache
def database() -> dict[str, Any]:
    """Operators by name, with all that its import changes elsewhere put back."""
    flags, environment = torch.backends, dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    flags.__allow_nonbracketed_mutation_flag = True  # type: ignore[attr-defined]
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    found = {op.formatted_name: op for op in op_db if torch.float64 in op.supported_dtypes("cpu")}
    return {name: op for name, op in found.items() if not name.startswith(WITHOUT_VALUES)}


class Case(NamedTuple):
    """A function, the place (1, n) where it is differentiated, whether it writes in place, and what it is called."""

    label: str
    in_place: bool
    function: Function
    x: Tensor


def plain(x: Tensor, shape: torch.Size) -> Tensor:
    """Twice `x`, like the other sources."""
    return (x * 2).reshape(shape)


def after_convolution(x: Tensor, shape: torch.Size) -> Tensor:
    """From a convolution, which has not run yet where the shape is that of images."""
    z = x.reshape(shape if len(shape) == 4 else (1, 1, 1, -1))
    y = F.conv2d(z, 2 * torch.eye(z.shape[1], dtype=x.dtype)[:, :, None, None])
    return y if len(shape) == 4 else y.reshape(shape)


def after_linear(x: Tensor, shape: torch.Size) -> Tensor:
    z = x.reshape(shape if shape and shape[-1] <= 64 else (-1, 1))
    return F.linear(z, 2 * torch.eye(z.shape[-1], dtype=x.dtype)).reshape(shape)


SOURCES = (plain, after_convolution, after_linear)


def joined(*values: Any) -> Tensor | None:
    """All real and complex entries in one vector."""
    parts = []
    for value in pytree.tree_leaves(values):
        if isinstance(value, Tensor) and value.layout is torch.strided:
            if value.is_complex():
                parts.append(torch.view_as_real(value.resolve_conj()).reshape(-1))
            elif value.is_floating_point():
                parts.append(value.reshape(-1))
    return torch.cat([p.double() for p in parts]) if parts else None


class _Sample:
    """An operator's arguments, one of which is replaced."""

    def __init__(self, op: Any, sample: Any, leaves: list[Any], tree: Any, place: int) -> None:
        self.op, self.sample, self.leaves, self.tree, self.place = op, sample, leaves, tree, place

    def call(self, run: Any, value: Tensor) -> Any:
        filled = [_copied(v, value.dtype) for v in self.leaves]
        filled[self.place] = value
        first, args, kwargs = pytree.tree_unflatten(filled, self.tree)
        seed(0)
        return run(first, *args, **kwargs)

    def as_it_is(self, value: Tensor) -> Tensor | None:
        out = self.call(partial(self.op.gradcheck_wrapper, self.op.op), value)
        return joined(self.sample.output_process_fn_grad(out))

    def in_place(self, value: Tensor) -> Tensor | None:
        mine = value * 1
        return joined(self.call(self.op.inplace_variant, mine), mine)

    def on_a_view(self, value: Tensor) -> Tensor | None:
        both = torch.stack([value, value + 1])
        return joined(self.call(self.op.inplace_variant, both[0]), both)

    def ways(self) -> list[Any]:
        return [self.as_it_is] if self.op.inplace_variant is None else [self.as_it_is, self.in_place, self.on_a_view]


def seed(value: int) -> None:
    """Seed what samples are drawn with; `torch.manual_seed` would keep a traceback for every kind of device that is absent."""
    torch.default_generator.manual_seed(value)
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002


def samples(op: Any, dtype: torch.dtype, limit: int | None) -> list[Any]:
    """An operator's samples, as `op.sample_inputs` draws them: that reads the source of each frame above it for a test's name."""
    found: list[Any] = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        drawn = iter(op.sample_inputs_func(op, "cpu", dtype, False))
        while limit is None or len(found) < limit:
            seed(1234)
            if (sample := next(drawn, None)) is None:
                break
            found.append(sample)
    return found


def _copied(value: Any, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(dtype, copy=True) if value.is_floating_point() else value.clone()


def cases(name: str, dtype: torch.dtype = torch.float64, limit: int | None = None) -> Iterator[Case]:
    """The operator as a function of each of its floating-point arguments: as it is, and in place, on a tensor and on a view.

    Args:
        name: The operator's.
        dtype: Of the arguments.
        limit: How many of its samples, with one source for each function in turn; None takes all of all.
    """
    op = database()[name]
    count = itertools.count(len(name))
    for number, sample in enumerate(samples(op, dtype, limit)):
        leaves, tree = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        for place, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor) or leaf.dtype != dtype or leaf.layout is not torch.strided:
                continue
            if not 0 < leaf.numel() <= LARGEST:
                continue
            for way in _Sample(op, sample, leaves, tree, place).ways():
                turn = next(count) % len(SOURCES)
                for source in SOURCES if limit is None else SOURCES[turn : turn + 1]:

                    def function(
                        x: Tensor, way: Any = way, source: Any = source, shape: Any = leaf.shape
                    ) -> Tensor | None:
                        return way(source(x, shape))  # type: ignore[no-any-return]

                    label = f"sample {number}, argument {place}, {way.__name__}, {source.__name__}"
                    yield Case(label, way.__name__ != "as_it_is", function, leaf.detach().reshape(1, -1) / 2)


def difference(function: Function, x: Tensor, tangent: Tensor) -> tuple[Tensor, float]:
    """The derivative from values alone, and its estimated error."""
    table = []
    for h in (2e-4, 1e-4, 5e-5):
        ahead, behind = function(x + h * tangent), function(x - h * tangent)
        assert ahead is not None
        assert behind is not None
        if ahead.shape != behind.shape:
            return ahead, torch.inf
        table.append((ahead - behind) / (2 * h))
    first = [(4 * b - a) / 3 for a, b in itertools.pairwise(table)]
    best = (16 * first[1] - first[0]) / 15
    error = float((best - first[1]).norm())
    return best, error if error == error else torch.inf


def truth(function: Function, x: Tensor, tangent: Tensor, scale: float, stepped: bool) -> Tensor | None:
    """The derivative by differences; where those have no limit (steps, large numbers), torch's own; None if there is neither."""
    with torch.no_grad():
        found, error = difference(function, x, tangent)
    if not stepped and error <= 1e-7 * (float(found.norm()) + scale):
        return found
    load_formulas()
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            return torch.func.jvp(function, (x,), (tangent,))[1]  # type: ignore[no-any-return]
    except (RuntimeError, NotImplementedError):
        return None


class Outcome(NamedTuple):
    """What became of an operator's tangents, and why."""

    route: str
    reason: str


ROUTES = ("no derivative", "stacked", "functorch", "dual numbers", "refused")


def _why(text: str) -> str:
    """A message without what changes from sample to sample."""
    text = text.split("Use mode=")[0].split("Compute it with")[0].splitlines()[0].strip()
    return re.sub(r"\[[\d, ]+\]|\d+", "…", text)[:150]


def outcome(name: str, case: Case) -> Outcome | None:
    """Push tangents through an operator, and compare with the truth; None if there is nothing to compare.

    Raises:
        AssertionError: If the value or a tangent is wrong.
    """
    random = torch.Generator().manual_seed(0)
    dither = 1e-3 * torch.randn(case.x.shape, dtype=case.x.dtype, generator=random)
    x = torch.where(case.x == 0, dither.abs(), case.x * (1 + dither))  # off ties
    tangents = torch.randn(2, *x.shape, dtype=x.dtype, generator=random)
    try:
        with torch.no_grad():
            y = case.function(x.clone())
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None  # as broadcasting in place
    if y is None:
        return Outcome("no derivative", "no floating-point output")
    if not y.numel() or not torch.isfinite(y).all():
        return None
    try:
        with torch.no_grad(), record_fallbacks() as names:
            value, lanes = pushforward(case.function, x, tangents)
    except LeeError as error:
        return Outcome("refused", _why(str(error)))
    assert value.shape == y.shape, case.label
    size = float(y.norm())
    assert float((value - y).norm()) <= (1e-9 if x.dtype is torch.float64 else 1e-3) * size, f"{case.label}: value"
    double = x.double(), tangents.double().sum(0)
    known = truth(case.function, *double, 1e-6 * size, name in ROUNDING)
    if known is None or known.shape != y.shape or not torch.isfinite(known).all():
        return None
    if 0 < float(known.abs().max()) < torch.finfo(x.dtype).tiny:
        return None  # too small for the precision, as the product of many numbers
    found = torch.zeros_like(y) if lanes is None else lanes.sum(0).double()
    tolerance = ROUGH.get(name, 1e-6) if x.dtype is torch.float64 else 2e-3
    scale = float(known.norm()) + (1e-3 if x.dtype is torch.float64 else 1) * size
    gap = float((found - known).norm())
    assert gap <= tolerance * scale, f"{case.label}: {gap:.2g} off {scale:.2g}, {names}"
    whole = [n for n in names if n.startswith("whole function")]
    if whole:
        return Outcome("dual numbers", _why(whole[0].removeprefix("whole function (").removesuffix(")")))
    return Outcome("functorch", "no rule for these arguments") if names else Outcome("stacked", "")
