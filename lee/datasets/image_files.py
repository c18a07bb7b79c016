"""A file of one picture → its pixels: the one reader of folders, of the command and of the explorer.

Values of more than 8 bits are scaled to [0, 1], the orientation that a camera has noted is applied, transparent parts are
laid on white, and only the first frame of an animation is taken. Notes say what was done to a picture.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lee.errors import ImageWarning, InputError

#: What is read: Pillow's names, and the endings of such files. Others of Pillow's formats start foreign programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
#: Notes on pictures.
ON_WHITE, FIRST_FRAME, CUT = "transparent parts laid on white", "only the first frame", "16-bit colours cut to 8 bits"
_BITS, _PHOTOMETRIC, _PLANES, _KIND = 258, 262, 284, 339  # tags of a TIFF file
_SIGNED, _COMPLEX = 2, (5, 6)  # kinds of numbers in it
_GREYS = {"L;2": 3, "L;4": 15}  # of a PNG with fewer bits, the white that its transparent grey counts up to
_DARK = 1 / 16


@dataclass(frozen=True)
class Picture:
    """A picture: (H, W, 3) bytes, or float32 in [0, 1] where the file has more than 8 bits; and notes on it."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def read(content: bytes, name: str, *, most_pixels: int | None = None) -> Picture:
    """Decode a file, which errors and warnings call `name`; its header is held to a limit before any pixel is decoded.

    Refused is what is of another format, damaged or too large, or whose numbers have no known range.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata, and on sizes that are checked here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if most_pixels is not None and image.width * image.height > most_pixels:
                    raise InputError(_too_large(name, most_pixels))
                picture = _read(image, name)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(name, most_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 0))) from error
    except Exception as error:  # whatever a damaged file makes Pillow raise
        reason = "it is damaged or of another kind" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{name} can't be read as one of {', '.join(FORMATS)}: {reason}.") from error
    if picture.pixels.dtype != np.uint8 and (brightest := float(picture.pixels.max())) < _DARK:
        warnings.warn(
            f"{name} is nearly black: its brightest pixel has {brightest:.2g} of what counts as white. If the file holds fewer "
            "bits than its format has room for, scale its values before.",
            ImageWarning,
            stacklevel=2,
        )
    return picture


def _too_large(name: str, most: int) -> str:
    return f"{name} has too many pixels; at most {most / 1e6:.0f} million can be read. Make it smaller."


def _check_layout(image: Image.Image, name: str) -> None:
    """Refuse numbers with a sign, which Pillow takes for others, and planes of more than 8 bits, which it mixes up."""
    tags = getattr(image, "tag_v2", {})
    bits, kinds = max(tags.get(_BITS, (1,))), tags.get(_KIND, (1,))
    if any(kind in _COMPLEX or (kind == _SIGNED and bits < 32) for kind in kinds):
        raise InputError(
            f"{name} holds {bits}-bit numbers with a sign or complex ones, whose black and white nobody can know. Save it with "
            "8 or 16 bits without a sign."
        )
    if bits > 8 and tags.get(_PLANES) == 2 and len(image.getbands()) > 1:
        raise InputError(
            f"{name} holds its colours of {bits} bits in separate planes, which can't be read. Save them together."
        )


def _find_transparent(image: Image.Image, name: str) -> None:
    """Let the grey that a PNG calls transparent count up to 255 as its pixels do; refuse a colour of 16 bits."""
    tiles, key = getattr(image, "tile", None), image.info.get("transparency")
    raw = str(tiles[0][3]) if tiles else ""
    if raw in _GREYS and isinstance(key, int):
        image.info["transparency"] = (key & _GREYS[raw]) * 255 // _GREYS[raw]
    if raw.startswith("RGB;16") and isinstance(key, tuple):
        raise InputError(
            f"{name} calls a 16-bit colour transparent, which can't be told from others. Save it with 8 bits."
        )


def _read(image: Image.Image, name: str) -> Picture:
    _check_layout(image, name)
    _find_transparent(image, name)
    notes = []
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a camera's picture and its thumbnails
        notes.append(FIRST_FRAME)
    if image.mode == "F" or image.mode.startswith("I"):
        grey, clear = _deep(image, name)
        if clear:
            notes.append(ON_WHITE)
        return Picture(np.repeat(grey[:, :, None], 3, axis=2), tuple(notes))
    if ";16" in str(getattr(image, "tile", "")):  # Pillow has no colours of more than 8 bits
        notes.append(CUT)
    turned = ImageOps.exif_transpose(image)
    if turned.has_transparency_data:
        layer = turned.convert("RGBA")
        if np.asarray(layer)[:, :, 3].min() < 255:
            notes.append(ON_WHITE)
        turned = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return Picture(np.asarray(turned.convert("RGB")), tuple(notes))


def _deep(image: Image.Image, name: str) -> tuple[np.ndarray, bool]:
    """Grey values (H, W) in [0, 1] of a picture with more than 8 bits, and whether some were transparent."""
    values = np.asarray(ImageOps.exif_transpose(image if image.mode in ("I", "F") else image.convert("I")))
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0] if image.mode.startswith("I;") else 16
    kind, white = ("floating-point numbers", 1) if image.mode == "F" else ("integers", 2**bits - 1)
    if not ((values >= 0) & (values <= white)).all():  # also NaN
        raise InputError(
            f"{name} holds {kind} from {values.min():.6g} to {values.max():.6g}; from 0 (black) to {white} (white) was "
            f"expected. Scale its values and save it again, as 8 or 16 bits say."
        )
    grey = 1 - values / white if tags.get(_PHOTOMETRIC) == 0 else values / white
    clear = values == image.info.get("transparency", -1)
    return np.where(clear, 1, grey).astype(np.float32), bool(clear.any())


def center_square(pixels: np.ndarray, size: int, fraction: float = 1.0) -> np.ndarray:
    """Cut the central square, `fraction` of the short side wide, of pixels (H, W, 3), and resize it with antialiasing.

    Bytes stay bytes, float32 in [0, 1] stays that. A fraction of 0.875 is the usual centre crop of ImageNet evaluation.
    """
    height, width = pixels.shape[:2]
    side = fraction * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)

    def cut(part: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.LANCZOS, box=box))

    if pixels.dtype == np.uint8:
        return cut(pixels)
    return np.stack([cut(pixels[:, :, channel]) for channel in range(3)], axis=2).clip(0, 1)


def stacked(images: Sequence[np.ndarray]) -> Tensor:
    """Pictures of one shape (H, W, 3) as contiguous (N, 3, H, W): bytes, or floats in [0, 1] if any of them are."""
    if not all(image.dtype == np.uint8 for image in images):
        images = [image / np.float32(255) if image.dtype == np.uint8 else image for image in images]
    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))


def resize(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize float images (N, C, H, W) in [0, 1] by antialiased bicubic interpolation, kept in [0, 1]."""
    resized = torch.nn.functional.interpolate(images, shape, mode="bicubic", antialias=True)
    return resized.clamp_(0, 1)
