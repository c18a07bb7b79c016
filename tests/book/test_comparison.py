"""How outputs of re-run chapters are compared with the committed ones: numbers up to rounding, words exactly."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("comparison", Path(__file__).parents[2] / "book" / "conftest.py")
assert SPEC is not None
assert SPEC.loader is not None
comparison = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(comparison)


@pytest.mark.parametrize(
    ("committed", "found", "alike"),
    [
        ("an error of 8.9×10⁻¹⁶", "an error of 5.6×10⁻¹⁶", True),  # rounding
        ("a factor of 6.51×10⁶", "a factor of 6.52×10⁶", True),  # a last digit
        ("a factor of 6.51×10⁶", "a factor of 6.90×10⁶", False),
        ("an error of 8.9×10⁻³", "an error of 5.6×10⁻³", False),
        ("a gap of −0.250", "a gap of 0.250", False),
        ("3 of 4 cases", "2 of 4 cases", False),  # a count
        ("supports", "opposes", False),
    ],
)
def test_numbers_are_the_same_up_to_rounding_and_words_exactly(committed: str, found: str, alike: bool) -> None:
    assert comparison.same(committed, found) is alike
    assert comparison.same({"data": [committed]}, {"data": [found]}) is alike
