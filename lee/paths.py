"""Where things live: what comes with lee (installed or in the repository) and the user's own data folder."""

import errno
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lee.errors import InputError

#: The environment variable that names the user's data folder (CIFAR-10, MNIST, ...).
DATA_VARIABLE = "LEE_DATA"


def package_data() -> Path:
    """Return the folder of recipes, trained networks and tables: `data` of a checkout, `lee/data` of the installed package."""
    package = Path(__file__).resolve().parent
    candidates = (package / "data", package.parent / "data")
    for folder in candidates:
        if (folder / "zoo").is_dir():
            return folder
    looked = " nor ".join(str(folder) for folder in candidates)
    raise InputError(f"The trained networks are missing: neither {looked} has a folder zoo. Reinstall lee.")


def data_root() -> Path:
    """Return the user's data folder, named by the environment variable `LEE_DATA`."""
    value = os.environ.get(DATA_VARIABLE)
    if not value:
        raise InputError(
            f"The environment variable {DATA_VARIABLE} is not set. "
            f"Point it at your folder of data sets (data/README.md says how it is laid out)."
        )
    root = Path(value).expanduser()
    if not root.is_dir():
        raise InputError(f"{DATA_VARIABLE} names {value!r}, which is not a folder.")
    return root


def file_sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_digest(path: Path, sha256: str, again: str) -> Path:
    """Return a file's path once its digest is the recorded one; otherwise the error ends in `again`, what brings it back."""
    if not path.is_file():
        raise InputError(f"The file {path} is missing. {again}")
    if file_sha256(path) != sha256:
        raise InputError(f"The file {path} is damaged: its digest isn't the recorded one. {again}")
    return path


def installed_file(package: str, file: str, again: str) -> Path:
    """Return the path of a package's file, importing none of it; without one, the error ends in `again`, what brings it back."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder, file)).is_file():
            return path
    raise InputError(f"{package} has no {file}. {again}")


def check_writable(what: str, path: Path) -> None:
    """Refuse, before any work is done, a file that can't be written afterwards; neither it nor its folder need exist."""
    target = Path(os.path.realpath(path))
    try:
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        trial = _temporary(next(folder for folder in target.parents if folder.exists()) / target.name)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(f"{what} {path} can't be written: {error.strerror}.") from error


def _temporary(path: Path) -> Path:
    """The name of a file while it is written."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success rename it to `path`, on an error remove it.

    A reader therefore sees the old file or the complete new one, never half of it. A link stays one: what it leads to is
    written.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path))
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
