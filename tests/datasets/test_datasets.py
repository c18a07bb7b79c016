"""Images by name: what comes out, that it is the same every time, and what is said when it can't be had."""

import hashlib
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from lee import datasets
from lee.datasets.embedded import FILES, MEMBERS, SourceFile
from lee.datasets.image_files import center_square
from lee.datasets.local_data import CIFAR10_CLASSES, choose
from lee.errors import InputError

SIDES = {"photos": 224, "digits": 8, "rotated-digits": 12}


@pytest.fixture
def lee_data() -> Path:
    if not os.environ.get("LEE_DATA"):
        pytest.skip("LEE_DATA is not set")
    return Path(os.environ["LEE_DATA"])


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", MEMBERS)
def test_embedded_sets_are_labelled_float_images_in_the_unit_interval(name: str) -> None:
    data = datasets.load(name, n=6)
    side, channels = SIDES.get(name, 32), 1 if "digits" in name else 3
    assert data.images.shape == (6, channels, side, side)
    assert data.images.dtype == torch.float32
    assert data.images.min() >= 0
    assert 0.5 < data.images.max() <= 1
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert 0 <= data.labels.min() <= data.labels.max() < len(data.class_names)
    assert data.licence
    assert data.source
    assert len(data.sha256) == 64


@pytest.mark.parametrize("name", ["photos", "patches", "rotated-digits"])
def test_same_seed_same_images_and_fewer_are_contained_in_more(name: str) -> None:
    first, again, more = (datasets.load(name, n=n, seed=3).images for n in (4, 4, 7))
    assert torch.equal(first, again)
    assert torch.equal(first, more[:4])
    assert not torch.equal(first, datasets.load(name, n=4, seed=4).images)


def test_all_photos_come_in_their_own_order_and_each_is_another() -> None:
    data = datasets.load("photos", size=32)
    assert data.labels is not None
    assert data.labels.tolist() == list(range(8))
    assert len({image.numpy().tobytes() for image in data.images}) == 8


@pytest.mark.parametrize("name", ["patches", "histology", "retina", "textures"])
def test_patches_are_not_empty_and_take_their_pictures_in_turn(name: str) -> None:
    data = datasets.load(name, n=42)
    assert (data.images.mean(1).flatten(1).std(1) > 0.03).all()
    assert data.labels is not None
    counts = torch.bincount(data.labels)
    assert len(counts) == len(data.class_names)
    assert counts.max() - counts.min() <= 1


def test_retina_patches_lie_inside_the_disc() -> None:
    """The back of the eye is red: inside the disc red is never below 0.6 (a single pixel may ring), in the surround it is 0."""
    data = datasets.load("retina", n=400, seed=1)
    assert data.labels is not None
    fundus = data.images[data.labels == data.class_names.index("retina")]
    assert len(fundus) == 200
    assert float(fundus[:, 0].min()) > 0.45
    assert float(data.images.mean(1).min()) > 0.2


def test_patches_larger_than_a_third_of_any_picture_are_still_cut() -> None:
    assert datasets.load("textures", n=3, size=400).images.shape == (3, 3, 400, 400)
    with pytest.raises(InputError, match="512 pixels wide at most, not 513"):
        datasets.load("textures", n=3, size=513)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    train, test = datasets.load("digits", split="train"), datasets.load("digits")
    assert train.labels is not None
    assert test.labels is not None
    assert np.array_equal(torch.cat([train.images, test.images]).squeeze(1).numpy() * 16, source.images)
    assert torch.cat([train.labels, test.labels]).tolist() == source.target.tolist()


