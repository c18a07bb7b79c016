"""The directive `lee-scoreboard`: every claim with its verdict, read from the executed chapters themselves.

A verdict cell that names its claim leaves a small record in the metadata of its box, as :mod:`lee.book.notebook` has it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging

from lee.book import claims
from lee.book.notebook import RECORD, VERDICTS
from lee.book.site.reading import NotebookDirective
from lee.charts.theme import typeset

HEADER = ("Claim", "Verdict", "Effect", "n", "Profile")
UNTESTED = "Not tested yet"
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A verdict in an executed notebook.

    Args:
        record: What the cell left: `claim`, `verdict`, `effect`, `n` and `sentence`.
        docname: The page.
        profile: The profile that the notebook ran with.
    """

    record: Mapping[str, Any]
    docname: str
    profile: str


def verdicts(notebooks: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Found]:
    """All records of verdicts in executed notebooks, in order.

    Args:
        notebooks: Names of pages, and notebooks of format 4 as parsed from their JSON.
    """
    found = []
    for docname, notebook in notebooks:
        profile = notebook["metadata"].get("lee", {}).get("profile", "–")
        outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
        records = [o.get("metadata", {}).get("text/html", {}).get(RECORD) for o in outputs]
        found += [Found(record, docname, profile) for record in records if record]
    return found


class ScoreboardDirective(NotebookDirective):
    """A table for each chapter, with one row for each claim; with `summary`, how many have each verdict, in a sentence."""

    option_spec: ClassVar[dict[str, Any]] = {"summary": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Write the tables or the sentence."""
        self.env.note_dependency(str(claims.path()))
        found: dict[str, Found] = {}
        for one in verdicts(self.notebooks()):
            name = one.record["claim"]
            if name in found or name not in claims.claims():
                place = f"{found[name].docname} and {one.docname}" if name in found else one.docname
                # `jupyter-book build -W` makes this an error: a claim has one verdict.
                LOGGER.warning(
                    "A verdict on %r in %s: a claim of the list has one.", name, place, location=self.env.docname
                )
            found[name] = one
        if "summary" in self.options:
            return self.parsed([summary(found)], "lee-scoreboard-summary")
        docs = {docname.rpartition("/")[2]: docname for docname in self.env.found_docs}
        lines, chapter = [], ""
        for claim in claims.claims().values():
            if claim.chapter != chapter:
                chapter = claim.chapter
                title = f"[](/{docs[chapter]}.ipynb)" if chapter in docs else chapter
                lines += ["", title, "", _row(HEADER), _row(("---",) * len(HEADER))]
            lines.append(_row(_cells(claim, found.get(claim.id))))
        return self.parsed(lines, "lee-scoreboard")


def summary(found: Mapping[str, Found]) -> str:
    """How many claims have each verdict, in a sentence."""
    count = Counter(VERDICTS[one.record["verdict"]].lower() for one in found.values())
    total = len(claims.claims())
    count[UNTESTED.lower()] = total - len(found)
    words = [*(word.lower() for word in VERDICTS.values()), UNTESTED.lower()]
    return f"Of {total} claims: {', '.join(f'{count[word]} {word}' for word in words if count[word])}."


def _cells(claim: claims.Claim, one: Found | None) -> tuple[str, ...]:
    told = f"{claim.claim} *({claim.source})*"
    if one is None:
        return told, UNTESTED, "–", "–", "–"
    record = one.record
    n = f"{record['n']:,}" if record["n"] else "–"
    return told, f"**{VERDICTS[record['verdict']]}**", typeset(record["effect"]), n, one.profile


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
