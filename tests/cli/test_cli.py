"""The command `lee`: it prints what the library computes; wrong input ends in a sentence and exit code 2."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner, Result

import lee
from lee import datasets, models
from lee.cli import app
from lee.errors import StateWarning

FACTORY = """
import torch
from torch import nn

def net():
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GELU(), *head)

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

class Count(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.calls = nn.Linear(3, 4), 1

    def forward(self, x):
        y, self.calls = self.fc(x.mean((2, 3)) * self.calls), 2 * self.calls
        return y

class Writes(nn.Module):
    def __init__(self, inplace=True):
        super().__init__()
        self.fc, self.inplace = nn.Linear(3 * 64, 4), inplace

    def forward(self, x):
        return self.fc((x.sub_(0.5).mul_(4) if self.inplace else (x - 0.5) * 4).flatten(1))

def pure():
    return Writes(False)

class Constant(nn.Module):
    def forward(self, x):
        return torch.ones(len(x), 4) + 0 * x.mean((1, 2, 3))[:, None]
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `lee` in an empty folder that holds `mine.py` with a factory."""
    (tmp_path / "mine.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.delenv("LEE_DATA", raising=False)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run


def refused(result: Result) -> str:
    """The message of a command that ended with exit code 2, nothing on stdout and no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


@pytest.mark.parametrize(
    ("command", "option", "ending"),
    [
        ("measure", "--out", ".json"),
        ("layers", "--csv", ".csv"),
        ("layers", "--html", ".html"),
        ("map", "--out", ".png"),
        ("sweep", "--out", ".parquet"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_measured(
    cli: Any, tmp_path: Path, command: str, option: str, ending: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / f"folder{ending}").mkdir()
    os.mkfifo(tmp_path / f"pipe{ending}")
    (tmp_path / f"loop{ending}").symlink_to(f"loop{ending}")
    words = {"file/result": "Not a directory", "folder": "is a folder", "pipe": "is no file", "loop": "symbolic links"}
    for name, said in words.items():
        message = refused(cli(command, "no-such-model", option, f"{name}{ending}"))
        assert f"{option} {name}{ending}" in message
        assert said in message


@pytest.mark.parametrize(("command", "option"), [("measure", "--out"), ("layers", "--csv"), ("layers", "--html")])
def test_numbers_are_printed_even_if_they_cannot_be_written(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    options = ("mine:net", "--size", "16", "--n", "2", "-g", "rotation", "--json")
    expected = cli(command, *options).stdout
    (tmp_path / "result.csv").write_text("before")
    monkeypatch.setattr("lee.paths.os.replace", full)
    result = cli(command, *options, option, "result.csv")
    assert result.exit_code == 2
    assert result.stdout == expected
    assert "result.csv can't be written: No space left" in result.stderr
    assert (tmp_path / "result.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir() if "tmp" in path.name) == []


def test_links_are_written_through(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.csv").symlink_to("there/result.csv")
    for _ in range(2):  # first it leads nowhere
        cli("measure", "mine:net", "--size", "16", "--n", "2", "-g", "rotation", "--out", "link.csv")
        assert (tmp_path / "link.csv").is_symlink()
        assert len(pd.read_csv(tmp_path / "there" / "result.csv")) == 1


def test_the_trial_pass_leaves_images_and_model_as_they_were(cli: Any) -> None:
    options = ("--size", "8", "--n", "2", "-g", "rotation", "--json")
    numbers = [
        json.loads(cli("measure", f"mine:{name}", *options).stdout)["results"][0]["lee"] for name in ("pure", "Writes")
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5)
    found = json.loads(cli("measure", "mine:Count", *options, "-g", "scale").stdout)["results"][1]["lee"]
    model = models.load("mine:Count")
    x = datasets.load("photos", n=2, size=8).images
    with pytest.warns(StateWarning):
        expected = lee.local_equivariance_error(model, x, "scale", progress=False).value
    assert found == pytest.approx(expected, rel=1e-5)


def test_version_is_the_package_version(cli: Any) -> None:
    assert cli("--version").stdout == f"lee {lee.__version__}\n"


def test_no_arguments_show_every_command(cli: Any) -> None:
    shown = cli("--help").stdout
    assert all(f" {command} " in shown for command in ("measure", "train", "book", "data"))


MEASURE = ("measure", "mine:net", "--images", "patches", "--n", "3", "--size", "16")


def test_measured_numbers_are_those_of_the_library(cli: Any) -> None:
    printed = json.loads(cli(*MEASURE, "--json", "-g", "rotation", "-g", "shear_x", "--output", "logits").stdout)
    model, chosen = models.load("mine:net"), datasets.load("patches", n=3, size=16)
    assert [row["generator"] for row in printed["results"]] == ["rotation", "shear_x"]
    for row in printed["results"]:
        direct = lee.local_equivariance_error(model, chosen.images, row["generator"], output="logits", progress=False)
        assert row["lee"] == pytest.approx(direct.value, rel=1e-5)
        assert row["stderr"] == pytest.approx(direct.stderr, rel=1e-5)
        assert (row["n"], row["unit"]) == (3, direct.unit)


def test_json_carries_where_the_numbers_come_from(cli: Any) -> None:
    printed = json.loads(cli(*MEASURE, "--json", "-g", "scale").stdout)
    assert printed["data_sha256"] == datasets.load("patches", n=3, size=16).sha256
    assert printed["torch_version"].split("+")[0] == torch.__version__.split("+")[0]
    assert (printed["model"], printed["weights"], printed["seed"]) == ("mine:net", "the factory's", 0)
    assert len(printed["weights_sha256"]) == 64


def test_the_table_has_a_row_per_named_generator(cli: Any) -> None:
    result = cli(*MEASURE)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == list(lee.geometry.generators.NAMED)
    assert all("±" in row for row in rows)
    assert "mine:net" in result.stdout


@pytest.mark.parametrize(
    ("suffix", "read"), [(".parquet", pd.read_parquet), (".csv", pd.read_csv), (".json", pd.read_json)]
)
def test_rows_are_written_in_each_format(cli: Any, tmp_path: Path, suffix: str, read: Any) -> None:
    path = tmp_path / "new" / f"rows{suffix}"
    printed = json.loads(cli(*MEASURE, "--json", "--out", path, "-g", "rotation", "-g", "contrast").stdout)
    rows = read(path)
    assert list(rows["generator"]) == ["rotation", "contrast"]
    assert list(rows["lee"]) == pytest.approx([row["lee"] for row in printed["results"]], rel=1e-9)
    assert set(rows.columns) >= {"weights_sha256", "data_sha256", "commit", "torch_version", "kernel"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_one_image_has_no_standard_error(cli: Any) -> None:
    result = cli("measure", "mine:net", "--images", "patches", "--n", "1", "--size", "16", "--json", "-g", "scale")
    assert json.loads(result.stdout)["results"][0]["stderr"] is None


def test_a_constant_model_is_named_as_such(cli: Any) -> None:
    result = cli("measure", "mine:Constant", "--images", "patches", "--n", "2", "--size", "16", "--json")
    assert result.exit_code == 0, result.output
    assert "Warning: " in result.stderr
    assert "no evidence of learned equivariance" in result.stderr
    assert json.loads(result.stdout)["results"][0]["lee"] == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("measure", "zoo/vit-z"), "Did you mean 'zoo/vit-"),
        (("measure", "test_vitt"), "Did you mean 'test_vit'"),
        (("measure", "mine:nett"), "mine:nett"),
        (("measure", "nowhere:net"), "nowhere"),
        ((*MEASURE[:2], "--images", "fotos"), "Did you mean 'photos'"),
        ((*MEASURE[:2], "--images", "cifar10"), "LEE_DATA"),
        ((*MEASURE[:2], "--images", "digits"), "mine:net can't be run on digits (1 × 8 × 8): RuntimeError: "),
        ((*MEASURE[:2], "--images", "imagefolder:missing"), "missing"),
        ((*MEASURE, "-g", "rotatoin"), "Did you mean 'rotation'"),
        ((*MEASURE, "--output", "logit"), "Did you mean 'logits'"),
        ((*MEASURE, "--kernel", "fourrier"), "Did you mean 'fourier'"),
        ((*MEASURE, "--boundary", "mirror"), "mirror"),
        ((*MEASURE, "--weights", "gone.safetensors"), "gone.safetensors"),
        ((*MEASURE, "--weights", "mine.py"), "mine.py"),
        ((*MEASURE, "--pretrained"), "pretrained"),
        ((*MEASURE, "--out", "rows.xlsx"), ".parquet, .csv, .json"),
        ((*MEASURE, "--device", "warp"), "warp"),
        ((*MEASURE, "--out", f"{'a' * 246}.csv"), "can't be written: File name too long"),
        (("sweep", "a.yaml", "a.yml"), "a.yaml and a.yml would both be written to a.parquet"),
        (("explore", "nope"), "There is no model 'nope'."),
        (("explore", "zoo/vit-z"), "Did you mean 'zoo/vit-"),
        (("book", "--no-execute", "--profile", "nope"), "--profile has no effect beside --no-execute"),
        (("book", "--no-execute", "-c", "99"), "--chapters/-c has no effect beside --no-execute"),
        (("book", "--refresh", "--no-render"), "--render/--no-render has no effect beside --refresh"),
        (("train", "zoo/vit-z"), "Did you mean 'zoo/vit-"),
        (("data", "verify", "photoz"), "Did you mean 'photos'"),
    ],
)
def test_wrong_input_ends_in_a_sentence(cli: Any, arguments: tuple[str, ...], named: str) -> None:
    assert named in refused(cli(*arguments))


def test_a_truncated_weight_file_is_refused(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    assert "cut.safetensors" in refused(cli(*MEASURE, "--weights", "cut.safetensors"))


def test_an_unwritable_destination_is_named(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "rows.csv" in refused(cli(*MEASURE, "-g", "scale", "--out", "file/rows.csv"))


def test_an_interruption_leaves_no_traceback(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> nn.Module:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "load", interrupted)
    result = cli(*MEASURE)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


def test_data_list_names_every_set_with_its_licence(cli: Any) -> None:
    rows = json.loads(cli("data", "list", "--json").stdout)
    assert [row["name"] for row in rows] == list(datasets.names())
    assert all(row["licence"] and row["source"] for row in rows)
    table = cli("data", "list").stdout
    assert all(name.split(":")[0] in table for name in datasets.names())


def test_models_list_says_what_the_cards_say(cli: Any) -> None:
    result = cli("models", "list", "--json")
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert tuple(rows) == models.names()
    card = models.card("rotmnist/p4")
    assert rows["rotmnist/p4"] == {key: card[key] for key in ("name", "family", "parameters", "test_accuracy")}
    assert "39,762" in cli("models", "list").stdout


def test_data_verify_takes_networks_by_a_pattern(cli: Any) -> None:
    rows = json.loads(cli("data", "verify", "penalty/vit*", "digits", "--json").stdout)
    assert [row["name"] for row in rows] == [*(n for n in models.names() if n.startswith("penalty/vit")), "digits"]
    assert all(row["ok"] for row in rows)


def test_data_verify_passes_on_what_is_installed(cli: Any) -> None:
    result = cli("data", "verify", "digits", "histology", "--json")
    assert result.exit_code == 0, result.output
    assert [(row["name"], row["ok"]) for row in json.loads(result.stdout)] == [
        ("digits", True),
        ("histology", True),
    ]


def test_data_verify_fails_if_a_file_differs(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("digits", True, "fine"), ("photos", False, "differs from the recorded file")]
    monkeypatch.setattr(datasets, "verify", lambda chosen: rows)
    result = cli("data", "verify")
    assert result.exit_code == 1
    assert "differs" in result.stdout
    assert cli("data", "verify", "--json").exit_code == 1


RECIPES = """
defaults: {input_size: [1, 8, 8], mean: [0.5], std: [0.5]}
models:
  tiny:
    title: A linear classifier
    factory: mine:linear
    recipe: {dataset: digits, epochs: 2, batch_size: 64, lr: 0.02, warmup_epochs: 0.5}
"""


def test_train_writes_weights_and_card_and_reports_the_card(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "recipes.yaml").write_text(RECIPES)
    result = cli("train", "tiny", "--recipes", "recipes.yaml", "--out", "made")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"tiny.safetensors", "tiny.md"}
    card = yaml.safe_load((tmp_path / "made" / "tiny.md").read_text().split("---\n")[1])
    assert f"test accuracy {100 * card['test_accuracy']:.2f} %" in result.stdout
    assert card["test_accuracy"] > 0.7  # ten digits: chance is 0.1


def test_train_says_warnings_once_in_a_sentence_and_before_it_trains(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "recipes.yaml").write_text(RECIPES.replace("mine:linear", "warner:linear"))
    source = "import warnings\nfrom lee.errors import ImageWarning\nfrom mine import linear as plain\n"
    source += "def linear():\n    warnings.warn('There is a smudge.', ImageWarning)\n    return plain()\n"
    (tmp_path / "warner.py").write_text(source)
    sys.modules.pop("warner", None)
    result = cli("train", "tiny", "--recipes", "recipes.yaml", "--out", "made")
    assert result.exit_code == 0, result.output
    assert result.stderr == "Warning: There is a smudge.\n"
    assert result.output.startswith(result.stderr)
    card = yaml.safe_load((tmp_path / "made" / "tiny.md").read_text().split("---\n")[1])
    assert card["command"] == "lee train --recipes recipes.yaml tiny --out made"
    sys.modules.pop("warner")


def test_train_names_a_wrong_recipe_field(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "recipes.yaml").write_text(RECIPES.replace("epochs: 2", "epoch: 2"))
    assert "'epoch'. Did you mean 'epochs'" in refused(cli("train", "tiny", "--recipes", "recipes.yaml"))


class Library:
    """Records what the command asks of `lee.book`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        from lee import book

        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        monkeypatch.setattr(book, "find_root", lambda: root)
        for name, answer in (("execute", []), ("prepare", None), ("refresh", [root / "book" / "01.ipynb"])):
            monkeypatch.setattr(book, name, self._recorder(name, answer))
        monkeypatch.setattr(book, "render", self._recorder("render", root / "_build" / "html" / "index.html"))

    def _recorder(self, name: str, answer: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            options.pop("progress", None)
            self.calls.append((name, arguments, options))
            return answer

        return call

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    return Library(monkeypatch, tmp_path)


def test_book_executes_then_renders_and_says_how_to_open_it(cli: Any, library: Library, tmp_path: Path) -> None:
    result = cli("book", "--chapters", "1", "--chapters", "2", "--workers", "1")
    assert library.names == ["execute", "render"]
    assert library.calls[0][1] == ("quick", ["1", "2"])
    assert library.calls[0][2]["workers"] == 1
    assert library.calls[0][2]["out"] == library.calls[1][2]["source"] == tmp_path / "_build" / "book-src"
    assert (tmp_path / "_build" / "html" / "index.html").as_uri() in result.stdout
    assert "make serve" in result.stdout


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--no-execute",), ["prepare", "render"]),
        (("--no-render",), ["execute"]),
        (("--refresh",), ["refresh"]),
    ],
)
def test_book_does_only_what_is_asked(cli: Any, library: Library, options: tuple[str, ...], names: list[str]) -> None:
    assert cli("book", *options).exit_code == 0
    assert library.names == names


def test_a_missing_extra_is_named(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "papermill" else find(name, *a))
    message = refused(cli("book"))
    assert "papermill" in message
    assert "pip install -e '.[book]'" in message


def test_the_installed_command_runs_as_a_program() -> None:
    program = Path(sys.executable).with_name("lee")
    command = [str(program)] if program.exists() else [sys.executable, "-c", "from lee.cli import app; app()"]
    done = subprocess.run([*command, "measure", "nowhere:net"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
