"""A small book made on the spot: the repository's frame around notebooks that use every kind of output."""

import ast
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
CHAPTER = "01_sample"

HERO = """
A model is **equivariant** if it does not matter whether you move its input or its output.

See [the waves](#fig-waves).

<!-- lee-chapters -->
[A sample chapter](01_sample.ipynb), as it stands where no site is built.
<!-- /lee -->
"""

SETUP = """
from lee import charts
from lee.book import notebook
import pandas as pd
import torch
random = notebook.setup(seed)
"""

CURVES = """
t = torch.linspace(-1, 1, 41)
frame = pd.concat([
    pd.DataFrame({"t": t, "value": torch.sin(k * t), "error": 0.05 + 0.1 * t.abs(), "wave": f"{k} cycles"})
    for k in (2, 3, 4)
])
charts.lines(
    frame, "t", "value", by="wave", error="error", x_title="angle t in radians", y_title="response",
    caption="Three waves $\\\\sin(kt)$ and how well each is known.", name="fig-waves",
    alt="Three sine curves with bands that widen towards both ends.",
)
"""

DOTS = """
frame = pd.DataFrame({
    "model": ["residual network", "vision transformer", "mixer"] * 2,
    "lee": [0.021, 0.034, 0.052, 0.043, 0.061, 0.064], "se": [0.002, 0.003, 0.006, 0.004, 0.005, 0.006],
    "generator": ["translation"] * 3 + ["rotation"] * 3,
})
charts.dots(frame, "lee", "model", error="se", by="generator", title="local equivariance error",
    caption="Local equivariance error of three models, with standard errors.",
    alt="Dots with error bars: the residual network has the smallest error, the mixer the largest.")
"""

COST = """
frame = pd.DataFrame({"n": [1, 2, 4, 8, 16] * 2, "seconds": [.1, .21, .39, .82, 1.6, .3, .7, 1.5, 3.1, 6.4],
    "method": ["forward"] * 5 + ["reverse"] * 5})
charts.lines(frame, "n", "seconds", by="method", log="xy", points=True, x_title="images", y_title="seconds",
    caption="Cost on logarithmic axes.", alt="Two straight rising lines; reverse lies three times higher.")
"""

BARS = """
frame = pd.DataFrame({"layer": ["conv", "norm", "relu", "pool"], "share": [0.1, 0.02, 0.5, 0.38],
                      "se": [0.02, 0.01, 0.05, 0.03]})
charts.bars(frame, "share", "layer", error="se", title="share of the error",
    caption="Which layers break the symmetry.", alt="Four bars; relu is the longest, pool the second.")
"""

SCATTER = """
frame = pd.DataFrame([{"accuracy": 0.6 + 0.05 * i + 0.01 * e, "lee": 0.1 - 0.012 * i + 0.004 * e, "epoch": e,
    "model": f"model {i}"} for i in range(4) for e in range(5)])
charts.scatter(frame.query("epoch == 4"), "accuracy", "lee", by="model", label="model",
    caption="After the last epoch.", alt="Four labelled points.")
"""

PICTURES = """
x = torch.linspace(-1, 1, 32)
blobs = torch.stack([torch.exp(-((x[:, None] - a) ** 2 + x[None] ** 2) / 0.1).expand(3, 32, 32)
                     for a in (-.5, 0, .5)])
charts.pictures(blobs, titles=["up", "middle", "down"], caption="A blob in *three* places.",
    alt="A white blob on black at the top, in the middle and at the bottom.")
"""

TANGENT = """
charts.pictures([blobs[1].roll(1, 1) - blobs[1].roll(-1, 1)], signed=True, width=220,
    caption="Its tangent image.", alt="A blue and an orange lobe.")
"""

ARROWS = """
import lee.geometry.generators as g
charts.arrows([g.TRANSLATION_X, g.ROTATION, g.SCALE, g.SHEAR_X, g.HYPERBOLIC, g.SQUEEZE], image=blobs[1],
    caption="Six generators as arrows.", alt="Six panels of arrows over a blob.")
"""

