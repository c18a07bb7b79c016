"""`lee measure`: the local equivariance error of a model, per generator."""

import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lee.cli.output import FORMATS, check_destination, print_json, table, write
from lee.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lee.generators import Generator
    from lee.statistics import EquivarianceGram, Estimate


def measure(
    model: Annotated[str, typer.Argument(help="zoo/NAME, a timm name, or package.module:factory.")],
    images: Annotated[str, typer.Option(help="Data set (`lee data list`), or imagefolder:PATH.")] = "photos",
    n: Annotated[int, typer.Option("--n", min=1, help="How many images.")] = 8,
    size: Annotated[int | None, typer.Option(min=1, help="Side in pixels (default: the model's)")] = None,
    generator: Annotated[
        list[str] | None, typer.Option("--generator", "-g", help="Repeat for several (default: all)")
    ] = None,
    output: Annotated[str, typer.Option(help="Differentiate probabilities or logits.")] = "probabilities",
    kernel: Annotated[str, typer.Option(help="Pixels to image: fourier or central.")] = "fourier",
    boundary: Annotated[str, typer.Option(help="Beyond the border: reflect or circular.")] = "reflect",
    align_corners: Annotated[
        bool, typer.Option("--align-corners", help="The outer samples lie on the border.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="Weights to load (safetensors).")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Use timm's trained weights.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    chunk: Annotated[int | None, typer.Option(min=1, help="Images at once (default: automatic)")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the images, and weights where none are given.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option(help=f"Also write the rows: {', '.join(FORMATS)}.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Print the local equivariance error ± standard error of MODEL on images.

    All generators come from one pass. Rows written with --out carry versions, seed, device and digests.
    """
    check_destination(out)
    from lee import datasets, generators, models, provenance
    from lee.derivative import equivariance_gram

    names = [generators.get(name).name for name in generator or ()] or None
    network = models.load(model, pretrained=pretrained, weights=weights, device=device, seed=seed)
    chosen = datasets.load(images, n=n, size=size or models.input_size(network), seed=seed)
    method: dict[str, Any] = {
        "output": output,
        "kernel": kernel,
        "boundary": boundary,
        "align_corners": align_corners,
    }
    running: dict[str, Any] = {"chunk": chunk, "progress": not quiet and sys.stderr.isatty()}
    inputs = chosen.images.to(device)
    _try(network, inputs, f"{model} can't be run on {images}")
    with _warnings_in_a_sentence():
        gram = equivariance_gram(network, inputs, generators=names, **method, **running)
    estimates = {name: gram.lee(name) for name in names or _measurable(gram, generators.NAMED)}
    subject = {"model": model, "weights": _kind(model, weights, pretrained), "images": chosen.name}
    settings = {**subject, **method, "seed": seed, "device": device}
    digests = {"data_sha256": chosen.sha256, "weights_sha256": provenance.weights_sha256(network)}
    origin = {**digests, "commit": provenance.commit(), **provenance.versions()}
    if out is not None:
        write([{**settings, **_row(*item), **origin} for item in estimates.items()], out)
    if as_json:
        results = [_row(*item) for item in estimates.items()]
        print_json({**settings, "results": results, **origin})
    else:
        _print(settings, estimates)


def _kind(model: str, weights: Path | None, pretrained: bool) -> str:
    """Where the weights come from, in a word or two."""
    if weights is not None:
        return str(weights)
    if model.startswith("zoo/"):
        return "zoo"
    if ":" in model:
        return "the factory's"
    return "pretrained" if pretrained else "untrained"


def _try(network: "nn.Module", inputs: "Tensor", failure: str) -> None:
    """Run a model once as it is, so that images that don't suit it are told from a failing measurement."""
    import torch

    try:
        with torch.no_grad():
            network(inputs[:1])
    except Exception as error:  # whatever a user's own model may raise
        shape = " × ".join(map(str, inputs.shape[1:]))
        said = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
        raise InputError(f"{failure} ({shape}): {reason}") from error


@contextmanager
def _warnings_in_a_sentence() -> Iterator[None]:
    """Print each warning once, without the line of source that it came from.

    Not those about torch's own deprecated parts: whoever runs a command can't act on them.
    """
    from lee.derivative import ConstantOutputWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("default", ConstantOutputWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        typer.echo(f"Warning: {message}", err=True)


def _row(name: str, estimate: "Estimate") -> dict[str, Any]:
    stderr = None if math.isnan(estimate.stderr) else estimate.stderr  # of one image there is none
    measured = {"lee": estimate.value, "stderr": stderr, "n": estimate.n, "unit": estimate.unit}
    return {"generator": name, **measured}


def _measurable(gram: "EquivarianceGram", named: Mapping[str, "Generator"]) -> list[str]:
    """The named generators that the measured ones span (grey images have no saturation)."""
    return [name for name, g in named.items() if g.is_spatial or name in gram.basis]


def _print(settings: Mapping[str, Any], estimates: dict[str, "Estimate"]) -> None:
    rows = [(name, _number(estimate), estimate.unit) for name, estimate in estimates.items()]
    count = next(iter(estimates.values())).n
    weights = settings["weights"]
    title = f"{settings['model']} ({weights} weights) on {count} images of {settings['images']}"
    note = f"Lie derivative of the {settings['output']}, {settings['kernel']} kernel"
    table(title, ("generator", ">LEE ± standard error", "unit"), rows, note)


def _number(estimate: "Estimate") -> str:
    """Value ± error, without what the table's other columns and its title say."""
    return str(estimate._replace(name="", unit="", kernel="")).partition(" (n =")[0]
