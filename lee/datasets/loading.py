"""Images by name: float tensors in [0, 1] with their licence, source and checksum.

Embedded sets (`photos`, `patches`, `digits`, ...) ship in installed packages. `cifar10`, `cifar100`, `mnist`,
`rotmnist` are read from the user's own folder, named by the environment variable `LEE_DATA`, `imagefolder:PATH` from any folder.
`rgb:BASE` and `corrupt:BASE/KIND/STRENGTH` are made from another set.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lee.datasets.corruptions import CIFAR10_C, CORRUPT, parse
from lee.datasets.embedded import DISTRIBUTIONS, FILES, MEMBERS, digest, load_embedded
from lee.datasets.folders import check_folder, imagefolder
from lee.datasets.image_files import resize
from lee.datasets.local_data import Decoded, check_one_split, cifar10, cifar10_lossless, cifar100, mnist
from lee.datasets.rotated import rotmnist
from lee.errors import InputError, check_count, nearest

_KRIZHEVSKY = "no licence stated; for research, cite A. Krizhevsky, Learning Multiple Layers of Features, 2009"
_MNIST = ("CC BY-SA 3.0", "MNIST, Y. LeCun, C. Cortes and C. Burges")
#: Licence and source of the sets that are no part of an installed package.
LOCAL = {
    "cifar10": (_KRIZHEVSKY, "CIFAR-10, University of Toronto"),
    "cifar10-lossless": (_KRIZHEVSKY, "CIFAR-10, University of Toronto, some of its training images"),
    "cifar100": (_KRIZHEVSKY, "CIFAR-100, University of Toronto"),
    "mnist": _MNIST,
    "rotmnist": (_MNIST[0], f"{_MNIST[1]}, each digit turned as in H. Larochelle et al., ICML 2007"),
    "imagefolder:PATH": ("the folder's own", "a folder of images"),
}
#: Sets made from another one, whose licence they keep: what is done to its images.
DERIVED = {
    "rgb:BASE": ("that of BASE", "grey images repeated over three channels, 32 pixels wide if no size is given"),
    "corrupt:BASE/KIND/STRENGTH": (
        "that of BASE",
        "corrupted as in Hendrycks and Dietterich 2019 (lee.datasets.corruptions)",
    ),
    "cifar10-c/KIND/STRENGTH": ("that of cifar10", "short for corrupt:cifar10/KIND/STRENGTH"),
}
READERS = {
    "cifar10": cifar10, "cifar10-lossless": cifar10_lossless, "cifar100": cifar100, "mnist": mnist, "rotmnist": rotmnist
}  # fmt: skip
#: The largest side in pixels that images are made in.
MOST_SIDE = 8192
_FOLDER, _COLOUR = "imagefolder:", "rgb:"
#: How often a name may say that a set is made from another one: grey images become coloured once.
MOST_OFTEN = {_COLOUR: 1, CORRUPT: 8}


@dataclass(frozen=True)
class ImageSet:
    """Images with everything that a report must say about them.

    Iterating yields batches of 32; `batches` chooses another size.

    Args:
        name: the name it was loaded by.
        images: float32 (N, C, H, W) in [0, 1].
        labels: int64 (N,), or None when there are none.
        class_names: name of each label; for patches, of the picture they are cut from.
        licence: what one may do with the images.
        source: where they come from, and what was done to them.
        sha256: digest of the source files.
    """

    name: str
    images: Tensor = field(repr=False)
    labels: Tensor | None = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    licence: str
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled_sha256(self) -> str:
        """Digest of the source files, the labels and the names of the classes; folders change the last two without a file."""
        labels = None if self.labels is None else self.labels.tolist()
        return hashlib.sha256(json.dumps([self.sha256, labels, self.class_names]).encode()).hexdigest()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        return self.batches(32)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield (images, labels) in order, `size` at a time; the last batch may be smaller.

        Args:
            size: Images per batch.

        Raises:
            InputError: the size is not positive.
        """
        if size < 1:
            raise InputError(f"Batches of {size} images were asked for. Choose 1 or more.")
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.images[part], None if self.labels is None else self.labels[part]


def names() -> tuple[str, ...]:
    """Return the names that `load` knows: embedded sets, then the ones in `LEE_DATA`, then those made from others."""
    return (*MEMBERS, *LOCAL, *DERIVED)


def load(
    name: str,
    *,
    n: int | None = None,
    size: int | None = None,
    split: str = "test",
    seed: int = 0,
    download: bool = False,
) -> ImageSet:
    """Load images by name.

    Args:
        name: one of `names()`; `imagefolder:` is followed by a path, and in the last three BASE stands for another
            name, KIND and STRENGTH for `gaussian_noise`, `gaussian_blur` or `contrast`, and a number from 1 to 5.
        n: how many images. Chosen by `seed`, so that a larger `n` contains every smaller one; all of
            them, in their own order, when None (256 for the sets of patches).
        size: side in pixels. `photos` and folders are cropped to a square and resized (224 when None),
            patches are cut at this size (32), other sets are resized if it is given.
        split: `train` or `test`; only CIFAR, `mnist`, `rotmnist` and the digits have `train` (`cifar10-lossless` nothing else).
            The others, folders among them, are one set, `test`.
        seed: which images, where patches are cut, by what angle digits are turned, and the noise.
        download: fetch `cifar10`, `cifar100` or `mnist` (also for `rotmnist`) into `LEE_DATA` if they aren't there.

    Returns:
        The images as float32 in [0, 1], with labels and provenance.

    Raises:
        InputError: an unknown name (the nearest is suggested), `LEE_DATA` unset or without the data, a
            damaged file, or a number or size that can't be had.

    >>> load("photos", n=2, size=64).images.shape
    torch.Size([2, 3, 64, 64])
    """
    if size is not None:
        check_count("size", size, 1, MOST_SIDE)
    if n is not None:
        check_count("n", n)
    check_count("seed", seed, 0)
    _check_prefixes(name)
    if name.startswith((_COLOUR, CORRUPT, CIFAR10_C)):
        return _derive(name, n=n, size=size, split=split, seed=seed, download=download)
    decoded = _decode(name, n, size, split, seed, download)
    images = decoded.images
    if images.dtype == torch.uint8:
        images = images.to(torch.float32).div_(255)
    if size is not None and tuple(images.shape[-2:]) != (size, size):
        images = resize(images, (size, size))
    licence, source = describe(name)
    source = f"{source} ({decoded.note})" if decoded.note else source
    return ImageSet(name, images, decoded.labels, decoded.class_names, licence, source, decoded.sha256)


