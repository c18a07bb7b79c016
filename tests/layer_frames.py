"""Small made-up frames of a decomposition, for tests of what is drawn and printed. The numbers mean nothing."""

import math

import pandas as pd

#   path, type, call, depth, parent, kind, self_norm2, norm2, self_share
ROWS = (
    ("", "Wrapper", 0, 0, -1, "container", 0.0, 1.3, 0.0),
    ("net", "Net", 0, 1, 0, "container", 0.2, 1.3, 0.15),
    ("net.conv1", "Conv2d", 0, 2, 1, "leaf", 0.4, 0.4, 0.45),
    ("net.act", "ReLU", 0, 2, 1, "leaf", 0.3, 0.3, 0.25),
    ("net.block", "Block", 0, 2, 1, "container", 0.0, 0.5, 0.0),
    ("net.block.attn", "Attention", 0, 3, 4, "container", 0.1, 0.35, 0.1),
    ("net.block.attn.qkv", "Linear", 0, 4, 5, "leaf", 0.0, 0.0, 0.0),
    ("net.act", "ReLU", 1, 4, 5, "leaf", 0.25, 0.25, -0.1),
    ("net.block.odd", "Odd", 0, 3, 4, "merged", math.nan, math.nan, math.nan),
    ("net.head", "Linear", 0, 2, 1, "leaf", 0.15, 0.15, 0.15),
)


def layer_frame() -> pd.DataFrame:
    """Ten calls, with a module that is called twice, a container with a part of its own, and a merged call."""
    columns = ["path", "type", "call", "depth", "parent", "kind", "self_norm2", "norm2", "self_share"]
    frame = pd.DataFrame(ROWS, columns=columns)
    frame["share"] = frame["self_share"].fillna(0.0)
    for row in range(len(frame) - 1, 0, -1):
        frame.loc[frame["parent"][row], "share"] += frame["share"][row]
    frame.loc[frame["kind"] == "merged", "share"] = math.nan
    for column in ("norm2", "share", "self_norm2", "self_share"):
        frame[f"{column}_se"] = frame[column].abs() / 10
    ends = [2, 3, 6, 7, 5, 8, 4, 9, 1, 0]
    frame["cumulative"] = frame["self_norm2"].fillna(0.0)[ends].cumsum()
    return frame
