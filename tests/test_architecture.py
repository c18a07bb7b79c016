"""The house rules, read from the source: how long a module may be, what importing does, what no file may hold.

Who may import whom is the contract of import-linter in `pyproject.toml`; `make lint` holds the code to it.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lee"
LONGEST = 300

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def code_of(path: Path) -> str:
    """The Python source of a module or of a notebook's cells (without IPython's own syntax)."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!", "?")))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def test_the_public_api_fits_on_a_page() -> None:
    assert len((PACKAGE / "__init__.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module itself"
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, definitions) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} at line {node.lineno}"


def test_commands_start_without_torch_and_using_lee_changes_nothing_else() -> None:
    script = """
import sys, warnings, random
import lee.book, lee.cli, lee.models
early = sorted({"torch", "pandas", "altair"} & set(sys.modules))
import numpy, torch
state = lambda: (torch.random.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate(),
                 list(warnings.filters), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
before = state()
for name in set(dir(lee)) - {"LocalEquivarianceError"}:
    getattr(lee, name)
names = ("torch's random state", "numpy's", "Python's", "warning filters", "dtype", "threads", "grad mode")
changed = [name for name, old, new in zip(names, before, state(), strict=True) if old != new]
costly = {"timm", "torchvision", "torchmetrics", "altair", "skimage", "sklearn", "IPython", "sphinx"}
heavy = sorted(costly & set(sys.modules))
sys.exit(f"changed: {changed}, imported: {early}, {heavy}" if changed or early or heavy else 0)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_everything_public_is_documented() -> None:
    import lee

    assert {"lie_derivative", "equivariance_gram", "local_equivariance_error"} <= {*dir(lee)}
    assert not [name for name in dir(lee) if not getattr(lee, name).__doc__]


def test_tracked_files_name_no_index_and_no_path_of_one_machine(tracked: list[Path]) -> None:
    index = rf"\b(?:{'py' + 'pi'}|{'python' + 'hosted'})\.org\b"
    machine = r"(?<![\w.~*$)}])/(?:work|root|home|Users|opt|tmp)/\w"
    forbidden = re.compile(f"{index}|{machine}", re.IGNORECASE)
    found = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and pictures
        found += [f"{path.relative_to(ROOT)}: {match[0]!r}" for match in forbidden.finditer(text)]
    assert not found, "\n".join(found)


UNSAFE = {"pickle.load", "pickle.loads", "joblib.load", "dill.load", "pandas.read_pickle", "pd.read_pickle"}


def test_nothing_is_unpickled(tracked: list[Path]) -> None:
    found = []
    for path in (p for p in tracked if p.suffix in (".py", ".ipynb")):
        for node in ast.walk(ast.parse(code_of(path))):
            if not isinstance(node, ast.Call):
                continue
            name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            unsafe = name in UNSAFE or (name == "torch.load" and given.get("weights_only") != "True")
            if unsafe or (name in ("np.load", "numpy.load") and given.get("allow_pickle") == "True"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found, "\n".join(found)


def test_the_rules_can_fail(tmp_path: Path) -> None:
    """The reader of notebooks leaves out IPython's own syntax."""
    cell = {"cell_type": "code", "source": ["%time 1\n", "torch.load('x')"]}
    notebook = tmp_path / "probe.ipynb"
    notebook.write_text(json.dumps({"cells": [cell]}))
    assert code_of(notebook) == "torch.load('x')"
