"""Keep the committed notebooks byte-stable: execute them again, and write what belongs to their content."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from lee.book.check import check_executed
from lee.book.execute import Progress, execute
from lee.book.layout import find_root, only_one, read, select
from lee.book.profiles import load_profile, plan
from lee.errors import InputError
from lee.paths import atomic_path

METADATA: dict[str, Any] = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    # Without the interpreter's version: it would change from machine to machine.
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}
KEPT_IN_CELLS = ("tags", "mystnb", "slideshow")
# What the site folds or leaves out is folded in JupyterLab and VS Code as well.
FOLDED = {"hide-input", "remove-input", "remove-cell"}


def refresh(
    chapters: Sequence[str] | None = None,
    *,
    root: Path | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> list[Path]:
    """Execute committed notebooks with the profile `quick`, and write those back whose bytes have changed.

    Args:
        chapters: Names or numbers of the chapters, all by default.
        root: The repository; found from the current directory by default.
        workers: Chapters that run at the same time.
        progress: Told when a chapter starts and ends.

    Returns:
        The notebooks that were written.

    Raises:
        InputError: If `quick` asks for something else than a chapter's own defaults: the committed outputs
            would not be those of the committed cells.
        ChapterError: If a cell raises; no notebook is written then.
    """
    root = find_root() if root is None else root
    wanted = select(root, chapters)
    for path, values in plan(load_profile("quick", root), select(root, None)).items():
        if values:
            raise InputError(
                f"Chapter {path.stem!r} must have the values of the profile 'quick' as its defaults; "
                f"it has others for: {', '.join(values)}."
            )
    with only_one(root), tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ran = execute("quick", chapters, root=root, out=copy, workers=workers, progress=progress)
        problems = [problem for done in ran for problem in check_executed(done.path)]
        texts = [normalise(read(done.path)) for done in ran]
    if problems:
        raise InputError(f"A committed notebook must be clean. {' '.join(problems)}")
    return [path for path, text in zip(wanted, texts, strict=True) if write_if_changed(path, text)]


def normalise(notebook: NotebookNode) -> str:
    """The notebook as text without anything that differs between two runs with the same results.

    Dropped are the cell that papermill injected, times, the machine's kernel and interpreter, and empty
    metadata. Cells with a tag of :data:`FOLDED` get Jupyter's own mark for it. Consecutive writes to one stream
    are joined, cells are counted from 1, and a cell without an id gets one that depends on its place and source.

    Args:
        notebook: A notebook of format 4.
    """
    cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    count = 0
    for position, cell in enumerate(cells):
        cell.metadata = NotebookNode({k: cell.metadata[k] for k in KEPT_IN_CELLS if cell.metadata.get(k)})
        if not FOLDED.isdisjoint(cell.metadata.get("tags", [])):
            cell.metadata["jupyter"] = {"source_hidden": True}
        if not cell.get("id"):
            cell.id = hashlib.sha256(f"{position} {cell.source}".encode()).hexdigest()[:8]
        if cell.cell_type == "code":
            executed = bool(cell.source.strip()) and cell.execution_count is not None
            count += executed
            cell.execution_count = count if executed else None
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
    about = notebook.metadata.get("lee", {})
    metadata = METADATA | ({"lee": {"profile": about["profile"]}} if "profile" in about else {})
    clean = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    clean.nbformat_minor = 5
    nbformat.validate(clean)
    return nbformat.writes(clean).rstrip("\n") + "\n"


def _joined(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Outputs in which consecutive writes to the same stream are one: where they were cut is chance."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def write_if_changed(path: Path, text: str) -> bool:
    """Write a text to a file unless it is there already; whether it was written."""
    if path.read_text(encoding="utf-8") == text:
        return False
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
    return True
