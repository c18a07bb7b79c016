"""Files of weights, read so that nothing in them runs: safetensors, or what torch reads with `weights_only=True`; and written."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from lee.errors import InputError
from lee.paths import atomic_path
from lee.process.alone import alone

#: torch's own switches, which overrule what the caller of `torch.load` asks for.
_FORCED, _FORBIDDEN = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def only_weights() -> Iterator[None]:
    """Let every `torch.load` meanwhile read tensors only, also in a library that asks for more.

    Older versions of timm that we allow (1.0.15) unpickle whatever some files hold.
    """
    with alone():
        before = {name: os.environ.pop(name, None) for name in (_FORCED, _FORBIDDEN)}
        os.environ[_FORCED] = "1"
        try:
            yield
        finally:
            del os.environ[_FORCED]
            os.environ.update({name: value for name, value in before.items() if value is not None})


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of weights: `.safetensors`, or of `torch.save` with a state dict; nothing is unpickled.

    The state dict is the content itself, or lies under `state_dict` or `model`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"There is no weight file {path}.")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
    except SafetensorError as error:
        raise InputError(f"The weight file {path} is damaged or is not safetensors: {error}.") from error
    except Exception as error:  # torch.load raises many unrelated types on a damaged or unsafe file
        raise InputError(f"The weight file {path} is damaged, or holds more than tensors.") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"The weight file {path} holds no state dict, a mapping from names to tensors.")
    return content


def write_state(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all, so that others than the owner may read them, as other files."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary, metadata)
        temporary.chmod(0o644)
