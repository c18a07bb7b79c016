"""What a chapter's cells need around the numbers: a first cell, verdicts, numbers for the prose, pictures.

Nothing here is needed to measure a model; the cells of the book stay short because of it.
"""

import re
import sys
import warnings
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import torch

from lee import charts
from lee.book import parameters
from lee.errors import InputError, check_known

Verdict = Literal["reproduced", "partly", "not at this scale", "contradicted"]
VERDICTS: dict[str, str] = {
    "reproduced": "Reproduced",
    "partly": "Partly reproduced",
    "not at this scale": "Not at this scale",
    "contradicted": "Contradicted",
}

# myst-nb's convention for values that the prose refers to and the cell does not show.
_HIDDEN = "application/papermill.record/"


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

    Compute `verdict` from the numbers in the cell, so that the box can't outlive its evidence.

    Args:
        claim: What the paper says, in one sentence.
        source: Where it says so, such as `"abstract and Fig. 1"`.
        measured: What the cells above have measured, with numbers.
        verdict: One of `"reproduced"`, `"partly"`, `"not at this scale"`, `"contradicted"`.
        heading: Who says so, if it isn't the paper, such as `"Theory says"`.

    Raises:
        InputError: If the verdict is another word (the nearest one is suggested) or a text is empty.
    """

    claim: str
    source: str
    measured: str
    verdict: Verdict
    heading: str = "Paper says"

    def __post_init__(self) -> None:
        check_known("verdict", self.verdict, VERDICTS)
        for field in ("claim", "source", "measured", "heading"):
            if not getattr(self, field).strip():
                raise InputError(f"A verdict needs a non-empty `{field}`.")

    def __str__(self) -> str:
        return (
            f"{self.heading} ({self.source}): {self.claim}\n"
            f"We measure: {self.measured}\n"
            f"Verdict: {VERDICTS[self.verdict].lower()}"
        )

    def html(self) -> str:
        """The box as HTML; formulas between dollars are left for MathJax."""
        kind = self.verdict.replace(" ", "-")
        return (
            f'<div class="lee-verdict lee-verdict-{kind} mathjax_process" role="note">'
            f'<dl><dt>{_prose(self.heading)}</dt><dd>{_prose(self.claim)} <span class="lee-source">{_prose(self.source)}'
            f"</span></dd><dt>We measure</dt><dd>{_prose(self.measured)}</dd></dl>"
            f'<p class="lee-verdict-word"><strong>{VERDICTS[self.verdict]}</strong></p></div>'
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": str(self)}


def glue(name: str, value: Any, fmt: str = "") -> None:
    r"""Keep a number for the prose, where `` {glue:text}`name` `` shows it.

    Args:
        name: Unique in the chapter.
        value: A number, a string or anything `format` takes; a tensor of one element too.
        fmt: A format specification, such as `".3f"` or `".1%"`.
    """
    from IPython.display import display

    item = value.item() if isinstance(value, torch.Tensor) else value
    about = {"scrapbook": {"name": name, "mime_prefix": _HIDDEN}}
    display({f"{_HIDDEN}text/plain": format(item, fmt)}, raw=True, metadata=about)


def _prose(text: str) -> str:
    """HTML of a sentence; `$x$` becomes `\\(x\\)`, and what stands between backquotes becomes code."""
    safe = escape(" ".join(text.split()), quote=False)
    safe = re.sub(r"\$([^$]+)\$", r'<span class="math">\\(\1\\)</span>', safe)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
