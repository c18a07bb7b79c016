"""Networks with rotation built in, and a plain one beside them: group convolutions, steerable filters, pooling over turns.

All take small images (N, C, H, W) whose sides are multiples of 4 and return scores (N, classes). A quarter turn of the image
leaves the scores of the equivariant ones as they are, up to rounding; what other angles do is what chapter 9 measures.
"""

from lee.models.equivariant.actions import Fields
from lee.models.equivariant.p4 import group_cnn, quarter_turn
from lee.models.equivariant.plain import plain_cnn, ti_pooling
from lee.models.equivariant.steerable import steerable_cnn

__all__ = ["plain_cnn", "ti_pooling", "group_cnn", "quarter_turn", "steerable_cnn", "Fields"]
