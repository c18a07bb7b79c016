"""Data sets in the user's own folder, named by `LEE_DATA`: CIFAR-10, CIFAR-100, MNIST, folders of images.

Nothing here unpickles. torchvision's CIFAR readers do (the archives they download hold Python
pickles), so CIFAR is read from Parquet or from the *binary* version of the same archive, whose
records are plain bytes and whose download is checked against its published MD5.
"""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lee.datasets.image_files import ENDINGS, ON_WHITE, center_square, read, stacked
from lee.errors import ImageWarning, InputError, check_known
from lee.paths import DATA_VARIABLE, data_root, file_sha256

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: The archives of plain records: folder, address, MD5.
CIFAR10_BINARY = (
    "cifar-10-batches-bin", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
)  # fmt: skip
CIFAR100_BINARY = (
    "cifar-100-binary", "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8",
)  # fmt: skip
_CIFAR_PIXELS = 3 * 32 * 32  # the red, green and blue planes; before them a label byte or two


@dataclass(frozen=True)
class Decoded:
    """What a reader returns: images (N, C, H, W) as bytes or floats in [0, 1], labels (N,) or None.

    `sha256` is the digest of the source files, `note` what a report should say about them.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    sha256: str
    note: str = ""


def choose(total: int, n: int | None, seed: int) -> Tensor:
    """Return the indices of `n` of `total` items: all in order, or the head of a seeded permutation.

    A larger `n` with the same seed contains every smaller one.
    """
    if n is None:
        return torch.arange(total)
    if not 1 <= n <= total:
        raise InputError(f"n = {n} images were asked for; the data set has {total}. Choose 1 to {total}.")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n]


def check_split(split: str) -> None:
    """Raise `InputError` unless `split` is `train` or `test`."""
    check_known("split", split, ("train", "test"))


def cifar10(split: str, n: int | None, seed: int, *, download: bool = False) -> Decoded:
    """Read CIFAR-10: `cifar10/{split}.parquet`, or the folder of the binary archive.

    Raises:
        InputError: neither form is in `LEE_DATA` and `download` is false.
    """
    check_split(split)
    root = data_root()
    parquet = root / "cifar10" / f"{split}.parquet"
    if parquet.is_file():
        return _cifar10_parquet(parquet, n, seed)
    folder = _archive(root, "CIFAR-10", *CIFAR10_BINARY, download, f"neither cifar10/{split}.parquet nor {{}} exists")
    names = ["test_batch.bin"] if split == "test" else [f"data_batch_{part}.bin" for part in range(1, 6)]
    images, labels, digest = _cifar_binary(folder, names, n, seed, label_bytes=1)
    return Decoded(images, labels, CIFAR10_CLASSES, digest)


def cifar100(split: str, n: int | None, seed: int, *, download: bool = False) -> Decoded:
    """Read CIFAR-100 with its 100 fine labels, from the folder of the binary archive.

    Raises:
        InputError: the folder is not in `LEE_DATA` and `download` is false, or a file is damaged.
    """
    check_split(split)
    folder = _archive(data_root(), "CIFAR-100", *CIFAR100_BINARY, download, "{} is missing")
    images, labels, digest = _cifar_binary(folder, [f"{split}.bin"], n, seed, label_bytes=2)
    listed = folder / "fine_label_names.txt"
    names = tuple(listed.read_text(encoding="utf-8").split()) if listed.is_file() else ()
    return Decoded(images, labels, names or tuple(map(str, range(100))), digest)


def _archive(root: Path, name: str, folder: str, url: str, md5: str, download: bool, missing: str) -> Path:
    """The folder of an unpacked archive; one with another MD5 is refused before it is read."""
    from torchvision.datasets.utils import download_and_extract_archive

    if not (root / folder).is_dir():
        if not download:
            called = name.lower().replace("-", "")
            raise InputError(
                f"{name} is not in {DATA_VARIABLE}: {missing.format(folder + '/')}. "
                f"lee.datasets.load({called!r}, download=True) fetches it (170 MB)."
            )
        try:
            download_and_extract_archive(url, str(root), md5=md5)
        except (RuntimeError, OSError) as error:
            raise InputError(f"The download of {name} from {url} failed: {error}") from error
    return root / folder


def _cifar10_parquet(path: Path, n: int | None, seed: int) -> Decoded:
    """Columns `image` (struct of `bytes`, `path`) and `label`; only the chosen rows are decoded."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=["image", "label"])
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is not Parquet with the columns image and label: {error}.") from error
    rows = choose(len(table), n, seed)
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    encoded = table["image"].combine_chunks().field("bytes")
    images = [read(encoded[int(row)].as_py(), f"{path.name}, row {int(row)}").pixels for row in rows]
    jpeg = encoded[0].as_py().startswith(b"\xff\xd8")
    note = "stored as JPEG, so slightly lossy" if jpeg else ""
    return Decoded(stacked(images), labels[rows], CIFAR10_CLASSES, file_sha256(path), note)


