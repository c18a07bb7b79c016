"""What the explorer asks of a network: names of its classes, and the patches that it makes its tokens of."""

from torch import nn

from lee.models import imagenet
from lee.models.classes import TRAINED_ON
from lee.models.recipes import has_recipe, load_spec


def token_side(network: nn.Module) -> int | None:
    """Side in pixels of the patches that a transformer or Mixer makes its tokens of; None for other networks."""
    sides = (getattr(module, "patch_size", None) for module in network.modules())
    side = next(filter(None, sides), None)
    return int(side[0]) if isinstance(side, tuple) else side


def class_names(model: str, pretrained: bool, k: int) -> tuple[str, ...]:
    """Names of the K classes of a model: CIFAR-10's, ImageNet's for models trained on it, or numbers."""
    if has_recipe(model) and k == 10:
        return TRAINED_ON.get(load_spec(model).recipe.dataset, tuple(map(str, range(k))))
    if (pretrained or imagenet.is_packaged(model)) and k == 1000:
        from timm.data.imagenet_info import ImageNetInfo

        info = ImageNetInfo()
        return tuple(info.index_to_description(i).split(",")[0] for i in range(k))
    return tuple(f"class {i}" for i in range(k))
