"""What is in force while a function runs on stacks: no gradients, plain Python in place of compiled code, an eye on writes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lee.autodiff import passes
from lee.autodiff.tensor import Stacked, is_writer
from lee.autodiff.weights import forget


class _Writes(TorchDispatchMode):
    """While active, whoever writes in place, also into a plain tensor, first lets run what is deferred on that memory."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing is compiled inside, and torch's guard against that costs more than many an operator."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, state = kwargs or {}, passes.current()
        if state is None or not is_writer(func):
            return func(*args, **kwargs)
        memories = list(_written(func, args, kwargs))
        for memory, target in memories:
            state.before_write(memory)
            if isinstance(target, Stacked):
                target.group.before_write()
            else:
                forget(memory)
        out = func(*args, **kwargs)
        state.written.update(passes.storage_of(memory) for memory, _ in memories)
        return out


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """What an operator writes into: the memory, and the tensor that was given."""
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = given.get(argument.name)
            for target in value if isinstance(value, list | tuple) else [value]:
                if isinstance(target, Tensor) and target.layout is torch.strided:
                    yield target.buffer if isinstance(target, Stacked) else target, target


@contextmanager
def eager() -> Iterator[None]:
    """Run what `torch.compile` made as plain Python: the compiler can't look into stacked tensors and dual numbers."""
    if "torch._dynamo" not in sys.modules:  # so nothing is compiled, and its import is slow
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def stacked_pass() -> Iterator[None]:
    """Stacks that are made inside run through torch functions together; afterwards those that are left are constants."""
    watch = _Writes()  # type: ignore[no-untyped-call]
    with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), eager(), passes.new_pass(), watch:
        yield


def random_state(device: torch.device) -> Callable[[], None]:
    """What sets torch's random numbers back to where they are now."""
    state = torch.get_rng_state()
    other = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore() -> None:
        torch.set_rng_state(state)
        if other is not None:
            torch.cuda.set_rng_state(other, device)

    return restore


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients are switched on, and arrive at batch normalisation as torch's kernels need them."""
    with torch.enable_grad(), _Contiguous():
        yield


class _Contiguous(TorchFunctionMode):
    """Gradients of batch normalisation lie in memory as usual.

    Torch 2.15 on a CPU takes the gradient of one image's map with places and channels transposed, as tokens have them, for one that
    is not, and hands on another one in eval mode.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        named = getattr(func, "__name__", "") in ("batch_norm", "instance_norm")
        if named and isinstance(result, Tensor) and result.requires_grad:
            result.register_hook(Tensor.contiguous)
        return result
