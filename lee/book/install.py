"""The first code cell of every chapter: where a notebook is opened without `lee`, as in Colab, it installs `lee`.

`python -m lee.book.install` writes it into the committed notebooks, with the repository that `_config.yml` names; nothing is
executed. In the site the cell is left out.
"""

from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from lee.book.layout import chapters, find_root, read
from lee.book.normalise import normalise, write_if_changed
from lee.configuration import read_yaml

ID = "install-lee"
TEST = """\
from importlib.util import find_spec

if find_spec("lee") is None:"""
INSTALL = f"""\
import subprocess
import sys
{TEST}  # as in Colab: fetch `lee` with its tables and networks
    subprocess.run(["git", "clone", "-q", "--depth", "1", "{{repository}}", "lee-book"])
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", "lee-book[book]"], check=True)
    sys.path.insert(0, "lee-book")"""
REFUSE = f"""\
{TEST}
    raise ModuleNotFoundError("Run `pip install -e '.[book]'` in a clone of the book, and open its notebook.")"""


def repository(root: Path) -> str:
    """The address of the book's repository as `_config.yml` has it, or an empty text."""
    config = read_yaml(root / "_config.yml", "configuration") or {}
    return str((config.get("repository") or {}).get("url") or "")


def source(address: str) -> str:
    """The text of the cell; where no repository is named, it says how to install `lee` by hand."""
    return INSTALL.format(repository=address) if address else REFUSE


def with_install(notebook: NotebookNode, address: str) -> NotebookNode:
    """The notebook, changed: the cell stands behind the title, in place of an earlier one, as executed, since it prints nothing."""
    cell = new_code_cell(source(address), id=ID, execution_count=1, metadata={"tags": ["remove-cell"]})
    cells = [other for other in notebook.cells if other.get("id") != ID]
    place = 1 if cells and cells[0].cell_type == "markdown" else 0
    notebook.cells = [*cells[:place], cell, *cells[place:]]
    return notebook


def write(root: Path | None = None) -> list[Path]:
    """Write the cell into all committed notebooks; the ones whose bytes have changed."""
    root = find_root() if root is None else root
    address = repository(root)
    return [path for path in chapters(root) if write_if_changed(path, normalise(with_install(read(path), address)))]


if __name__ == "__main__":
    write()
