"""The explorer's pictures and tables as HTML text, built from numbers in a millisecond, each with words for it."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from lee.charts import overlaid, tinted
from lee.charts.pictures import PIXEL_ART, data_uri, scale_bar
from lee.charts.theme import DIVERGING
from lee.datasets.image_files import ENDINGS
from lee.explorer.pictures import MOST_BYTES, resized
from lee.measure.shares import in_patches
from lee.statistics import Estimate

SHARE = 0.99
"""The strongest colour of a tangent image stands for the number below which this share of all absolute values lies."""

BARS = 12
"""Layers that have a bar of their own."""

STYLE = f"<style>{(Path(__file__).parent / 'share' / 'explorer.css').read_text()}</style>"

HEAD = (
    '<div class="lee-x"><h1>How fast does a network change its mind?</h1>'
    "<p>Move <b>amount t</b> to move the picture; choose another motion, picture or network, or something to begin with.</p></div>"
)
"""Title and a line of what to do."""

FORMATS = (
    f"<p>{', '.join(ending.strip('.').upper() for ending in ENDINGS)}, up to {MOST_BYTES / 1e6:.0f} MB. "
    "The central square is taken. Where a picture is transparent (its alpha channel), it is laid on white.</p>"
)


def box(html: str, kind: str = "", *, attributes: str = "") -> str:
    """The explorer's style applies inside; of the kind `half` it is half as wide as the page, `error` is marked."""
    return f'<div class="lee-x {kind}" {attributes}>{html}</div>'


def beside(parts: Sequence[str]) -> str:
    """Parts below each other, or beside each other where there is room for those that are half as wide."""
    return f'<div class="lee-row">{"".join(parts)}</div>'


def error(message: str) -> str:
    """A message that is read out at once."""
    return box(f"<p>{escape(message)}</p>", "error", attributes='role="alert"')


def working(message: str) -> str:
    """What is being computed, or nothing."""
    return box(f"<p>{escape(message)}&nbsp;</p>", attributes='role="status"')


def number(value: float) -> str:
    """Three significant digits, with a true minus sign.

    Examples:
        >>> number(-0.012345), number(0.0)
        ('−0.0123', '0')
    """
    return f"{value:.3g}".replace("-", "−")


def _pixelated(image: Tensor) -> str:
    return ' style="image-rendering:pixelated"' if max(image.shape[-2:]) <= PIXEL_ART else ""


def frames(original: Tensor, moved: Tensor, tangent: Tensor, *, name: str, unit: str, t: float) -> str:
    """The image, the transformed image, and the velocity in a diverging colour scale, each (3, H, W)."""
    limit = float(np.quantile(np.abs(tangent.mean(0).numpy()), SHARE))
    tiles = [
        (data_uri(original), "Original image", "original"),
        (data_uri(moved), f"The image transformed by {name}, t = {t:g}", f"transformed, t = {number(t)}"),
        (
            data_uri(tinted(tangent, share=SHARE)),
            f"Tangent image along {name} at t = {t:g}: blue where pixels darken, vermilion where they brighten",
            f"tangent image: blue −{limit:.2g} to vermilion +{limit:.2g} per {unit}",
        ),
    ]
    style = _pixelated(original)
    figures = (
        f'<figure><img src="{uri}" alt="{escape(alt)}"{style}><figcaption>{escape(words)}</figcaption></figure>'
        for uri, alt, words in tiles
    )
    return box(f'<div class="frames">{"".join(figures)}</div>')


def thumbs(images: Tensor, name: str) -> str:
    """A style that puts images (n, 3, H, W) on the buttons of a list that has a class of this name."""
    rules = (
        f'.{name} .widget-toggle-button:nth-of-type({i}) {{background-image: url("{data_uri(image)}")}}'
        for i, image in enumerate(resized(images, 48), start=1)
    )
    return f"<style>{''.join(rules)}</style>"


def code(lines: str) -> str:
    """Lines of Python, with a button that copies them."""
    copy = "navigator.clipboard.writeText(this.parentNode.querySelector('pre').textContent)"
    return box(f'<button type="button" onclick="{copy}">Copy as code</button><pre tabindex="0">{escape(lines)}</pre>')


