"""The directive `lee-scoreboard`: every claim with its verdict, read from the executed chapters themselves.

A verdict cell that names its claim leaves a small record in the metadata of its box, as :mod:`lee.book.notebook` has it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging

from lee.book import claims
from lee.book.notebook import RECORD, VERDICTS
from lee.book.site.reading import NotebookDirective, row
from lee.charts.theme import typeset

HEADER = ("Claim", "Verdict", "Effect", "n", "Profile")
UNTESTED = "Not tested yet"
WORDS = [*VERDICTS.values(), UNTESTED]
#: Before the source of a claim that isn't the paper's; that of the notes' claims begins with their name.
OTHERS = {"theory": "theory: ", "book": "our own: "}
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A verdict in an executed notebook."""

    record: Mapping[str, Any]  # what the cell left: `claim`, `verdict`, `effect`, `n` and `sentence`
    docname: str
    profile: str


def verdicts(notebooks: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Found]:
    """All records of verdicts in executed notebooks, in order."""
    found = []
    for docname, notebook in notebooks:
        profile = notebook["metadata"].get("lee", {}).get("profile", "–")
        outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
        records = [o.get("metadata", {}).get("text/html", {}).get(RECORD) for o in outputs]
        found += [Found(record, docname, profile) for record in records if record]
    return found


class ScoreboardDirective(NotebookDirective):
    """A table for each chapter, with one row for each claim; with `summary`, how many have each verdict."""

    option_spec: ClassVar[dict[str, Any]] = {"summary": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Write the tables or the summary."""
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
            return self.parsed(summary(found), "lee-scoreboard-summary")
        docs = {docname.rpartition("/")[2]: docname for docname in self.env.found_docs}
        lines, chapter = [], ""
        for claim in claims.claims().values():
            if claim.chapter != chapter:
                chapter = claim.chapter
                title = f"[](/{docs[chapter]}.ipynb)" if chapter in docs else chapter
                lines += ["", title, "", row(HEADER), row(("---",) * len(HEADER))]
            lines.append(row(_cells(claim, found.get(claim.id))))
        return self.parsed(lines, "lee-scoreboard")


def summary(found: Mapping[str, Found]) -> list[str]:
    """Markdown: how many claims have each verdict, of the paper's in a sentence, of all in a table, and what follows."""
    known = claims.claims()
    word = {name: VERDICTS[found[name].record["verdict"]] if name in found else UNTESTED for name in known}
    by: Counter[str] = Counter(one.by for one in known.values())
    paper = Counter(word[name] for name, one in known.items() if one.by == "paper")
    told = ", ".join(f"{paper[w]} {w.lower()}" for w in WORDS if paper[w])
    others = {"notes": "from notes on the paper", "theory": "from theory", "book": "of our own"}
    more = [f"{by[who]} {where}" for who, where in others.items() if by[who]]
    count: Counter[tuple[str, str]] = Counter((word[name], one.about) for name, one in known.items())
    rows = [(w, *_counts(count[w, about] for about in claims.ABOUT)) for w in WORDS]
    total = _counts(sum(count[w, about] for w in WORDS) for about in claims.ABOUT)
    return [
        f"Of the paper's {by['paper']} claims: {told}." + f" There are also {_listed(more)}." * bool(more),
        "",
        f"All {len(known)} claims, by what they are about:",
        "",
        row(("", *claims.ABOUT.values(), "All")),
        row((":---", *["---:"] * (len(claims.ABOUT) + 1))),
        *(row(cells) for cells in rows if cells[-1] != "0"),
        row(("All", *total)),
        "",
        _follows(count),
    ]


def _follows(count: Mapping[tuple[str, str], int]) -> str:
    """What the table says of claims about whole networks, beside the others."""
    of = {word: count[word, "networks"] for word in WORDS}
    yes, decided = VERDICTS["reproduced"], [VERDICTS[word] for word in ("reproduced", "mixed", "contradicted")]
    reproduced = {about: count[yes, about] for about in claims.ABOUT}
    others = reproduced["method"] + reproduced["layers"]
    first = f"Of the {sum(reproduced.values())} reproduced claims, {others} {_are(others)} about the method or single layers. "
    open_ = [word for word in WORDS if word not in decided]
    told = [f"{of[word]} {_are(of[word])} {word.lower()}" for word in decided]
    last = f"{sum(of[word] for word in open_)} could not be decided with our networks and images"
    if any(of[word] for word in open_):
        last += f" ({', '.join(word.lower() for word in open_ if of[word])})"
    return (
        first * any(reproduced.values()) + f"Of the {sum(of.values())} about whole networks, {_listed([*told, last])}."
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _listed(parts: Sequence[str]) -> str:
    """Parts of a sentence with commas, the last with "and"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _counts(numbers: Iterable[int]) -> tuple[str, ...]:
    """Numbers as cells of a table, their sum at the end."""
    listed = list(numbers)
    return tuple(str(number) for number in (*listed, sum(listed)))


def _cells(claim: claims.Claim, one: Found | None) -> tuple[str, ...]:
    told = f"{claim.claim} *({OTHERS.get(claim.by, '')}{claim.source})*"
    about = f"[{claim.about}]{{.lee-about}}"
    if one is None:
        return told, f"{UNTESTED} {about}", "–", "–", "–"
    record = one.record
    n = f"{record['n']:,}" if record["n"] else "–"
    return told, f"**{VERDICTS[record['verdict']]}** {about}", typeset(record["effect"]), n, one.profile
