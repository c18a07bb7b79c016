"""`lee map`: what the library computes, printed, as JSON and drawn."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import lee
from lee import datasets, models
from lee.cli import app
from lee.cli.report import _commands

NAME, OPTIONS = "zoo/resnet-s", ("--images", "patches", "--n", "2", "-g", "scale", "--patch", "4")


def test_shares_are_printed_written_and_drawn(tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    result = CliRunner().invoke(app, ["map", NAME, *OPTIONS, "--json", "--out", str(out)])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    network = models.load(NAME)
    images = datasets.load("patches", n=2, size=models.input_size(network), seed=0).images
    known = lee.error_map(network, images, "scale")
    for row, shares, error in zip(
        said["images_measured"], known.patches(4), known.gram.per_image[:, 0, 0], strict=True
    ):
        assert torch.allclose(torch.tensor(row["shares"]), shares, atol=1e-6)
        assert row["lee"] == pytest.approx(float(error))
        assert np.sum(row["shares"]) == pytest.approx(1, abs=0.02)
    assert said["verification"]["verified"]
    side = images.shape[-1]
    drawn = np.asarray(Image.open(out))
    assert drawn.shape[1] == 2 * side * round(224 / side) + 36
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


def test_what_is_wrong_ends_in_a_sentence(tmp_path: Path) -> None:
    for options, said in (
        (("--patch", "5"), "Patches of 5 × 5 pixels don't fill"),
        (("--out", str(tmp_path / "map.jpg")), "no known ending"),
        (("--images", f"imagefolder:{tmp_path}"), "image"),
    ):
        result = CliRunner().invoke(app, ["map", NAME, *OPTIONS, *options])
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert "Traceback" not in result.output


def test_the_commands_of_a_report_run() -> None:
    commands = _commands(NAME, "patches", ["--size", "30"], {"kernel": "central"}, 3, 2, ["--layered", "2"])
    shown = CliRunner().invoke(app, [*shlex.split(commands[2])[1:], "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["patch"] == 6
