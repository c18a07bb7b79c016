"""The first code cell of each chapter: it installs `lee` where it is missing, and does nothing elsewhere."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lee import book
from lee.book import install

ROOT = Path(__file__).parents[2]
ADDRESS = "https://127.0.0.1/OWNER/REPOSITORY"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What the cell runs instead of running it."""
    ran: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(subprocess, "run", lambda command, check=False: ran.append(command))
    return ran


def run(address: str) -> None:
    exec(compile(install.source(address), "cell", "exec"), {})


def test_nothing_happens_where_lee_is_installed(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.path)
    run(ADDRESS)
    assert (commands, sys.path, capsys.readouterr().out) == ([], before, "")


def test_lee_is_installed_where_it_is_missing(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(_: str) -> Any:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    run(ADDRESS)
    clone, pip = commands
    assert install.source(ADDRESS).count("\n") < 8
    assert clone[:2] == ["git", "clone"]
    assert clone[-2:] == [ADDRESS, "lee-book"]
    assert pip[1:4] == ["-m", "pip", "install"]
    assert pip[-1] == "lee-book[book]"
    assert sys.path[0] == "lee-book"
    with pytest.raises(ModuleNotFoundError, match=r"Run `pip install -e"):
        run("")


def test_the_cell_is_written_once_behind_the_title(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text("")
    (tmp_path / "_config.yml").write_text("repository: {url: ''}")
    path = tmp_path / "book" / "01_first.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("1", execution_count=1)]), path)
    assert install.write(tmp_path) == [path]
    assert install.write(tmp_path) == []
    assert book.check_executed(path) == []
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {ADDRESS}}}")
    assert install.write(tmp_path) == [path]
    title, cell, other = nbformat.read(path, as_version=4).cells
    assert (title.source, other.source, other.execution_count) == ("# T", "1", 2)
    assert ADDRESS in cell.source
    assert cell.metadata == {"tags": ["remove-cell"], "jupyter": {"source_hidden": True}}


@pytest.mark.parametrize("path", book.chapters(ROOT), ids=lambda path: path.stem)
def test_every_chapter_has_the_cell(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert cells[1]["id"] == install.ID, "run `python -m lee.book.install`"
    assert "".join(cells[1]["source"]) == install.source(install.repository(ROOT))
