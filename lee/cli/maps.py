"""`lee map`: which pixels of a picture hold a model's equivariance error."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from lee.cli import subject as given
from lee.cli.output import bars, check_destination, only, print_json, table, written
from lee.errors import check_installed

#: Side of the patches in pixels, if they fill the image.
PATCH = 8


def error_map(
    model: given.Model,
    images: given.Images = "photos",
    n: given.Count = 4,
    size: given.Size = None,
    generator: Annotated[str, typer.Option("--generator", "-g", help="Along which generator.")] = "rotation",
    patch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=8192,
            help=f"Side of the patches to sum over, in pixels (default: {PATCH}, or less to fill the image)",
        ),
    ] = None,
    output: given.OutputName = "probabilities",
    kernel: given.Kernel = "fourier",
    boundary: given.Boundary = "reflect",
    align_corners: given.AlignCorners = False,
    weights: given.Weights = None,
    pretrained: given.Pretrained = False,
    device: given.Device = "cpu",
    chunk: given.Chunk = None,
    seed: given.Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, shares of all patches included.")] = False,
    out: Annotated[Path | None, typer.Option(help="Draw photographs and maps: .png")] = None,
    quiet: given.Quiet = False,
) -> None:
    """Share out the equivariance error of MODEL among the pixels of images.

    The shares of an image sum to 1; those of patches whose motion cancels
    what others do are negative. The columns compare the inner half of the
    height and width, a quarter of the area, with the whole.
    """
    check_destination("--out", out, (".png",))
    if out is not None:
        check_installed("--out", "book", "altair")
    from lee.measure.maps import error_map as measured
    from lee.measure.shares import in_patches

    method: dict[str, Any] = {"output": output, "kernel": kernel, "boundary": boundary, "align_corners": align_corners}
    running: dict[str, Any] = {"chunk": chunk, "progress": bars(quiet)}
    with given.warnings_in_a_sentence(), only(as_json):
        subject = given.load_subject(
            model, images, n=n, size=size, weights=weights, pretrained=pretrained, device=device, seed=seed
        )
        patch = patch or max(side for side in range(1, PATCH + 1) if math.gcd(*subject.inputs.shape[-2:]) % side == 0)
        in_patches(subject.inputs[:1, 0], patch)  # refused before anything is measured
        with given.sentences(f"{model} can't be measured on {images}"):
            found = measured(subject.network, subject.inputs, generator, **method, **running)
    share, moved = found.share.cpu(), found.moved_share
    height, width = share.shape[1:]
    centre = share[:, height // 4 : height - height // 4, width // 4 : width - width // 4].sum((1, 2))
    patches, errors = found.patches(patch).cpu(), found.gram.per_image[:, 0, 0]
    try:
        if out is not None:
            from lee.charts import map_sheet

            title = f"{subject.described['model']}, {found.gram.basis[0].replace('_', ' ')}"
            with written(out) as path:
                map_sheet(subject.inputs.cpu(), share, patch=patch, title=title).save(path, "PNG")
    finally:  # numbers that can't be printed are drawn, and those that can't be drawn are printed
        if as_json:
            rows = [
                {"image": i, "lee": float(e), "centre": _number(c), "output_motion": _number(m), "shares": _numbers(p)}
                for i, (e, c, m, p) in enumerate(zip(errors, centre, moved, patches, strict=True))
            ]
            settings = {**subject.described, "generator": found.gram.basis[0], **method, "patch": patch, "seed": seed}
            checked = {"residual": found.residual, "verification": given.verification_row(found.gram) or None}
            total = given.row_of(found.gram.basis[0], found.total)
            settings |= {"device": device, "total": total, **checked, "images_measured": rows}
            print_json({**settings, **subject.origin})
        else:
            lines = [
                (str(i), f"{e:.3g}", f"{c:.0%}", f"{p.max():.1%}", f"{p.min():.1%}")
                for i, (e, c, p) in enumerate(zip(errors, centre, patches, strict=True))
            ]
            note = f"{found.total}; the pixels sum to it to {found.residual:.1g}"
            heads = ("image", ">error", ">share of the inner half", ">largest patch", ">smallest patch")
            table(f"{subject.title}, {found.gram.basis[0]}", heads, lines, given.notes(note, found.gram))


def _number(value: Any) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if float(value) == float(value) else None


def _numbers(rows: Any) -> list[list[float | None]]:
    return [[_number(v) for v in row] for row in rows.tolist()]
