"""Whatever a user's own code, device, file or number does: a sentence and an exit code that isn't 0, text as it was given."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from lee.__main__ import main
from lee.cli import app
from lee.sweep import tasks

MODELS = """
import sys
import torch
from torch import nn

def good(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
def raising(): raise ValueError("no such size: [/encoder/block] is [bold]it[/]")
def ending(): sys.exit(0)
def number(): return 5

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = good()

    def forward(self, x):
        self.check(x)
        return self.net(x)

calls = []

class Once(Model):
    def check(self, x):
        calls.append(x)
        if len(calls) > 1: raise RuntimeError("only once [/x]")

class Ends(Model):
    def check(self, x): sys.exit(0)

class Ends2(Model):
    def check(self, x):
        if len(x) > 1: sys.exit(0)

class Full(Model):
    def check(self, x):
        if len(x) > 2: raise torch.OutOfMemoryError("CUDA out of memory.")

class Fullest(Model):
    def check(self, x): raise torch.OutOfMemoryError("CUDA out of memory.")

class Quoting(Model):
    def check(self, x): raise ValueError("use chunk=3 or mode='own'")

class Pair(Model):
    def forward(self, x): return self.net(x), self.net(x)

class Interacting(Model):
    def forward(self, x):
        y = self.net(x)
        return y - y.mean(0)

def meta():
    with torch.device("meta"):
        return good()

def broken():
    model = good()
    nn.init.constant_(model[0].bias, float("nan"))
    return model
"""
SMALL = ("--images", "patches", "--n", "4", "--size", "12")
WRONG: list[tuple[tuple[str, ...], str]] = [
    (("mine:raising",), "mine:raising can't be built: ValueError: no such size: [/encoder/block] is [bold]it[/]."),
    (("mine:ending",), "mine:ending can't be built: it ended the program (sys.exit)."),
    (("mine:number",), "returned no torch.nn.Module but something of type int"),
    (("mine:nothing",), "can't be imported: AttributeError"),
    (("ends:model",), "The factory 'ends:model' can't be imported: it ended the program (sys.exit)."),
    (("typo:model",), "The factory 'typo:model' can't be imported: SyntaxError"),
    (("raises:model",), "The factory 'raises:model' can't be imported: KeyError: '[/x]'"),
    (("../mine:good",), "'../mine:good' names no factory"),
    (("[/x]",), "There is no model '[/x]'."),
    (
        ("q0q0q0q0q0",),
        "There is no model 'q0q0q0q0q0'. Known are those of `lee models list`, timm's, and package.module:factory.\n",
    ),
    (("./mine.py:good",), "Did you mean 'mine:good'?"),
    (("nets/mine.py:good",), "Did you mean 'nets.mine:good'?"),
    (("../my nets/mine.py:good",), "Start in ../my nets and write mine:good."),
    (("mine:Once",), "mine:Once can't be measured on patches: RuntimeError: only once [/x]."),
    (("mine:Ends",), "can't be run on patches (3 × 12 × 12): it ended the program (sys.exit)."),
    (("mine:Ends2",), "mine:Ends2 can't be measured on patches: it ended the program (sys.exit)."),
    (("mine:Full",), "Memory ran out with 4 images per pass. Try --chunk 2."),
    (("mine:Fullest",), "OutOfMemoryError: CUDA out of memory"),
    (("mine:broken",), "The bias of the module net.0 (Conv2d) holds NaN or infinity"),
    (("mine:good", "--device", "meta"), "The device 'meta' holds no numbers"),
    (("mine:good", "--device", "abacus"), "The device 'abacus' can't be used: write cpu"),
    (("mine:good", "--seed", "99999999999999999999"), "--seed"),
    (("mine:good", "--seed", "-1"), "--seed"),
    (("mine:good", "--chunk", "99999999999999999999"), "--chunk"),
    (("mine:good", "--size", "1000000"), "--size"),
    (("mine:good", "--size", "[/x]"), "--size"),
    (("mine:good", "--images", "[/x]"), "There is no data set '[/x]'."),
    (("mine:good", "--kernel", "[/x]"), "Unknown kernel '[/x]'."),
    (("mine:good", "-g", "[/x]"), "Unknown generator '[/x]'."),
    (("mine:meta",), "mine:meta was built on the device 'meta', so its weights have no values. Build it on the cpu."),
    (("mine.py:good",), "files go by the names that they are imported by. Did you mean 'mine:good'?"),
    (("mine:Quoting",), "can't be run on patches (3 × 12 × 12): ValueError: use chunk=3 or mode='own'.\n"),
    (
        ("mine:Pair",),
        "`lee measure` has no option for output=lambda …: call lee from Python, or name a function of your own that "
        "returns the model as it is to be measured: my_net:make for `make` of my_net.py in the working folder.\n",
    ),
    (("mine:good", "--pretrained"), "--pretrained is for timm's names and excludes --weights FILE."),
    (("mine:good", "--images", "rgb:" * 1500 + "digits"), "repeats rgb: 1500 times; write it once."),
    (("mine:good", "--images", "corrupt:" * 900 + "digits" + "/contrast/1" * 900), "write it at most 8 times."),
]


@pytest.fixture
def lee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `lee` where the models lie."""
    (tmp_path / "mine.py").write_text(MODELS)
    for name, text in (
        ("ends", "import sys; sys.exit(0)"),
        ("typo", "def model(:"),
        ("raises", "raise KeyError('[/x]')"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("mine", "ends", "typo", "raises"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    tasks.forget()

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def refused(result: Result, message: str) -> None:
    assert result.exit_code not in (0, 130), result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=range(len(WRONG)))
def test_measure_says_what_went_wrong(lee: Any, arguments: tuple[str, ...], message: str) -> None:
    refused(lee("measure", *SMALL, *arguments), message)


@pytest.mark.parametrize("place", [14, 9, 11])
@pytest.mark.parametrize("command", ["layers", "map"])
def test_layers_and_map_say_so_too(lee: Any, command: str, place: int) -> None:
    arguments, message = WRONG[place]
    refused(lee(command, *SMALL, *arguments), message)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_device_that_is_not_here_is_told_before_anything_else(lee: Any) -> None:
    for arguments in (
        ("measure", "mine:good"), ("layers", "mine:good"), ("train", "zoo/vit-s"), ("train", "--missing", "*"),
        ("sweep", "none.yaml"),
    ):  # fmt: skip
        refused(
            lee(*arguments, "--device", "cuda"), "The device 'cuda' can't be used: torch finds no device of CUDA here."
        )


def test_debug_shows_the_traceback_wherever_it_stands(lee: Any) -> None:
    for arguments in (("--debug", "measure", *SMALL, "mine:Once"), ("measure", *SMALL, "mine:Once", "--debug")):
        result = lee(*arguments)
        assert result.exit_code == 2
        assert "Traceback" in result.stderr
        assert "in check" in result.stderr
        assert result.stderr.rstrip().endswith("only once [/x].")


def test_what_nobody_has_foreseen_is_a_sentence_too(lee: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("[/y]")

    monkeypatch.setattr("lee.datasets.names", fail)
    result = lee("data", "list")
    assert result.exit_code == 1
    assert (
        "ZeroDivisionError: [/y]. That was not expected; the option --debug shows where it happened." in result.stderr
    )
    monkeypatch.setattr("lee.datasets.names", lambda: exec("raise MemoryError"))
    refused(lee("data", "list"), "There is not enough memory")


def test_a_model_of_a_sweep_that_ends_the_program_is_a_failure_in_the_table(lee: Any) -> None:
    Path("it.yaml").write_text(
        "models: [mine:Ends, mine:raising, mine:good]\n"
        "measurements: {x: {dataset: patches, n: 2, size: 12, generators: rotation}}\n"
    )
    result = lee("sweep", "it.yaml", "--quiet")
    assert result.exit_code == 1
    assert "2 failed" in result.stdout
    assert "SystemExit" in result.stdout or "it ended the program" in result.stdout
    assert "[/encoder/block] is [bold]it[/]" in " ".join(result.stdout.split())


def test_arguments_are_told_as_options_of_the_command(lee: Any) -> None:
    result = lee("map", *SMALL, "mine:Interacting")
    refused(result, "no image has a map of its own; --chunk 1 measures each alone.")
    assert "depends on --chunk, the images per pass" in result.stderr
    refused(lee("layers", *SMALL, "mine:good", "--tolerance", "-1"), "--tolerance must be a number")
    refused(
        lee("layers", *SMALL, "mine:good", "--mode", "deflated", "--output", "logits"),
        "--mode deflated needs --output p",
    )
    refused(lee("map", *SMALL, "mine:good", "--patch", "9" * 20), "--patch")


def test_an_interruption_while_the_command_is_imported_is_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "lee.cli", Slow("lee.cli"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
