"""The heat map of a matrix: what it shows, and what it refuses."""

import pytest
import torch
import vl_convert

from lee import charts
from lee.errors import InputError

WORDS = {"caption": "What to see.", "alt": "What is drawn."}
MATRIX = torch.tensor([[1.0, -0.25], [0.5, 0.123456]])


def test_it_shows_every_number_once_in_its_place() -> None:
    spec = charts.heatmap(MATRIX, ["a", "b"], **WORDS).to_dict()
    (rows,) = spec["datasets"].values()
    assert {(r["row"], r["column"]): r["value"] for r in rows} == {
        ("a", "a"): 1.0, ("a", "b"): -0.25, ("b", "a"): 0.5, ("b", "b"): 0.1235,
    }  # fmt: skip
    assert spec["description"] == WORDS["alt"]
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-1.0, 1.0]


def test_it_can_be_drawn_and_repeats_its_bytes() -> None:
    first, second = (charts.heatmap(MATRIX.numpy(), ["a", "b"], limit=2, **WORDS) for _ in range(2))
    assert first.to_json() == second.to_json()
    spec = first.properties(width=200).to_dict()
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-2.0, 2.0]
    svg = vl_convert.vegalite_to_svg(spec)
    assert "−0.25" in svg


@pytest.mark.parametrize(
    ("matrix", "labels", "told"),
    [
        (MATRIX, ["a"], "2 rows, 1 labels"),
        (MATRIX[:, :1], ["a", "b"], "(K, K)"),
        (MATRIX, ["a", "a"], "different"),
        (torch.empty(0, 0), [], "0 labels"),
        (MATRIX * torch.nan, ["a", "b"], "finite"),
        (MATRIX / 0, ["a", "b"], "finite"),
    ],
)
def test_it_refuses_what_is_no_matrix(matrix: torch.Tensor, labels: list[str], told: str) -> None:
    with pytest.raises(InputError) as caught:
        charts.heatmap(matrix, labels, **WORDS)
    assert told in str(caught.value)
