"""What makes a model more than one function, found out on its first images.

A derivative is a statement about one function. A model that draws random numbers, changes its own parameters while it runs
or lets the images of a batch interact is many: the first two are held still, the third is said.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lee.errors import InputError, LeeError
from lee.measure.function import Function
from lee.measure.plausible import warn_of_probabilities
from lee.measure.reference import generic, narrowed
from lee.measure.state import RandomState
from lee.measure.warned import warn_of_batch, warn_of_constant, warn_of_random, warn_of_state
from lee.memory import is_shortage, unless_refused


def look(function: Function, x: Tensor) -> Tensor:
    """Find out, on one to three images (n, ...), what makes this more than one function, and warn.

    A model that takes one image alone, such as an exported one, is looked at on the first, and given one at a time from then on.

    The first must be given the same alone and in one pass with another before it and one behind it: then nothing is random, and
    images don't interact.

    Returns:
        The value for the first image.

    Raises:
        InputError: If something in it is not finite, or two calls differ for a reason that can't be held still.
    """
    try:
        value = _look(function, x)
    except Exception as error:
        if len(x) == 1 or isinstance(error, LeeError | Warning) or is_shortage(error):
            raise
        value = _look(function, x[:1])
        function.single = True
    function.notices = partial(_notices, function)
    return value


def _look(function: Function, x: Tensor) -> Tensor:
    function.state.restore(hooks=False)  # a pass before may have changed it
    function.results, before = [], RandomState(function.roots)
    first = function.watched(x[:1])
    if function.output == "probabilities":
        warn_of_probabilities(function.results[-1])
    function.results = None
    function.changes = function.state.changed()
    draws = before.drawn() and not _seeds_itself(function, x[:1])
    if len(x) > 1 and not function.changes and not draws:
        among, spread = _together(function, x)
        if among is not None and not _differ(among, first, max(_eps(first), _eps(x)) ** 0.75, spread):
            return first
    first = function.checked(x[:1])
    if draws or _differ(first, function.value(x[:1])):  # what leaves out a branch at random often gives the same twice
        _hold_still(function, x[:1])
        first = function.value(x[:1])
    elif function.changes and _remembers(function, x, x[:1] if len(x) > 1 else x[:1].flip(-1)):
        warn_of_state()
    if not function.one_by_one:  # then each image is measured alone
        _look_at_batch(function, x)
    return first


#: How Python learns a tensor's values, on which it may depend what a model does next.
_ASKING = (
    "__bool__", "__int__", "__float__", "__index__", "__contains__", "__array__", "item", "tolist", "numpy", "equal", "allclose",
)  # fmt: skip


class _Asked(TorchFunctionMode):
    """Notes whether the values of a tensor are asked for."""

    found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        self.found = self.found or getattr(func, "__name__", "") in _ASKING
        return func(*args, **(kwargs or {}))


def _seeds_itself(function: Function, x: Tensor) -> bool:
    """Whether a call leaves the random numbers in the same state wherever they were, as one with a seed of its own does."""
    after = RandomState(function.roots)
    function.value(x)
    function.seeds_itself = not after.drawn()
    return function.seeds_itself


def _notices(function: Function, x: Tensor, before: RandomState) -> bool:
    """Whether a pass over `x` (n, ...) has drawn random numbers or changed modules, as no image before: hold them still, and warn.

    What images before have given stays right: they drew nothing, and met the state that was given.
    """
    drawn = not function.random and not function.seeds_itself and before.drawn()
    changed = not function.changes and function.state.changed(by_value=False)
    if not drawn and not changed:
        return False
    function.notices, function.changes = None, function.changes or changed
    try:
        if changed and _remembers(function, x, x):
            warn_of_state()
        if drawn and not _seeds_itself(function, x):
            function.random = True
            warn_of_random()
    finally:
        function.notices = partial(_notices, function)
    return True


def _among_others(x: Tensor) -> Tensor:
    """The first of two or three images (n, ...) as the second: an image may depend on those before it, or behind it."""
    return torch.cat([x[1:2], x[:1], x[2:3]])


def _together(function: Function, x: Tensor) -> tuple[Tensor | None, float]:
    """The value for the first image in one pass with others, and how far another image's is from it.

    The value is None where there is one image, or memory for one alone.
    """
    if len(x) < 2:
        return None, 0.0
    some = _among_others(x)
    try:
        with _Asked() as asked:
            values = function.value(some)
        function.decides = function.decides or asked.found
        function.sound(values, some)
    except Exception as error:
        if not is_shortage(error):
            raise
        return None, 0.0
    return values[1:2], float(_wide(values[:1] - values[1:2]).norm()) if len(values) > 1 and _eps(values) else 0.0


def _hold_still(function: Function, x: Tensor) -> None:
    for random, changes in ((True, function.changes), (False, True), (True, True)):
        function.random, function.changes = random, changes
        if not _differ(function.value(x), function.value(x)):
            break
    else:
        raise InputError(
            "The model gives another value at every call, whatever the state of torch's, NumPy's and Python's random "
            "numbers and of its parameters; make it a function of its input."
        )
    if function.random:
        warn_of_random()
    else:
        warn_of_state()


def _remembers(function: Function, x: Tensor, before: Tensor) -> bool:
    """Whether what a call with some images changes in the modules changes the next call's value for the last one of `x`."""
    fresh = function.value(x[-1:])
    function.value(before)
    with torch.no_grad():
        return _differ(fresh, function.run(x[-1:].clone()).detach())


