"""The README's example works as pasted and prints what the README says."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lee.cli import app

README = Path(__file__).parents[1] / "README.md"
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def block(language: str) -> str:
    """The first code block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"README.md has no {language} block"
    return found[1]


def test_example_prints_what_the_readme_says() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block("python"), "README.md", "exec"), {})
    found, expected = printed.getvalue().strip(), block("text").strip()
    assert NUMBER.sub("#", found) == NUMBER.sub("#", expected)
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (found, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05)  # the last digit may round differently elsewhere
    assert len([line for line in block("python").splitlines() if line]) == 3


def test_tree_of_layers_is_what_the_command_prints() -> None:
    command = re.search(r"^lee (layers [^#\n]+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert command
    result = CliRunner().invoke(app, [*command[1].split(), "--quiet"], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    found, expected = (
        [line.split("│██")[0].split() for line in t.strip().splitlines()[:6]] for t in (result.stdout, block("console"))
    )
    numbers = [[float(n) for row in rows for w in row for n in NUMBER.findall(w)] for rows in (found, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.1, abs=0.11)
    assert [[w for w in row if w.isalpha()] for row in found] == [[w for w in row if w.isalpha()] for row in expected]


def test_commands_and_files_exist() -> None:
    text, root = README.read_text(encoding="utf-8"), README.parent
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text) + re.findall(r"papermill (\S+\.ipynb)", text):
        assert (root / target).exists(), target
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for command in set(re.findall(r"`?make ([a-z]+)", text)):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
