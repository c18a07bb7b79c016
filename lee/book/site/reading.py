"""How long a chapter takes to read and what it says in one line, both taken from the notebook itself.

A chapter's first cell holds a paragraph that starts with `**In one line:**`. The directive `lee-chapters` lists all chapters with
theirs, and :func:`tell_reading_time` writes the minutes under each title.

A notebook is read elsewhere, too, so a directive stands in it as a comment around what other readers see in its place:
`<!-- lee-chapters -->` … `<!-- /lee -->`. :func:`make_live` puts the directive there.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from lee.charts.theme import VEGALITE

if TYPE_CHECKING:
    from sphinx.application import Sphinx

WORDS, LINES, FIGURES, FORMULAS = 200, 20, 4, 6
"""What is read in a minute: words of prose, lines of code that are shown, figures and displayed formulas."""

MARK = "**In one line:**"
_FORMULA = re.compile(r"\$\$.*?\$\$", re.DOTALL)
_FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
_LEFT_OUT = {"hide-input", "remove-input", "hide-cell", "remove-cell", "parameters"}
_DRAWN = {VEGALITE, "image/png", "image/svg+xml"}
_LIVE = re.compile(r"<!-- (lee-\w+) ?(\w*) -->.*?<!-- /lee -->", re.DOTALL)


def make_live(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Put the directives that a notebook names in comments, an option after the name, in the place of what stands between."""
    if "<!-- lee-" not in source[0] or Path(app.env.doc2path(docname)).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _LIVE.sub(_directive, "".join(cell["source"]))
    source[0] = json.dumps(notebook)


def _directive(comment: re.Match[str]) -> str:
    name, option = comment.groups()
    return f"```{{{name}}}\n" + (f":{option}:\n" if option else "") + "```"


def minutes(notebook: dict[str, Any]) -> int:
    """Whole minutes to read a notebook, at least 1; folded code and folded solutions are not counted."""
    total = 0.0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            total += _prose(source)
        elif cell["cell_type"] == "code":
            if _LEFT_OUT.isdisjoint(cell["metadata"].get("tags", ())):
                total += sum(bool(line.strip()) for line in source.splitlines()) / LINES
            total += sum(map(_is_figure, cell["outputs"])) / FIGURES
            total += sum(_prose("".join(o["data"].get("text/markdown", ""))) for o in cell["outputs"] if "data" in o)
    return max(1, math.ceil(total))


def _prose(markdown: str) -> float:
    text, formulas = _FORMULA.subn(" ", _FOLDED.sub(" ", markdown))
    return len(re.findall(r"\w[\w'’-]*", text)) / WORDS + formulas / FORMULAS


def _is_figure(output: dict[str, Any]) -> bool:
    return not _DRAWN.isdisjoint(output.get("data", ())) or "lee" in output.get("metadata", {}).get("text/html", {})


def summary(notebook: dict[str, Any]) -> str | None:
    """The paragraph after :data:`MARK` as Markdown on one line, or None if there is none."""
    for cell in notebook["cells"]:
        for paragraph in "".join(cell["source"]).split("\n\n"):
            if cell["cell_type"] == "markdown" and paragraph.startswith(MARK):
                return " ".join(paragraph.removeprefix(MARK).split())
    return None


def spoken(n: int) -> str:
    """The time as the site tells it.

    Examples:
        >>> spoken(1), spoken(12)
        ('about a minute', 'about 12 minutes')
    """
    return "about a minute" if n == 1 else f"about {n} minutes"


def tell_reading_time(app: "Sphinx", doctree: nodes.document) -> None:
    """Write the reading time of a notebook under its title; the front page has none."""
    path = Path(app.env.doc2path(app.env.docname))
    title = next(doctree.findall(nodes.title), None)
    if path.suffix != ".ipynb" or title is None or app.env.docname == app.config.root_doc:
        return
    time = spoken(minutes(_read(path)))
    title.parent.insert(1, nodes.paragraph("", f"{time[0].upper()}{time[1:]} to read", classes=["lee-reading"]))


class NotebookDirective(SphinxDirective):
    """Something that is written as Markdown from all notebooks of the book."""

    has_content = False

    def notebooks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and content of each notebook, the index first; the page is made anew when one of them changes."""
        for docname in sorted(self.env.found_docs, key=lambda name: (not name.endswith("index"), name)):
            path = Path(self.env.doc2path(docname))
            if path.suffix == ".ipynb":
                self.env.note_dependency(str(path))
                yield docname, _read(path)

    def parsed(self, lines: list[str], name: str) -> list[nodes.Node]:
        """A container of this class with what the lines say, cross-references and terms included."""
        container = nodes.container(classes=[name])
        self.state.nested_parse(StringList(lines, self.env.docname), self.content_offset, container)
        return [container]


def row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


class ChaptersDirective(NotebookDirective):
    """A list of the book's chapters, each with its line and its reading time."""

    def run(self) -> list[nodes.Node]:
        """Write the list."""
        lines = [
            f"1. [](/{docname}.ipynb) [({spoken(minutes(notebook))})]{{.lee-minutes}}: {summary(notebook) or ''}"
            for docname, notebook in self.notebooks()
            if docname.rpartition("/")[2][:2].isdigit()
        ]
        return self.parsed(lines, "lee-chapters")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
