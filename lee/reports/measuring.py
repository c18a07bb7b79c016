"""What a report measures: every part gives plain numbers for JSON, and is kept as soon as it is there."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lee import metrics
from lee.errors import InputError
from lee.geometry.generators import Generator, get
from lee.layers import layerwise
from lee.layers.families import families
from lee.measure import ORTHOGONAL, equivariance_gram, error_map, orbit, symmetry_spectrum
from lee.measure.function import untouched
from lee.measure.maps import NoErrorToShare
from lee.measure.shares import in_patches
from lee.paths import atomic_path
from lee.statistics import EquivarianceGram, Estimate, paired_ratio

#: Motions whose curves are drawn, with the largest amount: in pixels, in radians, in e-folds.
CURVES = {"translation_x": 2.0, "rotation": math.pi / 12, "scale": 0.15}
POINTS = 20  # of a curve on each side of 0
LARGE = 64  # pixels of the side, beyond which curves take the kernel `central`: Fourier's warps take seconds
SHOWN = 3  # classes of a curve: the likeliest at the start, and those that gain most
MAPPED = "rotation"
LAYERED = ("translation_x", "rotation")
PATCHES = 16  # per side of a map


@dataclass(frozen=True)
class Given:
    """What a report is about.

    Args:
        network: The model, in [0, 1] images, out class scores or anything else.
        inputs: Images (N, C, H, W).
        described: Names of the model, its weights and the images, and all settings.
        class_names: A name for each output; empty if nobody says.
        labels: The output that is right for each image, (N,); None where that isn't known.
        references: Other models by name, each with the same images at its own size.
        method: `output`, `kernel` and `boundary` of all measurements, as for :func:`lee.lie_derivative`.
        layered: How many images are decomposed over the layers.
        chunk: Images per pass; None for as many as suit.
    """

    network: nn.Module
    inputs: Tensor
    described: dict[str, Any]
    class_names: tuple[str, ...]
    labels: Tensor | None
    references: dict[str, tuple[nn.Module, Tensor]]
    method: dict[str, Any]
    layered: int = 4
    chunk: int | None = None

    @property
    def scores(self) -> bool:
        """Whether the output is one score for each class."""
        return outputs_of(self.network, self.inputs).ndim == 1

    @property
    def side(self) -> int:
        """Shorter side of the images in pixels."""
        return min(self.inputs.shape[-2:])


Part = Callable[[Given, dict[str, Any]], Any]


def measured(given: Given, folder: Path, *, progress: bool = True) -> dict[str, Any]:
    """All parts, as they are in the JSON file.

    Args:
        given: What is measured.
        folder: Where finished parts are kept; those of the same model, images, labels and settings are read and not measured again.
        progress: Show a bar with the part that is at work.

    Raises:
        InputError: The model can't be measured on the images.
        VerificationError: No way of differentiating agrees with the function's values.
    """
    labels = None if given.labels is None else given.labels.tolist()  # digests of images don't have them
    follows = [given.described, labels, given.class_names]
    key = hashlib.sha256(json.dumps(follows, sort_keys=True, default=str).encode()).hexdigest()
    found: dict[str, Any] = {"about": given.described}
    with tqdm(total=len(PARTS), unit="part", disable=not progress, leave=False) as bar:
        for name, part in PARTS.items():
            bar.set_description(name)
            path = folder / f"{name}.json"
            kept = _kept(path, key)
            if kept is None:
                content = json.dumps({"key": key, "content": _plain(part(given, found))}, allow_nan=False)
                with atomic_path(path) as temporary:
                    temporary.write_text(content, encoding="utf-8")
                kept = json.loads(content)["content"]
            found[name] = kept
            bar.update()
    return found


def _kept(path: Path, key: str) -> Any:
    """The part of an interrupted report with the same settings; None if there is none."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return stored["content"] if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(value: Any) -> Any:
    """For JSON: rounded to what can be read from it; what is not finite is null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _errors(given: Given, found: dict[str, Any]) -> dict[str, Any]:
    """The error of all motions, the same for each reference, and the directions that are respected most and least."""
    gram = equivariance_gram(given.network, given.inputs, chunk=given.chunk, progress=False, **given.method)
    classes = outputs_of(given.network, given.inputs).numel()
    rows = [_row(gram.lee(name), name, given.side, classes) for name in gram.motions]
    others = {}
    for name, (network, inputs) in given.references.items():
        other = equivariance_gram(network, inputs, chunk=given.chunk, progress=False, **given.method)
        outputs = outputs_of(network, inputs).numel()
        compared = [m for m in gram.motions if m in other.motions]
        others[name] = {
            "rows": [_row(other.lee(m), m, min(inputs.shape[-2:]), outputs) for m in compared],
            "verification": _checked(other),
            "ratios": {m: _ratio(classes * gram.lee_per_image(m), outputs * other.lee_per_image(m)) for m in compared},
            "classes": outputs,
            "side": min(inputs.shape[-2:]),
        }
    return {
        "rows": rows, "classes": classes, "verification": _checked(gram), "references": others,
        "per_image": {m: gram.lee_per_image(m) for m in gram.motions}, **_directions(gram),
    }  # fmt: skip


def outputs_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """The output for the first image. Its number of entries times the mean square is the square of its length."""
    with untouched(network), torch.no_grad():
        first: Tensor = network(inputs[:1].clone())[0]
        return first


def _row(estimate: Estimate, name: str, side: int, classes: int) -> dict[str, Any]:
    low, high = estimate.interval()
    length = math.sqrt(max(0.0, classes * estimate.value))  # of the whole output's derivative
    generator = get(name)
    # A unit moves the middle of a border by half a side, which is side / 2 pixels.
    spatial = isinstance(generator, Generator) and generator.is_spatial
    return {
        "motion": name, "lee": estimate.value, "stderr": estimate.stderr, "low": low, "high": high, "n": estimate.n,
        "unit": estimate.unit, "length": length, "per_pixel": length * 2 / side if spatial else None,
    }  # fmt: skip


def _checked(gram: EquivarianceGram) -> str:
    return "not verified" if gram.verification is None else str(gram.verification)


def _ratio(mine: Tensor, other: Tensor) -> list[float] | None:
    """Ratio of the mean squares with a 95 % interval and its p-value, over the same images."""
    if len(mine) < 2 or not bool(mine.any()) or not bool(other.any()):
        return None
    found = paired_ratio(mine.tolist(), other.tolist())
    return [found.value, found.low, found.high, found.p]


def _directions(gram: EquivarianceGram) -> dict[str, Any]:
    """The directions, and how the errors along the last and the first compare; none where the images are too few for them."""
    try:
        spectrum = symmetry_spectrum(gram)
    except InputError:
        return {"directions": [], "factor": None}
    shares, ends = spectrum.shares(), spectrum.held_out[:, [0, -1]]
    factor = spectrum.factor if len(ends) > 1 and bool(ends.any(0).all()) else None
    rows = [
        {
            "value": spectrum.eigenvalues[k], "low": spectrum.low[k], "high": spectrum.high[k], "spread": spectrum.spread[k],
            "shares": {g.name: shares[k, i] for i, g in enumerate(ORTHOGONAL)},
        }
        for k in range(len(spectrum.eigenvalues))
    ]  # fmt: skip
    return {"directions": rows, "factor": factor and [factor.value, factor.low, factor.high, factor.p]}


def _chosen(found: dict[str, Any]) -> dict[str, int]:
    """A typical image, the one with the median error of rotation, and the one with the largest."""
    errors = found["errors"]["per_image"][MAPPED]
    order = sorted(range(len(errors)), key=lambda i: errors[i])
    chosen = {"typical": order[(len(order) - 1) // 2], "worst": order[-1]}
    return chosen if len(order) > 1 else {"only": order[0]}


def _curves(given: Given, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Outputs along finite motions of the typical and the worst image, with their slope at 0."""
    curves = []
    method = given.method | ({"kernel": "central"} if given.side > LARGE else {})
    for kind, index in _chosen(found).items():
        for name, reach in CURVES.items():
            reach = reach * 2 / given.side if name == "translation_x" else reach
            t = torch.arange(-POINTS, POINTS + 1, dtype=torch.float64) / POINTS * reach
            path = orbit(given.network, given.inputs[index], name, t, chunk=given.chunk, **method)
            scores, slopes = path.outputs.flatten(1).double().cpu(), path.derivatives.flatten(1).double().cpu()
            gains = (scores - scores[path.start]).abs().amax(0)
            gains[int(scores[path.start].argmax())] = math.inf
            best = gains.topk(min(SHOWN, scores.shape[1])).indices.tolist()
            curves.append({
                "image": index, "kind": kind, "motion": name, "unit": get(name).unit, "kernel": method["kernel"], "t": t,
                "gap": path.gap,
                "classes": [_named(given, k) for k in best], "values": scores[:, best].T, "slopes": slopes[path.start, best],
                "flips": path.flips, "predicted_flips": path.predicted_flips,
            })  # fmt: skip
    return curves


