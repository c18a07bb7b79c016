"""Pictures from files: every kind that people have is read with the right values, or refused by name."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, TiffImagePlugin

from lee import datasets
from lee.datasets.image_files import CUT, ENDINGS, FIRST_FRAME, ON_WHITE, center_square, read, stacked
from lee.errors import ImageWarning, InputError
from lee.explorer import pictures


def ramp(height: int = 30, width: int = 40) -> np.ndarray:
    """Grey bytes that no turn or flip leaves as they are."""
    return (np.arange(height)[:, None] * 3 + np.arange(width)[None] * 4).astype(np.uint8)


def colour(height: int = 30, width: int = 40) -> np.ndarray:
    return np.stack([ramp(height, width), 255 - ramp(height, width), ramp(height, width) // 2], axis=2)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# Depth


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_keep_their_precision(kind: str) -> None:
    values = (ramp().astype(np.uint16) * 257) + np.arange(40, dtype=np.uint16)
    pixels = read(saved(Image.fromarray(values), kind), "deep").pixels
    assert pixels.dtype == np.float32
    assert np.allclose(pixels, values[:, :, None] / 65535, atol=1e-7)
    assert (pixels == 1).mean() < 0.01  # clipping to bytes would make most of them white


def test_big_endian_sixteen_bit_tiff() -> None:
    values = ramp().astype(np.uint16) * 257
    pixels = read(saved(Image.fromarray(values.astype(">u2")), "TIFF"), "deep").pixels
    assert np.allclose(pixels, values[:, :, None] / 65535, atol=1e-7)


def test_thirty_two_bit_integers_are_read_as_sixteen_if_they_fit() -> None:
    values = ramp().astype(np.int32) * 257
    assert np.allclose(read(saved(Image.fromarray(values), "TIFF"), "deep").pixels[:, :, 1], values / 65535, atol=1e-7)


@pytest.mark.parametrize("wrong", [-5, 70_000])
def test_integers_beyond_sixteen_bits_are_refused(wrong: int) -> None:
    values = ramp().astype(np.int32)
    values[3, 4] = wrong
    with pytest.raises(InputError, match=rf"ct\.tif holds integers from .*{abs(wrong)}.*65535 \(white\) was expected"):
        read(saved(Image.fromarray(values), "TIFF"), "ct.tif")


def test_tiff_whose_white_is_zero() -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[262] = 0
    values = ramp().astype(np.uint16) * 257
    content = saved(Image.fromarray(values), "TIFF", tiffinfo=info)
    content = content.replace(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00", b"\x06\x01\x03\x00\x01\x00\x00\x00\x00\x00")
    with Image.open(io.BytesIO(content)) as image:
        assert image.tag_v2[262] == 0  # type: ignore[attr-defined]
    assert np.allclose(read(content, "inverse").pixels[:, :, 0], 1 - values / 65535, atol=1e-6)


def test_a_few_bits_in_sixteen_are_told() -> None:
    values = ramp().astype(np.uint16) * 10  # 12 bits of a camera
    with pytest.warns(ImageWarning, match=r"scan\.png is nearly black: its brightest pixel has 0\.0\d+ of"):
        read(saved(Image.fromarray(values), "PNG"), "scan.png")


def test_floats_in_the_unit_interval_are_read_and_others_refused() -> None:
    values = ramp().astype(np.float32) / 255
    assert np.array_equal(read(saved(Image.fromarray(values), "TIFF"), "depth").pixels[:, :, 2], values)
    for wrong in (values * 255, values - 0.5, np.where(values > 0.5, np.nan, values)):
        with pytest.raises(
            InputError, match=r"depth\.tif holds floating-point numbers from .* 1 \(white\) was expected"
        ):
            read(saved(Image.fromarray(wrong.astype(np.float32)), "TIFF"), "depth.tif")


def tiff(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.complex64])
@pytest.mark.parametrize("values", [ramp() // 4, colour() // 4])
def test_numbers_with_a_sign_have_no_known_white(dtype: Any, values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"x\.tif (holds (8|16)-bit numbers with a sign|can't be read)"):
        read(tiff(values.astype(dtype), photometric="rgb" if values.ndim == 3 else None), "x.tif")


def test_planes_of_colours() -> None:
    planes = colour().transpose(2, 0, 1)
    options = {"photometric": "rgb", "planarconfig": "separate"}
    assert np.array_equal(read(tiff(planes, **options), "x").pixels, colour())
    with pytest.raises(InputError, match="16 bits in separate planes"):
        read(tiff(planes.astype(np.uint16) * 257, **options), "x")


def test_sixteen_bit_colours_are_cut_to_eight_and_that_is_said() -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, colour().astype(np.uint16) * 257, photometric="rgb")
    found = read(stream.getvalue(), "deep")
    assert np.array_equal(found.pixels, colour())
    assert found.notes == (CUT,)


# Colours


def test_palettes_bits_and_grey_have_the_right_colours() -> None:
    few = Image.fromarray(colour()).quantize(16)
    assert np.array_equal(read(saved(few, "PNG"), "x").pixels, np.asarray(few.convert("RGB")))
    bits = Image.fromarray(ramp() > 100)
    assert bits.mode == "1"
    expected = np.repeat(((ramp() > 100) * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        assert np.array_equal(read(saved(bits, kind), "x").pixels, expected)
        assert np.array_equal(read(saved(Image.fromarray(ramp()), kind), "x").pixels[:, :, 1], ramp())


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind: str) -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    pixels = read(saved(red, kind), "x").pixels.astype(int)
    assert np.abs(pixels - np.array([200, 30, 40])).max() < 12


def test_the_colour_space_of_photographers() -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(colour()), to_lab)
    assert lab is not None
    found = read(saved(lab, "TIFF"), "lab").pixels.astype(int)
    assert np.abs(found - colour()).mean() < 4  # Lab has 8 bits for more colours than sRGB's


# Transparency


def transparent() -> list[Image.Image]:
    layer = np.dstack([colour(), np.where(np.arange(40) < 20, 0, 255)[None].repeat(30, 0).astype(np.uint8)])
    grey = np.dstack([ramp(), layer[:, :, 3]])
    return [Image.fromarray(layer), Image.fromarray(grey), Image.fromarray(layer).quantize(32)]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["RGBA", "LA", "P"])
def test_transparent_parts_are_laid_on_white_and_that_is_said(which: int) -> None:
    found = read(saved(transparent()[which], "PNG"), "x")
    assert (found.pixels[:, :20] == 255).all()
    assert (found.pixels[:, 20:] < 255).any()
    assert found.notes == (ON_WHITE,)


def test_a_colour_that_a_png_calls_transparent() -> None:
    image = Image.fromarray(colour())
    found = read(saved(image, "PNG", transparency=(0, 255, 0)), "x")
    assert found.pixels[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(found.pixels[5:], colour()[5:])


def test_an_opaque_alpha_channel_is_nothing_to_speak_of() -> None:
    opaque = Image.fromarray(np.dstack([colour(), np.full((30, 40), 255, np.uint8)]))
    found = read(saved(opaque, "PNG"), "x")
    assert np.array_equal(found.pixels, colour())
    assert found.notes == ()


def png(values: np.ndarray, bits: int, transparent: Sequence[int]) -> bytes:
    """A PNG as the specification has it, of grey (H, W) or colours (H, W, 3), one of which is transparent."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b""
    for row in values.reshape(len(values), -1):
        if bits == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            digits = "".join(format(v, f"0{bits}b") for v in row.tolist())
            rows += b"\0" + bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, 2 if values.ndim == 3 else 0, 0, 0, 0)
    key = struct.pack(f">{len(transparent)}H", *transparent)
    parts = [part(b"IHDR", header), part(b"tRNS", key), part(b"IDAT", zlib.compress(rows)), part(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_that_a_png_calls_transparent(bits: int) -> None:
    white = 2**bits - 1
    values = np.random.default_rng(0).integers(0, white + 1, (6, 8))
    one = int(values[2, 3])
    found = read(png(values, bits, [one]), "x")
    pixels = found.pixels / 255 if found.pixels.dtype == np.uint8 else found.pixels
    assert np.allclose(pixels, np.where(values == one, 1, values / white)[:, :, None], atol=1e-6)
    assert found.notes == (ON_WHITE,)


def test_a_transparent_colour_of_sixteen_bits_is_refused() -> None:
    values = colour(6, 8).astype(np.uint16) * 257
    with pytest.raises(InputError, match=r"x\.png calls a 16-bit colour transparent"):
        read(png(values, 16, values[2, 3].tolist()), "x.png")


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientation_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: lambda z: z,
        2: lambda z: z[:, ::-1],
        3: lambda z: z[::-1, ::-1],
        4: lambda z: z[::-1],
        5: lambda z: z.transpose(1, 0, 2),
        6: lambda z: np.rot90(z, -1),
        7: lambda z: z[::-1, ::-1].transpose(1, 0, 2),
        8: lambda z: np.rot90(z),
    }
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = read(saved(Image.fromarray(colour()), kind, exif=exif, **lossless), "x").pixels.astype(int)
    expected = upright[orientation](colour()).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_orientation_of_sixteen_bits(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = ramp().astype(np.uint16) * 257
    found = read(saved(Image.fromarray(values), kind, exif=exif), "x").pixels[:, :, 0]
    assert np.allclose(found, np.rot90(values, -1) / 65535, atol=1e-7)


# Kinds of files


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "PPM", "PNG"])
def test_lossless_kinds_are_read_exactly(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read(saved(Image.fromarray(colour()), kind, **options), "x").pixels, colour())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_only_the_first_frame_of_several_is_read(kind: str) -> None:
    first, second = Image.fromarray(ramp()), Image.fromarray(255 - ramp())
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read(saved(first, kind, save_all=True, append_images=[second], **options), "x")
    assert np.array_equal(found.pixels[:, :, 0], ramp())
    assert found.notes == (FIRST_FRAME,)
    assert read(saved(first, kind), "x").notes == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damaged_files_are_refused_by_name_and_raise_nothing_else(kind: str) -> None:
    content = saved(Image.fromarray(colour()), kind)
    random = np.random.default_rng(0)
    refused = []
    for case in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 6):
            damaged[place] = random.integers(256)
        cut = bytes(damaged if case % 2 else content[: random.integers(len(content))])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImageWarning)
                assert read(cut, "cut").pixels.ndim == 3
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 15
    assert all(said.startswith("cut ") and "0x" not in said for said in refused)


