"""The denoiser: equal recipes give equal weights, and the committed weights are those of the card and take noise off."""

from pathlib import Path

import pytest
import torch

from lee import models
from lee.models.reading import read_state
from lee.paths import file_sha256
from lee.training import denoising

WEIGHTS = denoising.weights()
TINY = {**denoising.RECIPE, "side": 16, "patches": 28, "steps": 3, "batch_size": 4, "warmup": 1}


def test_equal_recipes_give_equal_weights_and_a_card_that_knows_them(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "again", "other")]
    cards = [denoising.train(f, {**TINY, "seed": seed}) for f, seed in zip(files, (1, 1, 2), strict=True)]
    assert torch.equal(state, torch.random.get_rng_state())
    one, again, other = map(read_state, files)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["encoder.0.weight"], other["encoder.0.weight"])
    assert [card["sha256"] for card in cards] == [file_sha256(f) for f in files]
    assert cards[0]["data"]["train_patches"] + cards[0]["data"]["test_patches"] == 28
    assert f"sha256: {cards[0]['sha256']}" in (tmp_path / "one.md").read_text()


def test_held_out_photographs_are_not_trained_on() -> None:
    seen, unseen = denoising.patches(TINY)
    assert (len(seen), len(unseen)) == (
        20,
        8,
    )  # patches are cut from seven photographs in turn, two of which are held out
    assert not any(torch.equal(a, b) for a in seen for b in unseen)


def test_the_committed_weights_are_the_card_s_and_take_noise_off() -> None:
    card = WEIGHTS.with_suffix(".md").read_text()
    assert f"sha256: {file_sha256(WEIGHTS)}" in card
    net = models.load("lee.training.denoising:EncoderDecoder", weights=WEIGHTS)
    _, clean = denoising.patches({**denoising.RECIPE, "patches": 105, "seed": 7})
    given = denoising.noisy(clean, denoising.RECIPE["noise"], 7)
    with torch.no_grad():
        gain = denoising.decibels(net(given), clean) - denoising.decibels(given, clean)
    assert denoising.decibels(given, clean) == pytest.approx(20, abs=0.1)  # noise of a tenth of full scale
    assert gain > 4
