"""The claims and their scoreboard: every claim has a row, every verdict a claim, and no claim two verdicts."""

import json
from collections import Counter
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
        ({"about": "us"}, "`about` must be 'method', 'layers' or 'networks', not 'us'"),
        ({"kind": "any"}, "`kind` must be 'universal' or 'existential', not 'any'"),
        ({"more": 1}, "unknown field 'more'"),
        ({"id": "b"}, "'b': another claim has this name"),
    ],
)
def test_a_claim_that_is_not_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    row = {"id": "a", "claim": "It holds.", "source": "Fig. 1", "by": "paper", "about": "method", "kind": "universal"}
    row["chapter"] = "index"
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([{**row, "id": "b"}, {**row, **change}]))
    monkeypatch.setattr(claims, "package_data", lambda: tmp_path)
    claims.claims.cache_clear()
    try:
        with pytest.raises(InputError, match=message):
            claims.claims()
    finally:
        claims.claims.cache_clear()


def test_the_brackets_tell_whose_claim_it_is() -> None:
    for one in claims.claims().values():
        assert one.source.startswith(("notes", "theory", "our own")) == (one.by == "notes")


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


def judged(**verdicts: str) -> dict[str, Found]:
    """Verdicts on claims, whose hyphens are underscores here."""
    named = {name.replace("_", "-"): word for name, word in verdicts.items()}
    return {name: Found({"claim": name, "verdict": word}, "book/05", "quick") for name, word in named.items()}


def test_the_summary_counts() -> None:
    known = claims.claims().values()
    by, about = Counter(one.by for one in known), Counter(one.about for one in known)
    paper, networks, total = by["paper"], about["networks"], len(known)
    everything = f"| All | {about['method']} | {about['layers']} | {networks} | {total} |"

    nothing = summary({})
    assert nothing[0].startswith(f"Of the paper's {paper} claims: {paper} not tested yet. There are also ")
    assert (
        f"{by['notes']} from notes on the paper, {by['theory']} from theory and {by['book']} of our own." in nothing[0]
    )
    assert [line for line in nothing if line.startswith("| Not")] == [everything.replace("All", "Not tested yet")]
    assert everything in nothing
    assert nothing[-1].startswith(f"Of the {networks} about whole networks, 0 are reproduced, ")
    assert nothing[-1].endswith(f" and {networks} could not be decided with our networks and images (not tested yet).")

    some = judged(
        n_or_root_n="contradicted", blurpool="reproduced", harmonics="reproduced", combining_both="reproduced"
    )
    told = summary(some)
    assert told[0].startswith(
        f"Of the paper's {paper} claims: 2 reproduced, 1 contradicted, {paper - 3} not tested yet. "
    )
    assert "| Reproduced | 0 | 1 | 2 | 3 |" in told
    assert "| Contradicted | 0 | 0 | 1 | 1 |" in told
    assert told[-1] == (
        f"Of the 3 reproduced claims, 1 is about the method or single layers. Of the {networks} about whole networks, "
        f"2 are reproduced, 0 are mixed, 1 is contradicted and {networks - 3} could not be decided with our networks and images "
        "(not tested yet)."
    )
