"""The rendered site: strict, numbered figures with words, live charts, and nothing asked from another host."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_book import CHAPTER, write_sample_book

from lee import book
from lee.book import claims
from lee.book.notebook import RECORD
from lee.book.site.reading import minutes, summary
from lee.book.site.status import describe
from lee.book.site.vendor import vendor_scripts

pytestmark = pytest.mark.xdist_group("site")  # its fixtures are made once

ROOT = Path(__file__).parents[2]
DECIDED = {"claim": "n-or-root-n", "verdict": "contradicted", "effect": "0.13 [0.10, 0.16]", "n": 1500, "sentence": "…"}


def judged(root: Path, *records: object) -> None:
    """Leave records of verdicts in the sample chapter, as an executed cell does."""
    path = root / "book" / f"{CHAPTER}.ipynb"
    notebook = json.loads(path.read_text())
    boxes = [o for c in notebook["cells"] for o in c.get("outputs", ()) if "lee-verdict" in str(o.get("data", ""))]
    cell = next(c for c in notebook["cells"] if boxes[0] in c.get("outputs", ()))
    cell["outputs"] += [{**boxes[0], "metadata": {"text/html": {RECORD: record}}} for record in records]
    path.write_text(json.dumps(notebook))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample book, rendered strictly, with the address of a repository."""
    root = write_sample_book(tmp_path_factory.mktemp("site"), run=True)
    config, off = root / "_config.yml", 'repository: {url: ""'
    assert off in config.read_text()
    config.write_text(config.read_text().replace(off, 'repository: {url: "https://github.com/OWNER/REPOSITORY"'))
    judged(root, DECIDED)
    book.prepare(root, root / "_build" / "book-src")
    return book.render(root).parent


@pytest.fixture(scope="session")
def chapter(sample: Path) -> str:
    return (sample / "book" / f"{CHAPTER}.html").read_text()


