"""`lee report`: everything about one model in one offline page, with the numbers beside it."""

import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lee.cli import subject as given
from lee.cli.output import bars, check_apart, check_destination, printable, written
from lee.errors import InputError, check_installed

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Networks that a model is compared with: at 64 pixels or more those of ImageNet, below that those of CIFAR-10.
BORDER = 64
LARGE, SMALL = ("imagenet/efficientnet-lite0", "imagenet/efficientnet-lite2"), ("zoo/resnet-s", "zoo/vit-s")
NONE = "none"


def report(
    model: given.Model,
    images: given.Images = "photos",
    n: given.Count = 8,
    size: given.Size = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="Compare with this model; repeat for several, `none` for no one.")
    ] = None,
    layered: Annotated[int, typer.Option(min=2, help="Images that are decomposed over the layers.")] = 4,
    output: given.OutputName = "probabilities",
    kernel: given.Kernel = "fourier",
    boundary: given.Boundary = "reflect",
    weights: given.Weights = None,
    pretrained: given.Pretrained = False,
    device: given.Device = "cpu",
    chunk: given.Chunk = None,
    seed: given.Seed = 0,
    out: Annotated[Path, typer.Option(help="The page, .html; the numbers lie beside it as .json.")] = Path(
        "report.html"
    ),
    quiet: given.Quiet = False,
) -> None:
    """Measure everything about MODEL and write it as one offline page.

    Errors of all motions beside reference networks, curves along finite
    motions, directions, layers, maps, discrete measures, and what they mean.
    Started again after an interruption, it goes on with the missing parts.
    """
    check_destination("--out", out, (".html",))
    check_destination("--out", out.with_suffix(".json"))
    check_apart({"--out": out, "the numbers beside it": out.with_suffix(".json")})
    check_installed("A report", "book", "altair", "vl_convert")
    from lee import provenance, reports

    shown = bars(quiet)
    with given.warnings_in_a_sentence():
        subject = given.load_subject(
            model, images, n=n, size=size, weights=weights, pretrained=pretrained, device=device, seed=seed
        )
        method = {"output": output, "kernel": kernel, "boundary": boundary}
        known, labels = _classes(model, subject)
        others = _references(model, subject, reference, images, seed, pretrained)
        described = {
            **subject.described, "n": len(subject.inputs), "size": min(subject.inputs.shape[-2:]), **method, "seed": seed,
            "device": device, "images decomposed over layers": min(layered, n), "references": ", ".join(others) or NONE,
            **subject.origin,
        }  # fmt: skip
        # Parts of an interrupted report are those of these sources and weights.
        for name, network in {model: subject.network, **{name: other[0] for name, other in others.items()}}.items():
            told = "" if network is subject.network else f" of {name}"
            if told:
                described[f"weights_sha256{told}"] = provenance.weights_sha256(network)
            if ":" in name:
                described[f"source_sha256{told}"] = provenance.factory_sha256(network, name)
        about = reports.Given(subject.network, subject.inputs, described, known, labels, others, method, layered, chunk)
        folder = out.with_name(f"{out.name}.parts")
        with given.sentences(f"{model} can't be measured on {images}"):
            found = reports.measured(about, folder, progress=shown)
    chosen = ["--pretrained"] * pretrained + (["--weights", str(weights)] if weights else [])
    chosen += ["--size", str(size)] * (size is not None) + ["--device", device] * (device != "cpu")
    chosen += ["--chunk", str(chunk)] * (chunk is not None)
    also = ["--layered", str(layered), *(part for name in reference or () for part in ("--reference", name))]
    commands = _commands(model, images, chosen, method, seed, len(subject.inputs), also)
    text = reports.written(found, subject.inputs.cpu(), commands)
    with written(out.with_suffix(".json")) as path:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    with written(out) as path:
        path.write_text(text, encoding="utf-8")
    for name in reports.PARTS:
        (folder / f"{name}.json").unlink(missing_ok=True)
    with suppress(OSError):  # a killed run may have left more
        folder.rmdir()
    for sentence in reports.meaning(found):
        typer.echo(f"- {sentence}")
    typer.echo(
        f"The report is ready: {out} ({out.stat().st_size / 1e6:.1f} MB), its numbers: {out.with_suffix('.json')}"
    )


def _classes(name: str, subject: given.Subject) -> tuple[tuple[str, ...], "Tensor | None"]:
    """A name for each output, and the output that is right for each image, as far as they are known."""
    from lee.models import classes
    from lee.reports.measuring import outputs_of

    names = classes.of_model(name, getattr(subject.network, "net", subject.network))
    outputs = outputs_of(subject.network, subject.inputs).numel()
    return classes.described(names), classes.right_outputs(subject.chosen, names, outputs)


def _references(
    name: str, subject: given.Subject, wanted: list[str] | None, images: str, seed: int, pretrained: bool
) -> "dict[str, tuple[nn.Module, Tensor]]":
    """The models to compare with, each with the same images at its own size; of the usual ones those that can't are left out."""
    from lee import datasets, models
    from lee.models.recipes import has_weights

    if wanted and NONE in wanted:
        if {*wanted} != {NONE}:
            raise InputError(
                f"`--reference {NONE}` compares with no model, so it stands alone. Leave it out to name some."
            )
        return {}
    usual = LARGE if min(subject.inputs.shape[-2:]) >= BORDER else SMALL
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    for other in dict.fromkeys(wanted or usual):
        if other == name and wanted is None:
            continue
        try:
            foreign = ":" not in other and not has_weights(other)
            network = models.load(other, pretrained=pretrained and foreign, device=str(subject.inputs.device))
            size = models.input_size(network)
            inputs = datasets.load(images, n=len(subject.inputs), size=size, seed=seed).images.to(subject.inputs)
            given.tried(network, inputs, f"{other} can't be run on {images}")
        except InputError:
            if wanted is not None:
                raise
            continue
        found[f"{other} (untrained)" if foreign and not pretrained else other] = network, inputs
    return found


def _commands(
    model: str, images: str, weights: list[str], method: dict[str, Any], seed: int, n: int, also: list[str]
) -> list[str]:
    """What reproduces all numbers, and what the errors and the maps alone."""
    named = [model, "--images", images, "--n", str(n), "--seed", str(seed), *weights]
    named += [part for key, value in method.items() for part in (f"--{key}", value)]
    shared = printable(shlex.join(named))
    return [f"lee report {shared} {shlex.join(also)}", f"lee measure {shared}", f"lee map {shared} -g rotation"]
