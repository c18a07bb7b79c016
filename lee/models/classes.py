"""Which class each output of a classifier stands for, and where the classes of a data set are among them.

ImageNet's classes go by their synsets, such as `n01440764`: the names of its folders. Both the list and its order are timm's.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from lee.datasets import ImageSet
from lee.datasets.local_data import CIFAR10_CLASSES
from lee.models.recipes import has_recipe, load_spec

_DIGITS = ("mnist", "rotmnist", "digits", "rotated-digits")
#: Class names of the data sets that recipes name.
TRAINED_ON = {"cifar10": CIFAR10_CLASSES, **dict.fromkeys(_DIGITS, tuple("0123456789"))}


@cache
def imagenet(subset: str = "imagenet-1k") -> tuple[str, ...]:
    """The synsets of a subset of ImageNet, by timm's name of it, in the order of a classifier's outputs.

    >>> len(imagenet()), imagenet()[:2]
    (1000, ('n01440764', 'n01443537'))
    """
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo(subset).label_names())


def of_model(name: str, net: nn.Module) -> tuple[str, ...]:
    """The class of each output of a model, which lies in `net` without the normalisation; empty where nobody says.

    Trained networks know the classes of their recipe's data set, timm's those of their configuration or of ImageNet; a network of
    one's own says so by an attribute `class_names`.
    """
    if has_recipe(name):
        return TRAINED_ON.get(load_spec(name).recipe.dataset, ())
    given = getattr(net, "class_names", None)
    if given is not None or ":" in name:
        return tuple(map(str, given or ()))
    from timm.data.imagenet_info import infer_imagenet_subset

    config = getattr(net, "pretrained_cfg", None) or {}
    subset = infer_imagenet_subset(net)
    return tuple(config.get("label_names") or ()) or (imagenet(subset) if subset else ())


def described(names: Sequence[str]) -> tuple[str, ...]:
    """Class names in words: of ImageNet's synsets the first of their names, others as they are.

    >>> described(["n01440764", "cat"])
    ('tench', 'cat')
    """
    from timm.data.imagenet_info import ImageNetInfo

    info, known = ImageNetInfo(), frozenset(imagenet())
    return tuple(info.label_name_to_description(n).split(",")[0] if n in known else n for n in names)


def places(names: Sequence[str], known: Sequence[str]) -> Tensor | None:
    """The position of each name among the known ones, int64; None unless all are there, each once.

    >>> places(["cat", "dog"], ["dog", "frog", "cat"])
    tensor([2, 0])
    >>> places(["cat", "unicorn"], ["dog", "frog", "cat"]) is None
    True
    """
    among = {name: place for place, name in enumerate(known)}
    if not names or len(among) != len(known) or not all(name in among for name in names):
        return None
    return torch.tensor([among[name] for name in names])


def right_outputs(data: ImageSet, known: Sequence[str], outputs: int) -> Tensor | None:
    """The output that is right for each image, int64 (N,); None unless labels and the names of both sides' classes tell.

    Labels count the data set's classes, `known` has the class of each output (:func:`of_model`); names of another number of
    `outputs` tell nothing.
    """
    found = places(data.class_names, known) if len(known) == outputs else None
    return None if found is None or data.labels is None else found[data.labels]
