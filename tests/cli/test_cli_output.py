"""What the commands print: whatever standard output can encode, JSON and nothing else, warnings and checks in sentences."""

import csv
import errno
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import lee
from lee import datasets, models
from lee.cli import app
from lee.cli.output import STAND_INS

ROOT = Path(__file__).resolve().parents[2]
FACTORY = """
import ctypes, os, sys
import torch
from torch import nn

print("printed at import")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("printed by the factory")
        os.write(1, b"written to the descriptor\\n")
        ctypes.CDLL(None).puts(b"printed by C")
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        print("printed in the forward pass")
        return self.head(torch.tanh(self.conv(x)).mean((2, 3)))

class Dropping(Net):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)
"""
MEASURE = ("measure", "mine:Net", "--images", "patches", "--n", "2", "--size", "16", "--output", "logits")
LAYERS = ("layers", "mine:Net", "--images", "patches", "--n", "2", "--size", "16", "--output", "logits")
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def program(tmp_path: Path) -> Run:
    """Run `lee` as a program in an empty folder that holds `mine.py`, with an encoding of its standard streams."""
    (tmp_path / "mine.py").write_text(FACTORY)

    def run(*arguments: str, encoding: str = "utf-8") -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        environment.pop("PYTHONUTF8", None)
        return subprocess.run(
            [sys.executable, "-m", "lee", *arguments], cwd=tmp_path, env=environment, capture_output=True
        )

    return run


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `lee` in this process."""
    (tmp_path / "mine.py").write_text(FACTORY.replace("print(", "id("))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("command", "encoding"),
    [(LAYERS, "cp1252"), (MEASURE, "ascii"), (("layers", "--help"), "cp1252")],
    ids=["layers", "measure", "help"],
)
def test_what_standard_output_cannot_encode_is_replaced(program: Run, command: tuple[str, ...], encoding: str) -> None:
    done = program(*command, encoding=encoding)
    assert done.returncode == 0, done.stderr.decode()
    printed = done.stdout.decode(encoding)
    square = "²" if encoding == "cp1252" else "^2"
    assert f"|v|{square}" in printed if command[0] == "layers" else f"per radian{square}" in printed


def test_what_standard_output_can_encode_is_left_alone(program: Run) -> None:
    done = program(*LAYERS)
    assert "‖v‖² ± se" in done.stdout.decode("utf-8")


def test_every_stand_in_is_ascii() -> None:
    assert all(text.isascii() and not character.isascii() for character, text in STAND_INS.items())
    assert "".join(STAND_INS).encode("ascii", errors="lee.cli").decode() == "".join(STAND_INS.values())
    assert "λ".encode("ascii", errors="lee.cli") == b"?"


@pytest.mark.parametrize(("command", "encoding"), [(MEASURE, "utf-8"), (LAYERS, "cp1252")], ids=["measure", "layers"])
def test_json_is_all_there_is_whatever_the_model_prints(program: Run, command: tuple[str, ...], encoding: str) -> None:
    done = program(*command, "--json", encoding=encoding)
    assert done.returncode == 0, done.stderr.decode()
    printed = json.loads(done.stdout.decode("utf-8"))
    rows = printed["results"] if "results" in printed else [printed["total"]]
    assert any(row["unit"] == "per radian²" for row in rows)
    said = done.stderr.decode("utf-8", errors="replace")
    for words in ("at import", "by the factory", "to the descriptor", "by C", "in the forward pass"):
        assert words in said


def test_without_json_a_model_prints_where_it_likes(program: Run) -> None:
    assert b"printed by the factory" in program(*MEASURE, "-g", "scale").stdout


def test_the_check_is_printed_below_the_numbers_and_kept_in_rows(cli: Any, tmp_path: Path) -> None:
    chosen = datasets.load("patches", n=2, size=16).images
    gram = lee.equivariance_gram(models.load("mine:Net"), chosen, output="logits", progress=False)
    assert gram.verification is not None
    assert gram.verification.verified
    shown = cli(*MEASURE)
    assert "verified: forward mode and differences of the function" in " ".join(shown.stdout.split())
    printed = json.loads(cli(*MEASURE, "--json", "--out", "rows.parquet").stdout)
    assert printed["verification"]["verified"] is True
    assert set(printed["verification"]) == set(gram.verification.row())
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert rows["verified"].all()
    assert (rows["verified_deviation"] < 0.1).all()


def test_the_check_of_a_decomposition_is_printed_and_kept(cli: Any, tmp_path: Path) -> None:
    shown = cli(*LAYERS, "--csv", "rows.csv")
    assert shown.exit_code == 0, shown.output
    assert "verified: " in shown.stdout
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        assert {row["verified"] for row in csv.DictReader(file)} == {"True"}
    assert json.loads(cli(*LAYERS, "--json").stdout)["verification"]["verified"] is True


def test_every_warning_of_lee_is_told_once_in_a_sentence(cli: Any) -> None:
    result = cli("measure", "mine:Dropping", *MEASURE[2:], "-g", "rotation")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert any("random" in line for line in told)
    assert len(set(told)) == len(told)
    assert "Warning:" not in result.stdout


def test_warnings_about_the_images_are_told_as_well(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32), (1, 200, 3)).save(tmp_path / "pictures" / "a.png")
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))
    Image.fromarray(ramp).save(tmp_path / "pictures" / "b.png")
    result = cli("measure", "mine:Net", "--images", "imagefolder:pictures", *MEASURE[4:], "--json")
    assert result.exit_code == 0, result.output
    assert "Warning: 1 of 2 images are of one colour" in result.stderr
    assert json.loads(result.stdout)["data_source"].startswith("a folder of images")


def on_a_terminal(*arguments: str, columns: int) -> str:
    """What a command prints on a terminal of this width, errors and progress included."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "lee", *arguments]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment) as process:
        os.close(end)
        printed = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(terminal, 4096):
                printed += part
        os.close(terminal)
    assert process.returncode == 0
    return printed.decode()


