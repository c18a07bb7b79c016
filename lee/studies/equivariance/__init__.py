"""The networks that were trained for equivariance: by name for a sweep, what was measured of them, and costs (chapter 11).

Each network of `data/equivariance/equivariance.yaml` is an attribute of this module that loads it, so that a sweep can name
it: `lee.studies.equivariance:resnet-1`. Networks that differ in the seed alone (`resnet-1`, `resnet-1-seed1`) form a row.
"""

from collections.abc import Callable
from functools import partial

from lee.models import Normalized
from lee.models.recipes import load_specs
from lee.studies.equivariance.comparing import costs, errors, gaps, scores, summary
from lee.studies.equivariance.networks import VARIANTS, base_of, cards, label, load, names, ordered, recipes

__all__ = [
    "recipes", "names", "load", "cards", "VARIANTS", "label", "ordered", "base_of",
    "scores", "errors", "gaps", "summary", "costs",
]  # fmt: skip


def __getattr__(name: str) -> Callable[[], Normalized]:
    """The network of this name, for `lee.models.load("lee.studies.equivariance:NAME")`."""
    if not name.startswith("_") and name in load_specs(recipes()):
        return partial(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
