"""What a layer-wise decomposition says: per call, with standard errors, as a table and as a tree."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lee.layers.families import completion
from lee.layers.trace import Traced
from lee.statistics import Estimate, Verification


@dataclass(frozen=True, eq=False)
class Decomposition:
    r"""The Lie derivative of a model as the sum of what each of its module calls contributes.

    A call `m` contributes :math:`v_m`, its local Lie derivative pushed to the output. What its own children don't explain
    of it is its *self* term (functional operations; all of it for a leaf). The self terms of all calls sum to the total.

    Args:
        frame: One row per call in the order in which they start, parents before children; see :func:`lee.layerwise`.
        total: The model's local equivariance error.
        residual: What is left of two identities, relative to the total (or to the largest term, if that is larger): the sum
            of the self terms against the total, computed apart and verified, on the median image; and the self terms of
            `nn.Sequential`, which has no operation of its own (forward mode takes that for granted). It is rounding: all
            passes take the same side of every kink (ReLU, max-pooling) that a module has, or that its output meets next.
        generator: Name of the generator.
        output: Which output was differentiated.
        kernel: Interpolation kernel.
        mode: How the terms were pushed to the output: `"forward"`, `"reverse"`, `"deflated"` (if only for some images) or
            `"probes"`.
        notes: Calls that could not be measured on their own, and why.
        verification: What was checked of the total and of the sum of its parts; None where nothing was.
    """

    frame: pd.DataFrame
    total: Estimate
    residual: float
    generator: str
    output: str
    kernel: str
    mode: str
    notes: tuple[str, ...] = ()
    verification: Verification | None = None

    @property
    def n(self) -> int:
        """Number of images."""
        return self.total.n

    def tree(self, depth: int | None = None) -> str:
        """The calls as an indented tree down to `depth`, with `E‖v‖²/dim` and the signed share of each.

        Args:
            depth: How many levels are shown; None for all.
        """
        lines = [f"{'share':>8}  {'norm²':>9}  {'± s.e.':>8}  module"]
        for row in self.frame.to_dict("records"):
            if depth is not None and row["depth"] > depth:
                continue
            name = (row["path"] or "(model)") + (f" #{row['call'] + 1}" if row["call"] else "")
            label = f"{'  ' * row['depth']}{name} ({row['type']})"
            if row["kind"] == "merged":
                lines.append(f"{'·':>8}  {'·':>9}  {'·':>8}  {label}")
            else:
                error = f"{row['norm2_se']:8.2g}" if math.isfinite(row["norm2_se"]) else f"{'–':>8}"
                share = f"{row['share']:8.1%}" if math.isfinite(row["share"]) else f"{'–':>8}"
                lines.append(f"{share}  {row['norm2']:9.3g}  {error}  {label}")
        return "\n".join(lines)

    def __str__(self) -> str:
        foot = f"residual of the identity {self.residual:.1e}, mode {self.mode}"
        if self.total.value == 0:
            foot += "\nno shares: there is no error to share out, up to rounding"
        merged = f"\n· {len(self.notes)} calls counted in the module around them" if self.notes else ""
        return f"{self.total}\n{self.tree()}\n{foot}{merged}"

    def __repr__(self) -> str:
        return f"Decomposition({len(self.frame)} calls, {self.total}, residual {self.residual:.1e})"


@dataclass(frozen=True)
class Moments:
    """Per-image sums that every number of the table is made of; batches are joined along the first axis.

    Args:
        norm2: `‖v‖²/dim` of every call, (n, M).
        self_norm2: The same of its self term, (n, M).
        dot: `⟨v, L⟩/dim`, (n, M).
        self_dot: `⟨v_self, L⟩/dim`, (n, M).
        noise: Variance of `norm2` over probes, (n, M); zero in the exact modes.
        total: `‖L‖²/dim`, (n,).
    """

    norm2: Tensor
    self_norm2: Tensor
    dot: Tensor
    self_dot: Tensor
    noise: Tensor
    total: Tensor

    @classmethod
    def of(
        cls,
        terms: dict[int, Tensor],
        own: dict[int, Tensor],
        whole: Tensor,
        calls: int,
        variance: Callable[[Tensor], Tensor] | None = None,
    ) -> "Moments":
        """The moments of pushed terms.

        Args:
            terms: Coordinates of `v` by call, (n, C) each, whose squares sum to `‖v‖²/dim`, or to an estimate of it; others are 0.
            own: The same of the self terms.
            whole: `‖L‖²/dim`, (n,).
            calls: Number of calls.
            variance: That of the estimate of each image, (n,), by the coordinates; None where they are exact.
        """
        total = terms[0]
        shape = (len(total), calls)
        out = {
            name: torch.zeros(shape, dtype=torch.float64)
            for name in ("norm2", "self_norm2", "dot", "self_dot", "noise")
        }
        for kind, vectors in (("", terms), ("self_", own)):
            for m, v in vectors.items():
                out[f"{kind}norm2"][:, m] = v.square().sum(-1)
                out[f"{kind}dot"][:, m] = (v * total).sum(-1)
        if variance is not None:
            for m, v in terms.items():
                out["noise"][:, m] = variance(v)
        return cls(**out, total=whole)

    @classmethod
    def joined(cls, parts: "list[Moments]") -> "Moments":
        """Several batches as one."""
        names = ("norm2", "self_norm2", "dot", "self_dot", "noise", "total")
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in names))


def taken_apart(terms: dict[int, Tensor], parents: list[int]) -> dict[int, Tensor]:
    """Self terms: what each call's children leave of its term."""
    own = {m: v.clone() for m, v in terms.items()}
    for m, v in terms.items():
        if parents[m] >= 0:
            own[parents[m]] = own.get(parents[m], torch.zeros_like(v)) - v
    return own


