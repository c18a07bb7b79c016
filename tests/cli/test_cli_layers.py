"""`lee layers`: it prints, writes and draws what the decomposition says; wrong input ends in a sentence."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from layer_frames import layer_frame
from typer.testing import CliRunner, Result

from lee import charts, datasets, models
from lee.cli import app
from lee.cli.layers import HALF, NEGLIGIBLE, OWN, _bar, tree
from lee.layers import layerwise

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.block = nn.Sequential(nn.GELU(), nn.Identity(), nn.Conv2d(4, 4, 3))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        z = self.block(self.conv(x))
        return self.head((z * z.sigmoid()).mean((2, 3)))
"""

Run = Callable[..., Result]
LAYERS = ("layers", "mine:Net", "--images", "patches", "--n", "3", "--size", "16")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `lee` in an empty folder that holds `mine.py` with a small model."""
    (tmp_path / "mine.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run


@pytest.fixture
def direct(cli: Run) -> pd.DataFrame:
    """The frame that the library gives for what `LAYERS` asks."""
    images = datasets.load("patches", n=3, size=16).images
    return layerwise(models.load("mine:Net"), images, "rotation", output="logits").frame


def test_json_has_every_column_and_the_numbers_of_the_library(cli: Run, direct: pd.DataFrame) -> None:
    printed = json.loads(cli(*LAYERS, "--json", "--output", "logits").stdout)
    rows = pd.DataFrame(printed["layers"])
    assert list(rows.columns) == list(direct.columns)
    assert rows["path"].tolist() == direct["path"].tolist()
    for column in ("norm2", "norm2_se", "share", "self_share_se", "cumulative"):
        assert rows[column].tolist() == pytest.approx(direct[column].tolist(), rel=1e-4, abs=1e-12)
    assert printed["total"]["lee"] == pytest.approx(direct["norm2"][0], rel=1e-4)
    assert (printed["generator"], printed["output"], printed["kernel"]) == ("rotation", "logits", "fourier")
    assert len(printed["weights_sha256"]) == 64
    assert printed["residual"] < 1e-4


def test_the_printed_shares_are_those_of_the_library(cli: Run, direct: pd.DataFrame) -> None:
    result = cli(*LAYERS, "--output", "logits")
    assert result.exit_code == 0, result.output
    printed = dict(re.findall(r"^[│├└ ]*(\w+) +\w+ .*?(-?[\d.]+) %", result.stdout, re.MULTILINE))
    for name, path in (("model", ""), ("conv", "net.conv"), ("block", "net.block")):
        share = float(direct.loc[direct["path"] == path, "share"].iloc[0])
        assert float(printed[name]) == pytest.approx(100 * share, abs=0.051)
    assert f"({OWN})" in result.stdout  # the product in the model's forward
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_csv_has_a_row_per_call_and_where_it_comes_from(cli: Run, direct: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    assert cli(*LAYERS, "--csv", path, "--output", "logits", "-q").exit_code == 0
    rows = pd.read_csv(path)
    assert len(rows) == len(direct)
    assert rows["norm2"].tolist() == pytest.approx(direct["norm2"].tolist(), rel=1e-4, abs=1e-12)
    assert set(rows.columns) >= {"model", "generator", "mode", "data_sha256", "torch_version"}
    assert [p.name for p in path.parent.iterdir()] == ["rows.csv"]


def test_html_is_one_file_that_asks_for_no_other(cli: Run, tmp_path: Path) -> None:
    result = cli(*LAYERS, "--html", "page.html", "-g", "scale")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page.html").read_text()
    elements = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:)", elements)
    assert "default-src 'none'" in text
    spec = json.loads(text.split('"application/json">')[1].split("</script>")[0])
    (rows,) = spec["datasets"].values()
    assert {row["path"] for row in rows} >= {"the model", "net.conv"}
    assert "strided convolution" in {row["family"] for row in rows}
    assert "scale" in text.split("<h1>")[1].split("</h1>")[0]


def test_nothing_can_leave_a_script_element_early() -> None:
    frame = layer_frame().replace({"path": {"net.head": "net.</script><b>"}})
    chart = charts.icicle(frame, caption="<i>c</i>", alt='"a"')
    text = charts.page(charts.listed({"<x>": "&"}), chart, charts.tabled(frame, folded="<i>"), title="<b>")
    assert text.count("</script>") == text.count("<script") == 3
    assert "<b>" not in text
    assert "<i>" not in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((*LAYERS, "-g", "rotatoin"), "Did you mean 'rotation'"),
        ((*LAYERS, "--mode", "forwards"), "Did you mean 'forward'"),
        ((*LAYERS, "--tolerance", "-0.01"), "--tolerance must be a number from 0 up to 1"),
        ((*LAYERS, "--mode", "deflated", "--output", "logits"), "--mode deflated needs --output probabilities"),
        ((*LAYERS, "--output", "logit"), "Did you mean 'logits'"),
        ((*LAYERS, "--csv", "."), "--csv"),
        ((*LAYERS, "--csv", "a", "--html", "./a"), "--csv and --html would both be written to a. Name two files."),
        ((*LAYERS, "--html", "mine.py/page.html"), "can't be written"),
        (("layers", "zoo/vit-z"), "Did you mean 'zoo/vit-"),
    ],
)
def test_wrong_input_ends_in_a_sentence(cli: Run, arguments: tuple[str, ...], named: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert named in result.stderr


def names(lines: list[Any]) -> list[str]:
    return [line[0].strip("│├└ ") for line in lines]


def test_the_tree_lists_calls_below_the_call_around_them() -> None:
    lines = tree(layer_frame(), every=True)
    assert names(lines) == [
        "model", "net", "conv1", "act", "block", "attn", "qkv", "net.act (call 2)", f"({OWN})", "odd", "head", f"({OWN})",
    ]  # fmt: skip
    assert [line[0] for line in lines[:3]] == ["model", "└ net", "  ├ conv1"]
    assert lines[2][1:] == ("Conv2d", "0.400 ± 0.040", pytest.approx(0.45))
    assert lines[9][2:] == ("·", None)


def test_what_contributes_nothing_is_counted() -> None:
    lines = tree(layer_frame())
    assert "qkv" not in names(lines)
    assert f"… 1 more, each below {NEGLIGIBLE:.2%}" in names(lines)


def test_depth_cuts_the_tree() -> None:
    assert names(tree(layer_frame(), depth=1)) == ["model", "net"]


@pytest.mark.parametrize(
    ("share", "left", "right"), [(1.0, 0, HALF), (-0.5, HALF // 2, 0), (0.0, 0, 0), (3.0, 0, HALF)]
)
def test_bars_grow_from_the_middle(share: float, left: int, right: int) -> None:
    before, after = _bar(share, 1.0).plain.split("│")
    assert (before.count("█"), after.count("█")) == (left, right)
    assert len(before) == HALF