class Requests(HTMLParser):
    """Addresses that a browser asks for while it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.found.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") not in ("canonical", "author", "next", "prev", "search", "index"):
            self.found.append(given.get("href") or "")


def pages(site: Path) -> list[Path]:
    """The site's pages, without the theme's templates, which are copied among its static files."""
    return [page for page in site.rglob("*.html") if "_static" not in page.parts]


@pytest.mark.slow
def test_no_page_asks_another_host(sample: Path) -> None:
    assert len(pages(sample)) > 6
    for page in pages(sample):
        reader = Requests()
        reader.feed(page.read_text())
        assert not [url for url in reader.found if re.match(r"(https?:)?//", url)], page
        assert not re.search(r"unpkg|jsdelivr|cdnjs|googleapis", page.read_text()), page


@pytest.mark.slow
def test_what_pages_ask_for_is_there(sample: Path) -> None:
    for page in pages(sample):
        reader = Requests()
        reader.feed(page.read_text())
        for url in filter(None, reader.found):
            if not url.startswith(("data:", "#")):
                assert (page.parent / url.split("?")[0].split("#")[0]).is_file(), f"{page.name} asks for {url}"


@pytest.mark.slow
def test_every_figure_is_numbered_and_has_words(chapter: str) -> None:
    figures = re.findall(r'<figure class="[^"]*lee-figure.*?</figure>', chapter, re.DOTALL)
    assert len(figures) == 8
    for number, figure in enumerate(figures, start=2):  # the first one is on the front page
        assert f"Figure {number} " in figure
        assert re.search(r'caption-text">\w', figure)
    pictures = re.findall(r"<img[^>]*>", "".join(figures))
    assert len(pictures) == 4
    assert all(re.search(r'alt="[^"]+', picture) for picture in pictures)


@pytest.mark.slow
def test_charts_are_embedded_whole(chapter: str) -> None:
    hosts = re.findall(r'<div class="lee-chart"><script type="application/json">(.*?)</script>', chapter)
    assert len(hosts) == 6
    for host in hosts:
        spec = json.loads(host)
        assert spec["description"] in unescape(chapter)


@pytest.mark.slow
def test_captions_speak_markdown_and_mathematics(sample: Path, chapter: str) -> None:
    assert "A blob in <em>three</em> places." in chapter
    index = (sample / "book" / "index.html").read_text()
    assert r'Three waves <span class="math notranslate nohighlight">\(\sin(kt)\)</span>' in index
    assert '<a class="reference internal" href="#fig-waves">the waves</a>' in index


@pytest.mark.slow
def test_computed_sentences_and_verdicts_stand_in_the_text(chapter: str) -> None:
    assert r'</a> is 0.064, with <span class="math notranslate nohighlight">\(\tfrac{1}{2}\)</span>.' in chapter
    link = re.search(r'<a [^>]*href="glossary\.html#local-equivariance-error"[^>]*>', chapter)
    assert link
    assert 'title="LEE: the mean over images of the squared length' in link[0]
    assert 'class="lee-verdict lee-verdict-reproduced mathjax_process"' in chapter


@pytest.mark.slow
def test_the_status_page_counts_cells(sample: Path) -> None:
    text = (sample / "book" / "status.html").read_text()
    assert re.search(r"A sample chapter.*?12 of 12.*?none", text, re.DOTALL)


@pytest.mark.slow
def test_launch_buttons_are_there_once_they_are_configured(chapter: str) -> None:
    assert f"https://mybinder.org/v2/gh/OWNER/REPOSITORY/main?urlpath=lab/tree/book/{CHAPTER}.ipynb" in chapter
    assert f"https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/{CHAPTER}.ipynb" in chapter


@pytest.mark.slow
def test_the_scoreboard_has_a_row_for_every_claim(sample: Path) -> None:
    text = (sample / "book" / "scoreboard.html").read_text()
    counts, tables = text.split('class="lee-scoreboard docutils')
    rows = [row for row in re.findall(r"<tr.*?</tr>", tables, re.DOTALL) if "<th" not in row]
    assert len(rows) == len(claims.claims())
    (row,) = [row for row in rows if "Not tested yet" not in row]
    assert re.search(r"Fractional shifts.*Contradicted.*0\.13 \[0\.10, 0\.16\].*1,500", row, re.DOTALL)
    paper = sum(one.by == "paper" for one in claims.claims().values())
    assert f"Of the paper’s {paper} claims: 1 contradicted, {paper - 1} not tested yet" in counts
    assert re.search(r"Contradicted.*?0.*?0.*?1.*?1.*?Not tested yet.*?All", counts, re.DOTALL)


@pytest.mark.slow
def test_a_figure_without_words_and_two_verdicts_on_one_claim_stop_the_build(tmp_path: Path) -> None:
    root = write_sample_book(tmp_path, run=True)
    path = root / "book" / "index.ipynb"
    path.write_text(path.read_text().replace('"caption":', '"no-caption":'))
    judged(root, DECIDED, {**DECIDED, "verdict": "reproduced"})
    book.prepare(root, root / "_build" / "book-src")
    with pytest.raises(book.RenderError) as refused:
        book.render(root)
    assert "no caption or no alternative text" in str(refused.value)
    assert "A verdict on 'n-or-root-n'" in str(refused.value)


def test_a_notebook_that_was_not_executed_stops_the_build(tmp_path: Path) -> None:
    root = write_sample_book(tmp_path)
    book.prepare(root, root / "_build" / "book-src")
    with pytest.raises(book.RenderError, match=r"index\.ipynb has not been executed"):
        book.render(root)


def test_vendored_scripts_come_from_installed_packages(tmp_path: Path) -> None:
    vendor_scripts(tmp_path)
    vega = tmp_path / "vega" / "vega.js"
    assert "vegaEmbed" in vega.read_text()
    assert vega.read_text().startswith("(function(){")
    mathjax = tmp_path / "mathjax"
    assert (mathjax / "tex-chtml.js").stat().st_size > 1e6
    assert len(list((mathjax / "output/chtml/fonts/woff-v2").glob("*.woff"))) > 10
    before = vega.stat().st_mtime_ns
    vendor_scripts(tmp_path)
    assert vega.stat().st_mtime_ns == before


def test_no_browser_code_of_others_is_committed(tracked: list[Path]) -> None:
    scripts = [p.relative_to(ROOT).as_posix() for p in tracked if p.suffix in (".js", ".mjs", ".woff", ".woff2")]
    assert scripts == ["lee/book/site/static/lee.js", "lee/book/site/static/search.js"]


def test_the_status_of_a_notebook_is_read_from_it() -> None:
    ran = {"cell_type": "code", "source": ["x"], "execution_count": 1, "outputs": [{"output_type": "error"}]}
    not_run = {"cell_type": "code", "source": ["y"], "execution_count": None, "outputs": []}
    empty = {"cell_type": "code", "source": [], "execution_count": None, "outputs": []}
    about = {"lee": {"profile": "quick", "seconds": 12.3, "executed": "2026-01-02 03:04 UTC"}}
    told = describe({"cells": [ran, not_run, empty], "metadata": about})
    assert told == ("quick", "1 of 2", "1", "12 s", "2026-01-02 03:04 UTC")
    assert describe({"cells": [], "metadata": {}}) == ("–", "0 of 0", "none", "–", "as committed")


def markdown(text: str) -> dict[str, object]:
    return {"cell_type": "markdown", "source": text.splitlines(keepends=True)}


def code(text: str, *tags: str, outputs: tuple[dict[str, object], ...] = ()) -> dict[str, object]:
    source = text.splitlines(keepends=True)
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}, "outputs": list(outputs)}


def test_reading_time_counts_words_lines_figures_and_formulas() -> None:
    chart: dict[str, object] = {"data": {"application/vnd.vegalite.v5+json": {}}}
    tiles: dict[str, object] = {"data": {"text/html": ""}, "metadata": {"text/html": {"lee": {}}}}
    pages = [
        ([markdown("word " * 199)], 1),
        ([markdown("word " * 401)], 3),
        ([markdown("word " * 200 + "\n\n$$ a b c $$\n\n")], 2),
        ([markdown("x\n\n<details>\n<summary>Solution</summary>\n\n" + "word " * 900 + "\n\n</details>")], 1),
        ([code("a = 1\n\n" * 41)], 3),
        ([code("a = 1\n" * 99, "hide-input"), code("n: int = 1\n" * 99, "parameters")], 1),
        ([code("", outputs=(chart, chart, tiles, tiles, chart))], 2),
        ([code("", outputs=({"data": {"text/plain": "1"}},) * 9)], 1),
        ([code("say()\n" * 99, "remove-input", outputs=({"data": {"text/markdown": "word " * 401}},))], 3),
    ]
    for cells, expected in pages:
        assert minutes({"cells": cells}) == expected, cells


def test_the_line_of_a_chapter_is_the_paragraph_that_says_so() -> None:
    page = {"cells": [code("**In one line:** no"), markdown("# T\n\n**In one line:** one *thing*\nand $x$.\n\nMore.")]}
    assert summary(page) == "one *thing* and $x$."
    assert summary({"cells": [markdown("# T\n\nIn one line: no")]}) is None


@pytest.mark.parametrize("path", book.chapters(ROOT), ids=lambda path: path.stem)
def test_every_chapter_has_its_line_and_leaves_the_time_to_the_site(path: Path) -> None:
    content = json.loads(path.read_text())
    assert summary(content)
    assert "Reading time" not in "".join("".join(c["source"]) for c in content["cells"])


@pytest.mark.slow
def test_titles_tell_the_reading_time_and_a_list_the_chapters(sample: Path, chapter: str) -> None:
    assert re.search(r'</h1>\s*<p class="lee-reading">About \d+ minutes to read</p>', chapter)
    index = (sample / "book" / "index.html").read_text()
    time = r'<span class="lee-minutes">\(about \d+ minutes\)</span>'
    assert re.search(rf'href="01_sample.html".*?A sample chapter.*?{time}.*?what <em>this</em> shows', index, re.DOTALL)
    assert "no site is built" not in index
    assert 'class="lee-reading"' not in index + (sample / "book" / "glossary.html").read_text()


@pytest.mark.slow
def test_every_page_can_be_downloaded_as_a_single_file(sample: Path, chapter: str) -> None:
    link = re.search(r'<a href="([^"]+)"[^>]*class="[^"]*btn-download-source-button', chapter)
    assert link
    assert json.loads((sample / "book" / link[1]).read_text())["nbformat"] == 4
