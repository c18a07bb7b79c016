"""Pictures that turn: what is drawn at each angle is what was handed over."""

import pandas as pd
import pytest
import torch

from lee import charts
from lee.errors import InputError

ANGLES = [-30.0, -15.0, 0.0, 15.0, 30.0]
WORDS = {"caption": "What to see.", "alt": "What is drawn."}


def frame(*classes: str, model: str = "net") -> pd.DataFrame:
    rows = [(a, model, name, 0.5 + 0.01 * a, 0.01) for name in classes for a in ANGLES]
    return pd.DataFrame(rows, columns=["angle", "model", "class", "probability", "slope"])


def scenes() -> dict[str, charts.Scene]:
    small, large = torch.rand(5, 3, 8, 8), torch.rand(5, 3, 80, 80)
    return {
        "small": charts.Scene(small, frame("cat", "frog")),
        "large": charts.Scene(large, frame("cup", model="other")),
    }


def test_one_slider_picks_the_frame_and_the_tangents_of_its_angle() -> None:
    spec = charts.turning(scenes(), ANGLES, **WORDS).to_dict()
    (slider,) = spec["params"]
    assert (slider["bind"]["min"], slider["bind"]["max"], slider["bind"]["step"]) == (-30, 30, 15)
    assert spec["usermeta"]["turns"] == slider["name"]
    picture, curves, large, _ = spec["concat"]
    urls = spec["datasets"][picture["data"]["name"]]
    assert [row["angle"] for row in urls] == ANGLES
    assert all(row["url"].startswith("data:image/png") for row in urls)
    assert spec["datasets"][large["data"]["name"]][0]["url"].startswith("data:image/jpeg")
    tangent = next(layer for layer in curves["layer"] if layer["encoding"].get("x2", {}).get("field") == "right")
    made = {step["as"]: step["calculate"] for step in tangent["transform"] if "calculate" in step}
    row = {"angle": 10.0, "probability": 0.6, "slope": 0.01}
    ends = {name: eval(text.replace("datum.", ""), {}, dict(row)) for name, text in made.items()}
    assert (ends["high"] - ends["low"]) / (ends["right"] - ends["left"]) == pytest.approx(0.01)
    assert sum(isinstance(layer["mark"], dict) and layer["mark"]["type"] == "text" for layer in curves["layer"]) == 2


@pytest.mark.parametrize(
    ("angles", "words"),
    [(ANGLES[:4], "5 frames need as many angles; got 4"), ([1, 2, 3, 4, 5], "0 degrees"), ([0, 1, 5, 7, 9], "evenly")],
)
def test_what_cannot_be_turned_is_refused(angles: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        charts.turning(scenes(), angles, **WORDS)
