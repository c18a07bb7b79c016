"""Torch's own operator database through forward mode: right, or refused by name, as the table beside this file says.

One sample of each operator; `LEE_ALL_OPERATORS=1` takes all, and then the table must be complete, and
`LEE_ALL_OPERATORS=write` writes it anew. What the same operators do to places is in `test_places_operators.py`.
"""

import csv
import os
from pathlib import Path

import pytest
import torch
from operators import ROUTES, Outcome, cases, database, outcome

pytestmark = [
    pytest.mark.xdist_group("operators"),  # the database is imported once
    pytest.mark.filterwarnings("ignore"),  # torch's own, of deprecated and experimental operators
]

TABLE = Path(__file__).with_name("operators.csv")
ALL = os.environ.get("LEE_ALL_OPERATORS", "")
COLUMNS = ("operator", "form", "route", "reason")
Rows = dict[tuple[str, str], set[Outcome]]


def table() -> Rows:
    """The outcomes of each operator and form."""
    rows: Rows = {}
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault((row["operator"], row["form"]), set()).add(Outcome(row["route"], row["reason"]))
    return rows


KNOWN = table()
NAMES = sorted(database() if ALL == "write" else {name for name, _ in KNOWN})


def outcomes(name: str, limit: int | None) -> Rows:
    """What happens to an operator's samples."""
    found: Rows = {}
    for case in cases(name, limit=limit):
        if (result := outcome(name, case)) is not None:
            found.setdefault((name, "in place" if case.in_place else "as it is"), set()).add(result)
    return found


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_operator_is_right_or_refused(name: str) -> None:
    found = outcomes(name, None if ALL else 1)
    for key, results in found.items():
        if not ALL:
            assert results <= KNOWN[key]
        elif ALL != "write":
            assert results == KNOWN[key]
    if ALL == "write":
        _write({key: value for key, value in KNOWN.items() if key[0] != name} | found)


def _write(rows: Rows) -> None:
    KNOWN.clear()
    KNOWN.update(rows)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (name, form), results in sorted(rows.items()):
            for result in sorted(results, key=lambda r: (ROUTES.index(r.route), r.reason)):
                writer.writerow((name, form, *result))


def test_the_table_has_every_operator() -> None:
    known = {name for name, _ in KNOWN}
    assert known <= set(database())
    assert not [name for name in set(database()) - known if any(outcomes(name, 1))]


@pytest.mark.parametrize("name", NAMES)
def test_operator_in_single_precision(name: str) -> None:
    op = database()[name]
    if torch.float32 not in op.supported_dtypes("cpu"):
        pytest.skip("double precision only")
    for case in cases(name, torch.float32, limit=1):
        outcome(name, case)
