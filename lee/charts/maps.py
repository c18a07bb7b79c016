"""Signed shares of pixels, drawn over the photograph that they belong to."""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from lee.charts.pictures import Picture, diverging, each, pictures, pixels, scale_bar
from lee.charts.theme import Words
from lee.errors import InputError
from lee.measure.shares import in_patches

STRONG = 0.99  # of all patches lie below the number that gets the strongest colour
PAPER, INK, GAP = (255, 255, 255), (26, 26, 26), 12


def overlaid(images: Any, shares: Any, *, patch: int = 1) -> tuple[list[np.ndarray], float]:
    """Photographs in pale grey with signed numbers over them, from blue over nothing to vermilion.

    Args:
        images: Values in [0, 1], (N, C, H, W) with C = 1 or 3.
        shares: Signed numbers, (N, H, W), such as :attr:`lee.ErrorMap.share`; NaN is drawn as nothing.
        patch: Side of the patches that they are summed over.

    Returns:
        N pictures (3, H, W) in [0, 1], and the number drawn in the strongest colour: 99 in 100 patches stay below it.

    Raises:
        InputError: If there is not one map of an image's size for every image, or the patches don't fill it.
    """
    photographs = [pixels(image) for image in each(images)]
    given = np.asarray(shares.detach().cpu() if hasattr(shares, "detach") else shares, dtype=np.float64)
    if given.ndim != 3 or len(given) != len(photographs) or any(p.shape[:2] != given.shape[1:] for p in photographs):
        raise InputError(
            f"Every image needs a map of its size, (N, H, W); got {len(photographs)} images and maps of shape {given.shape}."
        )
    sums = in_patches(torch.from_numpy(np.nan_to_num(given)), patch).numpy()
    limit = float(np.quantile(np.abs(sums), STRONG)) or 1.0
    found = []
    for photograph, numbers in zip(photographs, sums, strict=True):
        strength = np.kron((numbers / limit).clip(-1, 1), np.ones((patch, patch)))
        grey = np.repeat(0.55 + 0.4 * photograph.mean(2, keepdims=True).clip(0, 1), 3, 2)
        cover = np.abs(strength)[..., None]  # in proportion, as the colours of the scale are
        found.append(((1 - cover) * grey + cover * diverging(np.sign(strength))).transpose(2, 0, 1))
    return found, limit


def maps(
    images: Any,
    shares: Any,
    *,
    patch: int = 1,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    width: int = 150,
    **words: Unpack[Words],
) -> Picture:
    """Maps of the error over their photographs, side by side, with the scale of the colours.

    Args:
        images: Values in [0, 1], (N, C, H, W) with C = 1 or 3.
        shares: Signed shares of the pixels, (N, H, W), such as :attr:`lee.ErrorMap.share`.
        patch: Side of the patches, in pixels, that the shares are summed over; those of pixels alone flicker.
        titles: A few words under each picture.
        columns: Pictures in a row on a wide page.
        width: Width of one picture on a wide page, in pixels.
        **words: Caption, alternative text and name, as for :func:`finish`.

    Raises:
        InputError: As :func:`overlaid` and :func:`pictures`.
    """
    found, top = overlaid(images, shares, patch=patch)
    shown = pictures(found, titles=titles, columns=columns, width=width, **words)
    return Picture(shown.html.replace("<figcaption>", f"{scale_bar(top)}<figcaption>", 1), shown.about)


def map_sheet(images: Any, shares: Any, *, patch: int = 1, title: str = "") -> Image.Image:
    """A picture to be saved: a row for each image, the photograph and the map over it, with the scale of the colours below.

    Args:
        images: Values in [0, 1], (N, C, H, W) with C = 1 or 3.
        shares: Signed shares of the pixels, (N, H, W).
        patch: Side of the patches that they are summed over.
        title: A line above.

    Raises:
        InputError: As :func:`overlaid`.
    """
    found, top = overlaid(images, shares, patch=patch)
    photographs = [pixels(image) for image in each(images)]
    height, width = photographs[0].shape[:2]
    zoom = max(1, round(224 / max(height, width)))
    height, width = zoom * height, zoom * width
    font = ImageFont.load_default(size=14)
    head, foot = (30 if title else GAP), 50
    sheet = Image.new("RGB", (2 * width + 3 * GAP, head + len(found) * (height + GAP) + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 8), title, INK, font)
    for row, (photograph, drawn) in enumerate(zip(photographs, found, strict=True)):
        for column, array in enumerate((photograph, drawn.transpose(1, 2, 0))):
            coloured = np.broadcast_to(array, (*array.shape[:2], 3)).clip(0, 1)
            picture = Image.fromarray((coloured * 255).round().astype(np.uint8))
            place = (GAP + column * (width + GAP), head + row * (height + GAP))
            sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), place)
    left, below = 2 * GAP + width, head + len(found) * (height + GAP)
    bar = diverging(np.linspace(-1, 1, width)[None].repeat(12, 0))
    sheet.paste(Image.fromarray((bar * 255).round().astype(np.uint8)), (left, below))
    unit = "pixel" if patch == 1 else f"{patch} by {patch} pixels"  # the font has no × and no −
    for anchor, x, text in (("la", 0, f"-{top:.2g}"), ("ma", width // 2, "0"), ("ra", width, f"+{top:.2g}")):
        draw.text((left + x, below + 14), text, INK, font, anchor=anchor)
    draw.text((GAP, below), f"share of the error per\n{unit}", INK, font)
    return sheet
