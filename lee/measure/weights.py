"""Weights and values that are no numbers: NaN, infinity, and tensors on the device meta, which have no values at all."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lee.errors import InputError
from lee.measure.state import all_modules
from lee.measure.storage import is_plain


def check_weights(roots: Sequence[nn.Module]) -> None:
    """Refuse modules without parameters, and numbers that are none. (Buffers may be infinite: masks are.)"""
    for root in roots:
        for path, module in root.named_modules():
            place = f"module {path or 'model'} ({type(module).__name__})"
            parameters, buffers = (
                dict(module.named_parameters(recurse=False)),
                dict(module.named_buffers(recurse=False)),
            )
            if any(map(nn.parameter.is_lazy, [*parameters.values(), *buffers.values()])):
                raise InputError(
                    f"The {place} has no parameters yet: run the model once on a batch of images, then measure it."
                )
            for name, value in {**parameters, **buffers}.items():
                usual = is_plain(value) and value.is_floating_point() and value.element_size() > 1
                if usual and not _is_usable(value, name in buffers):
                    raise InputError(
                        f"The {name} of the {place} holds NaN or infinity, so there is no number: restore the weights."
                    )


def _is_usable(value: Tensor, infinite: bool) -> bool:
    """Whether a tensor holds numbers alone, or numbers and infinity."""
    value = value.detach()  # torch looks at them with `out=`, which it refuses to differentiate
    if _sums_up(value):
        return True
    return not bool(value.isnan().any()) if infinite else bool(value.isfinite().all())


def _sums_up(value: Tensor) -> bool:
    """Whether the sum is finite: then every entry is, and one pass has shown it. A sum that is not may only be too large."""
    return bool(value.detach().sum().isfinite())


def with_values(roots: Sequence[nn.Module]) -> AbstractContextManager[Any]:
    """Refuse weights on the device meta where they are used: a convolution would give numbers that mean nothing.

    The skeleton of an ensemble (`torch.func.functional_call`) lies there, and is never used itself.
    """
    values = {
        id(value): f"The {name} of the module {path or 'model'} ({type(module).__name__})"
        for root in roots for path, module in root.named_modules()
        for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)) if value.is_meta
    }  # fmt: skip
    return _WithValues(values) if values else nullcontext()


class _WithValues(TorchFunctionMode):
    """Refuses values that are computed from tensors without any, of which some have names by `id`."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        bare = next((v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor) and v.is_meta), None)
        if bare is None:
            return func(*args, **kwargs)
        said = f"{self.names.get(id(bare), 'A tensor in the model')} lies on the device meta, without values: load weights."
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            raise InputError(said) from error
        # Its shape may be asked for, and skeletons handed on: weights that are fetched when a module runs leave one behind.
        if any(isinstance(v, Tensor) and not v.is_meta for v in pytree.tree_leaves(result)):
            raise InputError(said)
        return result


def first_module_that_fails(roots: Sequence[nn.Module], run: Callable[[], Any], *, masks: bool) -> str | None:
    """Name of the first module that is given NaN or ∞ in `run()`, or gives NaN or infinity (but -∞, which masks, if `masks`)."""
    names = {id(m): f"{path or 'model'} ({type(m).__name__})" for r in roots for path, m in r.named_modules()}
    found: list[str] = []

    def fails(value: Tensor, masks: bool) -> bool:
        return not _sums_up(value) and bool((value.isnan() | (value.isposinf() if masks else value.isinf())).any())

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if any(fails(v, True) for v in _floats(args)):
            found.append(f"{names[id(module)]}, in what it is given")
        elif any(fails(v, masks) for v in _floats(output)):
            found.append(names[id(module)])

    handles = [m.register_forward_hook(hook) for m in all_modules(roots) if not isinstance(m, torch.jit.ScriptModule)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _floats(values: Any) -> list[Tensor]:
    listed = values if isinstance(values, tuple | list) else [values]
    plain = [v for v in listed if isinstance(v, Tensor) and not torch._C._functorch.is_functorch_wrapped_tensor(v)]
    return [v for v in plain if v.is_floating_point() and v.layout == torch.strided and not v.is_nested]
