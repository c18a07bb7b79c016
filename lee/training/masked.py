"""Masked autoencoding: a vision transformer learns to fill in the patches that it does not see.

K. He, X. Chen, S. Xie, Y. Li, P. Dollár, R. Girshick, Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
"""

import torch
from torch import Tensor, nn

from lee.errors import InputError

WIDTH, HEADS = 64, 2  # channels and heads of the decoder, a single block


class MaskedAutoencoder(nn.Module):
    """A ViT encoder that sees part of the patches, and a light decoder that fills in the rest.

    The loss is He et al.'s: the mean squared error of the masked patches' pixels, each patch normalised to
    mean 0 and variance 1. Patches are masked by the global random state, so seed it for a repeatable loss.

    Args:
        encoder: timm's `VisionTransformer`, shared and not copied: training this module trains it.
        normalize: takes images in [0, 1] to what the encoder takes.
        mask_ratio: share of the patches that the encoder does not see, in (0, 1).

    Raises:
        InputError: the encoder is no plain vision transformer with a patch and a position embedding.
    """

    def __init__(self, encoder: nn.Module, normalize: nn.Module, *, mask_ratio: float = 0.75) -> None:
        from timm.models.vision_transformer import Block, VisionTransformer

        super().__init__()
        if not isinstance(encoder, VisionTransformer) or encoder.pos_embed is None:
            raise InputError(
                f"Masked pretraining needs timm's VisionTransformer with a position embedding, "
                f"not {type(encoder).__name__}. Set pretrain_epochs to 0."
            )
        self.encoder, self.normalize, self.mask_ratio = encoder, normalize, mask_ratio
        self.patches = encoder.patch_embed.num_patches
        self.visible = round(self.patches * (1 - mask_ratio))
        if not 0 < self.visible < self.patches:
            raise InputError(f"mask_ratio = {mask_ratio} leaves {self.visible} of {self.patches} patches to see.")
        self.patch = int(encoder.patch_embed.patch_size[0])
        channels = encoder.patch_embed.proj.weight.shape[1]
        self.norm = nn.LayerNorm(encoder.embed_dim)
        self.embed = nn.Linear(encoder.embed_dim, WIDTH)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.patches, WIDTH))
        self.blocks = nn.Sequential(Block(WIDTH, HEADS, qkv_bias=True))
        self.predict = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, channels * self.patch**2))

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss (a scalar) on images (N, C, H, W) in [0, 1].

        Args:
            images: (N, C, H, W) in [0, 1].
        """
        images = self.normalize(images)
        order = torch.rand(len(images), self.patches, device=images.device).argsort(1)
        seen, hidden = order[:, : self.visible], order[:, self.visible :]
        decoded = self.predict(self.blocks(self._filled(self._encode(images, seen), seen)))
        found, wanted = _take(decoded.float(), hidden), _take(self.pixels(images), hidden)
        wanted = (wanted - wanted.mean(-1, keepdim=True)) / (wanted.var(-1, keepdim=True) + 1e-6).sqrt()
        return (found - wanted).square().mean()

    def pixels(self, images: Tensor) -> Tensor:
        """Cut images (N, C, H, W) into their patches' pixels (N, patches, C * patch * patch), row by row.

        Args:
            images: (N, C, H, W).
        """
        return nn.functional.unfold(images, self.patch, stride=self.patch).transpose(1, 2)

    def _encode(self, images: Tensor, seen: Tensor) -> Tensor:
        """Pass the seen patches through the encoder; positions are added before anything is dropped."""
        tokens = self.encoder._pos_embed(self.encoder.patch_embed(images))
        prefix = tokens[:, : self.encoder.num_prefix_tokens]
        tokens = torch.cat([prefix, _take(tokens[:, prefix.shape[1] :], seen)], dim=1)
        tokens = self.encoder.blocks(self.encoder.norm_pre(tokens))
        return self.embed(self.norm(tokens[:, prefix.shape[1] :]))

    def _filled(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Put the seen tokens back in their places, the mask token everywhere else, and add positions."""
        everywhere = self.mask_token.to(tokens.dtype).repeat(len(tokens), self.patches, 1)
        index = seen[..., None].expand(-1, -1, tokens.shape[-1])
        return everywhere.scatter(1, index, tokens) + self.positions


def _take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens (N, M, D) of (N, P, D) by their indices (N, M)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