def _derive(name: str, *, size: int | None, seed: int, **how: Any) -> ImageSet:
    """Load the base of a derived set, and make it from that."""
    corrupted = parse(name)
    if corrupted is None:
        base = load(name.removeprefix(_COLOUR), size=size or 32, seed=seed, **how)
        return replace(base, name=name, images=base.images.expand(-1, 3, -1, -1).contiguous())
    base = load(corrupted[0], size=size, seed=seed, **how)
    images = corrupted[1](base.images, seed)
    return replace(base, name=name, images=images, source=f"{base.source}; {corrupted[1]}")


def _decode(name: str, n: int | None, size: int | None, split: str, seed: int, download: bool) -> Decoded:
    """Send a name to its reader."""
    if name in MEMBERS:
        return load_embedded(name, n, size, split, seed)
    if name in READERS:
        return READERS[name](split, n, seed, download=download)
    if name.startswith(_FOLDER):
        check_one_split(name, split)
        return imagefolder(name.removeprefix(_FOLDER), n, size, seed)
    raise _unknown(name)


def _unknown(name: str) -> InputError:
    return InputError(f"There is no data set {name!r}.{nearest(name, names())}")


def _check_prefixes(name: str) -> None:
    for prefix, most in MOST_OFTEN.items():
        if (count := name.partition(_FOLDER)[0].count(prefix)) > most:
            often = "once" if most == 1 else f"at most {most} times"
            raise InputError(
                f"The name of the data set {name[:40]!r} … repeats {prefix} {count} times; write it {often}."
            )


def check(name: str) -> None:
    """Refuse the name of a data set that there is not, or of a folder without images, before anything is read.

    Args:
        name: a name as for `load`.

    Raises:
        InputError: an unknown name, a corruption that there is not, or a folder that isn't there or holds no images.
    """
    _check_prefixes(name)
    if name.startswith(_COLOUR):
        check(name.removeprefix(_COLOUR))
    elif (corrupted := parse(name)) is not None:
        check(corrupted[0])
    elif name.startswith(_FOLDER):
        check_folder(name.removeprefix(_FOLDER))
    elif name not in (*MEMBERS, *READERS):
        raise _unknown(name)


def describe(name: str) -> tuple[str, str]:
    """Return (licence, source) of a data set, without reading it.

    Args:
        name: a name that `load` knows.

    Raises:
        InputError: an unknown name, or a corruption that there is not.
    """
    if name in MEMBERS:
        files = [FILES[member] for member in MEMBERS[name]]
        licences = dict.fromkeys(file.licence for file in files)
        origins = (f"{file.origin} (in {DISTRIBUTIONS[file.package]})" for file in files)
        return "; ".join(licences), "; ".join(origins)
    _check_prefixes(name)
    if name in DERIVED:
        return DERIVED[name]
    if name.startswith(_COLOUR):
        return describe(name.removeprefix(_COLOUR))
    if (corrupted := parse(name)) is not None:
        licence, source = describe(corrupted[0])
        return licence, f"{source}; {corrupted[1]}"
    if name not in LOCAL and not name.startswith(_FOLDER):
        raise _unknown(name)
    return LOCAL["imagefolder:PATH" if name.startswith(_FOLDER) else name]


def verify(chosen: Sequence[str] | None = None) -> list[tuple[str, bool, str]]:
    """Check files against their recorded digests.

    Args:
        chosen: names of data sets; by default every embedded set.

    Returns:
        (name, whether it holds, message) for each. A set in `LEE_DATA` has no recorded digest: it
        holds when it can be read, and the message gives its digest.

    Raises:
        InputError: an unknown name.
    """
    rows: list[tuple[str, bool, str]] = []
    for name in MEMBERS if chosen is None else chosen:
        if name not in (*MEMBERS, *LOCAL) and not name.startswith((_FOLDER, _COLOUR, CORRUPT, CIFAR10_C)):
            raise InputError(f"There is nothing to verify called {name!r}.{nearest(name, names())}")
        try:
            rows.append((name, True, _verified(name)))
        except InputError as error:
            rows.append((name, False, str(error)))
    return rows


def _verified(name: str) -> str:
    """The digest of a set, whose files have been compared with recorded digests, or one image of which has been read."""
    for member in MEMBERS.get(name, ()):
        FILES[member].check()
    if name in MEMBERS:
        return f"sha256 {digest(name)}"
    split = "train" if name == "cifar10-lossless" else "test"  # it has no other
    return f"readable, sha256 {load(name, split=split, n=1).sha256}"
