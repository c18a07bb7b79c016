"""The one theme of all charts, and what turns a bare Altair chart into a figure of the book."""

import base64
import io
import re
import textwrap
from typing import Any, NotRequired, TypedDict, TypeVar

import altair as alt
import pandas as pd
from PIL import Image

from lee.errors import InputError, check_installed

VEGALITE = "application/vnd.vegalite.v5+json"
"""Mime type under which JupyterLab and `lee.book.site` draw a chart."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
"""Okabe and Ito's colours, with a grey for their black and without the yellow: seen on white and on black."""

BROWN = "#8A4B2A"
"""The eighth colour, for charts with more groups than the palette has: far from the others also in the eyes of the colour-blind."""

DIVERGING = ("#0072B2", "#5E9DC8", "#B5CFE3", "#F7F7F7", "#F3C6A8", "#E59157", "#D55E00")
"""From blue (negative) through near white (zero) to vermilion (positive)."""

NEUTRAL = "#8C8C8C"
SIGNIFICANT_DIGITS = 4
WIDTH = 600
"""Pixels between the axes of a chart in a notebook."""

SCALE, COLOURS = 2, 64
"""Of the picture beside a chart: pixels per pixel of the chart, and how many colours are kept."""

CAPTION = 104
"""Characters in a line of the caption below that picture."""
TEX = {r"\pi": "π", r"\omega": "ω", r"\sin": " sin ", "^2": "²", r"^\top": "′", r"\cdot": "·", r"\,": " "}
"""What captions use of TeX; `tests/book/test_plain.py` finds what is missing here."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

AnyChart = TypeVar("AnyChart", bound=alt.TopLevelMixin)


class Words(TypedDict):
    """What every figure has beside its numbers.

    Args:
        caption: What the reader should see; Markdown and `$formulas$` are welcome.
        alt: What a reader who can't see it is told.
        name: The figure's anchor on the site.
    """

    caption: str
    alt: str
    name: NotRequired[str | None]


def _theme() -> alt.theme.ThemeConfig:
    return {
        "config": {
            "range": {"category": list(PALETTE), "diverging": list(DIVERGING)},
            "mark": {"color": PALETTE[0]},
            "view": {"stroke": None, "continuousHeight": 300},
            "axis": {
                "labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": 500, "titlePadding": 10,
                "labelPadding": 5, "tickSize": 4, "labelLimit": 160,
            },
            "axisY": {"domain": False, "ticks": False},
            "axisX": {"grid": False},
            "legend": {
                "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500, "orient": "top",
                "symbolSize": 90, "labelLimit": 240,
            },
            "title": {"fontSize": 13, "fontWeight": 600, "anchor": "middle", "offset": 6},
            "line": {"strokeWidth": 2.25, "strokeCap": "butt"},
            "point": {"size": 70, "filled": True, "opacity": 1},
            "bar": {"cornerRadiusEnd": 2},
            "area": {"opacity": 0.18},
        }
    }  # fmt: skip


def render(spec: dict[str, Any], **metadata: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mime bundle of a chart: its spec, a picture for those who can't draw it, and its alternative text for those who can't see it.

    JupyterLab would lay out a chart as wide as its container again and again and freeze: in a notebook each has a width in
    pixels. The mark `fluid` tells the site's script, `lee/book/site/static/lee.js`, to give it the room that a page has.
    """
    if spec.get("width") == "container":
        spec = {**spec, "width": WIDTH, "usermeta": {**spec.get("usermeta", {}), "fluid": True}}
    alt = spec.get("description", "A chart without alternative text.")
    picture = png(captioned(spec, still=True))
    width, height = (side // SCALE for side in Image.open(io.BytesIO(picture)).size)
    bundle = {VEGALITE: captioned(spec), "image/png": base64.b64encode(picture).decode(), "text/plain": alt}
    return bundle, {"image/png": {"alt": alt, "width": width, "height": height}}


def captioned(spec: dict[str, Any], *, still: bool = False) -> dict[str, Any]:
    """The spec with its caption below, as its title: JupyterLab, and GitHub with its picture, have no other place for words.

    The site takes it away again (`lee.book.site.figures`), and sets the caption itself. A `still` picture has no menus and
    sliders, so its caption says where they stand.
    """
    text = plain(str(spec.get("usermeta", {}).get("caption", "")))
    bound = [
        (p["bind"].get("name", p["name"]), p["value"]) for p in spec.get("params", []) if "input" in p.get("bind", ())
    ]
    chosen = [f"{name.strip()} = {value if isinstance(value, str) else format(value, 'g')}" for name, value in bound]
    lines = textwrap.wrap(f"{text} Shown here: {', '.join(chosen)}." if still and chosen else text, CAPTION)
    if "title" in spec or not lines:
        return spec
    title = {
        "text": lines, "orient": "bottom", "anchor": "start", "fontWeight": "normal", "fontSize": 13, "offset": 14,
        "color": "#444444", "frame": "bounds", "lineHeight": 18,
    }  # fmt: skip
    return {**spec, "title": title}


def plain(markdown: str) -> str:
    """A caption without its marks: links, code and emphasis as words, the few commands of its formulas as characters."""

    def formula(found: re.Match[str]) -> str:
        text = re.sub(r"\\sqrt\{(.*)\}", r"√(\1)", found[1])
        for command, character in TEX.items():
            text = text.replace(command, character)
        return " ".join(re.sub(r"[_{}]", "", text).split())

    text = re.sub(r"\$([^$]+)\$", formula, markdown)
    return re.sub(r"\*\*?([^*]+)\*\*?|`([^`]+)`|\[([^]]+)\]\([^)]*\)", lambda f: f[1] or f[2] or f[3], text)


def png(spec: dict[str, Any]) -> bytes:
    """A chart, with a width in pixels, on white at twice its size, as a PNG of few colours; the same bytes for the same spec."""
    check_installed("A picture of a chart", "book", "vl_convert")
    import vl_convert

    # The font is one that the converter brings along: words have the same size on every machine.
    config = {"background": "white", "font": "Liberation Sans"}
    drawn = vl_convert.vegalite_to_png(spec, vl_version=newest_vegalite(), scale=SCALE, config=config)
    picture = Image.open(io.BytesIO(drawn)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def newest_vegalite() -> str:
    """The newest version of Vega-Lite that `vl-convert-python` holds."""
    import vl_convert

    return max(vl_convert.get_vegalite_versions(), key=lambda v: tuple(map(int, v.split("."))))


def enable() -> None:
    """Make the theme and the renderer Altair's own in this process."""
    alt.theme.register("lee", enable=True)(_theme)
    alt.renderers.register("lee", render)
    alt.renderers.enable("lee")


def finish(chart: AnyChart, *, caption: str, alt: str, name: str | None = None) -> AnyChart:
    """Give a chart its caption, its alternative text and, if wanted, a name.

    Args:
        chart: Any Altair chart, single, layered or concatenated.
        caption: One to three sentences under the figure; Markdown, with `$formulas$`.
        alt: Alternative text: what is drawn and what it shows, for readers who can't see it.
        name: Anchor of the figure on the site, unique in the book, such as `"fig-orbit"`.

    Raises:
        InputError: If the caption or the alternative text is empty.
    """
    usermeta = about(caption=caption, alt=alt, name=name)
    return chart.properties(description=usermeta.pop("alt"), usermeta=usermeta)


def about(*, caption: str, alt: str, name: str | None = None) -> dict[str, str]:
    """Caption, alternative text and name of a figure, stripped and checked."""
    for label, text in (("caption", caption), ("alternative text (alt)", alt)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"A figure needs a non-empty {label}; got {text!r}.")
    words = {"caption": typeset(" ".join(caption.split())), "alt": " ".join(alt.split())}
    return words if name is None else {**words, "name": name}


_NUMBER = re.compile(
    r"(`[^`]*`|\$[^$]*\$|\]\([^)]*\)|</?[a-z][^>]*>)"  # code, formulas, addresses and tags stay
    r"|(?<![\w.])(\d(?:\.\d+)?)e([+-]\d+)(?!\w)"
    r"|(?<![\w.)\]}-])-(?=\.?\d)"
)


def typeset(text: str) -> str:
    """The numbers of a text as people write them, 3.1×10⁻¹⁰, 140 and −2 for `3.1e-10`, `1.4e+02` and `-2`.

    What stands in code, formulas, addresses of links and tags stays as it is.

    Examples:
        >>> typeset("from -2 to 3.1e-10, in e-folds, `-2`")
        'from −2 to 3.1×10⁻¹⁰, in e-folds, `-2`'
    """

    def written(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        if found[2] is None:
            return "−"
        exponent = int(found[3])
        if 0 <= exponent < 6:
            return f"{float(found[0]):,.0f}"
        return f"{found[2]}×10{str(exponent).translate(RAISED)}"

    return _NUMBER.sub(written, text)


def rounded(frame: pd.DataFrame, digits: int = SIGNIFICANT_DIGITS) -> pd.DataFrame:
    """A copy of `frame` whose floats have `digits` significant digits and whose other columns are untouched.

    Args:
        frame: A tidy frame.
        digits: Significant digits of the floats.

    Examples:
        >>> rounded(pd.DataFrame({"lee": [0.123456, 98765.4]}))["lee"].tolist()
        [0.1235, 98770.0]
    """
    result = frame.reset_index(drop=True).copy()
    for column in result.columns:
        if pd.api.types.is_float_dtype(result[column]):
            result[column] = [float(f"{v:.{digits}g}") for v in result[column].tolist()]
    return result
