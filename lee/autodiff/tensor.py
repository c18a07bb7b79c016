"""The stacked tensor, and which way a torch function goes that meets one.

A :class:`Stacked` tensor looks like the primal, shape `(N, ...)`, and carries a buffer of shape `(1 + K, N, ...)`: slice 0
is the primal, the others are tangents. A linear operation then runs *once* on the whole stack (one convolution or
matrix product over `(1 + K)·N` images), and a non-linear one once on the primal, with its derivative multiplied into
the tangents. So K directional derivatives cost about as much as a forward pass over `1 + K` times the images, and no
graph is kept.

A rule is only asked where it was tested: real floating stacks of one precision, no autocast, no gradients. Whatever has no
rule is differentiated by functorch (:mod:`lee.autodiff.functorch`). This happens one level above the dispatcher, in
`__torch_function__`, because functorch's transforms can't be entered from inside it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lee.autodiff import passes
from lee.autodiff.messages import CannotStackError, ForwardModeError, LeavesTorchError, NoRuleError, name_of, short
from lee.autodiff.messages import note_fallback as note_fallback

RULES: dict[Any, Callable[..., Any]] = {}  # ATen overload -> rule
FUNCTION_RULES: dict[Any, Callable[..., Any]] = {}  # torch function -> rule, tried before its decomposition
LINEAR: set[Any] = set()  # what only moves, copies or adds entries, so that its rule holds for complex stacks too

#: Below this dispatch key torch links each view to its base, which would keep all bases alive.
_VIEWS = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
#: What a tensor says of itself without its values.
_FACTS = frozenset(
    [getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda")]
    + [Tensor.size, Tensor.dim]
)
#: What hands a tensor's values, or its memory, to something other than torch.
LEAVING = frozenset({
    "item", "tolist", "numpy", "__array__", "__float__", "__complex__", "__dlpack__", "from_dlpack", "to_dlpack", "data_ptr",
    "untyped_storage", "storage", "_typed_storage", "share_memory_", "pin_memory", "__reduce_ex__",
})  # fmt: skip
#: What is piecewise constant, or for the eye only.
STEPS = frozenset({"__bool__", "__int__", "is_nonzero", "__format__"})
#: What returns a view or a copy, depending on strides.
DOUBTFUL = frozenset({"reshape", "reshape_as", "flatten", "ravel", "contiguous", "to"})


class Stacked(Tensor):
    """A primal and K tangents in one buffer of shape `(1 + K, N, ...)`; to torch code it looks like the primal.

    Args:
        buffer: The primal and its tangents, (1 + K, N, ...); None where `deferred` will give them.
        deferred: What has not run yet: it has `.run() -> buffer`, and in `.like` the shape, strides, dtype and device
            of the primal.
    """

    # Why one buffer is right: a linear A has A(x + t v) = A x + t A v, so it acts on every slice alike, and what it costs
    # for one image more it costs for one tangent more. A non-linear rule computes slice 0 and multiplies its derivative into
    # the others; a constant that is added (a bias) belongs to slice 0 alone.
    # Where it stops being right: (1) a slice is read as the whole (values that leave torch, `LEAVING`); (2) memory is shared
    # in torch but not here, or the other way round, and then written (`passes.Group`); (3) a stack outlives its pass and meets
    # another one's, whose tangents are others (`home`); (4) a rule meets what it wasn't tested for (`_fits`,
    # `_check_surroundings`). The first two end the stacked pass, the third makes it a constant, the fourth asks functorch.
    _buffer: Tensor | None
    deferred: Any  # a lee.autodiff.convolution.Convolution that has not run yet
    home: passes.Pass | None
    group: passes.Group

    @staticmethod
    def __new__(cls, buffer: Tensor | None, deferred: Any = None) -> "Stacked":
        """Wrap `buffer`, or something with `.run() -> buffer` and the `.like` (shape, strides, dtype, device) of it."""
        like = deferred.like if buffer is None else buffer[0]
        if not has_tangents(like):
            raise NoRuleError(f"{like.dtype} has no tangents")
        self = Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device, requires_grad=False
        )
        self._buffer, self.deferred = buffer, deferred
        self.home, self.group = passes.current(), passes.Group()
        return self

    def __init__(self, buffer: Tensor | None, deferred: Any = None) -> None:
        super().__init__()

    @property
    def buffer(self) -> Tensor:
        """The stack, shape (1 + K, N, ...)."""
        # Whoever reads the values runs what was deferred; whoever reads shape or dtype alone (`_FACTS`) does not.
        if self._buffer is None:
            with torch._C._DisableTorchDispatch(), torch._C._ExcludeDispatchKeyGuard(_VIEWS):
                self._buffer, self.deferred = self.deferred.run(), None
        return self._buffer

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Stacked(shape={tuple(self.shape)}, dtype={self.dtype})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Apply a rule for the whole function, else its ATen decomposition, else functorch."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in _FACTS:
                return func(*args, **(kwargs or {}))
            if not torch.is_inference_mode_enabled():
                return _apply(func, args, kwargs or {})
            with torch.inference_mode(False), torch.no_grad():  # there, torch neither decomposes nor differentiates
                return _apply(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Apply the rule of an ATen operator."""
        rule, kwargs = RULES.get(func), kwargs or {}
        tensors = tensors_of((args, kwargs))
        if _are_over(tensors):
            return func(*constant(args), **constant(kwargs))
        _check_surroundings(func, tensors)
        if any(map(_is_wrapper, tensors)):
            return NotImplemented  # it makes plain tensors of itself, and asks again
        if rule is None or not _fits(func, tensors, args):
            raise NoRuleError(f"no stacked rule for {func}")
        result = rule(func, *args, **kwargs)
        if result is NotImplemented:
            raise NoRuleError(f"no stacked rule for {func} with these arguments")
        if is_view(func):
            for part in tensors_of([result]):
                part.group = args[0].group  # type: ignore[attr-defined]
        return result


