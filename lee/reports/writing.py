"""A report as one HTML file that asks for no other, made from its JSON and the images."""

import math
from collections.abc import Iterator
from html import escape
from typing import Any

import altair
import numpy as np
import pandas as pd
from torch import Tensor

from lee import charts
from lee.reports.sentences import MOTIONS, meaning, shown

Content = str | altair.TopLevelMixin | charts.Picture
TINY = 0.001  # share of a kind of layers that is not drawn
COARSE = 0.1  # share of the largest change, beyond which an integral says nothing
LARGEST = 224  # pixels of the side of a picture
AXES = {
    "translation_x": (None, "shift in pixels"),
    "rotation": (180 / math.pi, "angle in degrees"),
    "scale": (-100, "enlargement in per cent, about"),  # a positive amount shrinks the image
}


def written(found: dict[str, Any], inputs: Tensor, commands: list[str]) -> str:
    """The page.

    Args:
        found: What :func:`lee.reports.measured` returns.
        inputs: The images that were measured, (N, C, H, W) in [0, 1].
        commands: What reproduces the numbers, a line each.

    Raises:
        InputError: If `vl-convert-python` is not installed.
    """
    about = found["about"]
    parts = [*_opening(found), *_errors(found), *_curves(found, inputs), *_directions(found), *_layers(found)]
    parts += [*_maps(found, inputs), *_discrete(found), *_origin(found, commands)]
    return charts.page(*parts, title=f"How equivariant is {about['model']}?")


def _opening(found: dict[str, Any]) -> Iterator[Content]:
    about = found["about"]
    yield (
        f"<p>{escape(about['model'])} ({escape(about['weights'])} weights), measured on {about['n']} images of "
        f"{escape(about['images'])} at {about['size']} pixels. The <b>Lie derivative</b> is the rate at which the output changes "
        "when the image begins to move; the <b>local equivariance error</b> (LEE) is its mean square, and it is zero for a "
        "model whose output doesn't depend on the motion.</p>"
    )
    yield "<h2>What this means</h2>" + _listed(meaning(found))