def test_formats_that_start_other_programs_are_not_tried() -> None:
    with pytest.raises(InputError, match="x can't be read as one of PNG"):
        read(saved(Image.fromarray(colour()), "EPS"), "x")


def test_a_limit_on_pixels_is_held_before_decoding() -> None:
    with pytest.raises(InputError, match="x has too many pixels; at most 0 million"):
        read(saved(Image.new("1", (1000, 1000)), "PNG"), "x", most_pixels=1000)
    with pytest.raises(InputError, match="x has too many pixels"):
        read(saved(Image.new("1", (20000, 12000)), "PNG"), "x")


# Squares and stacks


def test_the_square_of_floats_is_that_of_bytes_without_their_rounding() -> None:
    rounded = center_square(colour(), 12, fraction=0.9).astype(int)
    exact = center_square(colour() / np.float32(255), 12, fraction=0.9)
    assert exact.dtype == np.float32
    assert np.abs(exact * 255 - rounded).max() < 2  # two passes, each rounded to bytes
    spike = np.zeros((20, 20, 3), np.float32)
    spike[8:12, 8:12] = 1
    assert (center_square(spike, 33).min(), center_square(spike, 33).max()) == (0, 1)  # no overshoot is left


def test_stacks_of_bytes_stay_bytes_and_mixed_ones_agree() -> None:
    assert stacked([colour(), colour()]).dtype == torch.uint8
    mixed = stacked([colour(), colour() / np.float32(255)])
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed[0], mixed[1])
    assert mixed.shape == (2, 3, 30, 40)


