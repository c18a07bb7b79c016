"""What belongs to the whole process, and so to one thread at a time: torch's switches, random numbers, dual numbers, modules.

A copy of the process that another thread forks in the middle has what was changed, but not the thread that would put it back:
it does so itself, before it measures anything.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from lee.errors import InputError, check_count, reason

Undo = Callable[[], None]
T = TypeVar("T")
P = ParamSpec("P")

_lock = threading.RLock()
#: How to put back what is changed at the moment, and what a fork has found changed.
_open: list[Undo] = []
_left: list[Undo] = []
_SWITCHES = (
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
)
#: What torch may compute in less than single precision, as the user has set it or by itself (TF32 in cuDNN's convolutions).
_BACKENDS: Any = torch.backends
_ROUNDED = (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn)
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
_EXACT = (*_ROUNDED, _BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn)


@contextmanager
def alone() -> Iterator[None]:
    """Let other threads wait that would change the same; a thread may enter again. Torch's switches are as before at the end.

    Single precision is IEEE's meanwhile, whatever torch is allowed to round to.
    """
    with _lock:
        while _left:
            _left.pop()()
        if _open:
            yield
            return
        before = [(switch, is_on()) for is_on, switch in _SWITCHES]
        precisions = [(backend, backend.fp32_precision) for backend in _EXACT]

        def restore() -> None:
            for switch, on in before:
                switch(on)
            for backend, precision in precisions:
                backend.fp32_precision = precision

        with put_back(restore):
            for backend in _EXACT:
                backend.fp32_precision = "ieee"
            yield


@contextmanager
def without_autocast() -> Iterator[None]:
    """Products keep the precision that their factors have, also inside the user's own `torch.autocast`.

    Raises:
        InputError: If a model that mixes precisions needs it.
    """
    on = [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)] if torch._C._is_any_autocast_enabled() else []
    with ExitStack() as stack:
        for kind in on:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            yield
        except RuntimeError as error:
            if not on or "dtype" not in str(error):
                raise
            raise InputError(
                f"The model fails without the torch.autocast around it, which is off while measuring ({reason(error)}): enter it "
                "inside the model's forward."
            ) from error


@contextmanager
def in_tf32() -> Iterator[None]:
    """GPUs round the factors of products to TF32; to be entered :func:`alone`."""

    def restore() -> None:
        for backend in _ROUNDED:
            backend.fp32_precision = "ieee"

    with put_back(restore):
        for backend in _ROUNDED:
            backend.fp32_precision = "tf32"
        yield


@contextmanager
def put_back(undo: Undo) -> Iterator[None]:
    """Call `undo` at the end, or in a copy of the process before it measures; to be entered :func:`alone`."""
    _open.append(undo)
    try:
        yield
    finally:
        _open.pop()
        undo()


def _forked() -> None:
    """In the copy: the thread that forked is the only one. If it measures itself, it goes on."""
    global _lock, _left, _open
    if _open and _lock._is_owned():  # type: ignore[attr-defined]
        return
    _lock, _left, _open = threading.RLock(), [*_open, _reset], []


def _reset() -> None:
    """End what has no owner, and use one thread: OpenMP's others don't survive the copying, and would be waited for."""
    torch.set_num_threads(1)
    while forward_ad._current_level >= 0:
        forward_ad.exit_dual_level()
    if "torch._dynamo" in sys.modules:
        torch.compiler.set_stance("default")


def ordinary(make: Callable[P, T]) -> Callable[P, T]:
    """Let a function make usual tensors on the CPU, whatever is in force: they are kept for others to use.

    What inference mode, a default device or a fake mode would make of them is of no use outside of it.
    """

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.inference_mode(False), _disable_current_modes(), torch.device("cpu"):
            return make(*args, **kwargs)

    return made


def processors() -> int:
    """How many processors this process may use, which in a container may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class computed_once(Generic[T]):
    """`functools.cached_property` without the lock that Python 3.11 holds: a fork would leave it held for ever."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute

    def __get__(self, instance: Any, owner: type) -> T:
        value = instance.__dict__[self.compute.__name__] = self.compute(instance)
        return value


def devices(device: str, workers: int | None = None) -> list[str]:
    """A device for each process: `cuda` becomes the GPUs in turn where there are several, others stay as they are.

    Without a number of workers there are as many as GPUs, or as this process may use processors.
    """
    if workers is not None:
        check_count("workers", workers)
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    every = [f"cuda:{gpu}" for gpu in range(gpus)] if gpus > 1 else [device]
    count = (processors() if device == "cpu" else len(every)) if workers is None else workers
    return [every[place % len(every)] for place in range(count)]


def check_device(device: str | torch.device) -> None:
    """Refuse a device that isn't here."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"The device {str(device)!r} can't be used: write cpu, cuda, cuda:1 or mps.") from error
    gpus = torch.cuda.device_count() if found.type == "cuda" and torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= gpus:
        have = f"only {gpus} of CUDA's devices are here" if gpus else "torch finds no device of CUDA here"
        raise InputError(f"The device {str(device)!r} can't be used: {have}. Use cpu{' or cuda:0' if gpus else ''}.")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("The device 'mps' can't be used: torch finds no GPU of Apple's here. Use cpu.")
    if found.type == "meta":
        raise InputError("The device 'meta' holds no numbers. Use cpu.")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