ORBIT = """
frames = torch.stack([blobs[1].roll(s, 2) for s in range(-6, 7)])
charts.orbit({"input": frames, "again": frames.flip(0)}, range(-6, 7), parameter="shift in pixels",
    caption="An orbit under translation.", alt="A blob that moves sideways with the slider.")
"""

VERDICT = """
biggest = 0.0641
notebook.verdict(claim="Models with small $\\\\lVert L_X f \\\\rVert$ generalise.", source="§4, Fig. 5",
    measured="Rank correlation −0.81 ± 0.05 over `12` models.", verdict="reproduced")
"""

PROSE = """
notebook.prose(rf\"\"\"
The largest [error](glossary.md#local-equivariance-error) is {biggest:.3f}, with $\\tfrac{{1}}{{2}}$.
\"\"\")
"""

CELLS = (DOTS, COST, BARS, SCATTER, PICTURES, TANGENT, ARROWS, ORBIT, VERDICT, PROSE)


def sample_notebook(title: str, *cells: str) -> nbformat.NotebookNode:
    """A notebook with one parameter `seed`, the usual first cell and these cells of code."""
    return new_notebook(
        cells=[
            new_markdown_cell(
                f"# {title}\n\n**In one line:** what *this* shows.\n\nMade by the tests, with $x^2$ in its text."
            ),
            new_code_cell("seed: int = 0  # seed of the random numbers", metadata={"tags": ["parameters"]}),
            new_code_cell(SETUP.strip(), metadata={"tags": ["hide-input"]}),
            *[new_code_cell(cell.strip()) for cell in cells],
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


def run_here(notebook: nbformat.NotebookNode) -> None:
    """Fill in the outputs without a kernel: in a second where a kernel takes ten to import torch."""
    names: dict[str, Any] = {}
    with patch("IPython.display.display") as display, torch.random.fork_rng(devices=[]):
        for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
            body = ast.parse(cell.source).body
            last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            value = None if last is None else eval(compile(last, "cell", "eval"), names)
            cell.execution_count = count
            cell.outputs = [new_output("display_data", call.args[0]) for call in display.mock_calls]
            display.reset_mock()
            if value is not None:
                shown = value._repr_mimebundle_()
                data, about = shown if isinstance(shown, tuple) else (shown, {})
                cell.outputs.append(new_output("execute_result", data, metadata=about, execution_count=count))


def write_sample_book(root: Path, *, run: bool = False) -> Path:
    """Make a book of two notebooks at `root`.

    Args:
        root: A folder that is empty or does not exist.
        run: Fill in the notebooks' outputs.
    """
    book = root / "book"
    (book / "profiles").mkdir(parents=True)
    (book / "profiles" / "quick.yaml").write_text("common: {seed: 0}\n")
    index = sample_notebook("A sample book", CURVES)
    index.cells.insert(1, new_markdown_cell(HERO))
    chapter = sample_notebook("A sample chapter", *CELLS)
    solution = "<details>\n<summary>Solution</summary>\n\nBecause $x^2 \\ge 0$.\n\n</details>"
    chapter.cells.append(new_markdown_cell("## Exercises\n\n" + solution))
    for name, notebook in (("index", index), (CHAPTER, chapter)):
        if run:
            run_here(notebook)
        nbformat.write(notebook, book / f"{name}.ipynb")
    shutil.copyfile(ROOT / "_config.yml", root / "_config.yml")
    shutil.copytree(ROOT / "book" / "_static", book / "_static")
    names = ("glossary", "scoreboard", "status")
    for name in names:
        shutil.copyfile(ROOT / "book" / f"{name}.md", book / f"{name}.md")
    entries = "".join(f"  - file: book/{name}\n" for name in [CHAPTER, *names])
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{entries}")
    return root