@pytest.mark.parametrize("command", ["measure", "layers"])
def test_a_terminal_of_60_columns_has_progress_whole_numbers_and_no_warnings(command: str) -> None:
    depth = ["--depth", "1"] * (command == "layers")
    printed = on_a_terminal(command, "zoo/vit-xs", "--n", "3", "--images", "patches", *depth, columns=60)
    assert re.search(r"\r +0%.*?0/3", printed)  # and then it goes
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in printed.rpartition("\r")[0].split("\r\n")]
    table = [line for line in lines[1:] if line]
    assert max(map(len, table)) <= 60
    assert "Warning" not in printed
    rows = [line for line in table if re.search(r"\d ± \d", line)]
    assert len(rows) > 1
    assert not any("…" in row for row in rows)


def test_a_wrong_folder_is_told_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("the model came first"))
    for name, words in (
        (f"imagefolder:{tmp_path}/no", "no such folder"),
        (f"imagefolder:{tmp_path}", "holds no images"),
    ):
        result = CliRunner().invoke(app, ["measure", "resnet18", "--pretrained", "--images", name])
        assert result.exit_code == 2
        assert words in result.output


@pytest.mark.parametrize("json_", [(), ("--json",)], ids=["table", "json"])
@pytest.mark.parametrize(
    ("command", "option", "file"),
    [(MEASURE, "--out", "r.csv"), (LAYERS, "--csv", "r.csv"), (("map", *MEASURE[1:]), "--out", "r.png")],
    ids=["measure", "layers", "map"],
)
def test_files_are_written_whatever_becomes_of_standard_output(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, option: str, file: str, json_: Any
) -> None:
    for number, said in ((errno.EPIPE, ""), (errno.ENOSPC, "Error: Standard output can't be written: No space left")):

        def broken(*_: Any, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr("rich.console.Console._write_buffer", broken)
            patched.setattr(
                "lee.cli.output.typer.echo", lambda *a, err=False: sys.stderr.write(a[0]) if err else broken()
            )
            result = cli(*command, *json_, option, file)
        assert result.exit_code == (1 if number == errno.EPIPE else 2)
        assert result.stderr.startswith(said)
        assert bool(result.stderr) == bool(said)
        (tmp_path / file).unlink()


def test_a_pipe_that_nobody_reads_and_a_full_disk_leave_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lee", "data", "list"]
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
    with Path("/dev/full").open("wb") as full:
        for words in (command, [*command[:3], "--version"]):
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=environment)
            assert done.returncode in (1, 2)
            assert re.fullmatch(rb"Error: Standard output .*can't be .*: No space left on device.\n", done.stderr)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_streams_may_be_closed(program: Run, tmp_path: Path, closed: str) -> None:
    program("--version")
    line = f"{shlex.join([sys.executable, '-m', 'lee', *MEASURE, '--json', '--out', 'r.csv'])} {closed}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.csv").is_file()
    if closed == "2>&-":
        json.loads(done.stdout)


def test_a_folder_whose_name_is_no_utf8_is_named_with_escapes(cli: Any, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"nu\xff")
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )
    named, written = ("--images", f"imagefolder:{folder.name}"), r"imagefolder:nu\xff"
    for file, read in (("r.csv", pd.read_csv), ("r.parquet", pd.read_parquet), ("r.json", pd.read_json)):
        result = cli(*MEASURE, *named, "-g", "scale", "--json", "--out", file)
        assert result.exit_code == 0, result.output
        assert set(read(tmp_path / file)["images"]) == {written} == {json.loads(result.stdout)["images"]}
    assert cli(*LAYERS, *named, "--csv", "l.csv", "--html", "l.html").exit_code == 0
    assert set(pd.read_csv(tmp_path / "l.csv")["images"]) == {written}
    assert written in (tmp_path / "l.html").read_text(encoding="utf-8")
    assert r"nu\xff" in os.fsdecode(b"nu\xff").encode("utf-8", "lee.cli").decode()


@pytest.mark.parametrize("command", ["measure", "map", "layers"])
def test_a_terminal_of_10_columns_has_all_numbers(cli: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    printed = []
    for width in ("200", "10"):
        monkeypatch.setenv("COLUMNS", width)
        shown = cli(command, *MEASURE[1:]).stdout
        printed.append(
            Counter(
                re.findall(
                    r"\S+ ± \S+|\S+ %" if command == "layers" else r"\d",
                    re.split("Lie derivative|LEE rotation|rotation: LEE", shown)[0],
                )
            )
        )
    assert printed[0] == printed[1]
