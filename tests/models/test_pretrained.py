"""timm's pretrained weights: from a local folder, from a server that may send half of a file, and not at all."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from timm.models._hub import save_for_hf
from torch import nn

from lee import models, provenance, sweep
from lee.errors import InputError
from lee.models import pretrained
from lee.sweep import tasks
from lee.sweep.table import read

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_convnext.r160_in1k")


def made(name: str, seed: int = 7) -> nn.Module:
    """A model with weights that nobody else has."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name).eval()
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def same(net: nn.Module, other: nn.Module) -> bool:
    mine, its = net.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[key], its[key]) for key in mine)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of several architectures in timm's layout."""
    root = tmp_path / "weights"
    for name in SMALL:
        save_for_hf(made(name), str(root / name), safe_serialization=True)
    monkeypatch.setenv("LEE_WEIGHTS", str(root))
    return root


@pytest.mark.parametrize("name", SMALL)
def test_weights_come_from_the_folder(folder: Path, name: str) -> None:
    for asked in (name, name.partition(".")[0]):  # the tag is timm's default
        model = models.load(asked, pretrained=True)
        assert same(model.net, made(name))
        assert model.input_size == (3, 160, 160)
    (folder / name / "config.json").unlink()
    assert same(models.load(name, pretrained=True).net, made(name))


def test_weights_whose_original_is_no_state_dict_come_from_the_folder(folder: Path) -> None:
    """timm reads this one from JAX's `.npz` unless told otherwise."""
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert timm.get_pretrained_cfg(name).custom_load
    save_for_hf(made(name), str(folder / name), safe_serialization=True)
    (folder / name / "config.json").unlink()
    assert same(models.load(name, pretrained=True).net, made(name))


def test_other_weights_in_the_folder_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "test_vit.r160_in1k").rename(folder / "test_resnet2.x")
    (folder / "test_resnet2.x").rename(folder / "test_efficientnet.r160_in1k")
    with pytest.raises(InputError, match=r"holds weights of 'test_vit', not of test_efficientnet\. Rename"):
        models.load("test_efficientnet", pretrained=True)
    (folder / "test_efficientnet.r160_in1k" / "config.json").unlink()
    with pytest.raises(InputError, match="don't fit test_efficientnet: Error"):
        models.load("test_efficientnet", pretrained=True)
    (folder / "test_efficientnet.r160_in1k" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no weights in .*: put a model\.safetensors there"):
        models.load("test_efficientnet", pretrained=True)
    whole = folder / "test_resnet.r160_in1k" / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"is damaged or is not safetensors: .*ncomplete"):
        models.load("test_resnet", pretrained=True)
    monkeypatch.setenv("LEE_WEIGHTS", str(whole))
    with pytest.raises(InputError, match=r"LEE_WEIGHTS names '.*safetensors', which is not a folder"):
        models.load("test_resnet", pretrained=True)


class Canary:
    """Makes a file where it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sign,)


def unpickled(file: Any, *_: Any, **__: Any) -> Any:
    """What timm 1.0.15 does with some files."""
    return torch.serialization.load(file, map_location="cpu", weights_only=False)


@pytest.mark.parametrize("file", ["model.pth", "pytorch_model.bin", "model.safetensors", "a.pth.tar"])
@pytest.mark.parametrize("configured", [True, False])
def test_weights_in_the_folder_run_no_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, configured: bool
) -> None:
    place, sign = folder / SMALL[0], tmp_path / "ran"
    (place / "model.safetensors").unlink()
    if not configured:
        (place / "config.json").unlink()
    torch.save({"state_dict": made(SMALL[0]).state_dict(), "args": Canary(sign)}, place / file)
    for module in ("_helpers", "_hub", "_builder"):
        monkeypatch.setattr(f"timm.models.{module}.load_state_dict", unpickled)
    with pytest.raises(InputError, match="damaged") as told:
        models.load(SMALL[0], pretrained=True)
    assert "weights_only" not in str(told.value)
    assert not sign.exists()
    unpickled((place / file).rename(tmp_path / "model.pth"))
    assert sign.exists()  # the canary sings


def test_weights_of_the_hub_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, sign = tmp_path / "pytorch_model.bin", tmp_path / "ran"
    torch.save({"args": Canary(sign)}, file)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: unpickled(file))
    for allowed in (None, "1"):
        if allowed:
            monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", allowed)
        with pytest.raises(InputError, match=r"the file holds more than tensors, and reading .* run code") as told:
            models.load(SMALL[0], pretrained=True)
        assert "weights_only" not in str(told.value)
        assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == allowed
        assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert not sign.exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_configuration_is_named(folder: Path, text: str) -> None:
    (folder / SMALL[0] / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json names no architecture"):
        models.load(SMALL[0], pretrained=True)


def test_the_paper_s_sweep_runs_on_photographs_and_local_weights(folder: Path, tmp_path: Path) -> None:
    """The sample has one photograph for every fifth of ImageNet's classes, in their order."""
    if not (Path(os.environ.get("LEE_DATA", "none")) / "imagenet-sample").is_dir():
        pytest.skip("needs the 200 photographs in LEE_DATA/imagenet-sample")
    ways = {"main": {"dataset": "imagefolder:imagenet-sample", "n": 12, "size": 64, "generators": ["rotation"]}}
    spec = sweep.parse({"models": ["test_resnet.r160_in1k", "test_convnext.r160_in1k"], "measurements": ways})
    report = sweep.run(spec, tmp_path / "t.parquet", sweep.executor(), progress=False)
    assert (report.measured, report.failures) == (2, ())
    chosen = tasks.images_of("imagefolder:imagenet-sample", "test", 12, 0, 64)
    for part in read(tmp_path / "t.parquet").values():
        scores = models.load(part.described["model"], pretrained=True)(chosen.images).detach().double()
        truth = 5 * chosen.labels
        assert part.rows["correct"].to_pylist() == (scores.argmax(1) == truth).tolist()
        loss = -scores.log_softmax(1)[range(12), truth]
        # A table keeps eleven significant bits.
        torch.testing.assert_close(torch.tensor(part.rows["loss"].to_pylist()), loss.float(), rtol=2**-11, atol=0)


