"""The claims of the paper, of the notes on it and of the book, from `data/claims.yaml`: verdicts refer to them."""

from functools import cache
from pathlib import Path
from typing import Literal

from lee.configuration import Strict, read_yaml, validated
from lee.errors import InputError, check_known
from lee.paths import package_data

HEADINGS = {
    "paper": "Paper says",
    "notes": "Notes on the paper say",
    "theory": "Theory says",
    "book": "One might guess",
}
ABOUT = {"method": "The method", "layers": "Single layers", "networks": "Whole networks"}


class Claim(Strict, frozen=True):
    """One claim."""

    id: str  # its name
    claim: str  # in one sentence
    source: str  # where it is made
    by: Literal["paper", "notes", "theory", "book"]  # who makes it, a key of HEADINGS
    about: Literal["method", "layers", "networks"]  # a key of ABOUT
    kind: Literal["universal", "existential"]  # as `lee.statistics.judge` takes it
    chapter: str  # name of the notebook that tests it


def path() -> Path:
    """The file of claims."""
    return package_data() / "claims.yaml"


@cache
def claims() -> dict[str, Claim]:
    """All claims by their names, in the order of the file."""
    found: dict[str, Claim] = {}
    for row in read_yaml(path(), "list of claims"):
        one = validated(Claim, row, f"{path().name}, {row.get('id')!r}")
        if one.id in found:
            raise InputError(f"{path().name}, {one.id!r}: another claim has this name; give it one of its own.")
        found[one.id] = one
    return found


def claim(name: str) -> Claim:
    """One claim."""
    check_known("claim", name, claims())
    return claims()[name]