def _apply(func: Any, args: Any, kwargs: Any) -> Any:
    from lee.autodiff.functorch import by_functorch, into

    tensors = tensors_of((args, kwargs))
    if _are_over(tensors):
        return func(*constant(args), **constant(kwargs))
    _check_surroundings(func, tensors)
    name, rule, state = short(name_of(func)), FUNCTION_RULES.get(func), passes.current()
    if name in LEAVING or name in STEPS:
        return _leave(func, name, args, kwargs)
    if kwargs.get("out") is not None:
        return into(func, args, kwargs)
    if rule is not None and _fits(func, tensors, args):
        # What it does concerns nobody.
        with torch._C._DisableTorchDispatch(), torch._C._ExcludeDispatchKeyGuard(_VIEWS):
            result = rule(func, *args, **kwargs)
        if result is not NotImplemented:
            return result
    # torch's own decomposition into ATen operators comes next: each of them meets `__torch_dispatch__` and its rule there. If
    # one has none, the whole function is differentiated by functorch instead, which is right only as long as the operators
    # before it have not yet changed anything in place.
    if state is not None:
        state.written.clear()
    try:
        with torch._C._ExcludeDispatchKeyGuard(_VIEWS):
            result = func(*args, **kwargs)
    except NoRuleError as error:
        if state is not None and any(_storage(t) in state.written for t in tensors):
            raise CannotStackError(f"{error}, inside of {name}, which has written in place before") from error
        return by_functorch(func, args, kwargs)
    except LeavesTorchError:
        raise LeavesTorchError("item" if name == "_local_scalar_dense" else name) from None
    if name in DOUBTFUL and isinstance(result, Stacked) and (name != "to" or "memory_format" in kwargs):
        result = Stacked(result.buffer) if result is args[0] else result
        result.group = passes.Group()
        result.group.doubt(args[0].group)
    return result


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors among arguments, also those in lists, tuples and dictionaries."""
    found: list[Tensor] = []
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list, dict)):
            found += tensors_of(value)
    return found


def has_tangents(value: Any) -> bool:
    """Whether a tensor (or the description of one) is of a type that has derivatives."""
    return value.dtype.is_floating_point or value.dtype.is_complex


def _storage(value: Tensor) -> int | None:
    memory = value._buffer if isinstance(value, Stacked) else value
    return None if memory is None or memory.layout is not torch.strided else passes.storage_of(memory)


def _are_over(tensors: list[Tensor]) -> bool:
    """Whether there are stacks of a pass that has ended: what a model keeps from one call to the next is a constant."""
    return any(isinstance(t, Stacked) and t.home is not None and not t.home.is_open for t in tensors)


def constant(values: Any) -> Any:
    """Arguments in which the stacks of former passes are their primals."""
    return pytree.tree_map(lambda v: v.buffer[0] if isinstance(v, Stacked) and _are_over([v]) else v, values)


def _check_surroundings(func: Any, tensors: list[Tensor]) -> None:
    """Refuse what the values alone don't show.

    Raises:
        ForwardModeError: Under autocast, where a rule would compute in another precision than torch.
        CannotStackError: If the function takes gradients inside: rules leave no graph. Or if a tensor is of a class that computes
            functions in its own way: rules don't ask it.
    """
    if torch._C._is_any_autocast_enabled() and any(torch.is_autocast_enabled(t.device.type) for t in tensors):
        raise ForwardModeError(f"{short(name_of(func))} under autocast")
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise CannotStackError("gradients are taken inside the function")
    if any(_overrides(type(t)) for t in tensors):
        raise CannotStackError(f"{short(name_of(func))} of a tensor with a __torch_function__ of its own")


def _fits(func: Any, tensors: list[Tensor], args: Any) -> bool:
    """Whether all floating-point arguments have one precision and are plain, and real unless the operator is linear."""
    if any(map(_is_wrapper, tensors)):
        return False
    dtypes = {t.dtype for t in tensors if has_tangents(t)}
    if len(dtypes) != 1:
        return False
    return func in LINEAR or not (dtypes.pop().is_complex or any(isinstance(a, complex) for a in args))


def _is_wrapper(value: Tensor) -> bool:
    """Whether a tensor is somebody else's that computes in its own way, such as quantised weights, and may have no memory."""
    dispatch = type(value).__torch_dispatch__
    return not isinstance(value, Stacked) and dispatch is not torch._C._disabled_torch_dispatch_impl


@cache
def _overrides(kind: type[Tensor]) -> bool:
    """Whether a class of tensors, not ours, has a `__torch_function__` of its own."""
    theirs = getattr(kind.__torch_function__, "__func__", kind.__torch_function__)
    usual = Tensor.__torch_function__.__func__, torch._C._disabled_torch_function_impl  # type: ignore[attr-defined]
    return not issubclass(kind, Stacked) and theirs not in usual


def is_moving(value: Any) -> bool:
    """Whether a value is a stack with a tangent that isn't zero."""
    return isinstance(value, Stacked) and bool(value.buffer[1:].any())


def _leave(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """What a function makes of the primal, if that is a constant."""
    if name in LEAVING and any(map(is_moving, tensors_of((args, kwargs)))):
        raise LeavesTorchError(name)
    return func(*map(primal, args), **kwargs)


def primal(value: Any) -> Any:
    """The primal of a stacked tensor; anything else unchanged."""
    return value.buffer[0] if isinstance(value, Stacked) else value


@cache
def is_view(func: Any) -> bool:
    """Whether an operator returns views of its first argument."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


@cache
def is_writer(func: Any) -> bool:
    """Whether an operator writes into one of its arguments."""
    schema = getattr(func, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