def _named(given: Given, output: int) -> str:
    return given.class_names[output] if output < len(given.class_names) else f"output {output}"


def _layers(given: Given, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The decomposition over the layers, and its sums over families of layers."""
    parts = []
    for name in LAYERED:
        split = layerwise(
            given.network, given.inputs[: given.layered], name, chunk=given.chunk, progress=False, **given.method
        )
        frame = split.frame.assign(family=families(split.frame, given.network))
        told = frame[frame["kind"] != "merged"]
        shares = told.groupby("family", sort=False)["self_share"].sum().sort_values(ascending=False)
        parts.append({
            "motion": name, "n": split.n, "mode": split.mode, "residual": split.residual, "total": split.total.digits,
            "frame": frame.to_dict("list"), "families": {str(k): float(v) for k, v in shares.items()},
        })  # fmt: skip
    return parts


def _maps(given: Given, found: dict[str, Any]) -> dict[str, Any] | None:
    """Shares of patches in the error of rotation, of the typical and the worst image; None where neither has one."""
    chosen = _chosen(found)
    images = given.inputs[list(chosen.values())]
    try:
        share = error_map(given.network, images, MAPPED, chunk=given.chunk, **given.method).share.double()
    except NoErrorToShare:
        return None
    height, width = share.shape[1:]
    patch = next(p for p in range(max(1, given.side // PATCHES), 0, -1) if height % p == width % p == 0)
    return {"motion": MAPPED, "images": chosen, "patch": patch, "shares": in_patches(share, patch)}


def _discrete(given: Given, found: dict[str, Any]) -> dict[str, Any]:
    """The metrics of other papers, and the accuracy where labels are known."""
    output, options = given.method["output"], dict(given.method)
    width = 1.0
    if output != "probabilities":
        width = metrics.output_range(given.network, given.inputs, output=output)
    rows = {}
    for name, metric in (("EQ-T", metrics.eq_t), ("EQ-T-frac", metrics.eq_t_frac), ("EQ-R", metrics.eq_r)):
        ratio = metrics.psnr(metric(given.network, given.inputs, draws=8, **options), width)
        rows[name] = {"value": ratio.value, "stderr": ratio.stderr, "unit": "dB"}
    if given.scores and found["errors"]["classes"] > 1:
        reach = max(1, given.side // 28)  # 8 pixels of 224
        kept = metrics.consistency(given.network, given.inputs, boundary="reflect", max_shift=reach)
        rows["consistency"] = {"value": kept.value, "stderr": kept.stderr, "unit": "", "shift": reach}
    return {"rows": rows, "accuracy": _accuracy(given)}


def _accuracy(given: Given) -> dict[str, Any] | None:
    if given.labels is None or not given.scores:
        return None
    with untouched(given.network), torch.no_grad():
        scores = torch.cat([given.network(x.clone()).cpu() for x in given.inputs.split(given.chunk or 16)])
    right = (scores.argmax(1) == given.labels).double()
    estimate = Estimate.of(right)
    return {"value": estimate.value, "stderr": estimate.stderr, "n": estimate.n}


#: What a report consists of, in order; a later part may read what earlier ones have found.
PARTS: dict[str, Part] = {
    "errors": _errors, "curves": _curves, "layers": _layers, "maps": _maps, "discrete": _discrete,
}  # fmt: skip
