"""Check what goes into a user's model and what comes out, and say in a sentence what can't be measured."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lee.errors import InputError, nearest
from lee.measure.plausible import warn_of_images

Output = str | Callable[[Any], Tensor]
OUTPUTS = ("probabilities", "logits")


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_COMPILED = "torch._dynamo.eval_frame"  # not imported here, as that is slow


def plain(model: Callable[..., Any]) -> Callable[..., Any]:
    """The module inside a `torch.compile` or `DataParallel` wrapper that adds nothing to it; every other model as it is.

    Inside, layers have the names of the model, and no image is sent to several devices. A wrapper with hooks, with a `forward` of
    its own or of a derived class is another function than the module inside.
    """
    while isinstance(model, nn.Module) and (inner := _wrapped(model)) is not None:
        model = inner
    return model


def _wrapped(model: nn.Module) -> nn.Module | None:
    """The module whose calls are all that a wrapper does; None for anything else."""
    own = vars(model)
    if any(own.get(name) or getattr(nn.modules.module, f"_global{name}") for name in _HOOKS):
        return None
    if type(model) in _PARALLEL:
        return None if "forward" in own else own["_modules"].get("module")
    if (type(model).__module__, type(model).__name__) != (_COMPILED, "OptimizedModule"):
        return None
    inner, forward = own["_modules"].get("_orig_mod"), own.get("forward")
    # Torch hangs a function of its own there, around the module's `__call__` or around a function around that.
    around = getattr(forward, "_torchdynamo_orig_callable", None)
    called = getattr(around, "__wrapped__", getattr(around, "__self__", None))
    theirs = getattr(forward, "__globals__", {}).get("__name__") == _COMPILED
    return inner if theirs and called is inner else None


def check_model(model: Any) -> None:
    """Refuse what is no function of images, such as a model's name or its class, and say what to write in its place."""
    if isinstance(model, str):
        raise InputError(
            f"A model is a module or a function; {model!r} is a name: lee.models.load({model!r}) loads it."
        )
    if isinstance(model, type):
        raise InputError(f"{model.__name__} is a class, not a model: make one of it, {model.__name__}(...).")
    if not callable(model):
        raise InputError(f"A model is a module or a function of images, not {type(model).__name__}.")


def check_arguments(model: Callable[..., Any], x: Any) -> None:
    """Refuse a model that can't be called with one tensor alone, and say how to wrap it."""
    try:
        found = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):  # a builtin function has none
        return
    try:
        found.bind(x)
    except TypeError as error:
        raise InputError(
            f"A model is measured as a function of one tensor, but can't be called as model(x): {error}. Wrap it, as "
            f"lambda x: model({_arguments(list(found.parameters.values()))}) or in a module with such a forward."
        ) from error


