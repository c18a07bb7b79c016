"""Files of data that are none, are of another form, or are made to be large: each gets a sentence, at once."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lee import datasets
from lee.errors import ImageWarning, InputError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEE_DATA", str(tmp_path))
    return tmp_path


def picture(path: Path, value: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([value, *str(path).encode()]).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def bomb(side: int) -> bytes:
    """A PNG that says that it has side × side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.timeout(60)
def test_pipes_links_and_bombs_are_named(root: Path) -> None:
    folder = root / "it"
    picture(folder / "a.png")
    os.mkfifo(folder / "b.png")
    with pytest.raises(InputError, match=r"b\.png is no file, or a link"):
        datasets.load("imagefolder:it")
    (folder / "b.png").unlink()
    for target in ("b.png", "nowhere"):
        (folder / "b.png").symlink_to(folder / target)
        with pytest.raises(InputError, match=r"b\.png is no file, or a link"):
            datasets.load("imagefolder:it")
        (folder / "b.png").unlink()
    for side, said in ((60_000, "too many pixels"), (9_000, "can't be read")):
        (folder / "b.png").write_bytes(bomb(side))
        with pytest.raises(InputError, match=said):
            datasets.load("imagefolder:it")
    with (folder / "b.png").open("wb") as stream:
        stream.truncate(2**29)
    with pytest.raises(InputError, match="too large for a picture"):
        datasets.load("imagefolder:it")


def test_folders_named_like_pictures_and_circles_of_links_are_folders(root: Path) -> None:
    for name in ("cats.png", "dogs"):
        picture(root / "it" / name / "a.png")
    (root / "it" / "dogs" / "again").symlink_to(root / "it" / "dogs")
    (root / "it" / "cats.png" / "more.png").mkdir()
    picture(root / "it" / "cats.png" / "more.png" / "b.png", 10)
    found = datasets.load("imagefolder:it", size=16)
    assert (found.class_names, found.labels.tolist()) == (("cats.png", "dogs"), [0, 0, 1])  # type: ignore[union-attr]


def test_each_folder_is_entered_once_whatever_leads_there(root: Path) -> None:
    for name in ("cats", "dogs"):
        picture(root / "it" / name / "a.png")
    (root / "it" / "everything").symlink_to(root / "it")
    (root / "it" / "cats" / "._a.png").write_bytes(b"what a Mac writes beside a.png")
    assert datasets.load("imagefolder:it", size=16).labels.tolist() == [0, 1]  # type: ignore[union-attr]


def test_classes_are_the_folders_with_pictures_that_are_not_hidden(root: Path) -> None:
    for name in (".thumbs", "cats", "cats/.ipynb_checkpoints", "dogs"):
        picture(root / "it" / name / "a.png")
    (root / "it" / "bats").mkdir()
    found = datasets.load("imagefolder:it", size=16)
    assert (found.class_names, found.labels.tolist()) == (("cats", "dogs"), [0, 1])  # type: ignore[union-attr]
    picture(root / "flat" / "a.png")
    picture(root / "flat" / ".thumbs" / "a.png")
    assert len(datasets.load("imagefolder:flat", size=16)) == 1


def test_files_that_are_not_read_are_counted(root: Path) -> None:
    picture(root / "it" / "cats" / "a.png")
    for name in ("cats/b.heic", "cats/deep/c.jfif", "owls/d.heic", "labels.csv", ".DS_Store"):
        (root / "it" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "it" / name).write_bytes(b"something else")
    said = "4 of 5 files left out, as of another kind"
    with pytest.warns(ImageWarning, match=rf"{said} than \.bmp.*; the first is .*labels\.csv"):
        found = datasets.load("imagefolder:it", size=16)
    assert said in found.source
    assert found.class_names == ("cats",)


def test_pictures_beside_folders_of_pictures_are_refused(root: Path) -> None:
    picture(root / "it" / "cats" / "a.png")
    picture(root / "it" / "preview.png")
    with pytest.raises(InputError, match=r"preview\.png, and sub-folders with images.*one or the other"):
        datasets.load("imagefolder:it", size=16)


def test_a_folder_is_listed_as_torchvision_does(root: Path) -> None:
    from torchvision.datasets import ImageFolder

    from lee.datasets.folders import _list_images

    for place, name in enumerate(("b/z.png", "b/a.jpg", "a/x/1.png", "a/2.png", "c/d/e/0.png", "c/none.txt")):
        if name.endswith("txt"):
            (root / "it" / name).write_text("no picture")
        else:
            picture(root / "it" / name, place)
    source = ImageFolder(str(root / "it"), allow_empty=True)
    assert _list_images(root / "it")[:2] == (source.samples, tuple(source.classes))


