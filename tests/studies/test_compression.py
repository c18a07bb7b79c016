"""What JPEG does: copies are found again, and the committed comparison is of the networks that it names."""

from pathlib import Path

import pytest
import torch

from lee import datasets
from lee.errors import InputError
from lee.studies import compression
from lee.sweep import results


def test_copies_are_found_and_strangers_refused() -> None:
    x = datasets.load("patches", n=40).images
    noisy = (x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(order[compression.twins(x[:9], noisy[order])], torch.arange(9))
    with pytest.raises(InputError, match="Image 1 has no copy"):
        compression.twins(x[[0, 9]], noisy[:5])


def test_images_that_differ_in_nothing_have_ratio_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split, **how: load("patches", n=6))
    (row,) = compression.measure(["zoo/mixer-xs"], 6, tmp_path / "some.csv").to_dict("records")
    assert (row["ratio"], row["low"], row["high"], row["rmse"]) == (1, 1, 1, 0)


def test_the_committed_comparison_is_of_trained_networks() -> None:
    frame = compression.read()
    assert (frame["n"] >= 250).all()
    assert ((frame["low"] <= frame["ratio"]) & (frame["ratio"] <= frame["high"])).all()
    assert (frame["lossless"] / frame["jpeg"]).to_numpy() == pytest.approx(frame["ratio"].to_numpy(), rel=1e-3)


def test_every_fitted_network_is_compared_on_the_same_images() -> None:
    assert set(results.load("fitted").models) <= set(compression.read()["model"])