def _cifar_binary(
    folder: Path, names: list[str], n: int | None, seed: int, *, label_bytes: int
) -> tuple[Tensor, Tensor, str]:
    """Images (n, 3, 32, 32), the last label byte of each, and the files' digests, from records of bytes."""
    length, parts = label_bytes + _CIFAR_PIXELS, []
    for name in names:
        try:
            content = np.fromfile(folder / name, dtype=np.uint8)
        except OSError as error:
            raise InputError(f"{folder / name} can't be read: {error.strerror}.") from error
        if content.size == 0 or content.size % length:
            raise InputError(f"{folder / name} is truncated ({content.size} bytes). Download it again.")
        parts.append(content.reshape(-1, length))
    records = torch.from_numpy(np.concatenate(parts))
    records = records[choose(len(records), n, seed)]
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).contiguous()
    digest = "+".join(file_sha256(folder / name) for name in names)
    return images, records[:, label_bytes - 1].long(), digest


def mnist(split: str, n: int | None, seed: int, *, download: bool = False) -> Decoded:
    """Read MNIST's IDX files from `MNIST/raw` through torchvision; images are (N, 1, 28, 28)."""
    check_split(split)
    from torchvision.datasets import MNIST

    root = data_root()
    try:
        source = MNIST(str(root), train=split == "train", download=download)
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"MNIST can't be read from {DATA_VARIABLE}/MNIST/raw: {str(error).splitlines()[0]} "
            f"lee.datasets.load('mnist', download=True) fetches it (12 MB)."
        ) from error
    rows = choose(len(source.data), n, seed)
    stem = "train" if split == "train" else "t10k"
    raw = root / "MNIST" / "raw" / f"{stem}-images-idx3-ubyte"
    names = tuple(str(digit) for digit in range(10))
    return Decoded(source.data[rows].unsqueeze(1), source.targets[rows].long(), names, file_sha256(raw))


def imagefolder(path: str, n: int | None, size: int | None, seed: int) -> Decoded:
    """Read a folder of images with one sub-folder per class, or a plain folder of images.

    Each image becomes the central square of 0.875 of its short side, `size` (224) pixels wide.

    Args:
        path: a folder; a relative one is looked for here, then in `LEE_DATA`.
        n: how many images; only these are decoded.
        size: side in pixels.
        seed: which images.

    Raises:
        InputError: no such folder, no images in it, or a file that can't be read (:func:`lee.datasets.image_files.read`).
    """
    folder = _find_folder(path)
    samples, class_names = _list_images(folder)
    chosen = [samples[int(row)] for row in choose(len(samples), n, seed)]
    squares, notes, digest = [], [], hashlib.sha256()
    for file, _ in chosen:
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise InputError(f"{file} can't be read: {error.strerror}.") from error
        digest.update(hashlib.sha256(content).digest())
        picture = read(content, file)
        squares.append(center_square(picture.pixels, size or 224, fraction=0.875))
        notes.append(picture.notes)
    _warn_of([file for file, _ in chosen], squares, notes)
    counts = Counter(note for said in notes for note in said)
    note = "; ".join(f"{note} in {count} of {len(chosen)} files" for note, count in counts.items())
    labels = torch.tensor([label for _, label in chosen]) if class_names else None
    return Decoded(stacked(squares), labels, class_names, digest.hexdigest(), note)


def check_folder(path: str) -> None:
    """Refuse a folder that :func:`imagefolder` could read nothing from.

    Args:
        path: a folder; a relative one is looked for here, then in `LEE_DATA`.

    Raises:
        InputError: no such folder, or no images in it.
    """
    _list_images(_find_folder(path))


def _warn_of(files: Sequence[str], squares: Sequence[np.ndarray], notes: Sequence[tuple[str, ...]]) -> None:
    """Warn, once for all files, of pictures without content and of those whose transparent parts were laid on white."""
    empty = [file for file, square in zip(files, squares, strict=True) if (square == square[0, 0]).all()]
    transparent = [file for file, said in zip(files, notes, strict=True) if ON_WHITE in said]
    for found, what in (
        (empty, "are of one colour: no motion changes them, and their error along it is 0 whatever the model does"),
        (transparent, "have transparent parts, which were laid on white"),
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


def _list_images(folder: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """List (file, label) in the order of torchvision's ImageFolder, and the class names, if any."""
    from torchvision.datasets import ImageFolder

    flat = sorted(str(file) for file in folder.iterdir() if _is_image(str(file)))
    if flat:
        return [(file, 0) for file in flat], ()
    try:
        source = ImageFolder(str(folder), is_valid_file=_is_image, allow_empty=True)
    except FileNotFoundError:
        source = None
    if source is None or not source.samples:
        raise InputError(
            f"{folder} holds no images, neither itself nor in one sub-folder per class. Files that end in "
            f"{', '.join(ENDINGS)} are read."
        )
    return source.samples, tuple(source.classes)


def _is_image(file: str) -> bool:
    return file.lower().endswith(ENDINGS)