TABLES: list[tuple[dict[str, Any], str]] = [
    ({"img": [b"x"], "label": [0]}, "is not Parquet with the columns"),
    ({"image": [b"x"], "label": [0]}, "is not Parquet with the columns"),
    ({"image": [{"path": "x"}], "label": [0]}, "is not Parquet with the columns"),
    ({"image": [{"bytes": b"x"}], "label": ["cat"]}, "is not Parquet with the columns"),
    ({"image": [{"bytes": b"x"}], "label": [None]}, "is not Parquet|labels from"),
    ({"image": [{"bytes": b"x"}], "label": [10]}, "labels from 10 to 10; there are 10 classes"),
    ({"image": [{"bytes": b"x"}], "label": [-1]}, "labels from -1 to -1"),
    ({"image": [{"bytes": b"x"}], "label": [1]}, "row 0 can't be read"),
    ({"image": pa.array([None], pa.struct([("bytes", pa.binary())])), "label": [1]}, "row 0 can't be read"),
    ({"image": pa.array([], pa.struct([("bytes", pa.binary())])), "label": pa.array([], pa.int64())}, "no labels"),
]


@pytest.mark.parametrize(("columns", "said"), TABLES, ids=range(len(TABLES)))
def test_parquet_of_another_form(root: Path, columns: dict[str, Any], said: str) -> None:
    (root / "cifar10").mkdir()
    pq.write_table(pa.table(columns), root / "cifar10" / "test.parquet")
    with pytest.raises(InputError, match=said):
        datasets.load("cifar10")


def test_images_of_another_size_and_records_of_other_labels(root: Path) -> None:
    picture(root / "x.png")
    (root / "cifar10").mkdir()
    rows = {"image": [{"bytes": (root / "x.png").read_bytes()}], "label": [3]}
    pq.write_table(pa.table(rows), root / "cifar10" / "test.parquet")
    with pytest.raises(InputError, match="an image of 20 × 20 pixels; CIFAR-10 has 32 × 32"):
        datasets.load("cifar10")
    (root / "cifar10" / "test.parquet").unlink()
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    with pytest.raises(InputError, match=r"no file .*test_batch\.bin"):
        datasets.load("cifar10")
    (folder / "test_batch.bin").write_bytes(bytes([77]) + bytes(3072))
    with pytest.raises(InputError, match="labels from 77 to 77"):
        datasets.load("cifar10")
    (folder / "test_batch.bin").write_bytes(bytes(3073 + 5))
    with pytest.raises(InputError, match="truncated"):
        datasets.load("cifar10")


def test_mnist_of_another_form(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)

    def write(images: np.ndarray, labels: np.ndarray) -> None:
        for part in ("train", "t10k"):
            for stem, values in (("images-idx3", images), ("labels-idx1", labels)):
                head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
                (raw / f"{part}-{stem}-ubyte").write_bytes(head + values.tobytes())

    square = np.zeros((3, 28, 28), np.uint8)
    write(square, np.zeros(3, np.uint8))
    assert len(datasets.load("mnist")) == 3
    for images, labels, said in (
        (square[0], np.zeros(3, np.uint8), "MNIST can't be read"),
        (square, np.zeros((3, 2), np.uint8), "MNIST can't be read"),
        (square, np.zeros(2, np.uint8), "MNIST can't be read"),
        (square, np.full(3, 10, np.uint8), "labels from 10 to 10"),
    ):
        write(images, labels)
        with pytest.raises(InputError, match=said):
            datasets.load("mnist")
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x01")
    with pytest.raises(InputError, match="MNIST can't be read"):
        datasets.load("mnist")


@pytest.mark.parametrize(
    "asked", [{"size": 10**6}, {"size": True}, {"size": 2.0}, {"n": True}, {"seed": -1}, {"seed": 2**64}, {"n": "3"}]
)
def test_absurd_numbers_are_refused(asked: dict[str, Any]) -> None:
    for name in ("photos", "patches", "digits", "rgb:digits"):
        with pytest.raises(InputError, match=f"`{next(iter(asked))}` must be a whole number"):
            datasets.load(name, **asked)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"---\nname: \xff\n---\n", "can't be read"),
        (b"no card", "no YAML front matter"),
        (b"---\n[1, 2]\n---\n", "expected a mapping with name, family, parameters, test_accuracy, sha256"),
        (b"---\nname: zoo/vit-s\n---\n", "`family:` is missing"),
        (b"---\nname: a\nfamily: b\nparameters: 3\ntest_accuracy: 2\nsha256: x\n---\n", "`test_accuracy` must be"),
        (b"---\nname: a\nfamily: b\nparameters: 3\ntest_accuracy: 1\nsha256: x\n---\n", "`sha256`"),
        (b"---\na: [\n---\n", "is not valid YAML"),
    ],
)
def test_cards_that_are_none_or_lack_a_field(tmp_path: Path, content: bytes, said: str) -> None:
    from dataclasses import replace

    from lee.models.cards import read_card
    from lee.models.recipes import load_spec

    spec = replace(load_spec("zoo/vit-s"), folder=tmp_path)
    (tmp_path / "vit-s.md").write_bytes(content)
    with pytest.raises(InputError, match=said) as found:
        read_card(spec)
    assert "vit-s.md" in str(found.value)
