"""The directive `lee-status`: how each notebook of the book was executed, read from the notebooks themselves.

myst-nb's own `nb-exec-table` knows only notebooks that Sphinx executes; ours are executed before the build.
"""

from typing import Any

from docutils import nodes

from lee.book.site.reading import NotebookDirective, row

HEADER = ("Page", "Profile", "Cells run", "Errors", "Time", "Executed")


def describe(notebook: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Profile, cells run, errors, time and date of one executed notebook, as the table shows them."""
    code = [c for c in notebook["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    run = sum(c["execution_count"] is not None for c in code)
    errors = sum(o["output_type"] == "error" for c in code for o in c["outputs"])
    about = notebook["metadata"].get("lee", {})
    seconds = about.get("seconds")
    return (
        about.get("profile", "–"),
        f"{run} of {len(code)}",
        str(errors) if errors else "none",
        "–" if seconds is None else f"{seconds:.0f} s",
        about.get("executed", "as committed"),
    )


class StatusDirective(NotebookDirective):
    """A table with one row for each notebook of the book."""

    def run(self) -> list[nodes.Node]:
        """Write the table."""
        rows = [row((f"[](/{docname}.ipynb)", *describe(notebook))) for docname, notebook in self.notebooks()]
        return self.parsed([row(HEADER), row(("---",) * len(HEADER)), *rows], "lee-status")
