"""What the chapters' cells use: the first cell, verdicts, numbers for the prose, tables."""

import math
import re
import warnings
from typing import Any
from unittest.mock import patch

import altair
import pandas as pd
import pytest
import torch

from lee.book import notebook
from lee.errors import InputError
from lee.statistics import Case, Verdict, judge

CLAIM = {"claim": "It holds for $x < y$ & more.", "source": "§3, Fig. 2", "measured": "0.81 ± 0.05"}


def test_setup_seeds_and_registers() -> None:
    threads = torch.get_num_threads()
    try:
        first = torch.rand(3, generator=notebook.setup(7))
        drawn = torch.rand(3)
        second = torch.rand(3, generator=notebook.setup(7))
        assert torch.equal(first, second)
        assert torch.equal(drawn, torch.rand(3))
        assert torch.get_num_threads() == 1
        assert altair.renderers.active == altair.theme.active == "lee"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("word", ["reproduced", "mixed", "underpowered", "contradicted"])
def test_a_verdict_shows_claim_and_measurement(word: str) -> None:
    box = notebook.verdict(**CLAIM, verdict=word)
    bundle, _ = box._repr_mimebundle_()
    assert f"lee-verdict-{word.replace(' ', '-')}" in bundle["text/html"]
    assert r'<span class="math">\(x &lt; y\)</span> &amp; more' in bundle["text/html"]
    assert "We measure: 0.81 ± 0.05" in bundle["text/plain"]


def test_a_claim_that_is_not_the_paper_s_says_whose_it_is() -> None:
    box = notebook.verdict(**CLAIM, verdict="mixed", heading="Theory says")
    assert "<dt>Theory says</dt>" in box.html()
    assert str(box).startswith("Theory says (§3, Fig. 2)")
    assert "Paper says" in str(notebook.verdict(**CLAIM, verdict="mixed"))


def test_bad_verdicts_are_refused() -> None:
    with pytest.raises(InputError, match=r"Unknown verdict 'reproducd'. Did you mean 'reproduced'\?"):
        notebook.verdict(**CLAIM, verdict="reproducd")
    with pytest.raises(InputError, match="non-empty `measured`"):
        notebook.verdict(**{**CLAIM, "measured": " "}, verdict="mixed")


def test_prose_is_markdown_and_nothing_else() -> None:
    share = torch.tensor(0.5)
    with patch("IPython.display.display") as display:
        notebook.prose(f"\nAbout {share:.0%} of $x_{{1}}$.\n")
    ((bundle,), options) = display.call_args
    assert bundle == {"text/markdown": "About 50% of $x_{1}$."}
    assert options == {"raw": True}


def test_setup_silences_the_warning_that_no_reader_can_mend_and_no_other() -> None:
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings(record=True) as told, torch.random.fork_rng(devices=[]):
            warnings.simplefilter("always")
            notebook.setup()
            warnings.warn("`torch.jit.script` is deprecated.", FutureWarning, stacklevel=1)
            warnings.warn("something else", FutureWarning, stacklevel=1)
    finally:
        torch.set_num_threads(threads)
    assert [str(w.message) for w in told] == ["something else"]


def supported(kind: str = "universal") -> Verdict:
    return judge([Case(name="a pair", effect=0.8, stderr=0.1, predicted="above", n=32)], kind)  # type: ignore[arg-type]


def test_a_verdict_by_the_rule_brings_claim_cases_and_a_record() -> None:
    box = notebook.verdict(id="other-metrics-agree", measured="Rank correlations.", verdict=supported())
    bundle, about = box._repr_mimebundle_()
    assert "lee-verdict-reproduced" in bundle["text/html"]
    told = bundle["text/plain"].splitlines()
    assert told[0].startswith("Paper says (Fig. 5, left): Equivariance metrics other than LEE")
    assert told[1:3] == ["We measure: Rank correlations.", "Result: 0.80 [0.60, 1.00]"]
    assert told[3] == "Cases, with simultaneous intervals: a pair 0.80 [0.60, 1.00] supports"
    assert told[5] == "Verdict: reproduced"
    record = about["text/html"][notebook.RECORD]
    assert record["sentence"] in told[4]
    del record["sentence"]
    assert record == {"claim": "other-metrics-agree", "verdict": "reproduced", "effect": "0.80 [0.60, 1.00]", "n": 32}


