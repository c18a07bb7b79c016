"""The claims of the paper, of the notes on it and of the book, from `data/claims.yaml`: verdicts refer to them."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from lee.errors import InputError, check_known
from lee.paths import package_data

HEADINGS = {
    "paper": "Paper says",
    "notes": "Notes on the paper say",
    "theory": "Theory says",
    "book": "One might guess",
}


@dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
        id: Its name.
        claim: The claim in one sentence.
        source: Where it is made.
        by: Who makes it, a key of :data:`HEADINGS`.
        kind: `"universal"` or `"existential"`, as :func:`lee.statistics.judge` takes it.
        chapter: Name of the notebook that tests it.
    """

    id: str
    claim: str
    source: str
    by: str
    kind: Literal["universal", "existential"]
    chapter: str


def path() -> Path:
    """The file of claims."""
    return package_data() / "claims.yaml"


@cache
def claims() -> dict[str, Claim]:
    """All claims by their names, in the order of the file.

    Raises:
        InputError: If an entry lacks a field, has an unknown one or a word that isn't known, or two have one name.
    """
    found: dict[str, Claim] = {}
    names = {field.name for field in fields(Claim)}
    for row in yaml.safe_load(path().read_text(encoding="utf-8")):
        if row.keys() != names or row["id"] in found:
            raise InputError(
                f"The claim {row.get('id')!r} of {path().name} needs a name of its own and {sorted(names)}."
            )
        check_known("author of a claim", row["by"], HEADINGS)
        check_known("kind of claim", row["kind"], ("universal", "existential"))
        found[row["id"]] = Claim(**row)
    return found


def claim(name: str) -> Claim:
    """One claim.

    Raises:
        InputError: If there is none of this name.
    """
    check_known("claim", name, claims())
    return claims()[name]
