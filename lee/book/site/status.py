"""The directive `lee-status`: how each notebook of the book was executed, read from the notebooks themselves.

myst-nb's own `nb-exec-table` knows only notebooks that Sphinx executes; ours are executed before the build.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

HEADER = ("Page", "Profile", "Cells run", "Errors", "Time", "Executed")


def describe(notebook: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Profile, cells run, errors, time and date of one executed notebook, as the table shows them.

    Args:
        notebook: A notebook of format 4, as parsed from its JSON.
    """
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


class StatusDirective(SphinxDirective):
    """A table with one row for each notebook of the book."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Write the table as Markdown and let the parser make cross-references of its links."""
        rows = [_row(("---",) * len(HEADER))]
        for docname in sorted(self.env.found_docs, key=lambda name: (not name.endswith("index"), name)):
            path = Path(self.env.doc2path(docname))
            if path.suffix != ".ipynb":
                continue
            self.env.note_dependency(str(path))
            cells = describe(json.loads(path.read_text(encoding="utf-8")))
            rows.append(_row((f"[](/{docname}.ipynb)", *cells)))
        container = nodes.container(classes=["lee-status"])
        table = StringList([_row(HEADER), *rows], self.env.docname)
        self.state.nested_parse(table, self.content_offset, container)
        return [container]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