# Where they are used


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**files: bytes) -> Path:
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_bytes(content)
        return tmp_path

    return make


def test_a_folder_of_every_kind(folder: Callable[..., Path]) -> None:
    image = Image.fromarray(colour(64, 64))
    kinds = {".jpg": "JPEG", ".tif": "TIFF", ".pbm": "PPM", ".pgm": "PPM"}
    files = {f"x_{end[1:]}": saved(image, kinds.get(end, end[1:].upper())) for end in ENDINGS}
    files["deep_PNG"] = saved(Image.fromarray(ramp(64, 64).astype(np.uint16) * 257), "PNG")
    with pytest.warns(ImageWarning, match="4 of 12 images are copies"):  # some formats have several endings
        data = datasets.load(f"imagefolder:{folder(**files)}", size=32)
    assert data.images.shape == (len(ENDINGS) + 1, 3, 32, 32)
    assert data.images.dtype == torch.float32
    means = data.images.mean((2, 3))
    grey = means[0].mean()  # deep.PNG comes first: capitals do
    assert torch.allclose(means[1:, 0], grey.expand(len(ENDINGS)), atol=0.02)


def test_the_note_of_a_folder_counts_what_was_done(folder: Callable[..., Path]) -> None:
    frames = saved(Image.fromarray(ramp()), "GIF", save_all=True, append_images=[Image.fromarray(255 - ramp())])
    path = folder(a_png=saved(Image.fromarray(colour()), "PNG"), b_png=saved(transparent()[0], "PNG"), c_gif=frames)
    with pytest.warns(ImageWarning, match=r"1 of 3 images have transparent parts.*laid on white.*b\.png"):
        data = datasets.load(f"imagefolder:{path}", size=16)
    assert f"{ON_WHITE} in 1 of 3 files; {FIRST_FRAME} in 1 of 3 files" in data.source


