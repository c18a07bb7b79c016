"""book/conftest.py: what counts as the same output of a committed notebook, and what does not."""

import base64
import copy
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from lee import charts

ROOT = Path(__file__).parents[2]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture(scope="module")
def comparison() -> ModuleType:
    spec = importlib.util.spec_from_file_location("book_conftest", ROOT / "book" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return f"<img src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


GREY = np.full((8, 8, 3), 100)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("LEE = 0.1234 ± 0.0051", "LEE = 0.1235 ± 0.0051", True),
        ("LEE = 0.1234", "LEE = 0.1334", False),
        ("−0.81", "−0.8101", True),
        ("−0.81", "0.81", False),
        ("12 models", "13 models", False),
        ("1000 images", "1001 images", False),
        ("+0.67", "+0.68", True),
        ("+0.67", "+0.69", False),
        ("84%", "85%", True),
        ("1e-12", "2e-12", True),
        ("1e-12", "8e-12", True),  # both are rounding
        ("1e-3", "1e-2", False),
        ("resnet", "mixer", False),
        ([1.0, 2.0], [1.0001, 2.0], True),
        ([1.0, 2.0], [1.0], False),
        ({"a": 1.0}, {"b": 1.0}, False),
        ({"a": None}, {"a": 0}, False),
        (True, False, False),
        (uri(GREY), uri(GREY + 2), True),
        (uri(GREY), uri(GREY + 9), False),
        (uri(GREY), uri(GREY[:4]), False),
    ],
)
def test_rounding_is_forgiven_and_nothing_else(comparison: ModuleType, a: Any, b: Any, equal: bool) -> None:
    assert comparison.same(a, b) is equal
    assert comparison.same(b, a) is equal


def test_charts_are_compared_by_their_numbers(comparison: ModuleType) -> None:
    def spec(last: float) -> dict[str, Any]:
        frame = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, last]})
        return charts.lines(frame, "x", "y", caption="A line.", alt="A line.").to_dict()

    plain = comparison._plain
    assert spec(4.0) != spec(4.001)
    assert comparison.same(plain(spec(4.0)), plain(spec(4.001)))
    assert not comparison.same(plain(spec(4.0)), plain(spec(4.2)))
    other = copy.deepcopy(spec(4.0))
    other["usermeta"]["caption"] = "Another line."
    assert not comparison.same(plain(spec(4.0)), plain(other))


@pytest.mark.slow
def test_nbval_uses_the_comparison(tmp_path: Path) -> None:
    for name, committed in (("same", "0.12345"), ("other", "0.5")):
        cell = new_code_cell("print('LEE is', 0.12340)", execution_count=1)
        cell.outputs = [nbformat.v4.new_output("stream", text=f"LEE is {committed}\n")]
        nbformat.write(new_notebook(cells=[cell], metadata=KERNEL), tmp_path / f"{name}.ipynb")
    shutil.copyfile(ROOT / "book" / "conftest.py", tmp_path / "conftest.py")
    sanitize = ROOT / "tests" / "nbval_sanitize.cfg"
    command = [sys.executable, "-m", "pytest", "-qrpf", "--nbval", "--nbval-current-env", "--nbval-sanitize-with"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    ran = subprocess.run([*command, str(sanitize), "."], cwd=tmp_path, capture_output=True, text=True, env=clean)
    found = {
        verdict: re.findall(rf"^{verdict} .*\b(\w+)\.ipynb", ran.stdout, re.MULTILINE)
        for verdict in ("PASSED", "FAILED")
    }
    assert found == {"PASSED": ["same"], "FAILED": ["other"]}, ran.stdout
