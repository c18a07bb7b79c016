"""Data sets in the user's own folder, named by `LEE_DATA`: CIFAR-10, CIFAR-100, MNIST.

Nothing here unpickles. torchvision's CIFAR readers do (the archives they download hold Python
pickles), so CIFAR is read from Parquet or from the *binary* version of the same archive, whose
records are plain bytes and whose download is checked against its published MD5.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lee.datasets.image_files import read, stacked
from lee.errors import InputError, check_known, reason
from lee.paths import DATA_VARIABLE, data_root, file_sha256

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
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
        raise InputError(f"The data set has {total} images, so n = {n} can't be had. Choose n from 1 to {total}.")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n]


def check_split(split: str) -> None:
    """Raise `InputError` unless `split` is `train` or `test`."""
    check_known("split", split, ("train", "test"))


def check_one_split(name: str, split: str) -> None:
    """Raise `InputError` unless `split` is `test`, for a data set that isn't parted: what it tests was never trained on."""
    check_split(split)
    if split != "test":
        raise InputError(
            f"The data set {name!r} has only the split 'test', not {split!r}: its images are one set. Choose `split: test`, or "
            "a data set with both, as for training."
        )


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Refuse labels (N,) beyond the classes that there are, and a file without any."""
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        found = f"labels from {int(labels.min())} to {int(labels.max())}" if len(labels) else "no labels"
        raise InputError(
            f"{path} holds {found}; there are {classes} classes, from 0. It is of another form: download it again."
        )


def cifar10(split: str, n: int | None, seed: int, *, download: bool) -> Decoded:
    """Read CIFAR-10: `cifar10/{split}.parquet`, or the folder of the binary archive, which may be downloaded."""
    check_split(split)
    root = data_root()
    parquet = root / "cifar10" / f"{split}.parquet"
    if parquet.is_file():
        return _cifar10_parquet(parquet, n, seed)
    folder = _archive(root, "CIFAR-10", *CIFAR10_BINARY, download, f"neither cifar10/{split}.parquet nor {{}} exists")
    files = ["test_batch.bin"] if split == "test" else [f"data_batch_{part}.bin" for part in range(1, 6)]
    return _cifar_binary(folder, files, n, seed, CIFAR10_CLASSES)


def cifar10_lossless(split: str, n: int | None, seed: int, *, download: bool) -> Decoded:
    """Read `cifar10-lossless/train.parquet`: some of CIFAR-10's training images as they were, for those whose CIFAR-10 is JPEG."""
    check_known("split", split, ("train",))
    path = data_root() / "cifar10-lossless" / "train.parquet"
    if not path.is_file():
        raise InputError(f"{path} is missing, and it can't be fetched. Use cifar10.")
    return _cifar10_parquet(path, n, seed)


def cifar100(split: str, n: int | None, seed: int, *, download: bool) -> Decoded:
    """Read CIFAR-100 with its 100 fine labels, from the folder of the binary archive, which may be downloaded."""
    check_split(split)
    folder = _archive(data_root(), "CIFAR-100", *CIFAR100_BINARY, download, "{} is missing")
    listed = folder / "fine_label_names.txt"
    names = tuple(listed.read_text(encoding="utf-8", errors="replace").split()) if listed.is_file() else ()
    return _cifar_binary(folder, [f"{split}.bin"], n, seed, names if len(names) == 100 else tuple(map(str, range(100))))


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
        labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
        encoded = table["image"].combine_chunks().field("bytes")
    except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not Parquet with the columns image (of bytes and path) and label: {reason(error)}."
        ) from error
    check_labels(labels, len(CIFAR10_CLASSES), path)
    rows = choose(len(table), n, seed)
    images = [read(encoded[int(row)].as_py() or b"", f"{path.name}, row {int(row)}").pixels for row in rows]
    if odd := next((image.shape[:2] for image in images if image.shape[:2] != (32, 32)), None):
        raise InputError(f"{path} holds an image of {odd[0]} × {odd[1]} pixels; CIFAR-10 has 32 × 32.")
    jpeg = (encoded[0].as_py() or b"").startswith(b"\xff\xd8")
    note = "stored as JPEG, so slightly lossy" if jpeg else ""
    return Decoded(stacked(images), labels[rows], CIFAR10_CLASSES, file_sha256(path), note)


def _cifar_binary(folder: Path, names: list[str], n: int | None, seed: int, classes: tuple[str, ...]) -> Decoded:
    """Images (n, 3, 32, 32) and the last label byte of each, from records of bytes; CIFAR-100 has a coarse label before."""
    label_bytes = 1 if len(classes) == 10 else 2
    length, parts = label_bytes + _CIFAR_PIXELS, []
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"There is no file {folder / name}. Download the archive again.")
        try:
            content = np.fromfile(folder / name, dtype=np.uint8)
        except OSError as error:
            raise InputError(f"{folder / name} can't be read: {error.strerror}.") from error
        if content.size == 0 or content.size % length:
            raise InputError(f"{folder / name} is truncated ({content.size} bytes). Download it again.")
        parts.append(content.reshape(-1, length))
        check_labels(torch.from_numpy(parts[-1][:, label_bytes - 1].astype(np.int64)), len(classes), folder / name)
    records = torch.from_numpy(np.concatenate(parts))
    records = records[choose(len(records), n, seed)]
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).contiguous()
    digest = "+".join(file_sha256(folder / name) for name in names)
    return Decoded(images, records[:, label_bytes - 1].long(), classes, digest)


def mnist(split: str, n: int | None, seed: int, *, download: bool) -> Decoded:
    """Read MNIST's IDX files from `MNIST/raw` through torchvision; images are (N, 1, 28, 28)."""
    check_split(split)
    from torchvision.datasets import MNIST

    root = data_root()
    raw = root / "MNIST" / "raw"
    try:
        source = MNIST(str(root), train=split == "train", download=download)
        if source.data.ndim != 3 or len(source.data) != len(source.targets):
            raise ValueError(f"{tuple(source.data.shape)} are no images with {len(source.targets)} labels")
    except Exception as error:  # whatever torchvision makes of files of another form
        raise InputError(
            f"MNIST can't be read from {DATA_VARIABLE}/MNIST/raw: {reason(error)}. "
            f"lee.datasets.load('mnist', download=True) fetches it (12 MB)."
        ) from error
    check_labels(source.targets, 10, raw)
    rows = choose(len(source.data), n, seed)
    digest = file_sha256(raw / f"{'train' if split == 'train' else 't10k'}-images-idx3-ubyte")
    return Decoded(source.data[rows].unsqueeze(1), source.targets[rows].long(), DIGITS, digest)