def errors(rows: Sequence[tuple[str, Estimate, Estimate | None]], *, name: str, images: str) -> str:
    """The local equivariance error of each model: of the chosen image, and ± standard error over a set (None: not yet)."""
    cells = []
    for model, here, every in rows:
        set_of = "…" if every is None else every.digits
        name_of = escape(model).replace("/", "/<wbr>")
        cells.append(f'<tr><th scope="row">{name_of}</th><td>{here.value:.3g}</td><td>{set_of}</td></tr>')
    n = next((str(every.n) for _, _, every in rows if every is not None), "…")
    unit = rows[0][1].unit
    titles = ("model", "this image", f"{n} images of {escape(images)}, ± s.e.")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    caption = f"Local equivariance error under {escape(name)}, {escape(unit)}"
    return box(
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table>"
    )


def where(image: Tensor, share: Tensor, *, patch: int, model: str, name: str) -> str:
    """The shares of the pixels of an image (1, 3, H, W), summed over patches, over its photograph; `share` is (1, H, W)."""
    (picture,), limit = overlaid(image, share, patch=patch)
    sums = in_patches(share.double(), patch)[0]
    of = "pixels" if patch == 1 else f"patches of {patch} × {patch} pixels"
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    adding, cancelling = (float(sums[side].sum()) for side in (sums > 0, sums < 0))
    told = (
        f"Vermilion {of} add {adding:.0%} to the error under {name}, blue ones cancel {-cancelling:.0%} of it: together 100%. "
        f"The largest share, {float(sums.max()):.0%}, is in row {row + 1} from the top, column {column + 1} from the left "
        f"(of {sums.shape[0]} × {sums.shape[1]})."
    ).replace("%", " %")
    alt = f"Map of the error of {model} over the photograph. {told}"
    style = _pixelated(image)
    return box(
        f'<h2>{escape(model)}</h2><figure class="map"><img src="{data_uri(picture)}" alt="{escape(alt)}"{style}>{scale_bar(limit)}'
        f"<figcaption>share of the error, for each of the {of}</figcaption></figure><p>{escape(told)}</p>",
        "half",
    )


def layers(frame: pd.DataFrame, *, model: str, name: str) -> str:
    """Bars of the signed share of the Lie derivative that layers contribute by themselves: the largest, and the rest; in all 1."""
    told = frame[frame["kind"] != "merged"]
    order = told["self_share"].abs().sort_values(ascending=False, kind="stable").index
    shown, rest = told.loc[order[:BARS]], told.loc[order[BARS:]]
    rows = [
        (f"{path.removeprefix('net.') or 'the whole model'} ({kind})", float(share))
        for path, kind, share in shown[["path", "type", "self_share"]].itertuples(index=False)
    ]
    if len(rest):
        rows.append((f"{len(rest)} others", float(rest["self_share"].sum())))
    low, high = min(0.0, *(s for _, s in rows)), max(0.0, *(s for _, s in rows))
    span = (high - low) or 1.0
    body = []
    for label, share in rows:
        left, wide = (min(0.0, share) - low) / span * 100, abs(share) / span * 100
        colour = DIVERGING[-1] if share >= 0 else DIVERGING[0]
        bar = f'<rect x="{left:.2f}" y="0" width="{wide:.2f}" height="14" fill="{colour}"/>'
        zero = f'<path d="M{-low / span * 100:.2f} 0V14" stroke="currentColor" stroke-width="0.5"/>'
        body.append(
            f'<tr><th scope="row">{escape(label).replace(".", ".<wbr>")}</th><td>{number(round(100 * share))} %</td>'
            f'<td><svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">{bar}{zero}</svg></td></tr>'
        )
    caption = f"{escape(model)}: share of its layers in the Lie derivative along {escape(name)} at t = 0"
    return box(f'<table class="bars"><caption>{caption}</caption><tbody>{"".join(body)}</tbody></table>', "half")