def test_a_verdict_can_do_without_cases_and_without_an_id() -> None:
    empty = judge([], reason="No transformer.")
    box = notebook.verdict(id="vit-layers", measured="Nothing.", verdict=empty)
    assert "<details>" not in box.html()
    assert str(box).endswith("Result: No transformer.\nVerdict: not testable here")
    assert notebook.verdict(**CLAIM, verdict=supported())._repr_mimebundle_()[1] == {}


def test_what_decides_a_verdict_is_folded() -> None:
    cases = [Case(name=f"pair {i}", effect=e, stderr=0.1, predicted="above") for i, e in enumerate((0.5, -0.6))]
    box = notebook.verdict(**CLAIM, criterion="above 0 for all", verdict=judge(cases))
    shown, folded = box.html().split("<details>")
    assert "1 of 2 cases supports the claim, 1 opposes it" in shown
    assert "pair 1" not in shown
    assert "above 0" not in shown
    assert re.search(r"above 0 for all.*pair 0 0\.50 .* supports.*pair 1 −0\.60 .* opposes", folded)
    assert "<details>" not in notebook.verdict(**CLAIM, verdict="mixed").html()


def test_a_claim_is_judged_as_what_it_is() -> None:
    with pytest.raises(InputError, match=r"Unknown claim 'other-metric-agree'\. Did you mean 'other-metrics-agree'"):
        notebook.verdict(id="other-metric-agree", measured="x", verdict=supported())
    with pytest.raises(InputError, match="is universal; judge"):
        notebook.verdict(id="other-metrics-agree", measured="x", verdict=supported("existential"))
    with pytest.raises(InputError, match=r"judge its cases as such with lee\.statistics\.judge"):
        notebook.verdict(id="other-metrics-agree", measured="x", verdict="reproduced")


def test_prose_writes_powers_of_ten_as_people_do() -> None:
    shown: list[dict[str, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
        notebook.prose(
            f"It is {3.14159e-10:.2g} ± {1e-12:.1g}, {140.2:.2g} [{98765.4:.3g}], {2e6:.2g}; `1e-3`, x1e-3, 0.5."
        )
    assert shown == [{"text/markdown": "It is 3.1×10⁻¹⁰ ± 1×10⁻¹², 140 [98,800], 2×10⁶; `1e-3`, x1e-3, 0.5."}]


def shown_table(*args: Any, **kwargs: Any) -> list[str]:
    """The lines of Markdown that a table is shown as."""
    with patch("IPython.display.display") as display:
        notebook.table(*args, **kwargs)
    ((bundle,), _) = display.call_args
    return list(bundle["text/markdown"].splitlines())


def test_a_table_is_markdown_with_aligned_rounded_numbers() -> None:
    frame = pd.DataFrame(
        {"networks": [1200, 3], "error (px)": [12.345, 0.5], "share": [0.123, math.nan], "ratio": ["0.8 [0.6, 1]", "–"],
         "tiny": [3.14e-9, 1e-12], "$|x|$": ["a", "b"], "training": ["4 epochs", "12 epochs, seed 0"]},
        index=pd.Index(["vit", "7b"], name="family"),
    )  # fmt: skip
    lines = shown_table(frame, "What it is.", {"share": ".0%"})
    assert lines == [
        "*What it is.*",
        "",
        r"| family | networks | error (px) | share | ratio | tiny | $\|x\|$ | training |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | :--- | :--- |",
        "| vit | 1,200 | 12.3 | 12% | 0.8 [0.6, 1] | 3.14×10⁻⁹ | a | 4 epochs |",
        "| 7b | 3 | 0.5 | – | – | 1.00×10⁻¹² | b | 12 epochs, seed 0 |",
    ]


def test_an_index_without_a_name_is_not_shown_and_bad_tables_are_refused() -> None:
    frame = pd.DataFrame({"error": [0.0, 1234.5]})
    assert shown_table(frame, "Two errors.")[2:] == ["| error |", "| ---: |", "| 0 |", "| 1,234 |"]
    with pytest.raises(InputError, match=r"Did you mean 'error'"):
        notebook.table(frame, "x", {"eror": ".2f"})
    with pytest.raises(InputError, match="at least one row"):
        notebook.table(frame[:0], "x")
