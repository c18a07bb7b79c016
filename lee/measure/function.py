"""A user's model as one function of images: in eval mode, from one state, on copies, and put back afterwards."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lee.autodiff.surroundings import eager
from lee.errors import InputError, TrainingModeWarning
from lee.measure.checks import Output, check_arguments, check_shape, plain, select
from lee.measure.reach import reached
from lee.measure.state import ModuleState, RandomState, convertible, in_double, start_evaluating
from lee.measure.weights import check_weights, first_module_that_fails, with_values
from lee.process.alone import alone, put_back, without_autocast

_SWITCHED = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


@contextmanager
def untouched(*callables: Any) -> Iterator[None]:
    """Put all modules that callables reach into eval mode; put everything back afterwards, also after an exception.

    Restored are attributes, parameters and buffers of every submodule, bit by bit, and the state of all random numbers.
    Threads that measure wait for each other. A `torch.autocast` around it is off meanwhile, one inside a model is the model's own.

    Raises:
        InputError: For a lazy module that has no parameters yet, and for weights that are NaN or infinite.
    """
    roots = reached(*callables)
    with _evaluating(roots), with_values(roots):
        yield


@contextmanager
def _evaluating(roots: Sequence[nn.Module]) -> Iterator[ModuleState]:
    """What :func:`untouched` does for the outermost modules; yields their state as it was."""
    with alone(), without_autocast():  # in a forked child only within `alone` may sums use threads
        check_weights(roots)
        random_state, state = RandomState(roots), ModuleState(roots)
        with put_back(random_state.restore), put_back(state.restore):
            start_evaluating(roots)
            # Backward passes must be possible, and a compiler can't look into stacked tensors and dual numbers.
            with torch.inference_mode(False), eager():
                yield state


@contextmanager
def one_function(model: Callable[..., Any], output: Output = "logits") -> "Iterator[Function]":
    """A model and the output that is asked of it, as one function that is put back afterwards; see :func:`untouched`."""
    inner = plain(model)
    roots = reached(inner, output)
    # Dropout that is on in a model in eval mode is meant (Monte Carlo dropout, statistics of the batch), but not measured.
    inside = _SWITCHED if not getattr(inner, "training", True) else ()
    training = [
        m for root in roots for m in root.modules()
        if getattr(m, "training", False) and (root is not inner or isinstance(m, inside))
    ]  # fmt: skip
    if training:
        warnings.warn(
            f"A {type(training[0]).__name__} that the model reaches is in training mode; it is measured in eval mode, as a "
            "module is, and put back. Call .eval() on it to say that this is meant.",
            TrainingModeWarning,
            stacklevel=4,
        )
    with _evaluating(roots) as state:
        function = Function(inner, output, roots, ModuleState(roots, state))
        try:
            yield function
        finally:
            function.state = ModuleState([])  # its copies go at once, for `memory.kept` around this to give them back


class Function:
    """`f(z) = select(model(z), output)`, the same function at every call.

    Args:
        model: In eval mode.
        output: What is asked of its result.
        roots: All modules that both reach.
        state: The modules as they were given, in eval mode.

    Attributes:
        interacts: Whether the output for an image depends on the other images of its batch.
        random: Whether it draws random numbers; every call then starts from the same state of them.
        single: Whether it takes one image alone.
        changes: Whether it changes its modules; every call then starts from the state that they were given in.
        seeds_itself: Whether it draws random numbers from a seed of its own, the same ones at every call.
        decides: Whether it asks for values of tensors in Python, by which one image may decide for all of its batch.
        needs_graph: Whether gradients must be switched on around it, as it differentiates inside itself.
        notices: Given images and the random numbers before a pass over them: whether it has been found out only now that the
            function must be held still, so that the pass is to be made again. None until the function was looked at.
        results: What the model itself returned, where someone wants to know.
    """

    def __init__(
        self, model: Callable[..., Any], output: Output, roots: Sequence[nn.Module], state: ModuleState
    ) -> None:
        self.model, self.output, self.roots = model, output, roots
        self.random, self.interacts, self.single = False, False, False
        self.changes = self.needs_graph = self.seeds_itself = self.decides = False
        self.notices: Callable[[Tensor, RandomState], bool] | None = None
        self.results: list[Any] | None = None
        self.state, self._random_state, self._with_values = state, RandomState(roots), with_values(roots)

    @property
    def one_by_one(self) -> bool:
        """Whether its images go alone: as it takes no more, or as each must meet the same random numbers."""
        return self.random or self.single

    def __call__(self, z: Tensor) -> Tensor:
        """The selected output for `z` (N, ...), which may be written into: a plain tensor, a stack or dual numbers."""
        self._start()
        return self.run(z)

    def _start(self) -> None:
        if self.random:
            self._random_state.restore()
        if self.changes:
            self.state.restore(hooks=False)

    def run(self, z: Tensor) -> Tensor:
        """As a call, from whatever state the modules are in."""
        with self._with_values, torch.enable_grad() if self.needs_graph else nullcontext():
            try:
                result = self.model(z)
            except TypeError:
                check_arguments(self.model, z)
                raise
            if self.results is not None:
                self.results.append(result)
            return select(result, self.output)

    def value(self, x: Tensor) -> Tensor:
        """`f(x)` on a copy and as a copy: a model may write into its input, or use the same memory for all its outputs."""
        if self.random and len(x) > 1:
            return torch.cat([self.value(one) for one in x.split(1)])
        self._start()
        before = self.random_numbers()
        try:
            with torch.no_grad():
                found = self.run(x.clone()).detach().clone()
        except RuntimeError as error:
            if self.needs_graph or "does not require grad" not in str(error):
                raise
            self.needs_graph = True  # it differentiates inside itself
            return self.value(x)
        return self.value(x) if self.noticed(x, before) else found

    def random_numbers(self) -> RandomState | None:
        """Their state now, for :meth:`noticed`; None where nobody asks."""
        return None if self.notices is None else self._random_state.now()

    def noticed(self, x: Tensor, before: RandomState | None) -> bool:
        """Whether a pass over `x` that began with some random numbers is to be made again, with the function held still."""
        return self.notices is not None and before is not None and self.notices(x, before)

    def checked(self, x: Tensor) -> Tensor:
        """:meth:`value`, refused unless it is finite and has one entry per image."""
        return self.sound(self.value(x), x)

    def sound(self, value: Tensor, x: Tensor) -> Tensor:
        """A value of `x`, refused unless it is finite and has one entry per image."""
        check_shape(value, len(x))
        self.refuse(~torch.isfinite(value), "output", x)
        return value

    def refuse(self, bad: Tensor, what: str, x: Tensor) -> None:
        """Refuse entries (n, ...) that are NaN or infinite, with the first module that gives any."""
        if not bool(bad.any()):
            return
        image = int(bad.flatten(1).any(1).nonzero()[0]) if bad.ndim > 1 else int(bad.nonzero()[0])
        name = first_module_that_fails(self.roots, lambda: self.value(x), masks=False)
        where = f", first in the module {name}" if name else ""
        hint = " (a square root or a norm at zero, say)" if what == "derivative" and not name else ""
        raise InputError(
            f"The model's {what} holds NaN or infinity for image {image} of those measured together{where}{hint}: there is no "
            "number."
        )

    def watched(self, x: Tensor) -> Tensor:
        """:meth:`checked`, with NaN or infinity inside refused as well, whatever the model makes of them afterwards.

        The value may differ by rounding from that of an unwatched pass: torch's own encoder layers take other kernels.
        """
        values: list[Tensor] = []
        if name := first_module_that_fails(self.roots, lambda: values.append(self.value(x)), masks=True):
            raise InputError(
                f"The model holds NaN or infinity on its way, first in the module {name}: there is no number."
            )
        return self.sound(values[-1], x)

    @property
    def convertible(self) -> bool:
        """Whether :meth:`in_double` may be tried."""
        return convertible(self.roots)

    @contextmanager
    def doubled(self) -> Iterator[None]:
        """All modules converted to double precision; calls inside don't start from the kept state."""
        self._start()
        kept = self.changes, self.notices
        self.changes, self.notices = False, None
        try:
            with in_double(self.roots):
                yield
        finally:
            self.changes, self.notices = kept

    def in_double(self, x: Tensor) -> Tensor:
        """`f(x)` with all modules converted to double precision for this call."""
        with self.doubled(), _ChannelsFirst():
            return self.value(x.detach().double())


class _ChannelsFirst(TorchFunctionMode):
    """Grouped convolutions in double precision get images with channels first, which take a tenth of the seconds on a CPU.

    It is torch's own convolution, and its result has the layout that it has without this. ConvNeXt-T, whose blocks hand on images
    with channels last, would spend two thirds of its check there.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """The result of what is called."""
        kwargs = kwargs or {}
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
        if func is torch.conv2d and args and _is_last(args[0]) and groups > 1:
            return func(args[0].contiguous(), *args[1:], **kwargs).contiguous(memory_format=torch.channels_last)
        return func(*args, **kwargs)


def _is_last(image: Any) -> bool:
    """Whether it is a plain batch of images of double precision with channels last."""
    return (
        type(image) is Tensor and image.dtype == torch.float64 and image.device.type == "cpu" and image.ndim == 4
        and not torch._C._functorch.is_functorch_wrapped_tensor(image)  # by vmap or others inside a model
        and not image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last)
    )  # fmt: skip
