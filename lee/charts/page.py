"""One chart as a page of its own: a single HTML file that needs no other file and no network."""

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

import altair
import pandas as pd

from lee.charts.theme import enable, newest_vegalite
from lee.errors import check_installed

# The page may run its own scripts and load nothing at all: the browser itself holds it to that.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.3rem; } figure { margin: 1rem 0; } #chart { width: 100%; user-select: none; }
#chart svg { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dt { opacity: .75; } dd { margin: 0;
  overflow-wrap: anywhere; }
.rows { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: right; padding: .1rem .6rem; border-bottom: 1px solid #8c8c8c55; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
"""

# As on the book's pages: in an SVG `currentColor` follows light and dark mode.
_DRAW = """
const ink = "currentColor";
const config = { background: "transparent", font: "system-ui, sans-serif",
  axis: { labelColor: ink, titleColor: ink, domainColor: ink, tickColor: ink, gridColor: ink, gridOpacity: 0.13 },
  legend: { labelColor: ink, titleColor: ink, columns: Math.max(1, Math.floor(innerWidth / 190)) },
  title: { color: ink }, text: { color: ink }, rule: { color: ink }, view: { stroke: null } };
const spec = JSON.parse(document.getElementById("spec").textContent);
vegaEmbed("#chart", spec, { mode: "vega-lite", actions: false, renderer: "svg", config });
"""


def vega_bundle() -> str:
    """The newest Vega, Vega-Lite and vega-embed that `vl-convert-python` holds, as one script."""
    import vl_convert

    return vl_convert.javascript_bundle(vl_version=newest_vegalite())  # type: ignore[call-arg]  # the stub is wrong


def page(
    chart: altair.TopLevelMixin,
    *,
    title: str,
    about: Mapping[str, Any] | None = None,
    rows: pd.DataFrame | None = None,
) -> str:
    """HTML of a page with a chart, its caption, and the numbers behind it.

    The libraries that draw the chart are inside, taken from the package `vl-convert-python`.

    Args:
        chart: A chart of this package, with caption and alternative text.
        title: Heading.
        about: What was measured and how, as names and values.
        rows: A table to be shown below, first column left.

    Raises:
        InputError: If `vl-convert-python` is not installed.
    """
    check_installed("A page", "book", "vl_convert")
    enable()
    spec = chart.to_dict()
    # Nothing may end its script element early.
    bundle = re.sub("</(?=script)", r"<\\/", vega_bundle(), flags=re.IGNORECASE)
    data = json.dumps(spec, ensure_ascii=False).replace("<", "\\u003c")
    listed = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in (about or {}).items())
    caption = spec.get("usermeta", {}).get("caption", "")
    table = "" if rows is None else rows.to_html(index=False, border=0, na_rep="–", float_format="{:.4g}".format)
    more = f'<details><summary>All numbers</summary><div class="rows">{table}</div></details>' if table else ""
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
<dl>{listed}</dl>
<figure>
<div id="chart" role="img" aria-label="{escape(spec.get("description", ""))}"></div>
<figcaption>{escape(caption)}</figcaption>
</figure>
{more}
<script type="application/json" id="spec">{data}</script>
<script>{bundle}</script>
<script>{_DRAW}</script>
</body>
</html>
"""