def test_rotation_keeps_the_ink_and_turns_about_the_centre() -> None:
    upright, turned = datasets.load("digits"), datasets.load("rotated-digits")
    assert torch.equal(upright.labels, turned.labels)  # type: ignore[arg-type]
    ink, turned_ink = upright.images.sum((1, 2, 3)), turned.images.sum((1, 2, 3))
    # Interpolation and clipping move a little ink; a digit cut off at the border would lose much more.
    assert (turned_ink / ink - 1).abs().max() < 0.1
    grid = torch.arange(8.0) - 3.5
    offsets = (upright.images * (grid[None, :] ** 2 + grid[:, None] ** 2)).sum((1, 2, 3)) / ink
    wide = torch.arange(12.0) - 5.5
    turned_offsets = (turned.images * (wide[None, :] ** 2 + wide[:, None] ** 2)).sum((1, 2, 3)) / turned_ink
    # The mean squared distance to the centre, in pixels²: interpolating three times adds about 0.5 by its
    # blur, a turn about any other point would add its squared shift.
    assert (turned_offsets - offsets - 0.5).abs().max() < 0.25


def test_center_square_is_the_centre() -> None:
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, 20:60] = 200
    assert np.array_equal(center_square(pixels, 40), np.full((40, 40, 3), 200, dtype=np.uint8))
    assert center_square(pixels, 40, fraction=0.5).shape == (40, 40, 3)


def test_size_resizes_sets_of_fixed_size() -> None:
    data = datasets.load("digits", n=3, size=16)
    assert data.images.shape == (3, 1, 16, 16)
    assert data.images.min() >= 0
    assert data.images.max() <= 1


