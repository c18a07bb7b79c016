"""Rows of results can be traced: the same weights give the same digest, other weights another one."""

import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from lee import provenance


def test_digest_ignores_where_and_how_the_weights_lie() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = provenance.weights_sha256(model)
    assert provenance.weights_sha256(model.to(memory_format=torch.channels_last)) == before
    assert provenance.weights_sha256(model.eval()) == before


@pytest.mark.parametrize("key", ["0.weight", "0.bias", "1.running_mean", "1.num_batches_tracked"])
def test_digest_sees_every_entry(key: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = provenance.weights_sha256(model)
    with torch.no_grad():
        model.state_dict()[key].view(-1)[0] += 1
    assert provenance.weights_sha256(model) != before


def test_digest_tells_types_and_shapes_apart() -> None:
    zeros = [nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False), nn.Linear(4, 2, bias=False).half()]
    for module in zeros:
        nn.init.zeros_(module.weight)
    assert len({provenance.weights_sha256(module) for module in zeros}) == 3


def test_digest_takes_every_dtype_and_an_empty_module() -> None:
    module = nn.Module()
    empty = provenance.weights_sha256(module)
    for index, dtype in enumerate((torch.bfloat16, torch.bool, torch.complex64, torch.int64)):
        module.register_buffer(f"buffer{index}", torch.ones((), dtype=dtype))
    assert provenance.weights_sha256(module) != empty


def test_commit_is_that_of_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (tmp_path / "lee").mkdir()
    source = tmp_path / "lee" / "provenance.py"
    source.write_text("1\n")
    monkeypatch.setattr(provenance, "__file__", str(source))
    assert provenance.commit() is None
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], check=True)
    log = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    head = log.stdout.strip()
    assert provenance.commit() == head
    source.write_text("2\n")
    assert provenance.commit() == head + "+"


def test_versions_name_what_can_change_a_number() -> None:
    assert provenance.versions()["torch_version"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python_version", "lee_version", "timm_version"} <= provenance.versions().keys()
