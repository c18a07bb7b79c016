"""For `pytest --nbval book`: compare figures by their numbers, not by their last digits.

A committed chart holds hundreds of numbers with four significant digits. On another processor sums round
differently, and one of the hundreds may fall on the other side of a rounding; that is no change of the figure.
"""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

RELATIVE = 5e-3
ABSOLUTE = 1e-6  # what is smaller is rounding itself
GREY_LEVELS = 4  # of 255, between the same pixels of two pictures
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.(\d+))?(?:e([-+]?\d+))?(%?)", re.IGNORECASE)
POWER = re.compile("×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")  # as prose writes an exponent
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)")


def same(a: Any, b: Any) -> bool:
    """Whether two outputs say the same, up to rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, str) and isinstance(b, str):
        return a == b or _same_text(a, b)
    if isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool):
        return _close(a, b)
    return bool(a == b)


def _close(a: float, b: float) -> bool:
    return bool(np.isclose(a, b, rtol=RELATIVE, atol=ABSOLUTE))


def _same_text(a: str, b: str) -> bool:
    pictures = zip(PICTURE.findall(a), PICTURE.findall(b), strict=False)
    if len(PICTURE.findall(a)) != len(PICTURE.findall(b)) or not all(_same_picture(x, y) for x, y in pictures):
        return False
    a, b = (POWER.sub(lambda m: "e" + m[1].translate(RAISED), PICTURE.sub("", text)) for text in (a, b))
    if NUMBER.sub("#", a) != NUMBER.sub("#", b):  # the words around the numbers
        return False
    return all(map(_same_number, NUMBER.finditer(a), NUMBER.finditer(b)))


def _same_number(a: re.Match[str], b: re.Match[str]) -> bool:
    """Printed numbers: equal, close, or one apart in the last digit where digits were cut off (not in a count)."""
    x, y = (float(m[0].rstrip("%").replace("−", "-")) for m in (a, b))
    cut = bool(a[1] or a[2] or a[3])
    digit = min(10.0 ** (int(m[2] or 0) - len(m[1] or "")) for m in (a, b))
    return x == y or (cut and (_close(x, y) or abs(x - y) < 1.01 * digit))


def _same_picture(a: str, b: str) -> bool:
    first, second = (np.asarray(Image.open(io.BytesIO(base64.b64decode(x))), dtype=float) for x in (a, b))
    return first.shape == second.shape and float(np.abs(first - second).max()) <= GREY_LEVELS


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let nbval's comparison of a cell start from outputs in which equal ones are equal to the last digit."""
    if not hasattr(item, "compare_outputs") or hasattr(item, "_exact_comparison"):
        return
    exact = item._exact_comparison = item.compare_outputs

    def tolerant(test: list[Any], ref: list[Any], skip_compare: Any = None) -> bool:
        return exact([_snap(t, r) for t, r in zip(test, ref, strict=False)] + test[len(ref) :], ref, skip_compare)

    item.compare_outputs = tolerant


def _snap(test: Any, ref: Any) -> Any:
    """The tested output, with everything that is the same as in the reference taken from there."""
    for key in ("data", "text"):
        if key in test and key in ref and same(_plain(ref[key]), _plain(test[key])):
            test = {**test, key: ref[key]}
    return type(ref)(test)


def _plain(value: Any) -> Any:
    """Notebook nodes as plain dictionaries, without the pictures of charts and with their data where they are used.

    nbval leaves out pictures. Altair names each table by a digest of its content, so that a last digit would rename it.
    """
    return _inline(value, {})


def _inline(value: Any, tables: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        tables = {**tables, **value.get("datasets", {})}
        if value.get("name") in tables:
            return tables[value["name"]]
        return {k: _inline(v, tables) for k, v in value.items() if k not in ("datasets", "image/png")}
    return [_inline(v, tables) for v in value] if isinstance(value, list) else value