def summed_up(own: dict[int, Tensor], parents: list[int]) -> dict[int, Tensor]:
    """Terms of calls from self terms: those of the calls inside are added."""
    terms = {m: v.clone() for m, v in own.items()}
    for m in range(len(parents) - 1, 0, -1):  # a call comes before those inside
        if m in terms and parents[m] >= 0:
            terms[parents[m]] = terms.get(parents[m], torch.zeros_like(terms[m])) + terms[m]
    return terms


def mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over images (n, M) and its standard error, (M,); NaN for one image."""
    n = len(samples)
    error = samples.std(0, correction=1) / math.sqrt(n) if n > 1 else torch.full_like(samples[0], math.nan)
    return samples.mean(0), error


def ratio_and_error(samples: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Ratio of means over images, of (n, M) to (n,), and its standard error to first order (delta method)."""
    mean = total.mean()
    ratio = samples.mean(0) / mean
    return ratio, mean_and_error((samples - ratio * total[:, None]) / mean)[1]


def table(found: list[Traced], moments: Moments, parents: list[int]) -> pd.DataFrame:
    """The tidy frame of a decomposition."""
    columns: dict[str, Any] = {
        "path": [t.call.path for t in found],
        "type": [t.call.type for t in found],
        "call": [t.call.call for t in found],
        "depth": [t.call.depth for t in found],
        "parent": [t.call.parent for t in found],
        "kind": [
            "merged" if p == -2 else "leaf" if t.leaf else "container" for t, p in zip(found, parents, strict=True)
        ],
    }
    numbers = {
        "norm2": mean_and_error(moments.norm2), "share": ratio_and_error(moments.dot, moments.total),
        "self_norm2": mean_and_error(moments.self_norm2), "self_share": ratio_and_error(moments.self_dot, moments.total),
    }  # fmt: skip
    for name, (value, error) in numbers.items():
        columns[name], columns[f"{name}_se"] = value.tolist(), error.tolist()
    if bool(moments.noise.any()):
        columns["probe_se"] = (moments.noise.mean(0) / len(moments.noise)).sqrt().tolist()
    running = torch.zeros(len(found), dtype=torch.float64)
    merged = torch.tensor([p == -2 for p in parents])
    order = torch.tensor(completion(columns["parent"]))
    running[order] = moments.self_norm2.mean(0).where(~merged, 0)[order].cumsum(0)
    columns["cumulative"] = running.tolist()
    frame = pd.DataFrame(columns)
    frame.loc[frame.kind == "merged", [c for c in frame.columns[6:] if c != "cumulative"]] = math.nan
    return frame
