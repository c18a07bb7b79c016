"""The claims and their scoreboard: every claim has a row, every verdict a claim, and no claim two verdicts."""

import json
import re
from pathlib import Path

import pytest
import yaml
from sample_book import CHAPTER, write_sample_book

from lee import book
from lee.book import claims
from lee.book.notebook import RECORD, VERDICTS
from lee.book.site.scoreboard import Found, summary, verdicts
from lee.errors import InputError

ROOT = Path(__file__).parents[2]
DECIDED = {"claim": "n-or-root-n", "verdict": "contradicted", "effect": "0.13 [0.10, 0.16]", "n": 1500, "sentence": "…"}


def test_every_claim_names_a_chapter_of_the_book() -> None:
    chapters = {path.stem for path in (ROOT / "book").glob("*.ipynb")}
    assert {claim.chapter for claim in claims.claims().values()} <= chapters
    assert all(claim.claim.endswith(".") for claim in claims.claims().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"by": "us"}, "author"), ({"kind": "any"}, "kind"), ({"more": 1}, "needs a name"), ({"id": "b"}, "needs a name")],
)
def test_a_claim_that_is_not_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    row = {"id": "a", "claim": "It holds.", "source": "Fig. 1", "by": "paper", "kind": "universal", "chapter": "index"}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([{**row, "id": "b"}, {**row, **change}]))
    monkeypatch.setattr(claims, "package_data", lambda: tmp_path)
    claims.claims.cache_clear()
    try:
        with pytest.raises(InputError, match=message):
            claims.claims()
    finally:
        claims.claims.cache_clear()


def test_the_committed_chapters_hold_one_verdict_per_claim() -> None:
    read = [(path.stem, json.loads(path.read_text())) for path in sorted((ROOT / "book").glob("*.ipynb"))]
    found = verdicts(read)
    names = [one.record["claim"] for one in found]
    assert names
    assert len(names) == len(set(names))
    for one in found:
        assert claims.claim(one.record["claim"]).chapter == one.docname
        assert one.record["verdict"] in VERDICTS
        assert len(json.dumps(one.record)) < 1000


def test_the_summary_counts() -> None:
    total = len(claims.claims())
    one = Found(DECIDED, "book/05", "quick")
    assert summary({}) == f"Of {total} claims: {total} not tested yet."
    assert summary({"n-or-root-n": one}) == f"Of {total} claims: 1 contradicted, {total - 1} not tested yet."


def judged(root: Path, *records: object) -> None:
    """Leave records of verdicts in the sample chapter, as an executed cell does."""
    path = root / "book" / f"{CHAPTER}.ipynb"
    notebook = json.loads(path.read_text())
    boxes = [o for c in notebook["cells"] for o in c.get("outputs", ()) if "lee-verdict" in str(o.get("data", ""))]
    cell = next(c for c in notebook["cells"] if boxes[0] in c.get("outputs", ()))
    cell["outputs"] += [{**boxes[0], "metadata": {"text/html": {RECORD: record}}} for record in records]
    path.write_text(json.dumps(notebook))


@pytest.mark.slow
@pytest.mark.xdist_group("site")
def test_the_scoreboard_has_a_row_for_every_claim(tmp_path: Path) -> None:
    root = write_sample_book(tmp_path, run=True)
    judged(root, DECIDED)
    book.prepare(root, root / "_build" / "book-src")
    text = (book.render(root).parent / "book" / "scoreboard.html").read_text()
    rows = re.findall(r"<tr.*?</tr>", text, re.DOTALL)[1:]
    assert len(rows) == len(claims.claims())
    (row,) = [row for row in rows if "Not tested yet" not in row]
    assert re.search(rf'href="{CHAPTER}\.html".*Contradicted.*0\.13 \[0\.10, 0\.16\].*1,500', row, re.DOTALL)
    assert f"1 contradicted, {len(rows) - 1} not tested yet" in text


@pytest.mark.slow
@pytest.mark.xdist_group("site")
def test_two_verdicts_on_one_claim_stop_the_build(tmp_path: Path) -> None:
    root = write_sample_book(tmp_path, run=True)
    judged(root, DECIDED, {**DECIDED, "verdict": "reproduced"})
    book.prepare(root, root / "_build" / "book-src")
    with pytest.raises(book.RenderError, match="A verdict on 'n-or-root-n'"):
        book.render(root)
