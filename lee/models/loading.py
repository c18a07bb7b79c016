"""Models by name, ready to measure: images in [0, 1] go in, logits come out, in eval mode."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lee.errors import InputError, check_count, nearest, reason
from lee.models import imagenet
from lee.models.cards import check_weights, names
from lee.models.pretrained import create as pretrained_model
from lee.models.reading import read_state
from lee.models.recipes import ZooSpec, has_recipe, has_weights, load_spec
from lee.process.alone import alone, check_device


class Normalize(nn.Module):
    """Per-channel affine map x -> (x - mean) / std on images (N, C, H, W).

    Args:
        mean: one number per channel.
        std: one number per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std, of the shape of `x`.

        Args:
            x: images (N, C, H, W).
        """
        return (x - self.mean) / self.std


class Normalized(nn.Module):
    """A network that takes images in [0, 1]: `net(normalize(x))`.

    With the normalisation inside, brightness, contrast and saturation act on the image people see.

    Args:
        net: the bare network.
        mean: of the normalisation, one number per channel; None for none.
        std: likewise.
        input_size: (C, H, W) of the images it was made for, or None if that is not known.

    Attributes:
        normalize: the affine map; the identity when `mean` is None.
    """

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.normalize = nn.Identity() if mean is None or std is None else Normalize(mean, std)
        self.net = net
        self.input_size = input_size

    def forward(self, x: Tensor) -> Any:
        """Return the network's output for images (N, C, H, W) in [0, 1].

        Args:
            x: images (N, C, H, W).
        """
        return self.net(self.normalize(x))


def input_size(model: nn.Module) -> int | None:
    """Return the side in pixels of the images a loaded model was made for, None if that is not known.

    Args:
        model: what `load` returned.
    """
    size = getattr(model, "input_size", None)
    return None if size is None else int(size[-1])


def load(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    trained: bool = True,
    **kwargs: Any,
) -> Normalized:
    """Load a model that takes images in [0, 1], in eval mode.

    Args:
        name: of a trained network such as `zoo/vit-s` or `imagenet/efficientnet-lite0` (see :func:`names`), a name timm knows, or
            `package.module:factory` with a callable that returns a module.
        pretrained: use timm's own weights, which timm finds in its cache or downloads; only for its names.
        weights: a local file of weights for the bare network: safetensors, or a `.pth` state dict.
        device: where the model is put.
        seed: of the initial weights when none are loaded; the caller's random state stays as it is.
        trained: False gives a trained network's initial weights, drawn from its recipe's seed; those of `imagenet/` are
            timm's, drawn from `seed`.
        **kwargs: passed to timm or to the factory; a factory may be given `mean` and `std` as well.

    Returns:
        `Normalized(net, mean, std)` with timm's or the recipe's normalisation (none for a factory).

    Raises:
        InputError: an unknown name (the nearest is suggested), weights that are missing, damaged or
            don't fit, or options that contradict each other.
    """
    check_count("seed", seed, 0)
    if pretrained and (weights is not None or has_weights(name) or ":" in name):
        raise InputError("pretrained=True is for timm's names and excludes weights=FILE.")
    if has_weights(name) and kwargs:
        raise InputError(f"{name} takes no further arguments, but {', '.join(kwargs)} was given.")
    if has_recipe(name):
        model = _load_trained(name, weights, trained)
    elif imagenet.is_packaged(name):
        path = imagenet.check_weights(name) if trained and weights is None else None
        model = _load_timm(imagenet.describe(name).architecture, pretrained=False, seed=seed, kwargs={})
        if path is not None:
            load_weights(model.net, path, by_position=True)
    elif ":" in name:
        model = _load_factory(name, seed, kwargs)
    else:
        model = _load_timm(name, pretrained, seed, kwargs)
    if weights is not None:
        load_weights(model.net, Path(weights))
    if any(value.is_meta for value in (*model.parameters(), *model.buffers())):
        raise InputError(f"{name} was built on the device 'meta', so its weights have no values. Build it on the cpu.")
    return _on_device(model, device).eval()


def check_name(name: str) -> None:
    """Refuse a name that no model has, before anything is built."""
    import timm

    if has_recipe(name):
        load_spec(name)
    elif imagenet.is_packaged(name):
        imagenet.describe(name)
    elif ":" in name:
        resolve(name)
    elif not timm.is_model(name):
        hint = nearest(name, [*names(), *timm.list_models()])
        if "Did you mean" not in hint:  # a list of all names would not help
            hint = " Known are those of `lee models list`, timm's, and package.module:factory."
        raise InputError(f"There is no model {name!r}.{hint}")


def build(spec: ZooSpec) -> Normalized:
    """Return a recipe's architecture with the untrained weights of its recipe's seed.

    The caller's random state is left as it was.

    Args:
        spec: architecture and recipe.
    """
    net = _seeded(spec.recipe.seed, resolve(spec.factory), spec.arguments, spec.factory)
    return Normalized(net, spec.mean, spec.std, spec.input_size)


def resolve(path: str) -> Callable[..., Any]:
    """Import the callable that `package.module:name` names.

    Args:
        path: where the callable is.

    Raises:
        InputError: it can't be imported, whatever its module raises, or is not callable.
    """
    module, _, attribute = path.partition(":")
    if module.endswith(".py"):
        *folders, stem = Path(module).with_suffix("").parts
        plain = all(part.isidentifier() for part in folders)
        meant = f"Did you mean '{'.'.join((*folders, stem))}:{attribute}'?"
        raise InputError(
            f"{path!r} names no factory: files go by the names that they are imported by. "
            + (meant if plain else f"Start in {Path(module).parent} and write {stem}:{attribute}.")
        )
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise InputError(f"{path!r} names no factory. Write package.module:factory.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # of the user's module
        raise InputError(f"The factory {path!r} can't be imported: {reason(error)}.") from error
    if not callable(found):
        raise InputError(f"{path!r} is not callable. Write package.module:factory.")
    return found


def load_weights(net: nn.Module, path: Path, *, by_position: bool = False) -> None:
    """Load a local file into a bare network, in the network's own dtype; nothing is unpickled.

    Args:
        net: the module; left unchanged when the file doesn't fit.
        path: `.safetensors`, or a `.pth`/`.pt` file with a state dict (itself or under `state_dict`
            or `model`).
        by_position: take the file's entries in their order, whatever their names.

    Raises:
        InputError: the file is missing, damaged, holds more than tensors, or doesn't fit.
    """
    state, expected = read_state(path), net.state_dict()
    if by_position and len(state) == len(expected):
        state = dict(zip(expected, state.values(), strict=True))
    problems = [
        *(f"lacks {key}" for key in expected if key not in state),
        *(f"has {key}, which the model lacks" for key in state if key not in expected),
        *(
            f"has {key} of shape {tuple(state[key].shape)}, not {tuple(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ),
        *(
            f"has {key} of {_kind(state[key])} numbers, not {_kind(value)} ones"
            for key, value in expected.items()
            if key in state and isinstance(value, Tensor) and _kind(state[key]) != _kind(value)
        ),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more differences)" if len(problems) > 1 else ""
        raise InputError(f"{path} doesn't fit the model: it {problems[0]}{more}. Check name and arguments.")
    net.load_state_dict(state)


def _kind(value: Tensor) -> str:
    """What conversion between numbers may not change."""
    return "complex" if value.is_complex() else "floating-point" if value.is_floating_point() else "whole"


def _load_trained(name: str, weights: str | Path | None, trained: bool) -> Normalized:
    """Build a network by its recipe; load its committed weights unless told otherwise."""
    spec = load_spec(name)
    path = check_weights(spec) if trained and weights is None else None
    model = build(spec)
    if path is not None:
        load_weights(model.net, path)
    return model


def _load_timm(name: str, pretrained: bool, seed: int, kwargs: dict[str, Any]) -> Normalized:
    """Build a timm model with the normalisation of its pretrained configuration."""
    import timm

    check_name(name)
    factory = pretrained_model if pretrained else timm.create_model
    net = _seeded(seed, factory, kwargs, name, name)
    config = net.pretrained_cfg
    side = kwargs.get("img_size")
    size = config.get("input_size") if side is None else (kwargs.get("in_chans", 3), side, side)
    return Normalized(net, config["mean"], config["std"], size)


def _load_factory(name: str, seed: int, kwargs: dict[str, Any]) -> Normalized:
    """Call `package.module:factory`; `mean` and `std` normalise its input unless it takes them itself."""
    factory = resolve(name)
    taken = inspect.signature(factory).parameters
    mean, std = (None if key in taken else kwargs.pop(key, None) for key in ("mean", "std"))
    if (mean is None) != (std is None):
        raise InputError(f"{name}: give both mean and std, or neither.")
    net = _seeded(seed, factory, kwargs, name)
    if not isinstance(net, nn.Module):
        raise InputError(f"{name} returned no torch.nn.Module but something of type {type(net).__name__}.")
    return Normalized(net, mean, std)


def _seeded(seed: int, factory: Callable[..., Any], kwargs: dict[str, Any], name: str, *args: Any) -> Any:
    """Call a factory under `seed`, with the global random state restored afterwards."""
    with alone(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return factory(*args, **kwargs)
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # of the user's factory, or of timm about the arguments
            given = f" with {kwargs}" if kwargs else ""
            raise InputError(f"{name} can't be built{given}: {reason(error)}.") from error


def _on_device(model: Normalized, device: str | torch.device) -> Normalized:
    """Move a model, with a clear error when there is no such device."""
    check_device(device)
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {str(device)!r} can't be used: {str(error).splitlines()[0]}") from error
