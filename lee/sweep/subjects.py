"""The models of a sweep: names and patterns of names, and the families that they belong to."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from lee import models
from lee.errors import InputError, nearest
from lee.models import imagenet
from lee.models.recipes import has_recipe, has_weights, load_spec

_PATTERN = re.compile(r"[*?\[]")


def expand(patterns: Sequence[Any], where: str = "the sweep") -> tuple[str, ...]:
    """Names of models from names and patterns such as `zoo/vit-*`, each once.

    Args:
        patterns: names, patterns, or entries that choose among families of timm.
        where: what an error says the pattern stands in.

    Raises:
        InputError: nothing matches, or there is no such model; the nearest name is given.
    """
    trained, found = models.names(), []
    for pattern in map(str, patterns):
        if _PATTERN.search(pattern):
            matching = [name for name in trained if fnmatchcase(name, pattern)]
            if not matching:
                raise InputError(f"{where}: no trained network matches {pattern!r}.{nearest(pattern, trained)}")
            found += matching
            continue
        if imagenet.is_packaged(pattern):
            imagenet.check_weights(pattern)
        elif has_recipe(pattern) and pattern not in trained:
            raise InputError(f"{where}: there is no model {pattern!r}.{nearest(pattern, trained)}")
        if ":" not in pattern and not has_weights(pattern):
            _check_timm(pattern, where)
        found.append(pattern)
    return tuple(dict.fromkeys(found))


def epoch_of(weights: str) -> int:
    """The epoch of training that weights such as `epoch 13` are of; 0 if they are none of such a name.

    >>> epoch_of("epoch 13"), epoch_of("trained")
    (13, 0)
    """
    found = re.fullmatch(r"epoch ([1-9]\d*)", weights)
    return int(found[1]) if found else 0


def family_of(name: str) -> str:
    """The family of architectures that a model belongs to: what its recipe says, timm's module, or the factory.

    Args:
        name: a name that `lee.models.load` knows.
    """
    if has_recipe(name):
        return load_spec(name).family
    if imagenet.is_packaged(name):
        return imagenet.describe(name).family
    if ":" in name:
        return name
    import timm

    return str(timm.model_entrypoint(name).__module__.rpartition(".")[2])


def _check_timm(name: str, where: str) -> None:
    import timm

    if not timm.is_model(name):
        known = [*models.names(), *timm.list_models()]
        hint = nearest(name, known)
        raise InputError(f"{where}: there is no model {name!r}.{hint if 'Did you mean' in hint else ''}")