def _listed(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _errors(found: dict[str, Any]) -> Iterator[Content]:
    errors = found["errors"]
    yield "<h2>Errors of all motions</h2>"
    rows = [
        {
            "motion": row["motion"].replace("_", " "), "LEE": shown(row["lee"], 3), "95 % interval": _span(row, shown),
            "unit": row["unit"], "change per pixel": "–" if row["per_pixel"] is None else shown(row["per_pixel"]),
        }
        for row in errors["rows"]
    ]  # fmt: skip
    yield charts.tabled(pd.DataFrame(rows))
    yield (
        '<p class="note">LEE is per output, and per squared unit of the motion: half a side of the image, a radian, or a factor '
        "of e. The last column is the length of the change of the whole output (root mean square over the images) when the "
        "middle of the image's border moves by one pixel.</p>"
    )
    if not errors["references"]:
        return
    models = {found["about"]["model"]: (errors["rows"], errors["classes"])}
    models |= {name: (other["rows"], other["classes"]) for name, other in errors["references"].items()}
    frame = pd.DataFrame(
        {
            "motion": row["motion"].replace("_", " "), "model": name, "square": classes * row["lee"],
            "low": max(0.0, classes * (row["low"] or 0)), "high": classes * (row["high"] or row["lee"]),
        }
        for name, (rows, classes) in models.items()
        for row in rows
        if row["motion"] in MOTIONS and row["lee"]
    )  # fmt: skip
    yield charts.intervals(
        frame, "square", "low", "high", "motion", by="model", reference=None,
        title="mean squared length of the derivative of the output",
        caption="The same images, each model at its own resolution: dots and 95 % intervals. Less is more equivariant. The "
        "square is summed over all outputs, so that models with different numbers of classes can be compared.",
        alt=f"Dots with intervals for {', '.join(models)}, a row for each motion.",
    )  # fmt: skip


def _span(row: dict[str, Any], number: Any) -> str:
    """An interval of numbers that can't be negative."""
    return "–" if None in (row["low"], row["high"]) else f"{number(max(0.0, row['low']))} to {number(row['high'])}"


def _curves(found: dict[str, Any], inputs: Tensor) -> Iterator[Content]:
    yield "<h2>Along finite motions</h2>"
    chosen = {curve["kind"]: curve["image"] for curve in found["curves"]}
    yield charts.pictures(
        _small(inputs[list(chosen.values())]), titles=[f"{kind}: image {i}" for kind, i in chosen.items()], width=200,
        caption="The image with the median error of rotation, and the one with the largest.",
        alt="Two of the measured images.",
    )  # fmt: skip
    size = found["about"]["size"]
    for curve in found["curves"]:
        factor, title = AXES[curve["motion"]]
        factor = size / 2 if factor is None else factor
        frame = pd.DataFrame(
            {"t": t * factor, "value": value, "slope": slope / factor, "class": name}
            for name, values, slope in zip(curve["classes"], curve["values"], curve["slopes"], strict=True)
            for t, value in zip(curve["t"], values, strict=True)
        )
        motion = MOTIONS[curve["motion"]]
        steepest, range_of = frame["slope"].abs().max(), frame["value"].max() - frame["value"].min()
        whole = steepest * (frame["t"].max() - frame["t"].min())  # how far a tangent of full width rises
        yield charts.tangents(
            frame, "t", "value", "slope", by="class", x_title=title, y_title=found["about"]["output"], height=220,
            reach=min(0.5, 0.6 * range_of / whole) if whole else 0.5,
            caption=f"The {curve['kind']} image under {motion}: its likeliest class and those that change most, with the Lie "
            f"derivative as their tangent at 0 (kernel {curve['kernel']}). {_integrated(curve['gap'])}",
            alt=f"Curves of {len(curve['classes'])} outputs over the amount of {motion}, with dashed tangents at 0.",
        )  # fmt: skip


def _integrated(gap: float) -> str:
    if gap > COARSE:
        return "The derivative changes so fast that the steps of these curves are too wide to integrate it."
    return f"Integrated along the curves, the derivative gives their change to {shown(100 * gap, 1)} % of the largest."


def _directions(found: dict[str, Any]) -> Iterator[Content]:
    directions = found["errors"]["directions"]
    if not directions:
        return
    yield "<h2>Most and least respected directions</h2>"
    rows = []
    for place, direction in enumerate(directions, 1):
        named = sorted(direction["shares"].items(), key=lambda item: -item[1])[:2]
        rows.append({
            "direction": place, "error": shown(direction["value"], 3), "95 % interval": _span(direction, shown),
            "angle in which 95 % of resamples lie": f"{direction['spread']:.0f}°",
            "mostly": ", ".join(f"{100 * share:.0f} % {MOTIONS[name]}" for name, share in named),
        })  # fmt: skip
    yield charts.tabled(pd.DataFrame(rows))
    yield (
        '<p class="note">All mixtures of affine motions, each made so large that it moves the pixels by the same mean squared '
        "distance: half a side of the image, squared. The first is the motion that the model respects most. As these images also "
        "choose the motions, errors of few images are too small in the first rows and too large in the last.</p>"
    )


def _layers(found: dict[str, Any]) -> Iterator[Content]:
    yield "<h2>Which layers</h2>"
    for part in found["layers"]:
        motion = MOTIONS[part["motion"]]
        rows = pd.DataFrame(
            {"family": name, "share": share} for name, share in part["families"].items() if abs(share or 0) > TINY
        )
        if rows.empty:
            yield f"<p>Along {motion} no layer contributes anything.</p>"
            continue
        yield charts.bars(
            rows, "share", "family", title="signed share of the error",
            caption=f"Along {motion}, {part['n']} images: what each kind of layer contributes. The shares sum to 1 exactly "
            f"(residual {shown(part['residual'])}); a negative one cancels what others do.",
            alt=f"Bars, one for each of {len(rows)} kinds of layers.",
        )  # fmt: skip
        frame = pd.DataFrame(part["frame"])
        yield charts.icicle(
            frame,
            caption=f"Along {motion}, every call: a rectangle's width is its share of the sum of all layers' own squares. "
            "Click on one to enlarge it, double-click to go back.",
            alt="The module tree as rectangles.",
        )  # fmt: skip
        columns = ["path", "type", "share", "self_share", "norm2", "norm2_se"]
        yield charts.tabled(frame[columns], folded="All calls in numbers")


def _maps(found: dict[str, Any], inputs: Tensor) -> Iterator[Content]:
    maps = found["maps"]
    yield "<h2>Where in the picture</h2>"
    if maps is None:
        yield "<p>The Lie derivative along the rotation is zero for these images: no place of them holds an error.</p>"
        return
    patch, shares = maps["patch"], np.array(maps["shares"], dtype=float)
    images = inputs[list(maps["images"].values())]
    pixels = np.kron(shares, np.ones((1, patch, patch))) / patch**2
    yield charts.maps(
        images, pixels, patch=patch, titles=[f"{kind}: image {i}" for kind, i in maps["images"].items()], width=260,
        caption=f"Which patches of {patch} × {patch} pixels hold the error of {MOTIONS[maps['motion']]}. The shares of "
        "an image sum to 1; a negative one (blue) is that of a patch whose motion cancels what others do.",
        alt="The two images in grey with coloured patches over them.",
    )  # fmt: skip


def _discrete(found: dict[str, Any]) -> Iterator[Content]:
    words = {
        "EQ-T": "PSNR after shifts by whole pixels, up to an eighth of the side",
        "EQ-T-frac": "PSNR after shifts by any amount, up to an eighth of the side",
        "EQ-R": "PSNR after rotations by any angle",
        "consistency": "share of pairs of shifts that agree on the top class",
    }
    rows = [
        {
            "measure": name, "value": shown(row["value"], 3),
            "± standard error": "–" if row["stderr"] is None else shown(row["stderr"]),
            "unit": row["unit"], "what it is": words[name],
        }
        for name, row in found["discrete"]["rows"].items() if row["value"] is not None
    ]  # fmt: skip
    yield "<h2>The discrete measures of other papers</h2>"
    yield charts.tabled(pd.DataFrame(rows))


def _origin(found: dict[str, Any], commands: list[str]) -> Iterator[Content]:
    yield "<h2>How to make these numbers again</h2>"
    yield f"<pre>{escape(chr(10).join(commands))}</pre>"
    errors = found["errors"]
    checks = {found["about"]["model"]: errors["verification"]}
    checks |= {name: other["verification"] for name, other in errors["references"].items()}
    yield charts.listed(found["about"]) + "<h3>Checks</h3>" + charts.listed(checks)


def _small(images: Tensor) -> Tensor:
    """Photographs of at most :data:`LARGEST` pixels, so that the file stays small."""
    from torch.nn.functional import interpolate

    side = max(images.shape[-2:])
    return images if side <= LARGEST else interpolate(images, scale_factor=LARGEST / side, mode="area")
