"""Turn the outputs of :mod:`lee.charts` and :mod:`lee.book.notebook` into numbered figures of the site.

myst-nb finds the two classes through the entry points `myst_nb.mime_renderers` of `pyproject.toml`. Caption,
alternative text and the optional name, an anchor, travel inside the output.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any, ClassVar

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.util import logging

from lee.charts.theme import VEGALITE

HTML = "text/html"
LOGGER = logging.getLogger(__name__)


class VegaLite:
    """Vega-Lite charts, drawn in the reader's browser by `static/lee.js`."""

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = [("html", VEGALITE, 5)]

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        """Render a chart as a figure, or return None for any other mime type."""
        if inline or data.mime_type != VEGALITE:
            return None
        spec: Mapping[str, Any] = json.loads(data.content) if isinstance(data.content, str) else data.content
        about = {"alt": spec.get("description"), **spec.get("usermeta", {})}
        # In a notebook the caption is the title below the chart; here it becomes the figure's own, numbered one.
        if isinstance(title := spec.get("title"), Mapping) and title.get("orient") == "bottom":
            spec = {key: value for key, value in spec.items() if key != "title"}
        # "</" would end the script element early, wherever in the data it stands.
        text = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
        alt = escape(about["alt"] or "")
        host = (
            f'<div class="lee-chart"><script type="application/json">{text}</script>'
            f"<noscript><p>{alt} (The chart is drawn by JavaScript.)</p></noscript></div>"
        )
        return [_figure(renderer, data, host, about, "lee-figure-chart")]


class Pictures:
    """Grids of pictures: HTML with a caption in the output's metadata under the key `lee`."""

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = []

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        """Render a grid of pictures as a figure, or return None for any other HTML."""
        about = data.output_metadata.get("lee")
        if inline or data.mime_type != HTML or about is None:
            return None
        # In a notebook the caption is part of the HTML; here it becomes the figure's own, numbered one.
        host = data.string.split("<figcaption", 1)[0].split(">", 1)[1]
        return [_figure(renderer, data, host, about, "lee-figure-pictures")]


def _figure(
    renderer: NbElementRenderer, data: MimeData, host: str, about: Mapping[str, Any], kind: str
) -> nodes.figure:
    where = f"output {data.output_index} of cell {data.cell_index}"
    caption, alt = about.get("caption"), about.get("alt")
    if not caption or not alt:
        # `jupyter-book build -W` makes this an error: no figure of the book goes without them.
        location = (renderer.source, data.line)
        LOGGER.warning("The figure in %s has no caption or no alternative text.", where, location=location)
    figure = nodes.figure("", nodes.raw("", host, format="html"), classes=["lee-figure", kind])
    figure.source, figure.line = renderer.source, data.line
    # Captions are written in the book's own Markdown, with formulas; the default for outputs knows none.
    myst = {"mystnb": {"markdown_format": "myst"}}
    text = replace(data, mime_type="text/markdown", content=caption or "", cell_metadata=myst)
    words = renderer.render_markdown_inline(text)
    figure += nodes.caption("", "", *_inline(words))
    document = renderer.renderer.document
    if about.get("name"):
        figure["names"] = [nodes.fully_normalize_name(about["name"])]
        document.note_explicit_target(figure, figure)
    else:
        document.set_id(figure)
    return figure


def _inline(elements: list[nodes.Element]) -> list[nodes.Node]:
    """Take the words out of the paragraphs that inline Markdown may come wrapped in."""
    words: list[nodes.Node] = []
    for element in elements:
        words += element.children if isinstance(element, nodes.paragraph) else [element]
    return words
