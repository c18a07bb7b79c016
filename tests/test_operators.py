"""Torch's own operator database through forward mode: right, or refused by name, as the table beside this file says.

`LEE_ALL_OPERATORS=some` takes a sample of each operator, `LEE_ALL_OPERATORS=1` all, and then the table must be complete;
`LEE_ALL_OPERATORS=write` writes it anew. It takes minutes, so without the variable nothing of it runs.
"""

import csv
import os
from pathlib import Path

import pytest
import torch
from operators import ROUTES, Outcome, cases, database, outcome

TABLE = Path(__file__).with_name("operators.csv")
ALL = os.environ.get("LEE_ALL_OPERATORS", "")
if not ALL:
    pytest.skip("LEE_ALL_OPERATORS=some runs torch's database of operators", allow_module_level=True)
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
@pytest.mark.filterwarnings("ignore")  # torch's own, of deprecated operators
@pytest.mark.parametrize("name", NAMES)
def test_operator_is_right_or_refused(name: str) -> None:
    found = outcomes(name, 1 if ALL == "some" else None)
    for key, results in found.items():
        if ALL == "write":
            continue
        if ALL == "some":
            assert results <= KNOWN[key]
        else:
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
    silent = {name for name, op in database().items() if not any(True for _ in cases(name, limit=1))}
    assert {name for name, _ in KNOWN} == set(database()) - silent


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_operator_in_single_precision(name: str) -> None:
    op = database()[name]
    if torch.float32 not in op.supported_dtypes("cpu"):
        pytest.skip("double precision only")
    for case in cases(name, torch.float32, limit=1):
        outcome(name, case)
