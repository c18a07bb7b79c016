"""Profiles, execution, checks and normalisation of the book, on small notebooks; and the committed ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lee import book
from lee.book.layout import only_one
from lee.book.profiles import declared
from lee.errors import InputError

ROOT = Path(__file__).parents[2]
COMMITTED = book.chapters(ROOT)
PYTHON = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python", "version": "3.11.2"},
}


def write_chapter(root: Path, stem: str, *cells: str) -> Path:
    parameters = new_code_cell(
        'n: int = 2  # images, 1 to 9\nname: str = "photos"  # data set', metadata={"tags": ["parameters"]}
    )
    sources = [new_markdown_cell(f"# {stem}"), parameters, *map(new_code_cell, cells)]
    notebook = new_notebook(cells=sources, metadata=PYTHON)
    path = root / "book" / f"{stem}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "book" / "profiles").mkdir(parents=True)
    for name in ("_toc.yml", "_config.yml"):
        (tmp_path / name).write_text("")
    write_profile(tmp_path, "quick", "")
    write_chapter(tmp_path, "index", "print(n, name)")
    write_chapter(tmp_path, "01_first", "n * 10")
    return tmp_path


def write_profile(root: Path, name: str, text: str) -> None:
    (root / "book" / "profiles" / f"{name}.yaml").write_text(text)


def planned(root: Path, profile: str) -> dict[str, dict[str, object]]:
    plan = book.plan(book.load_profile(profile, root), book.chapters(root))
    return {path.stem: values for path, values in plan.items()}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"{}", b"[1, 2]", b"\xff\xfe\x00", b'{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}',
        b'{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}',
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "weird"}]}',
    ],
)  # fmt: skip
def test_a_broken_notebook_is_named_before_anything_runs(root: Path, content: bytes) -> None:
    (root / "book" / "02_broken.ipynb").write_bytes(content)
    for work in (book.execute, book.refresh, lambda **_: book.prepare(root, root / "copy")):
        with pytest.raises(InputError, match=r"The notebook .*02_broken.ipynb can't be read: .{10,}\. Restore it"):
            work(root=root)
    assert not (root / "copy").exists()
    (root / "book" / "02_broken.ipynb").unlink()
    os.mkfifo(root / "book" / "02_broken.ipynb")
    with pytest.raises(InputError, match="it is no file"):
        book.prepare(root, root / "copy")


def test_a_copy_that_can_not_be_written_is_named(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(InputError, match="file/copy: Not a directory"):
        book.prepare(root, root / "file" / "copy")


def test_a_profile_gives_what_differs_from_the_defaults(root: Path) -> None:
    write_profile(root, "big", "common: {n: 7, name: photos}\nchapters: {01_first: {n: 9}}")
    assert planned(root, "big") == {"index": {"n": 7}, "01_first": {"n": 9}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "common: {n: abc}",
            r"The parameter n is 'abc', and a whole number \(int\) was expected\. Given by the profile 'bad' to chapter 'index'",
        ),
        ("chapters: {01_first: {name: 3}}", r"The parameter name is 3, and a text .* to chapter '01_first'"),
        ("common: {nmae: x}", r"No chapter has the parameter 'nmae' .* Did you mean 'name'\?"),
        ("chapters: {01_first: {m: 1}}", "Chapter '01_first' has no parameter 'm'"),
        ("chapters: {01_frist: {n: 1}}", r"parameters for '01_frist'. Did you mean '01_first'\?"),
        ("comon: {n: 1}", r"unknown field 'comon'\. Did you mean 'common'\?"),
        ("common: [n]", "`common` must be a mapping"),
        ("[", "not valid YAML"),
        ("just words", "expected a mapping with description, common, chapters"),
    ],
)
def test_bad_profiles_are_refused_before_anything_runs(root: Path, text: str, message: str) -> None:
    write_profile(root, "bad", text)
    with pytest.raises(InputError, match=message):
        book.execute("bad", root=root)
    assert not (root / "_build").exists()


def test_two_runs_at_once_are_one_too_many(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    held = "import sys, time; from pathlib import Path; from lee.book.layout import only_one\n"
    held += "with only_one(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(Path(book.__file__).parents[2])}
    command = [sys.executable, "-c", held, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        copy = tmp_path_factory.mktemp("copy") / "out"
        for run in (lambda: book.execute(root=root, out=copy), lambda: book.refresh(root=root)):
            with pytest.raises(InputError, match="Another `lee book` is at work in"):
                run()
        assert not copy.exists()
        other.communicate("")
    with only_one(root), only_one(root):  # the same process may
        pass


def test_unknown_profiles_and_chapters_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"Unknown profile 'qiuck'. Did you mean 'quick'\?"):
        book.execute("qiuck", root=root)
    with pytest.raises(InputError, match=r"Unknown chapter '01_frist'. Did you mean '01_first'\?"):
        book.execute("quick", ["01_frist"], root=root)
    with pytest.raises(InputError, match="at least 1"):
        book.execute(root=root, workers=0)


@pytest.mark.parametrize("name", ["1", "01", "01_first", "book/01_first.ipynb"])
def test_chapters_are_found_by_name_number_and_path(root: Path, name: str) -> None:
    assert [p.stem for p in book.select(root, [name])] == ["01_first"]


def test_the_index_comes_first_and_is_chapter_zero(root: Path) -> None:
    assert [p.stem for p in book.select(root, None)] == ["index", "01_first"]
    assert [p.stem for p in book.select(root, ["0"])] == ["index"]


def test_the_root_is_found_from_below(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / "book" / "profiles")
    assert book.find_root() == root
    # From anywhere else it is the repository that the package is imported from.
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert book.find_root() == ROOT


def test_executing_leaves_the_sources_alone(root: Path) -> None:
    before = {p: p.read_bytes() for p in book.chapters(root)}
    write_profile(root, "big", "common: {n: 7}")
    told: list[tuple[str, str]] = []
    done = book.execute("big", root=root, progress=lambda name, state, _: told.append((name, state)))
    assert {p: p.read_bytes() for p in book.chapters(root)} == before
    assert [d.chapter for d in done] == ["index", "01_first"]
    assert sorted(told) == sorted((c, s) for c in ("index", "01_first") for s in ("started", "done"))
    first = nbformat.read(done[1].path, as_version=4)
    assert first.cells[-1].outputs[0].data["text/plain"] == "70"
    assert first.metadata.lee.profile == "big"
    assert [p.name for p in (root / "_build/book-src/book").iterdir() if "running" in p.name] == []


def test_a_cell_that_raises_is_named_and_leaves_no_half_written_notebook(root: Path) -> None:
    write_chapter(root, "01_first", "1 + 1", "raise KeyError('lost')")
    with pytest.raises(book.ChapterError, match="Chapter 01_first stopped at cell 4: KeyError: 'lost'") as caught:
        book.execute(chapters=["1"], root=root)
    copy = root / "_build" / "book-src" / "book"
    assert caught.value.partial == copy / "01_first.failed.ipynb"
    assert caught.value.partial.is_file()
    assert (copy / "01_first.ipynb").read_bytes() == (root / "book" / "01_first.ipynb").read_bytes()


def test_no_other_folder_is_overwritten(root: Path, tmp_path: Path) -> None:
    for inside in (root, root / "book", root / "book" / "copy", root / "book" / "deep" / "copy"):
        with pytest.raises(InputError, match="copied over or into itself"):
            book.prepare(root, inside)
    book.prepare(root, tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    book.prepare(root, tmp_path / "link")
    assert (tmp_path / "link" / "_toc.yml").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="something else"):
        book.prepare(root, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_refreshing_twice_changes_nothing_the_second_time(root: Path) -> None:
    (written,) = book.refresh(["1"], root=root)
    assert written == root / "book" / "01_first.ipynb"
    assert book.check_executed(written) == []
    assert book.refresh(["1"], root=root) == []
    text = (root / "book" / "01_first.ipynb").read_text()
    assert not {"papermill", "executed", "iopub", "version"} & set(json.loads(text)["metadata"])


def test_refreshing_refuses_a_quick_profile_that_the_cells_do_not_have(root: Path) -> None:
    write_profile(root, "quick", "chapters: {01_first: {n: 3}}")
    with pytest.raises(InputError, match=r"'01_first' must have the values of the profile 'quick'.*: n"):
        book.refresh(root=root)


def test_refreshing_refuses_noise_on_stderr(root: Path) -> None:
    path = write_chapter(root, "01_first", "import sys; print('careful', file=sys.stderr)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="wrote to stderr: careful"):
        book.refresh(["1"], root=root)
    assert path.read_bytes() == before


def executed(*outputs: nbformat.NotebookNode, count: int | None = 1) -> nbformat.NotebookNode:
    cell = new_code_cell("x", execution_count=count, outputs=list(outputs), metadata={"execution": {"iopub": "now"}})
    return new_notebook(cells=[cell], metadata={"papermill": {"duration": 1.0}, **PYTHON})


def test_normalising_drops_what_differs_between_runs() -> None:
    split = executed(new_output("stream", text="a\n"), new_output("stream", text="b\n"), count=5)
    whole = executed(new_output("stream", text="a\nb\n"), count=3)
    whole.cells[0].id = split.cells[0].id
    assert book.normalise(split) == book.normalise(whole)
    assert book.normalise(nbformat.reads(book.normalise(whole), as_version=4)) == book.normalise(whole)


def test_normalising_drops_the_injected_parameters() -> None:
    notebook = executed()
    injected = new_code_cell("n = 3", execution_count=1, metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(0, injected)
    cells = nbformat.reads(book.normalise(notebook), as_version=4).cells
    assert [(c.source, c.execution_count) for c in cells] == [("x", 1)]


@pytest.mark.parametrize(
    ("notebook", "problem"),
    [
        (executed(count=None), "Cell 1 of n.ipynb has not been executed."),
        (
            executed(new_output("error", ename="KeyError", evalue="'x'")),
            "Cell 1 of n.ipynb raised KeyError: 'x'.",
        ),
        (
            executed(new_output("stream", name="stderr", text="oh\nno")),
            "Cell 1 of n.ipynb wrote to stderr: oh",
        ),
        (executed(count=3), "The cells of n.ipynb were not executed once each, from top to bottom: [3]."),
    ],
)
def test_unfit_notebooks_are_told(notebook: nbformat.NotebookNode, problem: str, tmp_path: Path) -> None:
    nbformat.write(notebook, tmp_path / "n.ipynb")
    assert book.check_executed(tmp_path / "n.ipynb") == [problem]


def test_fit_notebooks_pass(tmp_path: Path) -> None:
    nbformat.write(executed(new_output("stream", text="fine")), tmp_path / "n.ipynb")
    assert book.check_executed(tmp_path / "n.ipynb") == []


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_committed_notebooks_are_executed_and_normal(path: Path) -> None:
    assert book.check_executed(path) == []
    text = path.read_text(encoding="utf-8")
    assert book.normalise(nbformat.reads(text, as_version=4)) == text, "run `make refresh`"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_every_parameter_of_a_chapter_is_explained(path: Path) -> None:
    assert [name for name, about in declared(path).items() if not about["help"]] == []


@pytest.mark.parametrize("name", sorted(book.profiles(ROOT)))
def test_the_book_s_profiles_fit_its_chapters(name: str) -> None:
    profile = book.load_profile(name, ROOT)
    assert profile.description
    plan = book.plan(profile, COMMITTED)
    if name == "quick":
        assert not any(plan.values()), "the chapters' defaults are the profile `quick`"
