"""What a row of results carries so that it can be made again: versions, the commit, digests of weights."""

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

#: Packages that can change a measured number.
PACKAGES = ("lee", "torch", "torchvision", "timm", "numpy")


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
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
