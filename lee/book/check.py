"""Tell whether a notebook is fit to be read: executed from top to bottom, without errors."""

from pathlib import Path

from lee.book.layout import read


def check_executed(path: Path) -> list[str]:
    """What is wrong with the outputs of a notebook, one sentence each; an empty list if nothing is.

    Sphinx says nothing about unexecuted cells or tracebacks when it makes a page of them, so this has to.

    Args:
        path: An `.ipynb` file.

    Returns:
        Sentences about cells that have not been executed, that ran out of order, raised, or wrote to stderr.
    """
    problems = []
    counts = []
    for number, cell in enumerate(read(path).cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        where = f"Cell {number} of {path.name}"
        if cell.execution_count is None:
            problems.append(f"{where} has not been executed.")
        else:
            counts.append(cell.execution_count)
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"{where} raised {output.ename}: {output.evalue}.")
            elif output.output_type == "stream" and output.name == "stderr":
                problems.append(f"{where} wrote to stderr: {output.text.strip().splitlines()[0]}")
    if counts != list(range(1, len(counts) + 1)):
        problems.append(f"The cells of {path.name} were not executed once each, from top to bottom: {counts}.")
    return problems
