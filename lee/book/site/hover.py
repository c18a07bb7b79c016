"""Definitions and references over links to the glossary or the bibliography; `static/lee.js` shows them."""

from typing import TYPE_CHECKING
from urllib.parse import unquote

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES = ("book/glossary", "book/bibliography")


def tell_definitions(app: "Sphinx", doctree: nodes.document, docname: str) -> None:
    """Give each link to a section of one of :data:`PAGES` the section's first paragraph as its title."""
    known = {f"{page}#{name}": text for page in PAGES for name, text in _paragraphs(app, page).items()}
    at = {app.builder.get_relative_uri(docname, page): page for page in PAGES if page in app.env.found_docs}
    for link in doctree.findall(nodes.reference):
        address, _, anchor = link.get("refuri", "").partition("#")
        page = at.get(address) if address else None
        text = known.get(f"{page}#{unquote(anchor)}")
        if text:
            link["reftitle"] = text


def _paragraphs(app: "Sphinx", page: str) -> dict[str, str]:
    """The first paragraph of each section of a page, by the section's anchors."""
    if page not in app.env.found_docs:
        return {}
    found: dict[str, str] = {}
    for section in app.env.get_doctree(page).findall(nodes.section):
        first = next(section.findall(nodes.paragraph), None)
        if first is not None:
            found |= dict.fromkeys(section["ids"], " ".join(first.astext().split()))
    return found
