"""A GPU for each worker, on machines that have several."""

import os
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lee.errors import InputError

#: The locks of this process: open as long as it lives, so that the system gives them back however it ends.
_HELD: list[FileLock] = []


@cache
def own(device: str) -> str:
    """The device of this process, which doesn't know its neighbours: `cuda` becomes the first GPU that nobody has taken.

    GPUs are taken by a lock on a file of this machine, and given back when the process ends. Where all are taken, and
    where only one is visible, as a queueing system arranges it, the device stays as it is.
    """
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    return next((f"cuda:{gpu}" for gpu in range(gpus) if _taken(gpu)), device) if gpus > 1 else device


def _taken(gpu: int) -> bool:
    """Take a GPU, if no other process of this user has it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(os.sep, "-")
    lock = FileLock(_private_folder() / f"gpu-{visible}-{gpu}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    _HELD.append(lock)
    return True


def _private_folder() -> Path:
    """This user's folder for locks in the temporary folder, where a link that somebody has put in its place is refused."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"lee-{user}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and (found.st_uid != user or found.st_mode & 0o022)):
        raise InputError(f"{folder} is not a folder of your own that only you can write to. Remove it, or set TMPDIR.")
    return folder
