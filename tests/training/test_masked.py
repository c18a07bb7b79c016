"""Masked autoencoding: what is hidden stays hidden, the loss is He et al.'s, and a kill in either phase changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lee import datasets
from lee.errors import InputError
from lee.models.architectures import resnet
from lee.models.recipes import Recipe, ZooSpec
from lee.training import EpochRecord, MaskedAutoencoder, train

ARGUMENTS = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
}
RECIPE = Recipe("digits", epochs=2, batch_size=64, lr=0.01, pretrain_epochs=2, warmup_epochs=0.5)
SPEC = ZooSpec(
    "masked",
    "timm.models.vision_transformer:VisionTransformer",
    RECIPE,
    ARGUMENTS,
    input_size=(1, 8, 8),
    mean=(0.5,),
    std=(0.5,),
)


def autoencoder(mask_ratio: float = 0.75, **options: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(VisionTransformer(**{**ARGUMENTS, **options}), nn.Identity(), mask_ratio=mask_ratio)


def test_patches_are_cut_row_by_row_with_channels_first() -> None:
    images = torch.rand(2, 1, 8, 8)
    patches = autoencoder().pixels(images)
    assert torch.equal(patches[1, 5], images[1, :, 2:4, 2:4].flatten())


@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 2}])
def test_the_encoder_sees_a_quarter_of_the_patches_in_their_own_places(options: dict[str, Any]) -> None:
    model = autoencoder(**options).eval()
    seen_by_blocks: list[torch.Tensor] = []
    model.encoder.blocks.register_forward_pre_hook(lambda _, args: seen_by_blocks.append(args[0]))
    images = torch.rand(3, 1, 8, 8)
    torch.manual_seed(1)
    model(images)
    torch.manual_seed(1)
    order = torch.rand(3, 16).argsort(1)
    whole = model.encoder._pos_embed(model.encoder.patch_embed(images))
    prefix = model.encoder.num_prefix_tokens
    expected = torch.stack([whole[i, prefix:][order[i, :4]] for i in range(3)])
    assert torch.allclose(seen_by_blocks[0][:, prefix:], expected)
    assert seen_by_blocks[0].shape[1] == prefix + 4


def test_the_loss_is_the_error_of_hidden_patches_normalised_one_by_one() -> None:
    model, images = autoencoder().eval(), torch.rand(5, 1, 8, 8)
    for parameter in model.predict.parameters():
        nn.init.zeros_(parameter)
    # A prediction of 0 leaves the mean square of patches with mean 0 and (sample) variance 1: 3/4 for 4 pixels.
    assert float(model(images).detach()) == pytest.approx(0.75, rel=1e-3)


def test_hidden_patches_do_not_leak_into_the_prediction() -> None:
    model, images = autoencoder().double().eval(), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    images.requires_grad_()
    torch.manual_seed(3)
    seen = torch.rand(1, 16).argsort(1)[:, :4]
    decoded = model.predict(model.blocks(model._filled(model._encode(images, seen), seen)))
    (gradient,) = torch.autograd.grad(decoded.sum(), images)
    touched = model.pixels(gradient).abs().sum(-1)[0] > 0
    assert sorted(touched.nonzero().flatten().tolist()) == sorted(seen[0].tolist())


def test_only_vision_transformers_and_ratios_that_leave_something() -> None:
    with pytest.raises(InputError, match=r"not ResNet. Set pretrain_epochs to 0"):
        MaskedAutoencoder(resnet(), nn.Identity())
    with pytest.raises(InputError, match="leaves 0 of 16 patches"):
        autoencoder(0.99)


def test_pretraining_learns_and_a_kill_in_either_phase_changes_nothing(tmp_path: Path) -> None:
    sets = datasets.load("digits", n=640, split="train"), datasets.load("digits", n=100)
    whole = train(SPEC, *sets, progress=False)
    assert [record.phase for record in whole.history] == ["masked"] * 2 + ["supervised"] * 2
    assert [record.accuracy is None for record in whole.history] == [True, True, False, False]
    assert whole.history[1].loss < whole.history[0].loss

    def killer(epoch: int) -> Callable[[EpochRecord], None]:
        def kill(record: EpochRecord) -> None:
            if record.epoch == epoch:
                raise KeyboardInterrupt

        return kill

    checkpoint = tmp_path / "masked.checkpoint.pt"
    for epoch in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, *sets, progress=False, checkpoint=checkpoint, on_epoch=killer(epoch))
    resumed = train(SPEC, *sets, progress=False, checkpoint=checkpoint)
    assert [record.loss for record in resumed.history] == [record.loss for record in whole.history]
    pairs = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    # The pretraining matters: without it the same recipe ends elsewhere.
    plain = train(replace(SPEC, recipe=replace(RECIPE, pretrain_epochs=0)), *sets, progress=False)
    assert not torch.equal(plain.model.net.get_parameter("head.weight"), whole.model.net.get_parameter("head.weight"))
