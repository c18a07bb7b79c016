"""The committed notebooks as GitHub, nbviewer and plain nbconvert show them: no directive, no gap, a picture for each chart."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

from lee import book
from lee.charts.theme import VEGALITE, plain

ROOT = Path(__file__).parents[2]
LARGEST = 1_500_000  # bytes
PICTURES = ("data:image/png;base64,", "data:image/jpeg;base64,")


class Reader(HTMLParser):
    """The words of a page without its code and formulas, its pictures, and links without words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.pictures, self.gaps = "", 0, 0
        self._link: str | None = None
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._code += tag in ("pre", "code", "style", "script")
        self.pictures += tag == "img" and str(given.get("src")).startswith(PICTURES)
        if tag == "a" and "anchor-link" not in str(given.get("class")):
            self._link = ""

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("pre", "code", "style", "script")
        if tag == "a" and self._link is not None:
            self.gaps += not self._link.strip()
            self._link = None

    def handle_data(self, data: str) -> None:
        if self._link is not None:
            self._link += data
        if not self._code:
            self.words += data


def read(notebook: nbformat.NotebookNode) -> Reader:
    """What plain nbconvert makes of a notebook, without the input of its cells."""
    reader = Reader()
    exporter = HTMLExporter(template_name="basic", exclude_input=True)  # type: ignore[no-untyped-call]
    reader.feed(exporter.from_notebook_node(notebook)[0])
    return reader


def flaws(reader: Reader) -> list[str]:
    """What a reader would stumble over."""
    words = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|\\\(.*?\\\)|\\begin\{.*?\\end\{\w+\*?\}", "", reader.words, flags=re.DOTALL)
    found = re.findall(r"\{[\w:+-]+\}|\{[a-z_]+[\[:.][^}]*\}|:::\S*|\bnan\b", words)
    return found + ["a link without words"] * reader.gaps


@pytest.mark.parametrize("path", book.chapters(ROOT), ids=lambda path: path.stem)
def test_a_notebook_reads_the_same_without_the_site(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    outputs = [o.data for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "data" in o]
    charts = sum(VEGALITE in data for data in outputs)
    reader = read(notebook)
    assert flaws(reader) == []
    assert reader.pictures >= charts
    assert sum("image/png" in data for data in outputs) >= charts
    assert path.stat().st_size < LARGEST
    captions = [plain(data[VEGALITE]["usermeta"]["caption"]) for data in outputs if VEGALITE in data]
    assert not [caption for caption in captions if set(caption) & set("$\\{}*`")]


@pytest.mark.parametrize("path", book.chapters(ROOT), ids=lambda path: path.stem)
def test_no_chart_of_a_notebook_is_as_wide_as_its_container(path: Path) -> None:
    assert '"width": "container"' not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("The error is {glue:text}`gap`.", "{glue:text}"),
        ("About {gap:.2f} of it.", "{gap:.2f}"),
        ("It is nan.", "nan"),
        (":::{admonition} Solution", ":::{admonition}"),
        ("Before: [](notation.md).", "a link without words"),
    ],
)
def test_flaws_are_found(text: str, flaw: str) -> None:
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"{text} And ${{x}}$, `{{y}}`.")])
    assert flaw in flaws(read(page))


def test_formulas_and_code_are_no_flaws() -> None:
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("$\\mathrm{id}$, `{y}` and [a](b.md).")])
    assert flaws(read(page)) == []
