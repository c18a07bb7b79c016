"""The claims and their scoreboard: every claim has a row, every verdict a claim, and no claim two verdicts."""

import json
from pathlib import Path

import pytest
import yaml

from lee.book import claims
from lee.book.notebook import VERDICTS
from lee.book.site.scoreboard import Found, summary, verdicts
from lee.errors import InputError

ROOT = Path(__file__).parents[2]


def test_every_claim_names_a_chapter_of_the_book() -> None:
    chapters = {path.stem for path in (ROOT / "book").glob("*.ipynb")}
    assert {claim.chapter for claim in claims.claims().values()} <= chapters
    assert all(claim.claim.endswith(".") for claim in claims.claims().values())
    told = [claim.chapter for claim in claims.claims().values()]
    assert told == sorted(told)  # the scoreboard has one table for each


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "us"}, "claims.yaml, 'a': `by` must be 'paper', 'notes', 'theory' or 'book', not 'us'"),
        ({"kind": "any"}, "`kind` must be 'universal' or 'existential', not 'any'"),
        ({"more": 1}, "unknown field 'more'"),
        ({"id": "b"}, "'b': another claim has this name"),
    ],
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
    one = Found({"claim": "n-or-root-n", "verdict": "contradicted"}, "book/05", "quick")
    assert summary({}) == f"Of {total} claims: {total} not tested yet."
    assert summary({"n-or-root-n": one}) == f"Of {total} claims: 1 contradicted, {total - 1} not tested yet."
