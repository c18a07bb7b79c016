"""Parameters of the wrong type end in a sentence, from a profile before anything runs, from papermill in the first cell."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from lee import book
from lee.book.execute import run_chapter
from lee.book.parameters import KINDS, check
from lee.book.profiles import declared
from lee.errors import InputError
from lee.process.children import Children

ROOT = Path(__file__).parents[2]
CELL = 'n_images: int = 8  # images\nnames: list[str] = ["a"]  # models\nshare: "float" = 0.5  # of them'


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (3, "int", True), ("abc", "int", False), (3.5, "int", False), (True, "int", False), (None, "int", False),
        (3, "float", True), (0.5, "float", True), ("0.5", "float", False), (False, "float", False),
        (True, "bool", True), (1, "bool", False), ("true", "bool", False),
        ("patches", "str", True), (3, "str", False), (["a"], "str", False),
        (["a"], "list", True), ("a", "list[str]", False), (["a"], "list[str]", True),
        ({"a": 1}, "dict", True), (["a"], "dict", False),
        ("anything", "Path", True), ("anything", "None", True),
    ],
)  # fmt: skip
def test_each_type_takes_its_own(value: Any, kind: str, fits: bool) -> None:
    if fits:
        check("n_images", value, kind)
        return
    with pytest.raises(InputError, match=r"The parameter n_images is .* was expected") as caught:
        check("n_images", value, kind)
    assert KINDS[kind.partition("[")[0]][1] in str(caught.value)
    assert "n_images" in str(caught.value).partition("With papermill: ")[2]


def test_entries_have_types_as_well() -> None:
    with pytest.raises(InputError, match=r"parameter n\[1\] is 1, and a text \(str\).*-y 'n: \[\.\.\.\]'"):
        check("n", ["a", 1], "list[str]")


def cells(*sources: str) -> dict[str, Any]:
    """Run cells as a notebook does, all in one namespace."""
    names: dict[str, Any] = {"__name__": "no such module"}
    for source in sources:
        exec(source, names)
    return names


SETUP = "from lee.book import notebook\nrandom = notebook.setup()"


@pytest.fixture(autouse=True)
def kept_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ('n_images = "abc"', "n_images is 'abc', and a whole number"),
        ("names = 'zoo/vit-s'", "names is 'zoo/vit-s', and a list"),
        ("share = 'half'", "share is 'half', and a number"),
        ("n_images = None", "n_images is None"),
    ],
)
def test_the_first_cell_refuses_what_papermill_injects(injected: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cells(CELL, injected, SETUP)


def test_right_types_pass_and_names_that_were_bound_anew_are_left_alone() -> None:
    random = cells(CELL, "n_images = 16; share = 1", SETUP)["random"]
    assert isinstance(random, torch.Generator)
    cells(CELL, SETUP, "import torch; n_images = torch.ones(3)", SETUP)


def test_papermill_run_directly_ends_in_the_sentence(tmp_path: Path) -> None:
    made = new_notebook(
        cells=[
            new_code_cell(CELL, metadata={"tags": ["parameters"]}),
            new_code_cell(SETUP),
            new_code_cell("n_images * 2"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(made, tmp_path / "in.ipynb")
    command = [
        sys.executable,
        "-m",
        "papermill",
        "in.ipynb",
        "out.ipynb",
        "-p",
        "n_images",
        "abc",
        "--kernel",
        "python3",
    ]
    done = subprocess.run([*command, "--no-progress-bar"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("InputError: The parameter n_images is 'abc', and a whole number (int) was expected.")
    assert "-p n_images 8" in last


def test_folded_parameters_count_and_can_be_given(tmp_path: Path) -> None:
    made = new_notebook(
        cells=[
            new_code_cell("seed: int = 3  # of all", metadata={"tags": ["more-parameters", "hide-input"]}),
            new_code_cell(CELL, metadata={"tags": ["parameters"]}),
            new_code_cell(f"{SETUP}; print(seed, n_images)"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(made, tmp_path / "in.ipynb")
    assert list(declared(tmp_path / "in.ipynb"))[:2] == ["seed", "n_images"]
    run_chapter(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {"seed": 5, "n_images": 7}, "mine", Children())
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text.split() == ["5", "7"]


@pytest.mark.parametrize("path", book.chapters(ROOT), ids=lambda path: path.stem)
def test_no_chapter_shows_a_wall_of_parameters(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    (shown,) = (cell for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    assert len(ast.parse(shown.source).body) <= 8


@pytest.mark.parametrize("path", book.chapters(ROOT), ids=lambda path: path.stem)
def test_every_parameter_of_the_book_has_a_type_that_is_checked(path: Path) -> None:
    for name, about in declared(path).items():
        assert about["inferred_type_name"].partition("[")[0] in KINDS, name
    setups = [cell for cell in nbformat.read(path, as_version=4).cells if "notebook.setup(" in cell.source]
    assert len(setups) == 1