def _arguments(parameters: list[inspect.Parameter]) -> str:
    """How a model would be called whose first input is an image `x`."""
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    chosen = needed or [p for p in parameters if p.kind is p.KEYWORD_ONLY][:1]
    texts = [f"{p.name}={p.name if i else 'x'}" for i, p in enumerate(chosen)]
    if chosen and chosen[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        texts[0] = "x"
    return ", ".join(texts)


def check_input(model: Callable[..., Any], x: Any, *, image: bool) -> None:
    """Refuse inputs that can't be measured.

    Args:
        model: The model that will read them.
        x: Input, (N, ...), floating point; (N, C, H, W) if `image`.
        image: Whether a spatial or photometric generator will act on it.

    Raises:
        InputError: For another type, rank or dtype, no samples, sides of one pixel, NaN or infinity, a device or dtype other
            than the model's, and a default device of torch other than the CPU.
    """
    check_model(model)
    if (default := torch.get_default_device()).type != "cpu":
        raise InputError(
            f"Torch's default device is {default}, where the tensors that a measurement makes for itself don't belong: measure "
            'inside `with torch.device("cpu"):`. The model and the images may stay where they are.'
        )
    if not isinstance(x, Tensor):
        raise InputError(f"Inputs must be a torch tensor, not {type(x).__name__}; {_how_to_give(x)}.")
    if x.is_meta or x.layout != torch.strided or x.is_nested:
        raise InputError(
            f"Inputs must be dense tensors with data, not {x.layout} on {x.device}; use .to_dense() or real images."
        )
    if image and (x.ndim != 4 or min(x.shape[-2:]) < 2):
        advice = (
            "Choose one frame of a video, or fold frames into the batch with x.flatten(0, 1) where they come before the channels."
            if x.ndim == 5
            else "Add a batch axis with x[None] where that is missing."
        )
        raise InputError(
            f"Images must have shape (N, C, H, W), with 2 pixels or more along each side; got {tuple(x.shape)}. {advice}"
        )
    if not x.dtype.is_floating_point:
        raise InputError(f"Inputs must be floating point, not {x.dtype}; use x.float() / 255 for 8-bit images.")
    if x.ndim == 0 or x.numel() == 0:
        raise InputError(f"The batch is empty: shape {tuple(x.shape)}.")
    if not bool(torch.isfinite(x).all()):
        raise InputError("The input contains NaN or infinity; clean it before measuring.")
    _check_placement(model, x)
    if image:
        warn_of_images(model, x)


def _how_to_give(x: Any) -> str:
    """How what was given for images becomes a tensor of them."""
    if isinstance(x, Mapping):
        key = next((k for k, v in x.items() if isinstance(v, Tensor)), next(iter(x), "image"))
        return f"take the images out of it, such as (batch[{key!r}] for batch in loader)"
    if isinstance(x, str):
        return f"lee.datasets.load({x!r}).images loads a data set by its name"
    if hasattr(x, "__getitem__") and not hasattr(x, "__array__"):
        return "torch.utils.data.DataLoader(images, batch_size=8) makes batches of a data set"
    return "use torch.as_tensor(...)"


def _check_placement(model: Callable[..., Any], x: Tensor) -> None:
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    floating = [p for p in parameters if p.dtype.is_floating_point and not p.is_meta]
    if not floating:
        return
    places, dtypes = {p.device.type for p in floating}, {p.dtype for p in floating}
    if x.device.type not in places or x.dtype not in dtypes:
        raise InputError(
            f"The input is {x.dtype} on {x.device} but the model's parameters are {floating[0].dtype} on {floating[0].device}; "
            "convert one with .to(...)."
        )


def check_output_name(output: Output) -> None:
    """Refuse an `output` that is neither a known name nor a callable."""
    if not callable(output) and output not in OUTPUTS:
        raise InputError(f"Unknown output {output!r}.{nearest(str(output), OUTPUTS)} It may also be a callable.")


def select(result: Any, output: Output) -> Tensor:
    """The tensor to differentiate, out of what a model returned.

    Raises:
        InputError: If the model returned a tuple or a mapping, or probabilities were asked of something that is not (N, K).
    """
    if callable(output):
        chosen = output(result)
        if not isinstance(chosen, Tensor):
            raise InputError(f"The callable `output` must return a tensor; it returned {type(chosen).__name__}.")
        return _unnested(chosen)
    if not isinstance(result, Tensor):
        keys, key = "", "[0]" if isinstance(result, tuple | list) else " …"
        if isinstance(result, Mapping):
            keys, key = f" with keys {list(result)}", f"[{next(iter(result), 'logits')!r}]"
        raise InputError(
            f"The model returns no tensor but `{type(result).__name__}`{keys}; select one, for example output=lambda o: o{key} "
            "(with .softmax(-1) for probabilities)."
        )
    _unnested(result)
    if output == "logits":
        return result
    if result.is_complex():
        raise InputError(
            "output='probabilities' needs real class scores; the model returns complex ones. Use output='logits', which measures "
            "them as they are, or a callable."
        )
    if result.ndim != 2 or result.shape[1] < 2:
        raise InputError(
            f"output='probabilities' needs class scores (N, K) with K ≥ 2; the model returns {tuple(result.shape)}. "
            "Use output='logits' for the raw output, or a callable."
        )
    check_shape(result, len(result))
    return result.softmax(-1)


def _unnested(result: Tensor) -> Tensor:
    if result.is_nested:
        raise InputError(
            "The output is a nested tensor; select an ordinary one, for example output=lambda o: o.to_padded_tensor(0.0)."
        )
    return result


def check_shape(value: Tensor, n: int) -> None:
    """Refuse an output without derivatives, or that has not one entry per input along its first axis."""
    if value.ndim == 0 or len(value) != n or value.numel() == 0:
        raise InputError(
            f"The output must have one entry per input along its first axis, and not be empty; {n} inputs gave shape "
            f"{tuple(value.shape)}."
        )
    if not value.is_floating_point() and not value.is_complex():
        raise InputError(
            f"The output holds {value.dtype}, which has no derivative; measure the scores that it was computed from (before an "
            "argmax or a comparison)."
        )
    if value.layout != torch.strided:
        raise InputError(
            f"The output is a {value.layout} tensor; select a dense one with output=lambda o: o.to_dense()."
        )


def count_of(images: Any) -> int | None:
    """How many images a tensor holds; None for whatever else is given."""
    return len(images) if isinstance(images, Tensor) and not images.is_nested and images.ndim else None


def batches_of(images: Tensor | Iterable[Any]) -> Iterator[Tensor]:
    """Batches of inputs, from a tensor or an iterable of tensors or of (inputs, labels, …)."""
    if isinstance(images, Tensor):
        yield images
        return
    if not isinstance(images, Iterable) or isinstance(images, str | Mapping):
        kind = type(images).__name__
        raise InputError(f"Images must be a tensor or an iterable of batches, not {kind}; {_how_to_give(images)}.")
    for batch in images:
        yield batch[0] if isinstance(batch, tuple | list) and batch else batch