def _look_at_batch(function: Function, x: Tensor) -> None:
    (among, spread), one = _together(function, x), function.value(x[:1])
    if among is None:
        return
    eps = max(_eps(among), _eps(x))  # a model may go on in double precision what came in single
    if not _differ(among, one, eps**0.75, spread):
        return
    if function.convertible and eps > 1e-12:
        try:  # kernels round differently for other sizes of a batch
            function.interacts = _interacts(function, x)
        except Exception:  # then the function has no double precision
            function.interacts = _differ(among, one, eps**0.5, spread)
    else:
        function.interacts = _differ(among, one, max(eps, _inner_eps(function, x, one)) ** 0.5, spread)
    if function.interacts:
        warn_of_batch()


def _interacts(function: Function, x: Tensor) -> bool:
    """Whether an image has another value among others, in double precision."""
    values = function.in_double(_among_others(x))
    return _differ(values[1:2], function.in_double(x[:1]), 1e-9, float(_wide(values[:1] - values[1:2]).norm()))


def look_closer(function: Function, x: Tensor) -> None:
    """Find out whether images (n, ...) interact by less than single precision shows beside a large constant, and warn."""
    if len(x) > 1 and function.convertible and not function.interacts and not function.one_by_one and _eps(x) > 1e-12:
        with unless_refused():
            function.interacts = _interacts(function, x)
    if function.interacts:
        warn_of_batch()


def _inner_eps(function: Function, x: Tensor, value: Tensor) -> float:
    """The rounding that a value in double precision may have come through inside the function."""
    found = narrowed(lambda: function.value(x[:1])) if _eps(value) < 1e-12 else ""
    return float(torch.finfo(getattr(torch, found)).eps) if found else _eps(value)


def look_at_chunk(function: Function, x: Tensor, value: Tensor, *, first: bool = True) -> None:
    """Find out whether images of a chunk `x` (n, ...) have other values than among them, `value`, where they are few, and warn.

    The first one is looked at alone: one image may decide for all (an early exit if each is easy), and is rarely that one. That can
    happen in any chunk if the function `decides`. Of the first chunk the last ones are looked at, too, in the opposite order: where
    images compete for places (a mixture of experts with a capacity), the last ones lose and the first one never does.
    """
    if len(x) == 1 or function.interacts or function.one_by_one or not (first or function.decides):
        return
    eps = max(_eps(value), _eps(x))
    last = list(range(len(x)))[::-1][: min(4, max(1, len(x) // 4))]
    for few in ([0], last) if first else ([0],):
        apart = _apart(value, few, function.value(x[few]))
        if apart > 10 * eps**0.5 and apart > 10 * _inner_eps(function, x, value) ** 0.5:
            function.interacts = True
            warn_of_batch()
            return


def looked_at(function: Function, images: Tensor, chunk: int) -> Callable[[Tensor], Tensor]:
    """Look at a function on the first of some images (N, ...) and at their first chunk, and warn.

    Returns:
        What gives the finite values of any number of images, `chunk` at a time, or one where they must go alone.

    Raises:
        InputError: As :func:`look`.
    """
    look(function, images[:3])
    size = 1 if function.one_by_one else chunk
    first = images[:size]
    if len(first) > 1:
        look_at_chunk(function, first, function.checked(first))

    def values(x: Tensor) -> Iterator[Tensor]:
        for part in x.split(size):
            value = function.checked(part)
            look_at_chunk(function, part, value, first=False)
            yield value

    return lambda x: torch.cat(list(values(x)))


def _apart(value: Tensor, few: list[int], again: Tensor) -> float:
    """Largest distance of an image's output among a few, `again`, from that among all, `value` (n, ...).

    It is relative to the output's size, or to a part of the usual one where that is more, or to how far images are apart where
    that is less: most of an output may be a constant.
    """
    if value[few].shape != again.shape or value.dtype != again.dtype:
        return math.inf
    every, b = _wide(value), _wide(again)
    gaps, sizes, from_mean = (v.reshape(len(v), -1).norm(dim=1) for v in (every[few] - b, b, every - every.mean(0)))
    spread, usual = (float(v.square().mean().sqrt()) for v in (from_mean, sizes))
    scales = sizes.clamp(min=0.03 * usual).clamp(max=max(spread, 10 * _eps(value) ** 0.5 * usual))
    return float((gaps / torch.where(scales > 0, scales, 1.0)).max())


def warn_if_constant(function: Function, x: Tensor) -> None:
    """Where moved images have changed nothing: tell an invariant model from one that gives images like `x` (n, ...) one output."""
    x = x[:1] if function.one_by_one else x
    if torch.equal(function.checked(x), function.checked(generic(x))):
        warn_of_constant()


def _wide(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.complex128 if value.dtype.is_complex else torch.float64)


def _eps(value: Tensor) -> float:
    """Precision of a value's dtype; 0 for whole numbers."""
    return torch.finfo(value.dtype).eps if value.is_floating_point() or value.is_complex() else 0.0


def _differ(a: Tensor, b: Tensor, tolerance: float | None = None, spread: float = math.inf) -> bool:
    """Whether two outputs are further apart than rounding, relative to their size.

    Most of an output may be a constant, of which two images' outputs are `spread` apart: then relative to that.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return True
    if not a.dtype.is_floating_point and not a.dtype.is_complex:
        return not torch.equal(a, b)
    allowed = 100 * torch.finfo(a.dtype).eps if tolerance is None else tolerance
    gap, size = float((_wide(a) - _wide(b)).norm()), float(_wide(b).norm())
    rounding = max(4 * torch.finfo(a.dtype).eps, 100 * allowed**2) * size
    return gap > min(allowed * size, max(allowed ** (2 / 3) * spread, rounding))  # not for NaN, which has its own error
