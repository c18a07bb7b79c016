"""timm's models with their pretrained weights: from a folder of one's own, from timm's cache, or from the network.

The environment variable `LEE_WEIGHTS` names a folder in timm's layout, `NAME/config.json` and `NAME/model.safetensors`, as
`timm.models.save_for_hf` and the hub's repositories have it; `NAME/` may do without a configuration. What isn't there comes
from timm's own cache or the network; `HF_HUB_OFFLINE=1` forbids the network, and `HF_HOME` says where the cache is.
"""

import json
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from lee.errors import InputError
from lee.models.reading import only_weights, read_state

#: The environment variable that names the folder of weights.
WEIGHTS_VARIABLE = "LEE_WEIGHTS"
_DAMAGED = ("SafetensorError", "UnpicklingError", "EOFError", "PytorchStreamReader", "zip archive", "Consistency check")


def create(name: str, **kwargs: Any) -> nn.Module:
    """A timm model, such as `resnet50.a1_in1k`, with its pretrained weights; without the part after the dot with timm's default.

    The cache is the user's: where it holds damaged weights nothing in it is touched, but the error says where it is.
    """
    import timm

    folder = find(name)
    if folder is not None:
        return _from_folder(name, folder, kwargs)
    try:
        with only_weights():
            model: nn.Module = timm.create_model(name, pretrained=True, **kwargs)
    except TypeError:  # about the arguments
        raise
    except Exception as error:  # of the hub, its transport, the disk, or the readers of the file
        raise InputError(f"timm's weights for {name} can't be had: {_reason(name, error)}.") from error
    return model


def full_name(name: str) -> str:
    """A timm model's name with the tag of its weights; unchanged if there are none.

    >>> full_name("test_vit")
    'test_vit.r160_in1k'
    """
    import timm

    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag, as timm itself will say
        return name
    return f"{name.partition('.')[0]}.{config.tag}" if config is not None and config.tag else name


def find(name: str) -> Path | None:
    """The folder of a model's weights below `LEE_WEIGHTS`; None if it isn't there, or the variable is not set."""
    value = os.environ.get(WEIGHTS_VARIABLE)
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise InputError(f"{WEIGHTS_VARIABLE} names {value!r}, which is not a folder.")
    return next((root / one for one in dict.fromkeys((full_name(name), name)) if (root / one).is_dir()), None)


def _from_folder(name: str, folder: Path, kwargs: dict[str, Any]) -> nn.Module:
    """Load a folder's weights, into the architecture of that name and no other."""
    import timm
    from timm.models import clean_state_dict

    asked, state = name, clean_state_dict(read_state(_file(folder)))
    overlay = {"state_dict": state, "source": "", "custom_load": False}
    if (folder / "config.json").is_file():
        _check_architecture(name, folder)
        asked = f"local-dir:{folder}"
    try:
        model: Any = timm.create_model(asked, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
    except TypeError:
        raise
    except Exception as error:  # of weights of another form
        said = " ".join(str(error).split())[:300]
        raise InputError(f"The weights in {folder} don't fit {name}: {said}") from error
    model.pretrained_cfg.pop("state_dict", None)  # a second copy of the weights
    return cast(nn.Module, model)


def _check_architecture(name: str, folder: Path) -> None:
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architecture"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}/config.json names no architecture. Repair it, or remove it.") from error
    if given != name.partition(".")[0]:
        raise InputError(f"{folder} holds weights of {given!r}, not of {name}. Rename the folder.")


def _file(folder: Path) -> Path:
    """The file of weights in a folder: `model.safetensors`, or the first one."""
    found = [path for ending in ("safetensors", "bin", "pth", "pth.tar") for path in sorted(folder.glob(f"*.{ending}"))]
    if not found:
        raise InputError(f"There are no weights in {folder}: put a model.safetensors there.")
    return next((path for path in found if path.name == "model.safetensors"), found[0])


def _reason(name: str, error: Exception) -> str:
    """Why weights can't be had, in a sentence without its full stop."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    said = " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
    if isinstance(error, LocalEntryNotFoundError):
        missing = "they are not in timm's cache, and HF_HUB_OFFLINE forbids to fetch them"
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("", "0", "FALSE", "OFF", "NO"):
            missing = "they are not in timm's cache, and the hub can't be reached"
        return f"{missing}; a folder named by {WEIGHTS_VARIABLE} may hold them, as {full_name(name)}/model.safetensors"
    if "weights_only" in said:  # what follows in it is how to let the file run code
        return "the file holds more than tensors, and reading the rest would run code"
    if any(sign in f"{type(error).__name__} {error}" for sign in _DAMAGED):
        kept = f"{HF_HUB_CACHE} (see HF_HOME) or {torch.hub.get_dir()}"
        return f"what was fetched is damaged; remove what is left of it in timm's cache, {kept}, and try again ({said})"
    return said
