"""What a row of results carries so that it can be made again: versions, the commit, digests of weights."""

import hashlib
import platform
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

#: Packages that can change a measured number.
PACKAGES = ("lee", "torch", "torchvision", "timm", "numpy")
#: Where a module's specification keeps the digest of its source.
_SEEN = "_lee_sha256"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number, keyed `NAME_version`.

    >>> versions()["torch_version"] == version("torch")
    True
    """
    packages = {f"{name}_version": version(name) for name in PACKAGES}
    return {"python_version": platform.python_version(), **packages}


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from (`+`: with changes), if any."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):  # no git here, or not our repository
        return None
    return head + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def sources_sha256(*modules: str) -> str:
    """Return a digest of the source of imported Python modules and of all that they use, as far as it is the user's own.

    What is installed (and this package) is left out: it has versions. Of a file that changes later on, the digest stays that of
    what runs, until the module is reloaded.

    Args:
        *modules: their names.

    >>> sources_sha256("torch.nn") == sources_sha256()
    True
    """
    waiting, files = list(modules), dict[str, str]()
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if name in files or module is None or not file or name.partition(".")[0] == "lee" or _is_installed(Path(file)):
            continue
        known = vars(module.__spec__ or module)  # a reloaded module has another specification
        if _SEEN not in known:
            known[_SEEN] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        files[name] = known[_SEEN]
        values = vars(module).values()
        waiting += [v.__name__ if isinstance(v, ModuleType) else str(getattr(v, "__module__", "")) for v in values]
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def _is_installed(file: Path) -> bool:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(file.is_relative_to(place) or file.resolve().is_relative_to(place) for place in places)


def structure_sha256(model: Any, name: str) -> str:
    """Return a digest of how a network is built, whatever its weights: its modules, its normalisation, its source.

    Args:
        model: a :class:`lee.models.Normalized`.
        name: that it was loaded by, or its factory: of `package.module:factory` the user's own source counts, too, and so does
            what its modules hold beside their weights, such as a number that the factory has read from a file.
    """
    buffers = {key: value.tolist() for key, value in model.normalize.named_buffers()}
    structure = f"{_ADDRESS.sub('', repr(model.net))} {buffers} {model.input_size}"
    if ":" in name:
        structure += f" {factory_sha256(model.net, name)}"
    return hashlib.sha256(structure.encode()).hexdigest()


def factory_sha256(net: nn.Module, name: str) -> str:
    """Return a digest of what else the numbers of a user's network follow from than its state and the structure of its modules.

    Args:
        net: the network.
        name: `package.module:factory`. For those of :data:`PACKAGES` their versions speak.
    """
    source = sources_sha256(name.partition(":")[0], *sorted({type(m).__module__ for m in net.modules()}))
    if name.partition(".")[0] in PACKAGES:
        return source
    usual = vars(nn.Module())
    held = {
        path: (_told({k: v for k, v in vars(m).items() if k not in usual}), _told(dict(m.named_buffers(recurse=False))))
        if not isinstance(m, torch.jit.ScriptModule)
        else _ADDRESS.sub("", getattr(m, "code", "") + m._c.dump_to_str(False, True, False))
        for path, m in net.named_modules() if not type(m).__module__.startswith("torch._dynamo.")
    }  # fmt: skip
    return hashlib.sha256(f"{source} {held}".encode()).hexdigest()


def _told(value: Any, above: tuple[int, ...] = ()) -> str:
    """What a value holds, in words that are the same in another process: numbers, text, arrays, and what consists of these."""
    if id(value) in above or isinstance(value, nn.Module | ModuleType | type | FunctionType | MethodType):
        return f"{type(value).__qualname__} {getattr(value, '__qualname__', '')}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        value = torch.as_tensor(np.ascontiguousarray(value)) if value.dtype.kind in "biufc" else value.tolist()
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu() if value.layout == torch.strided and not value.is_meta else None
        return (
            "tensor"
            if plain is None
            else f"{plain.dtype} {tuple(plain.shape)} {hashlib.sha256(_bytes(plain)).hexdigest()}"
        )
    above = (*above, id(value))
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_told(k, above)}: {_told(v, above)}" for k, v in value.items())) + "}"
    if isinstance(value, set | frozenset):
        return f"{sorted(_told(v, above) for v in value)}"
    if isinstance(value, list | tuple):
        return f"{[_told(v, above) for v in value]}"
    inner = None if type(value).__module__.startswith("torch.") else getattr(value, "__dict__", None)
    return _ADDRESS.sub("", repr(value)) if inner is None else f"{type(value).__qualname__} {_told(inner, above)}"


def weights_sha256(module: nn.Module) -> str:
    """Return the SHA-256 digest of a module's state: names, shapes, types and values.

    Two modules that compute with the same numbers have the same digest, wherever they lie.

    >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> weights_sha256(a) == weights_sha256(b)
    False
    >>> _ = b.load_state_dict(a.state_dict())
    >>> weights_sha256(a) == weights_sha256(b)
    True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):  # a module's extra state
            digest.update(f"{name} {tensor!r}".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