def test_pictures_of_one_colour_are_told(folder: Callable[..., Path]) -> None:
    empty, white = (saved(Image.new("RGB", (40, 40), c), "PNG") for c in ((90, 20, 200), "white"))
    path = folder(a_png=saved(Image.fromarray(colour()), "PNG"), b_png=empty, c_png=white)
    with pytest.warns(ImageWarning, match=r"2 of 3 images are of one colour: .*b\.png"):
        datasets.load(f"imagefolder:{path}", size=16)


def test_copies_of_a_picture_are_told(folder: Callable[..., Path]) -> None:
    picture, other = (saved(Image.fromarray(c), "PNG") for c in (colour(), colour(41, 40)))
    path = folder(a_png=picture, b_png=other, c_png=picture)
    (path / "d.png").symlink_to(path / "b.png")
    with pytest.warns(ImageWarning, match=r"2 of 4 images are copies of others: .*c\.png"):
        datasets.load(f"imagefolder:{path}", size=16)


def test_a_wrong_file_of_a_folder_is_named(folder: Callable[..., Path]) -> None:
    path = folder(a_png=saved(Image.fromarray(colour()), "PNG"), b_png=b"no picture")
    with pytest.raises(InputError, match=r"b\.png can't be read as one of PNG"):
        datasets.load(f"imagefolder:{path}", size=16)
    (path / "b.png").unlink()
    (path / "b.png").symlink_to(path / "gone")
    with pytest.raises(InputError, match=r"b\.png is no file, or a link that leads nowhere"):
        datasets.load(f"imagefolder:{path}", size=16)


def test_the_explorer_reads_the_same() -> None:
    values = ramp(40, 40).astype(np.uint16) * 257
    found = pictures.decode(saved(Image.fromarray(values), "TIFF"))
    assert torch.allclose(found[0, 0], torch.from_numpy(values / 65535).float(), atol=1e-6)
    webp = pictures.decode(saved(Image.fromarray(colour(40, 40)), "WEBP", lossless=True))
    assert torch.equal(webp, torch.from_numpy(colour(40, 40)).permute(2, 0, 1)[None].float() / 255)
