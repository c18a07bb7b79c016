"""The explorer's pictures and charts as HTML and SVG text, built from numbers in a millisecond, each with words for it."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
from torch import Tensor

from lee.charts import PALETTE, tinted
from lee.charts.pictures import data_uri
from lee.datasets.image_files import ENDINGS
from lee.explorer.measures import Curve, Touch
from lee.explorer.pictures import MOST_BYTES, resized
from lee.explorer.state import REACH
from lee.statistics import Estimate

DASHES = ("none", "9 4", "3 3", "9 3 2 3", "2 5")
SHARE = 0.99
"""The strongest colour of a tangent image stands for the number below which this share of all absolute values lies."""

STYLE = """<style>
.lee-x {font-size: 14px; line-height: 1.4; color: var(--jp-content-font-color1, inherit); min-width: 0}
.lee-x figure {margin: 0; display: inline-block; width: 190px; max-width: 100%; vertical-align: top}
.lee-x .row {display: flex; flex-wrap: wrap; gap: 12px}
.lee-x img {width: 100%; height: auto; display: block}
.lee-x svg {width: 100%; height: auto; display: block; max-width: 560px}
.lee-x svg text {fill: currentColor; font-size: 12px; font-family: inherit}
.lee-x table {border-collapse: collapse; margin: 4px 0}
.lee-x th, .lee-x td {text-align: left; padding: 1px 12px 1px 0; font-weight: normal; font-variant-numeric: tabular-nums}
.lee-x thead th, .lee-x caption {font-weight: 600; text-align: left}
.lee-x.error {border-left: 4px solid #D55E00; padding: 4px 10px}
.lee-x p {margin: 2px 0; white-space: normal}
.widget-html > .widget-html-content {min-width: 0; width: 100%}
.lee-x h1 {font-size: 22px; margin: 0 0 2px}
.lee-x .row.frames figure {width: 170px}
.lee-x .told {display: flex; flex-wrap: wrap; gap: 4px 20px; align-items: center}
.lee-x .told > svg {flex: 2 1 320px; min-width: 0}
.lee-x .told > table {flex: 1 1 220px}
.lee-x .strip {display: flex; gap: 6px; overflow-x: auto}
.lee-x .strip figure {width: 52px; flex: none; font-size: 11px; line-height: 1.15; text-align: center; overflow-wrap: anywhere}
.lee-x .strip .here img {outline: 3px solid #D55E00}
.lee-x pre {margin: 4px 0; padding: 6px 8px; border: 1px solid #8886; overflow-x: auto; font-size: 12px}
</style>"""

HEAD = (
    '<div class="lee-x"><h1>How fast does a network change its mind?</h1>'
    "<p>Choose a picture, a network and a motion on the left; move <b>amount t</b> to see the picture move.</p>"
    "<p>Thin lines are the probabilities of the likeliest classes, thick ones the Lie derivative where t stands.</p></div>"
)
"""Title and two lines of what to do."""

FORMATS = (
    f"<p>A file of your own: {', '.join(ending.strip('.').upper() for ending in ENDINGS)}, up to {MOST_BYTES / 1e6:.0f} MB. "
    "The central square is taken; transparent parts are laid on white.</p>"
)


def box(html: str, *, attributes: str = "") -> str:
    """The explorer's style applies inside."""
    return f'<div class="lee-x" {attributes}>{html}</div>'


def error(message: str) -> str:
    """A message that is read out at once."""
    return box(f"<p>{escape(message)}</p>", attributes='role="alert"').replace('class="lee-x"', 'class="lee-x error"')


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
    style = ' style="image-rendering:pixelated"' if max(original.shape[-2:]) <= 64 else ""
    figures = (
        f'<figure><img src="{uri}" alt="{escape(alt)}"{style}><figcaption>{escape(words)}</figcaption></figure>'
        for uri, alt, words in tiles
    )
    return box(f'<div class="row frames">{"".join(figures)}</div>')


def strip(images: Tensor, titles: Sequence[str], index: int, *, most: int = 12) -> str:
    """Small pictures of a data set (n, 3, H, W) with the names of their classes, from the chosen one's neighbourhood."""
    first = max(0, min(index - most // 2, len(images) - most))
    figures = []
    for i, image in enumerate(resized(images[first : first + most], 48), start=first):
        name = titles[i] if i < len(titles) else ""
        here = ' class="here"' if i == index else ""
        words = escape(f"{i}: {name}" if name else str(i))
        picture = f'<img src="{data_uri(image)}" alt="Image {words}">'
        figures.append(f"<figure{here}>{picture}<figcaption>{words}</figcaption></figure>")
    return box(f'<div class="strip">{"".join(figures)}</div>')


def code(lines: str) -> str:
    """Lines of Python, with a button that copies them."""
    copy = "navigator.clipboard.writeText(this.parentNode.querySelector('pre').textContent)"
    return box(f'<button type="button" onclick="{copy}">Copy as code</button><pre>{escape(lines)}</pre>')


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 210, 44, 10, 10, 40


def _x(t: float) -> float:
    return LEFT + (t + REACH) / (2 * REACH) * (WIDTH - LEFT - RIGHT)


def _y(p: float) -> float:
    return TOP + (1 - p) * (HEIGHT - TOP - BOTTOM)


def _axes(title: str) -> str:
    bottom, right = _y(0), _x(REACH)
    lines = [
        f'<line x1="{LEFT}" x2="{right}" y1="{_y(p):.1f}" y2="{_y(p):.1f}" opacity="0.2"/>'
        for p in (0, 0.25, 0.5, 0.75, 1)
    ]
    words = [f'<text x="{LEFT - 6}" y="{_y(p) + 4:.1f}" text-anchor="end">{p:g}</text>' for p in (0, 0.5, 1)]
    words += [
        f'<text x="{_x(t):.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{number(t)}</text>'
        for t in (-REACH, -REACH / 2, 0, REACH / 2, REACH)
    ]
    words.append(f'<text x="{(LEFT + right) / 2:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(title)}</text>')
    return f'<g stroke="currentColor">{"".join(lines)}</g>' + "".join(words)


def _tangent(value: float, slope: float, t: float, colour: str, reach: float = 0.15) -> str:
    """A straight line of the curve's slope through its point at `t`, and the point."""
    # Steep lines are shortened, so that all are about equally long on paper.
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    half = reach / math.hypot(1, slope * 2 * REACH * up / across)
    ends = " ".join(
        f'{axis}{i}="{place:.1f}"'
        for i, s in ((1, t - half), (2, t + half))
        for axis, place in (("x", _x(s)), ("y", _y(value + slope * (s - t))))
    )
    return (
        f'<line class="tangent" {ends} stroke="{colour}" stroke-width="5" opacity="0.55"/>'
        f'<circle cx="{_x(t):.1f}" cy="{_y(value):.1f}" r="4.5" fill="{colour}"/>'
    )


def curves(curve: Curve, touch: Touch, *, model: str, t: float, name: str, unit: str) -> str:
    """Probabilities of the top classes over `t`, their tangents at the current `t`, and the numbers as a table."""
    drawn, tangents, rows = [], [], []
    for rank, k in enumerate(curve.top):
        colour, label = PALETTE[rank], curve.names[k]
        points = " ".join(
            f"{_x(s):.1f},{_y(p):.1f}" for s, p in zip(curve.stops, curve.probabilities[:, k].tolist(), strict=True)
        )
        dash = DASHES[rank]
        stroke = f'fill="none" stroke="{colour}" stroke-width="2.25" stroke-dasharray="{dash}"'
        drawn.append(f'<polyline points="{points}" {stroke}/>')
        value, slope = float(touch.value[k]), float(touch.slope[k])
        tangents.append(_tangent(value, slope, t, colour))
        key = f'<svg viewBox="0 0 30 8" style="width:30px;display:inline" aria-hidden="true"><path d="M0 4H30" {stroke}/></svg>'
        rows.append((f"{key} {escape(label)}", f"{value:.3f}", number(slope), label))
    told = "; ".join(f"{label} {value}, derivative {slope}" for _, value, slope, label in rows)
    alt = f"Class probabilities of {model} over the amount of {name}. At t = {t:g}: {told}."
    title = f"t, {name} in units of {unit}" if unit != "t" else f"t, {name}"
    here = f'<line x1="{_x(t):.1f}" x2="{_x(t):.1f}" y1="{_y(1)}" y2="{_y(0)}" stroke="currentColor" opacity="0.5"/>'
    svg = (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {HEIGHT}">{_axes(title)}{here}'
        f"{''.join(drawn)}{''.join(tangents)}</svg>"
    )
    body = "".join(f'<tr><th scope="row">{key}</th><td>{p}</td><td>{s}</td></tr>' for key, p, s, _ in rows)
    head = (
        f'<tr><th scope="col">class</th><th scope="col">probability at t</th><th scope="col">d/dt, per {unit}</th></tr>'
    )
    table = f"<table><caption>{escape(model)}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"
    return box(f'<div class="told">{svg}{table}</div>')


def errors(rows: Sequence[tuple[str, Estimate, Estimate | None]], *, name: str, images: str) -> str:
    """The local equivariance error of each model: of the chosen image, and ± standard error over a set (None: not yet)."""
    cells = []
    for model, here, every in rows:
        set_of = "…" if every is None else every.digits
        cells.append(f'<tr><th scope="row">{escape(model)}</th><td>{here.value:.3g}</td><td>{set_of}</td></tr>')
    n = next((str(every.n) for _, _, every in rows if every is not None), "…")
    unit = rows[0][1].unit
    titles = ("model", "this image", f"{n} images of {escape(images)}, ± s.e.")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    caption = f"Local equivariance error under {escape(name)}, {escape(unit)}"
    return box(
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table>"
    )


def _short(label: str, most: int = 42) -> str:
    """A label of at most that many characters; what is left out is in its middle."""
    return label if len(label) <= most else f"{label[: most // 2 - 1]}…{label[-(most // 2) :]}"


def layers(frame: pd.DataFrame, *, model: str, name: str, most: int = 12) -> str:
    """Bars of the signed share of the Lie derivative that layers contribute by themselves: the largest, and the rest.

    All shares together are 1.
    """
    told = frame[frame["kind"] != "merged"]
    order = told["self_share"].abs().sort_values(ascending=False, kind="stable").index
    shown = told.loc[order[:most]]
    rest = float(told.loc[order[most:], "self_share"].sum())
    rows = [
        (_short(f"{p.removeprefix('net.') or 'the whole'} ({kind})"), float(s))
        for p, kind, s in shown[["path", "type", "self_share"]].itertuples(index=False)
    ]
    if len(told) > most:
        rows.append((f"{len(told) - most} others", rest))
    low, high = min(0.0, *(s for _, s in rows)), max(0.0, *(s for _, s in rows))
    span = (high - low) or 1.0

    def at(share: float) -> float:
        return 290 + (share - low) / span * 220

    bars = []
    for i, (label, share) in enumerate(rows):
        y, left, right = 20 * i, at(min(0.0, share)), at(max(0.0, share))
        colour = PALETTE[0] if share >= 0 else PALETTE[1]
        bars.append(
            f'<text x="284" y="{y + 14}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{left:.1f}" y="{y + 3}" width="{right - left:.1f}" height="14" fill="{colour}"/>'
            f'<text x="{right + 4:.1f}" y="{y + 14}">{100 * share:.0f} %</text>'
        )
    alt = f"Share of layers in the Lie derivative of {model} along {name}: " + ", ".join(
        f"{n} {s:.0%}" for n, s in rows
    )
    svg = f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 560 {20 * len(rows) + 4}">{"".join(bars)}</svg>'
    return box(
        f"<p><b>Layers of {escape(model)}</b>, share of the Lie derivative along {escape(name)} at t = 0</p>{svg}"
    )


def beside(parts: Sequence[str]) -> str:
    """Parts beside each other where there is room, otherwise below each other."""
    columns = "".join(f'<div style="flex: 1 1 320px">{part}</div>' for part in parts)
    return box(f'<div class="row">{columns}</div>')
