"""The networks that were trained for equivariance, `penalty/…`: what was measured of them, and costs (chapter 11).

Networks that differ in the seed alone (`penalty/resnet-1`, `penalty/resnet-1-seed1`) form a row, `resnet-1`.
"""

from lee.studies.equivariance.comparing import costs, gaps, scores, summary
from lee.studies.equivariance.networks import VARIANTS, base_of, cards, label, ordered

__all__ = [
    "cards", "VARIANTS", "label", "ordered", "base_of",
    "scores", "gaps", "summary", "costs",
]  # fmt: skip
