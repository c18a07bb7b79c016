"""`lee measure`: the local equivariance error of a model, per generator."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lee.cli import subject as given
from lee.cli.output import FORMATS, bars, check_destination, only, print_json, table, write


def measure(
    model: given.Model,
    images: given.Images = "photos",
    n: given.Count = 8,
    size: given.Size = None,
    generator: Annotated[
        list[str] | None, typer.Option("--generator", "-g", help="Repeat for several (default: all)")
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
    precision: Annotated[
        str, typer.Option(help="own, bfloat16, tf32 or auto; less than own if that hardly changes the first images.")
    ] = "own",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option(help=f"Also write the rows: {', '.join(FORMATS)}.")] = None,
    quiet: given.Quiet = False,
) -> None:
    """Print the local equivariance error ± standard error of MODEL on images.

    All generators come from one pass. Rows written with --out carry versions, seed, device and digests.
    """
    check_destination("--out", out, FORMATS)
    from lee.geometry import generators
    from lee.measure.derivative import equivariance_gram

    names = [generators.get(name).name for name in generator or ()] or None
    method: dict[str, Any] = {"output": output, "kernel": kernel, "boundary": boundary, "align_corners": align_corners}
    running: dict[str, Any] = {"chunk": chunk, "precision": precision, "progress": bars(quiet)}
    with given.warnings_in_a_sentence(), only(as_json):
        subject = given.load_subject(
            model, images, n=n, size=size, weights=weights, pretrained=pretrained, device=device, seed=seed
        )
        with given.sentences(f"{model} can't be measured on {images}"):
            gram = equivariance_gram(subject.network, subject.inputs, generators=names, **method, **running)
    estimates = {name: gram.lee(name) for name in names or gram.motions}
    settings = {**subject.described, **method, "seed": seed, "device": device, "precision": precision}
    results = [given.row_of(*item) for item in estimates.items()]
    verification = given.verification_row(gram)
    try:
        if out is not None:
            write([{**settings, **row, **verification, **subject.origin} for row in results], out)
    finally:  # numbers that can't be printed are written, and those that can't be written are printed
        if as_json:
            print_json({**settings, "results": results, "verification": verification or None, **subject.origin})
        else:
            note = f"Lie derivative of the {output}, {kernel} kernel"
            lines = [(name, estimate.digits, estimate.unit) for name, estimate in estimates.items()]
            table(subject.title, ("generator", ">LEE ± standard error", "unit"), lines, given.notes(note, gram))
