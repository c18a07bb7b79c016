"""What a chapter's cells need around the numbers: a first cell, verdicts, numbers for the prose, tables.

Nothing here is needed to measure a model; the cells of the book stay short because of it.
"""

import math
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
import torch

from lee import charts
from lee.book import claims, parameters
from lee.charts.theme import typeset
from lee.errors import InputError, check_known
from lee.statistics import Verdict

#: Words of the one rule.
VERDICTS: dict[str, str] = {
    "reproduced": "Reproduced",
    "mixed": "Mixed",
    "contradicted": "Contradicted",
    "underpowered": "Underpowered",
    "not testable here": "Not testable here",
}
CASES = "Cases, with simultaneous intervals"
#: Where the record for the scoreboard lies in the metadata of a verdict's HTML.
RECORD = "lee-verdict"


def setup(seed: int = 0) -> torch.Generator:
    """Prepare a notebook: its parameters checked, the charts' theme and renderer, a seed, and sums in the same order everywhere.

    Args:
        seed: Seed of torch's global generator in this process, and of the generator that is returned.

    Returns:
        A generator with its own state, to be passed to whatever draws random numbers.

    Raises:
        InputError: A parameter of the notebook isn't of the type that its cell of parameters says.
    """
    parameters.check_notebook(sys._getframe(1))
    charts.enable()
    torch.manual_seed(seed)
    # Sums over other numbers of threads round differently; one also leaves the second core to the chapter that is executed beside
    # this one.
    torch.set_num_threads(1)
    # torch.func.jvp loads formulas that torch itself still scripts; nothing that a reader could mend.
    warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class verdict:
    """A claim, of the paper as a rule, beside what this book measures, as a box: the last expression of a cell.

    Compute `verdict` from the numbers in the cell, so that the box can't outlive its evidence. With the `id` of a claim of
    `data/claims.yaml` and a verdict by :func:`lee.statistics.judge`, the box tells the result and, folded, the cases and intervals
    by itself, and the scoreboard finds it.

    Args:
        verdict: What :func:`lee.statistics.judge` returns; or, in boxes without an `id`, its word alone, such as `reproduced`.
        measured: What the cells above have measured, in one sentence; with numbers, unless the verdict brings them.
        criterion: What had to come out for the claim to hold; it is folded, with the cases.
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
    criterion: str = ""
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

    def _result(self) -> list[tuple[str, str]]:
        rows = [("We measure", self.measured)]
        if isinstance(self.verdict, Verdict):
            alone = len(self.verdict.cases) == 1
            rows.append(("Result", f"{self.verdict.number}" if alone else self.verdict.sentence))
        return rows

    def _details(self) -> list[tuple[str, str]]:
        rows = [("Criterion", self.criterion)] if self.criterion else []
        if isinstance(self.verdict, Verdict) and self.verdict.cases:
            rows.append((CASES, self.verdict.details))
            rows += [("Together", self.verdict.sentence)] if len(self.verdict.cases) == 1 else []
        return rows

    def __str__(self) -> str:
        rows = (f"{title}: {text}" for title, text in [*self._result(), *self._details()])
        told = [f"{self.heading} ({self.source}): {self.claim}", *rows]
        return "\n".join([*told, f"Verdict: {VERDICTS[self.word].lower()}"])

    def html(self) -> str:
        """The box as HTML, what decides it folded; formulas between dollars are left for MathJax."""
        cases = [] if isinstance(self.verdict, str) else [f"<li>{_prose(str(c))}</li>" for c in self.verdict.cases]
        rows = [(title, text) for title, text in self._details() if title != CASES]
        details = _rows(rows) + (f"<dt>{CASES}</dt><dd><ul>{''.join(cases)}</ul></dd>" if cases else "")
        folded = f"<details><summary>How it was decided</summary><dl>{details}</dl></details>" if details else ""
        return (
            f'<div class="lee-verdict lee-verdict-{self.word.replace(" ", "-")} mathjax_process" role="note">'
            f'<dl><dt>{_prose(self.heading)}</dt><dd>{_prose(self.claim)} <span class="lee-source">({_prose(self.source)})'
            f"</span></dd>{_rows(self._result())}</dl>{folded}"
            f'<p class="lee-verdict-word"><strong>{VERDICTS[self.word]}</strong></p></div>'
        )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        about = {}
        if self.id and isinstance(self.verdict, Verdict):
            found = self.verdict
            record = {"claim": self.id, "verdict": found.word, "effect": found.number, "n": found.n}
            about = {"text/html": {RECORD: record | {"sentence": found.sentence}}}
        return {"text/html": self.html(), "text/plain": str(self)}, about


def per_pixel(lee: float, *, side: int = 32, axes: int = 2) -> float:
    """What a LEE of probabilities means: how fast a class probability begins to change, in percentage points per pixel.

    Args:
        lee: Error of translation, per half side².
        side: Of the images, in pixels.
        axes: Along how many axes errors were added; with two, the shift has a direction drawn at random.

    Returns:
        The root mean square over classes and images. A probability can't go on like that: over a whole pixel it changes less.
    """
    return float(100 * (lee / axes) ** 0.5 * 2 / side)


def prose(text: str) -> None:
    """Show sentences with computed numbers as Markdown, so that they read the same wherever the notebook is opened.

    Its cell has the tag `remove-input`. An f-string fills in the numbers; braces of formulas are doubled there. What Python
    writes as `3.1e-10`, `1.4e+02` or `-2` is shown as 3.1×10⁻¹⁰, 140 and −2.

    Args:
        text: Markdown with formulas and links, without headings.
    """
    from IPython.display import display

    display({"text/markdown": typeset(text.strip())}, raw=True)


def table(frame: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> None:
    """Show a small table as Markdown, which reads the same on GitHub, in JupyterLab, on a phone and on the site.

    Numbers are rounded, and stand to the right, as does text that begins with a number and goes on without words. An index is
    shown if it has a name.

    Args:
        frame: Few rows and columns; columns are named in words with their units, such as `"error (per half side²)"`.
        caption: What the table shows, in a sentence or two; Markdown, with formulas.
        formats: For columns of numbers, how Python writes them, such as `{"share": ".1%"}`. Others have as many decimals as their
            largest number needs for three significant digits.

    Raises:
        InputError: If the frame is empty, or `formats` names a column that isn't there (the nearest one is suggested).
    """
    shown = frame.reset_index() if any(frame.index.names) else frame
    if shown.empty:
        raise InputError("A table needs at least one row and one column; the frame is empty.")
    formats = formats or {}
    for column in formats:
        check_known("column of the table", column, [str(c) for c in shown.columns])
    columns = {_bar(str(name)): _cells(shown[name], formats.get(str(name))) for name in shown.columns}
    right = {
        name: all(re.match(r"[-−–+]?\d(?!.*[a-z]{4})|–$|$", cell) for cell in cells) for name, cells in columns.items()
    }
    lines = [
        list(columns),
        ["---:" if right[name] else ":---" for name in columns],
        *zip(*columns.values(), strict=True),
    ]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    prose(f"*{caption.strip()}*\n\n{rows}")


def _cells(values: "pd.Series[Any]", written: str | None) -> list[str]:
    """The cells of a column as text, numbers with the same count of decimals."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return [_bar(str(value)) for value in values]
    if written is None and pd.api.types.is_float_dtype(values):
        largest = values.abs().max()
        digits = 2 - math.floor(math.log10(largest)) if 0 < largest < math.inf else 0
        written = f",.{digits}f" if digits < 7 else ".2e"
        written = written if digits > 0 else ",.0f"
    return ["–" if pd.isna(value) else format(value, written or ",d") for value in values]


def _bar(text: str) -> str:
    """Text without bars that would end a cell of Markdown."""
    return text.replace("|", r"\|")


def _rows(rows: list[tuple[str, str]]) -> str:
    """Titles and texts as HTML of a description list."""
    return "".join(f"<dt>{title}</dt><dd>{_prose(text)}</dd>" for title, text in rows)


def _prose(text: str) -> str:
    """HTML of a sentence; `$x$` becomes `\\(x\\)`, and what stands between backquotes becomes code."""
    safe = escape(" ".join(typeset(text).split()), quote=False)
    safe = re.sub(r"\$([^$]+)\$", r'<span class="math">\\(\1\\)</span>', safe)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
