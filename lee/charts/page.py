"""Charts, pictures and text as a page of its own: a single HTML file that needs no other file and no network."""

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

import altair
import pandas as pd

from lee.charts.pictures import Picture
from lee.charts.theme import enable, newest_vegalite, plain
from lee.errors import check_installed

# The page may run its own scripts and load nothing at all: the browser itself holds it to that.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
figure { margin: 1.2rem 0; } figcaption, .note { font-size: .9rem; opacity: .8; }
.chart { width: 100%; user-select: none; overflow-x: auto; } .chart svg { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dt { opacity: .75; } dd { margin: 0;
  overflow-wrap: anywhere; }
.rows { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: right; padding: .15rem .6rem; border-bottom: 1px solid #8c8c8c55; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { white-space: normal; min-width: 8rem; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8c8c8c55; font-size: .85rem; }
.lee-tile { display: flex; flex-direction: column; font-size: .85rem; }
.lee-scale { display: flex; gap: .5rem; align-items: center; justify-content: center; margin: .6rem 0; font-size: .85rem; }
.lee-scale-bar { width: 12rem; height: .8rem; }
"""

# As on the book's pages: in an SVG `currentColor` follows light and dark mode.
_DRAW = """
const ink = "currentColor";
const config = { background: "transparent", font: "system-ui, sans-serif",
  axis: { labelColor: ink, titleColor: ink, domainColor: ink, tickColor: ink, gridColor: ink, gridOpacity: 0.13 },
  legend: { labelColor: ink, titleColor: ink, columns: Math.max(1, Math.floor(innerWidth / 190)) },
  title: { color: ink }, text: { color: ink }, rule: { color: ink }, view: { stroke: null } };
for (const place of document.querySelectorAll(".chart"))
  vegaEmbed(place, JSON.parse(place.nextElementSibling.textContent),
    { mode: "vega-lite", actions: false, renderer: "svg", config });
"""


def vega_bundle() -> str:
    """The newest Vega, Vega-Lite and vega-embed that `vl-convert-python` holds, as one script."""
    import vl_convert

    return vl_convert.javascript_bundle(vl_version=newest_vegalite())  # type: ignore[call-arg]  # the stub is wrong


def listed(about: Mapping[str, Any]) -> str:
    """Names and values as HTML.

    Args:
        about: What was measured and how, say.
    """
    return "<dl>" + "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in about.items()) + "</dl>"


def tabled(rows: pd.DataFrame, *, folded: str = "") -> str:
    """A table as HTML, first column left.

    Args:
        rows: What it holds; texts are shown as they are.
        folded: The words that unfold it; empty for a table that is always open.
    """
    table = rows.to_html(index=False, border=0, na_rep="–", float_format="{:.4g}".format)
    inside = f'<div class="rows">{table}</div>'
    return f"<details><summary>{escape(folded)}</summary>{inside}</details>" if folded else inside


def page(*content: str | altair.TopLevelMixin | Picture, title: str) -> str:
    """HTML of a page with charts and pictures, each with its caption, and what stands between them.

    The libraries that draw the charts are inside, taken from the package `vl-convert-python`.

    Args:
        *content: Charts and pictures of this package, and HTML, such as that of :func:`listed` and :func:`tabled`.
        title: Heading.

    Raises:
        InputError: If `vl-convert-python` is not installed.
    """
    check_installed("A page", "book", "vl_convert")
    enable()
    # Nothing may end its script element early.
    bundle = re.sub("</(?=script)", r"<\\/", vega_bundle(), flags=re.IGNORECASE)
    shown = "\n".join(_shown(part) for part in content)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{shown}
<script>{bundle}</script>
<script>{_DRAW}</script>
</body>
</html>
"""


def _shown(part: str | altair.TopLevelMixin | Picture) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Picture):
        return part.html
    spec = part.to_dict()
    data = json.dumps(spec, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<figure>
<div class="chart" role="img" aria-label="{escape(spec.get("description", ""))}"></div>
<script type="application/json">{data}</script>
<figcaption>{escape(plain(spec.get("usermeta", {}).get("caption", "")))}</figcaption>
</figure>"""
