"""Grids of pictures: image tensors as small PNG or JPEG files inside HTML."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Unpack

import numpy as np
from PIL import Image

from lee.charts.theme import DIVERGING, Words, about, plain, typeset
from lee.errors import InputError

PIXEL_ART = 64
"""Images up to this side are shown with their pixels visible, and stored without loss."""


@dataclass(frozen=True)
class Picture:
    """A grid of pictures that a notebook and the site can show.

    Args:
        html: The grid with its caption, for notebooks; the site makes a numbered figure of it.
        about: Caption, alternative text and, if given, the name.
    """

    html: str
    about: dict[str, str]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {"text/html": self.html, "text/plain": self.about["alt"]}, {"lee": self.about}


def pictures(
    images: Any,
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    signed: bool = False,
    limit: float | None = None,
    width: int = 150,
    **words: Unpack[Words],
) -> Picture:
    """Show images side by side.

    Args:
        images: A tensor or array (N, C, H, W) or (C, H, W) with C = 1 or 3, or a sequence of (C, H, W) or of
            PIL images. Values in [0, 1]; what lies outside is clipped.
        titles: A few words under each picture.
        columns: Pictures in a row, also on a narrow page, so that columns keep their meaning; by default as many as fit, at most
            five.
        signed: Draw numbers around zero, such as a tangent image `X·z`, from blue over white to vermilion.
            The channels are averaged.
        limit: For `signed`, the number drawn in the strongest colour; by default the largest absolute value.
        width: Width of one picture on a wide page, in pixels.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: If an image has another shape, a value is not finite, or there are not as many titles as
            images.
    """
    arrays = [pixels(image) for image in each(images)]
    if not arrays:
        raise InputError("`pictures` needs at least one image; got none.")
    if titles is not None and len(titles) != len(arrays):
        raise InputError(f"{len(arrays)} images need as many titles; got {len(titles)}.")
    told = about(**words)
    if signed:
        means = [a.mean(axis=2) for a in arrays]
        limit = float(max(np.abs(m).max() for m in means)) or 1.0 if limit is None else limit
        arrays = [diverging(m / limit) for m in means]
    tiles = [_tile(a, told["alt"], None if titles is None else titles[i], i) for i, a in enumerate(arrays)]
    layout = _layout(columns or min(len(tiles), 5), width, fixed=columns is not None)
    grid = f'<div class="lee-grid" style="{layout}">{"".join(tiles)}</div>'
    bar = scale_bar(limit) if signed and limit is not None else ""
    caption_html = f"<figcaption>{escape(plain(told['caption']))}</figcaption>"
    return Picture(f'<figure class="lee-pictures">{grid}{bar}{caption_html}</figure>', told)


def tinted(image: Any, *, share: float = 0.99) -> np.ndarray:
    """Signed numbers as a picture to be shown beside photographs: from blue over white to vermilion.

    Args:
        image: A tensor or array (C, H, W) with C = 1 or 3, such as a tangent image `X·z`; channels are averaged.
        share: The number below which this share of all absolute values lies gets the strongest colour.

    Returns:
        Colours (3, H, W) in [0, 1]; white everywhere if the image is zero.

    Raises:
        InputError: As :func:`pictures`.
    """
    mean = pixels(image).mean(axis=2)
    limit = float(np.quantile(np.abs(mean), share)) or 1.0
    return diverging(mean / limit).transpose(2, 0, 1)


def data_uri(image: Any, *, quality: int = 90) -> str:
    """One image in [0, 1], as :func:`pictures` takes it, as a `data:` address; `quality` is that of JPEG, if it is stored so."""
    return _encode(pixels(image), quality)


def each(images: Any) -> list[Any]:
    """The images that :func:`pictures` is given, one by one."""
    alone = isinstance(images, Image.Image) or getattr(images, "ndim", 0) == 3
    return [images] if alone else list(images)


def pixels(image: Any) -> np.ndarray:
    """(H, W, C) float64 of one image."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image, dtype=np.float64)
    if array.ndim != 3 or array.shape[0] not in (1, 3) or 0 in array.shape:
        raise InputError(f"A picture has shape (C, H, W) with C = 1 or 3; got {tuple(array.shape)}.")
    if not np.isfinite(array).all():
        raise InputError("A picture's values must be finite; this one has NaN or infinity.")
    return array.transpose(1, 2, 0)


def _encode(array: np.ndarray, quality: int = 90) -> str:
    pixels = (array.clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    small = max(image.size) <= PIXEL_ART
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def diverging(values: np.ndarray) -> np.ndarray:
    """(H, W) numbers in [-1, 1] as (H, W, 3) colours."""
    stops = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in DIVERGING])
    position = (values.clip(-1, 1) + 1) / 2 * (len(stops) - 1)
    channels = [np.interp(position, np.arange(len(stops)), stops[:, c]) for c in range(3)]
    return np.stack(channels, axis=2)


def _tile(array: np.ndarray, alt: str, title: str | None, index: int) -> str:
    height, width = array.shape[:2]
    # The first picture carries the whole text, the others what tells them apart: it is read aloud once.
    words = alt if index == 0 else title or f"Picture {index + 1} of the same figure"
    under = "" if title is None else f'<span class="lee-tile-title">{escape(typeset(title))}</span>'
    style = "width:100%;height:auto" + (";image-rendering:pixelated" if max(height, width) <= PIXEL_ART else "")
    size = f'width="{width}" height="{height}" style="{style}"'
    return f'<div class="lee-tile"><img src="{_encode(array)}" alt="{escape(words)}" {size}>{under}</div>'


def _layout(columns: int, width: int, *, fixed: bool) -> str:
    """The style of a grid, at most so many pictures wide: fewer in a row on a narrow page, unless their number is fixed."""
    share = f"calc((100% - {columns - 1} * 0.75rem) / {columns})"
    repeated = f"{columns},minmax(0,1fr)" if fixed else f"auto-fill,minmax(max(min({width}px,5.5rem),{share}),1fr)"
    return (
        f"display:grid;gap:0.75rem min(0.75rem,2%);margin:0 auto;max-width:{columns * width + (columns - 1) * 12}px;"
        f"grid-template-columns:repeat({repeated})"
    )


def scale_bar(limit: float) -> str:
    """The colours of signed numbers with what they mean, as HTML."""
    colours = ",".join(DIVERGING)
    return (
        f'<div class="lee-scale"><span>blue −{limit:.2g}</span> '
        f'<span class="lee-scale-bar" style="background:linear-gradient(to right,{colours})"></span>'
        f" <span>vermilion +{limit:.2g}</span></div>"
    )