def test_batches_cover_the_set_in_order() -> None:
    data = datasets.load("digits", n=10)
    parts = list(data.batches(4))
    assert [len(images) for images, _ in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([images for images, _ in parts]), data.images)
    assert len(data) == 10
    assert torch.equal(next(iter(data))[0], data.images)
    with pytest.raises(InputError, match="Batches of 0"):
        next(data.batches(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar1"}, "Did you mean 'cifar10'"),
        ({"name": "photos", "n": 9}, "has 8 images, so n = 9 can't be had. Choose n from 1 to 8"),
        ({"name": "photos", "n": 0}, "`n` must be a whole number from 1, not 0"),
        ({"name": "patches", "n": 5000}, "Choose 1 to 4096"),
        ({"name": "photos", "size": 0}, "`size` must be a whole number from 1 to 8192, not 0"),
        ({"name": "photos", "split": "train"}, "only the split 'test'"),
        ({"name": "digits", "split": "tset"}, "Did you mean 'test'"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        datasets.load(**arguments)


def test_local_sets_say_which_variable_and_command_give_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"LEE_DATA.*load\('cifar10', download=True\)"):
        datasets.load("cifar10")
    with pytest.raises(InputError, match=r"LEE_DATA.*load\('mnist', download=True\)"):
        datasets.load("mnist")
    monkeypatch.setenv("LEE_DATA", str(root / "nowhere"))
    with pytest.raises(InputError, match="not a folder"):
        datasets.load("cifar10")
    monkeypatch.delenv("LEE_DATA")
    with pytest.raises(InputError, match="LEE_DATA is not set"):
        datasets.load("mnist")


def _cifar10_records(count: int, seed: int) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, 10, (count, 1), dtype=np.uint8)
    return np.concatenate([labels, numbers.integers(0, 256, (count, 3072), dtype=np.uint8)], axis=1)


def test_cifar10_binary_records(root: Path) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    batches = [_cifar10_records(4, seed) for seed in range(6)]
    for part, batch in enumerate(batches[:5], start=1):
        batch.tofile(folder / f"data_batch_{part}.bin")
    batches[5].tofile(folder / "test_batch.bin")
    train, test = datasets.load("cifar10", split="train"), datasets.load("cifar10")
    assert train.images.shape == (20, 3, 32, 32)
    assert test.labels is not None
    assert test.labels.tolist() == batches[5][:, 0].tolist()
    assert torch.equal(test.images.mul(255).round().byte().flatten(1), torch.from_numpy(batches[5][:, 1:].copy()))
    assert torch.equal(train.images[7].mul(255).round().byte().flatten(), torch.from_numpy(batches[1][3, 1:].copy()))
    (folder / "test_batch.bin").write_bytes(batches[5].tobytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        datasets.load("cifar10")


def test_cifar100_binary_records(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"cifar-100-binary/ is missing.*load\('cifar100', download=True\)"):
        datasets.load("cifar100")
    folder = root / "cifar-100-binary"
    folder.mkdir()
    numbers = np.random.default_rng(7)
    coarse, fine = numbers.integers(0, 20, (5, 1)), numbers.integers(0, 100, (5, 1))
    records = np.concatenate([coarse, fine, numbers.integers(0, 256, (5, 3072))], axis=1).astype(np.uint8)
    records.tofile(folder / "test.bin")
    (folder / "fine_label_names.txt").write_text("\n".join(f"class {k}".replace(" ", "_") for k in range(100)) + "\n")
    test = datasets.load("cifar100")
    assert test.labels is not None
    assert test.labels.tolist() == fine.ravel().tolist()
    assert test.class_names[7] == "class_7"
    assert torch.equal(test.images.mul(255).round().byte().flatten(1), torch.from_numpy(records[:, 2:].copy()))
    with pytest.raises(InputError, match=r"no file .*train\.bin"):
        datasets.load("cifar100", split="train")
    (folder / "test.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        datasets.load("cifar100")


def test_cifar10_download_checks_the_archive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong archive is refused by its MD5 before anything in it is read."""
    import torchvision.datasets.utils as utils

    def fake(url: str, filename: Path | str, *_: Any, **__: Any) -> None:
        Path(filename).write_bytes(b"not the archive")

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", fake)
    with pytest.raises(InputError, match="download"):
        datasets.load("cifar10", download=True)
    assert not (root / "cifar-10-batches-bin").exists()


def _parquet(path: Path, images: list[bytes], labels: list[int]) -> None:
    path.parent.mkdir(exist_ok=True)
    column = [{"bytes": image, "path": None} for image in images]
    pyarrow.parquet.write_table(pyarrow.table({"image": column, "label": labels}), path)


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def test_cifar10_parquet(root: Path) -> None:
    path = root / "cifar10" / "test.parquet"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    _parquet(path, [_encoded(image, "PNG") for image in pixels], [3, 1, 9])
    data = datasets.load("cifar10")
    assert np.array_equal(data.images.mul(255).round().byte().permute(0, 2, 3, 1).numpy(), pixels)
    assert data.labels is not None
    assert data.labels.tolist() == [3, 1, 9]
    assert data.class_names == CIFAR10_CLASSES
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "JPEG" not in data.source
    _parquet(path, [_encoded(image, "JPEG") for image in pixels], [3, 1, 9])
    assert "JPEG" in datasets.load("cifar10").source
    _parquet(path, [b"no image"], [0])
    with pytest.raises(InputError, match="row 0 can't be read as"):
        datasets.load("cifar10")
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"test\.parquet is not Parquet"):
        datasets.load("cifar10")


def _idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">I", 0x0800 + values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.tobytes())


def test_mnist_idx_files(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for stem in ("train", "t10k"):
        _idx(raw / f"{stem}-images-idx3-ubyte", pixels)
        _idx(raw / f"{stem}-labels-idx1-ubyte", np.arange(5, dtype=np.uint8))
    data = datasets.load("mnist", n=3, seed=1)
    rows = choose(5, 3, 1)
    assert data.images.shape == (3, 1, 28, 28)
    assert np.array_equal(data.images.mul(255).round().byte().squeeze(1).numpy(), pixels[rows])
    assert data.labels is not None
    assert data.labels.tolist() == rows.tolist()


def _picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(value - 20, value + 20, 50)
    Image.fromarray(np.tile(ramp[:, None, None], (1, 70, 3)).round().astype(np.uint8)).save(path)


def test_imagefolder_with_and_without_classes(root: Path) -> None:
    for index, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.jpg"]):
        _picture(root / "animals" / name, 60 * (index + 1))
    data = datasets.load("imagefolder:animals", size=24)
    assert data.images.shape == (3, 3, 24, 24)
    assert data.class_names == ("cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1]
    assert data.images.mean((1, 2, 3)).mul(255).round().tolist() == [60, 120, 180]
    flat = datasets.load(f"imagefolder:{root / 'animals' / 'cat'}", size=24)
    assert flat.labels is None
    assert len(flat) == 2
    (root / "animals" / "cat" / "1.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"1\.png can't be read as one of PNG, .*damaged or of another kind"):
        datasets.load("imagefolder:animals")
    with pytest.raises(InputError, match="no such folder, nor below LEE_DATA"):
        datasets.load("imagefolder:nowhere")
    (root / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no images.*\.webp are read"):
        datasets.load("imagefolder:empty")


def test_what_is_one_set_has_no_split_to_train_on(root: Path) -> None:
    _picture(root / "pets" / "cat" / "1.png", 90)
    _picture(root / "pets" / "dog" / "1.png", 30)
    for name in (
        "imagefolder:pets",
        "rgb:imagefolder:pets",
        "corrupt:imagefolder:pets/contrast/1",
        "photos",
        "patches",
    ):
        assert len(datasets.load(name, size=24, n=2)) == 2
        with pytest.raises(InputError, match="has only the split 'test', not 'train': its images are one set"):
            datasets.load(name, size=24, n=2, split="train")


def test_verify_finds_the_recorded_files_and_a_changed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(ok for _, ok, _ in datasets.verify(list(MEMBERS)))
    package = tmp_path / "counterfeit"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cat.png").write_bytes(b"another cat")
    monkeypatch.syspath_prepend(str(tmp_path))
    changed = SourceFile("counterfeit", "cat.png", "0" * 64, "CC0", "nobody")
    monkeypatch.setitem(FILES, "chelsea", changed)
    ((_, ok, message),) = datasets.verify(["photos"])
    assert not ok
    assert "cat.png is damaged" in message
    monkeypatch.setitem(FILES, "chelsea", SourceFile("counterfeit", "dog.png", "0" * 64, "CC0", "nobody"))
    ((_, ok, message),) = datasets.verify(["photos"])
    assert not ok
    assert "has no dog.png" in message
    with pytest.raises(InputError, match="Did you mean 'photos'"):
        datasets.verify(["photo"])


def test_verify_reports_local_sets_without_raising(root: Path) -> None:
    _picture(root / "pets" / "1.png", 90)
    (good, bad) = datasets.verify(["imagefolder:pets", "mnist"])
    assert good[1]
    assert "sha256" in good[2]
    assert not bad[1]


def test_every_name_is_described() -> None:
    for name in datasets.names():
        licence, source = datasets.describe(name)
        assert licence
        assert source
    for wrong in ("nosuch", "rgb:nosuch", "corrupt:nosuch/contrast/1"):
        with pytest.raises(InputError, match="There is no data set"):
            datasets.describe(wrong)


def test_a_set_of_training_images_alone_is_verified_by_these() -> None:
    if not os.environ.get("LEE_DATA"):
        pytest.skip("needs the uncompressed images of CIFAR-10")
    ((_, good, message),) = datasets.verify(["cifar10-lossless"])
    assert good, message


def test_real_cifar10_and_mnist(lee_data: Path) -> None:
    data = datasets.load("cifar10", n=20)
    assert data.images.shape == (20, 3, 32, 32)
    assert 0.3 < data.images.mean() < 0.6
    if (lee_data / "MNIST" / "raw").is_dir():
        assert datasets.load("mnist", n=5).images.shape == (5, 1, 28, 28)


def test_the_data_page_lists_every_embedded_file_and_set() -> None:
    page = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    for name, file in FILES.items():
        assert f"| {name} | {file.package}: `{file.path}` | {file.licence} | {file.origin} |" in page
        assert file.sha256[:16] in page
    for name in datasets.names():
        assert f"| `{name}` |" in page
