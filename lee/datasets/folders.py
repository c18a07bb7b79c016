"""Folders of images: one sub-folder per class, or a plain folder."""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from lee.datasets.image_files import ENDINGS, ON_WHITE, center_square, read, stacked
from lee.datasets.local_data import Decoded, choose
from lee.errors import ImageWarning, InputError
from lee.paths import DATA_VARIABLE, data_root

#: The largest file of one picture that is read, in bytes.
MOST_BYTES = 2**28


def imagefolder(path: str, n: int | None, size: int | None, seed: int) -> Decoded:
    """Read a folder of images with one sub-folder per class, or a plain folder of images.

    Each image becomes the central square of 0.875 of its short side, `size` (224) pixels wide; only `n` chosen ones are decoded.
    A relative path is looked for here, then in `LEE_DATA`.
    """
    folder = _find_folder(path)
    samples, class_names, others = _list_images(folder)
    chosen = [samples[int(row)] for row in choose(len(samples), n, seed)]
    squares: list[np.ndarray] = []
    notes: list[tuple[str, ...]] = []
    digests: list[bytes] = []
    for file, _ in chosen:
        content = _content(file)
        digests.append(hashlib.sha256(content).digest())
        picture = read(content, file)
        squares.append(center_square(picture.pixels, size or 224, fraction=0.875))
        notes.append(picture.notes)
    _warn_of([file for file, _ in chosen], squares, notes, digests)
    counts = Counter(note for said in notes for note in said)
    told = [f"{note} in {count} of {len(chosen)} files" for note, count in counts.items()]
    if others:
        told.append(f"{len(others)} of {len(others) + len(samples)} files left out, as of another kind")
        text = f"{told[-1]} than {', '.join(ENDINGS)}; the first is {others[0]}."
        warnings.warn(text, ImageWarning, stacklevel=4)
    labels = torch.tensor([label for _, label in chosen]) if class_names else None
    return Decoded(
        stacked(squares), labels, class_names, hashlib.sha256(b"".join(digests)).hexdigest(), "; ".join(told)
    )


def check_folder(path: str) -> None:
    """Refuse a folder that :func:`imagefolder` could read nothing from."""
    _list_images(_find_folder(path))


def _warn_of(
    files: Sequence[str], squares: Sequence[np.ndarray], notes: Sequence[tuple[str, ...]], digests: Sequence[bytes]
) -> None:
    """Warn, once for all files, of pictures without content, of those that were laid on white, and of copies."""
    empty = [file for file, square in zip(files, squares, strict=True) if (square == square[0, 0]).all()]
    transparent = [file for file, said in zip(files, notes, strict=True) if ON_WHITE in said]
    first = dict(zip(reversed(digests), reversed(files), strict=True))
    copies = [file for file, digest in zip(files, digests, strict=True) if first[digest] != file]
    for found, what in (
        (empty, "are of one colour: no motion changes them, and their error along it is 0 whatever the model does"),
        (transparent, "have transparent parts, which were laid on white"),
        (copies, "are copies of others: standard errors take them for images of their own, and are too small"),
    ):
        if found:
            text = f"{len(found)} of {len(files)} images {what}; the first is {found[0]}."
            warnings.warn(text, ImageWarning, stacklevel=5)


def _find_folder(path: str) -> Path:
    """Return an existing folder: `path` as given, or below `LEE_DATA`."""
    given = Path(path).expanduser()
    if path and given.is_dir():
        return given
    below = data_root() / given if os.environ.get(DATA_VARIABLE) and path else None
    if below is not None and below.is_dir():
        return below
    tried = f", nor below {DATA_VARIABLE}" if below is not None else ""
    raise InputError(f"imagefolder:{path}: there is no such folder{tried}. Write imagefolder:PATH.")


def _content(file: str) -> bytes:
    """The bytes of a file of one picture. Refused are a pipe, which would be waited for, and what is too large for a picture."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{file} is no file, or a link that leads nowhere. Remove it from the folder.")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{file} is too large for a picture: at most {MOST_BYTES >> 20} MB are read.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}.") from error


def _list_images(folder: Path) -> tuple[list[tuple[str, int]], tuple[str, ...], list[str]]:
    """List (file, label) in the order of torchvision's ImageFolder, the class names, if any, and the files of other kinds.

    A folder is one, whatever its name ends in; each is entered once, so that links may lead in a circle. Hidden files and folders,
    such as the forks of a Mac and a notebook's checkpoints, are passed over; a class has images.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        files = [str(entry) for entry in entries if not entry.is_dir()]
        entered = {os.path.realpath(folder)}
        below = {entry.name: list(_below(entry, entered)) for entry in entries if entry.is_dir()}
    except OSError as error:
        raise InputError(f"{error.filename or folder} can't be read: {error.strerror}.") from error
    flat = [file for file in files if _is_image(file)]
    classes = {name: images for name, every in below.items() if (images := [file for file in every if _is_image(file)])}
    samples = [(file, label) for label, images in enumerate(classes.values()) for file in images]
    others = [file for file in (*files, *(file for every in below.values() for file in every)) if not _is_image(file)]
    if flat and samples:
        raise InputError(
            f"{folder} holds images, such as {Path(flat[0]).name}, and sub-folders with images, such as {samples[0][0]}. Keep "
            "one or the other: images alone, or one sub-folder per class."
        )
    if not flat and not samples:
        raise InputError(
            f"{folder} holds no images, neither itself nor in one sub-folder per class. Files that end in "
            f"{', '.join(ENDINGS)} are read."
        )
    return samples or [(file, 0) for file in flat], tuple(classes), others


def _below(folder: Path, entered: set[str]) -> Iterator[str]:
    """The files in a folder and in those below it that were not entered yet, sorted by folder and by name; no hidden ones."""
    found: list[tuple[str, list[str]]] = []
    if os.path.realpath(folder) in entered:
        return iter(())
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        entered.add(os.path.realpath(root))
        new = (name for name in folders if os.path.realpath(os.path.join(root, name)) not in entered)
        folders[:] = [name for name in new if not name.startswith(".")]
        found.append((root, sorted(name for name in names if not name.startswith("."))))
    return (os.path.join(root, name) for root, names in sorted(found) for name in names)


def _raise(error: OSError) -> None:
    raise error


def _is_image(file: str) -> bool:
    return file.lower().endswith(ENDINGS)