# a server


class Hub(BaseHTTPRequestHandler):
    """The two requests by which files are fetched from a hub of models; `half` holds what is sent in part."""

    files: ClassVar[dict[str, bytes]]
    half: ClassVar[dict[str, str]]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        parts = self.path.split("/")  # /timm/NAME/resolve/main/FILE
        if parts[-1] == "mend":
            self.half.clear()
        name, content = parts[-1], None
        if parts[-1] == "model.safetensors":
            name, content = parts[2], self.files.get(parts[2])
        if content is None:
            self.send_response(200 if name == "mend" else 404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        half = content[: len(content) // 2]
        size = len(half if self.half.get(name) == "file" else content)
        sent = half if name in self.half else content
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(sent) if body else size))
        self.end_headers()
        if body:
            self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(files: dict[str, bytes], half: dict[str, str]) -> Iterator[str]:
    handler = type("Serving", (Hub,), {"files": files, "half": half})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LOAD = """
import json, os, re, shutil, sys, urllib.request
from pathlib import Path
import huggingface_hub
from lee import models, provenance
from lee.errors import InputError

damaged = []

def load(*names):
    for name in names:
        try:
            print(json.dumps([name, provenance.weights_sha256(models.load(name, pretrained=True).net), None]))
        except InputError as error:
            print(json.dumps([name, None, str(error)]))
            told = re.search("timm's cache, (.+?) .see HF_HOME", str(error))
            damaged.extend([Path(told[1]) / f"models--timm--{name}"] if told else [])

whole, cut, short = sys.argv[1:]
load(whole, cut, short)
print(json.dumps(sorted(path.parts[-4] for path in Path(os.environ["HF_HOME"]).rglob("*.safetensors"))))
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/mend")
for folder in damaged:  # as the error asks for; what was cut on the way may not be kept
    shutil.rmtree(folder, ignore_errors=True)
load(cut, short)
os.environ["HF_HUB_OFFLINE"] = "1"  # and as if it had been set from the start
huggingface_hub.constants.HF_HUB_OFFLINE = True
load(whole, "test_efficientnet")
"""


def loaded(cache: Path, endpoint: str, *names: str) -> list[Any]:
    """What a process of its own says, whose cache and hub are these."""
    settings = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "TORCH_HOME": str(cache)}
    clean = {key: value for key, value in os.environ.items() if key not in ("LEE_WEIGHTS", "HF_HUB_OFFLINE")}
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, *names], env={**clean, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_truncated_weights_are_refused_and_named(tmp_path: Path) -> None:
    files, digests = {}, {}
    for name in SMALL:
        save_for_hf(made(name), str(tmp_path / name), safe_serialization=True)
        files[name] = (tmp_path / name / "model.safetensors").read_bytes()
        digests[name] = [name, provenance.weights_sha256(made(name)), None]
    whole, cut, short = SMALL
    half = {cut: "file", short: "transfer"}  # the server's own file is cut; it sends less than it said
    with serving(files, half) as endpoint:
        fetched, *refused, cached, one, other, again, missing = loaded(tmp_path / "cache", endpoint, *SMALL)
    assert fetched == digests[whole]
    for name, (asked, digest, error) in zip((cut, short), refused, strict=True):
        assert (asked, digest) == (name, None)
        assert f"timm's weights for {name} can't be had: what was fetched is damaged; " in error
    assert cached == sorted(f"models--timm--{name}" for name in (whole, cut))
    assert [one, other] == [digests[cut], digests[short]]  # the second attempt, after the server was mended
    assert again == digests[whole]  # without a network, from the cache
    assert "not in timm's cache, and HF_HUB_OFFLINE forbids to fetch them; a folder named by LEE_WEIGHTS" in missing[2]


def test_names_without_weights_stay_as_they_are() -> None:
    assert pretrained.full_name("resnet50") == "resnet50.a1_in1k"
    assert pretrained.full_name("resnet50.tv_in1k") == "resnet50.tv_in1k"
    assert pretrained.full_name("resnet50.nobody") == "resnet50.nobody"
