"""What a chapter's cells need around the numbers: a first cell, verdicts, numbers for the prose, pictures.

Nothing here is needed to measure a model; the cells of the book stay short because of it.
"""

import re
import sys
import warnings
from dataclasses import dataclass
from html import escape
from typing import Any

import torch

from lee import charts
from lee.book import claims, parameters
from lee.errors import InputError, check_known
from lee.statistics import Verdict

#: Words of the one rule, then those of boxes that were made before it.
VERDICTS: dict[str, str] = {
    "reproduced": "Reproduced",
    "mixed": "Mixed",
    "contradicted": "Contradicted",
    "underpowered": "Underpowered",
    "not testable here": "Not testable here",
    "partly": "Partly reproduced",
    "not at this scale": "Not at this scale",
}
#: Where the record for the scoreboard lies in the metadata of a verdict's HTML.
RECORD = "lee-verdict"


def setup(seed: int = 0, *, threads: int = 1) -> torch.Generator:
    """Prepare a notebook: its parameters checked, the charts' theme and renderer, a seed, and sums in the same order everywhere.

    Args:
        seed: Seed of torch's global generator in this process, and of the generator that is returned.
        threads: Threads of torch on the CPU. Sums over other numbers of threads round differently; one thread
            also leaves the second core to the chapter that is executed beside this one.

    Returns:
        A generator with its own state, to be passed to whatever draws random numbers.

    Raises:
        InputError: A parameter of the notebook isn't of the type that its cell of parameters says.
    """
    parameters.check_notebook(sys._getframe(1))
    charts.enable()
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    # torch.func.jvp loads formulas that torch itself still scripts; nothing that a reader could mend.
    warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class verdict:
    """A claim, of the paper as a rule, beside what this book measures, as a box: the last expression of a cell.

    Compute `verdict` from the numbers in the cell, so that the box can't outlive its evidence. With the `id` of a claim of
    `data/claims.yaml` and a verdict by :func:`lee.statistics.judge`, the box tells the cases and intervals by itself, and the
    scoreboard finds it.

    Args:
        verdict: What :func:`lee.statistics.judge` returns; or, in boxes without an `id`, a word of :data:`VERDICTS`.
        measured: What the cells above have measured, in a sentence; with numbers, unless the verdict brings them.
        id: Name of the claim; it brings `claim`, `source` and `heading`.
        claim: What the paper says, in one sentence.
        source: Where it says so, such as `"abstract and Fig. 1"`.
        heading: Who says so, if it isn't the paper, such as `"Theory says"`.

    Raises:
        InputError: If the claim isn't known, or is judged as one of another kind, the verdict is another word (the nearest one is
            suggested), or a text is empty.
    """

    verdict: Verdict | str
    measured: str
    id: str = ""
    claim: str = ""
    source: str = ""
    heading: str = "Paper says"

    def __post_init__(self) -> None:
        check_known("verdict", self.word, VERDICTS)
        if self.id:
            known = claims.claim(self.id)
            if not isinstance(self.verdict, Verdict) or self.verdict.kind != known.kind:
                raise InputError(
                    f"The claim {self.id!r} is {known.kind}; judge its cases as such with lee.statistics.judge."
                )
            for field in ("claim", "source"):
                object.__setattr__(self, field, getattr(known, field))
            object.__setattr__(self, "heading", claims.HEADINGS[known.by])
        for field in ("claim", "source", "measured", "heading"):
            if not getattr(self, field).strip():
                raise InputError(f"A verdict needs a non-empty `{field}`.")

    @property
    def word(self) -> str:
        """The verdict itself."""
        return self.verdict.word if isinstance(self.verdict, Verdict) else self.verdict

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("We measure", self.measured)]
        if isinstance(self.verdict, Verdict):
            rows += [("Cases", self.verdict.details)] if self.verdict.cases else []
            rows += [("Together", self.verdict.sentence)]
        return rows

    def __str__(self) -> str:
        told = [f"{self.heading} ({self.source}): {self.claim}", *(f"{title}: {text}" for title, text in self._rows())]
        return "\n".join([*told, f"Verdict: {VERDICTS[self.word].lower()}"])

    def html(self) -> str:
        """The box as HTML; formulas between dollars are left for MathJax."""
        rows = "".join(f"<dt>{title}</dt><dd>{_prose(text)}</dd>" for title, text in self._rows())
        return (
            f'<div class="lee-verdict lee-verdict-{self.word.replace(" ", "-")} mathjax_process" role="note">'
            f'<dl><dt>{_prose(self.heading)}</dt><dd>{_prose(self.claim)} <span class="lee-source">{_prose(self.source)}'
            f"</span></dd>{rows}</dl>"
            f'<p class="lee-verdict-word"><strong>{VERDICTS[self.word]}</strong></p></div>'
        )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        about = {}
        if self.id and isinstance(self.verdict, Verdict):
            found = self.verdict
            record = {"claim": self.id, "verdict": found.word, "effect": found.number, "n": found.n}
            about = {"text/html": {RECORD: record | {"sentence": found.sentence}}}
        return {"text/html": self.html(), "text/plain": str(self)}, about


def prose(text: str) -> None:
    """Show sentences with computed numbers as Markdown, so that they read the same wherever the notebook is opened.

    Its cell has the tag `remove-input`. An f-string fills in the numbers; braces of formulas are doubled there. What Python
    writes as `3.1e-10` or `1.4e+02` is shown as 3.1×10⁻¹⁰ and 140.

    Args:
        text: Markdown with formulas and links, without headings.
    """
    from IPython.display import display

    display({"text/markdown": _with_powers(text.strip())}, raw=True)


_POWER = re.compile(r"(`[^`]*`)|(?<![\w.])(\d(?:\.\d+)?)e([+-]\d+)(?!\w)")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _with_powers(text: str) -> str:
    """The numbers of a text with an exponent as people write them; those between backquotes stay."""

    def written(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        exponent = int(found[3])
        if 0 <= exponent < 6:
            return f"{float(found[0]):,.0f}"
        return f"{found[2]}×10{str(exponent).translate(_RAISED)}"

    return _POWER.sub(written, text)


def _prose(text: str) -> str:
    """HTML of a sentence; `$x$` becomes `\\(x\\)`, and what stands between backquotes becomes code."""
    safe = escape(" ".join(_with_powers(text).split()), quote=False)
    safe = re.sub(r"\$([^$]+)\$", r'<span class="math">\\(\1\\)</span>', safe)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
