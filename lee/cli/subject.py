"""What the commands that measure have in common: their options, and the model and the images that these name."""

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lee.cli.advice import in_options
from lee.cli.output import printable
from lee.errors import MOST, InputError, LeeError, LeeWarning, reason

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lee.datasets import ImageSet
    from lee.statistics import Estimate

Model = Annotated[str, typer.Argument(help="A name of `lee models list`, a timm name, or package.module:factory.")]
Images = Annotated[str, typer.Option(help="Data set (`lee data list`), or imagefolder:PATH.")]
Count = Annotated[int, typer.Option("--n", min=1, help="How many images.")]
Size = Annotated[int | None, typer.Option(min=1, max=8192, help="Side in pixels (default: the model's)")]
OutputName = Annotated[str, typer.Option(help="Differentiate probabilities or logits.")]
Kernel = Annotated[str, typer.Option(help="Pixels to image: fourier or central; authors with --align-corners.")]
Boundary = Annotated[str, typer.Option(help="Beyond the border: reflect or circular.")]
AlignCorners = Annotated[bool, typer.Option("--align-corners", help="The outer samples lie on the border.")]
Weights = Annotated[Path | None, typer.Option(help="Weights to load: .safetensors, or a state dict as .pth.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Use timm's trained weights.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")]
Chunk = Annotated[int | None, typer.Option(min=1, max=MOST, help="Images at once (default: automatic)")]
Seed = Annotated[int, typer.Option(min=0, max=MOST, help="Chooses the images, and weights where none are given.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@dataclass(frozen=True)
class Subject:
    """A model and images that it has been tried on."""

    network: "nn.Module"
    inputs: "Tensor"  # the images, on the model's device
    chosen: "ImageSet"  # the images as they were loaded, with labels and names of classes if there are any
    described: dict[str, str]  # name of the model, where its weights come from, and name of the images
    origin: dict[str, Any]  # digests of data and weights, commit and versions: where the numbers come from

    @property
    def title(self) -> str:
        """A heading for what is printed."""
        model, weights, images = (self.described[key] for key in ("model", "weights", "images"))
        return f"{model} ({weights} weights) on {len(self.inputs)} images of {images}"


def load_subject(
    model: str, images: str, *, n: int, size: int | None, weights: Path | None, pretrained: bool, device: str, seed: int
) -> Subject:
    """Load the model and the images that a command's options name."""
    from lee import datasets, models, provenance
    from lee.process.alone import check_device

    check_device(device)
    datasets.check(images)  # before weights are downloaded, which takes long
    network = models.load(model, pretrained=pretrained, weights=weights, device=device, seed=seed)
    chosen = datasets.load(images, n=n, size=size or models.input_size(network), seed=seed)
    inputs = chosen.images.to(device)
    tried(network, inputs, f"{model} can't be run on {images}")
    names = {"model": model, "weights": _kind(model, weights, pretrained), "images": chosen.name}
    described = {key: printable(name) for key, name in names.items()}
    digests = {"data_sha256": chosen.sha256, "weights_sha256": provenance.weights_sha256(network)}
    origin = {"data_source": chosen.source, **digests, "commit": provenance.commit(), **provenance.versions()}
    return Subject(network, inputs, chosen, described, origin)


def _kind(model: str, weights: Path | None, pretrained: bool) -> str:
    """Where the weights come from, in a word or two."""
    from lee.models.recipes import has_weights

    if weights is not None:
        return str(weights)
    if has_weights(model):
        return model.partition("/")[0]
    if ":" in model:
        return "the factory's"
    return "pretrained" if pretrained else "untrained"


def tried(network: "nn.Module", inputs: "Tensor", failure: str) -> None:
    """Run a model once as it is, so that images that don't suit it are told from a failing measurement."""
    import torch

    from lee.measure.function import untouched

    shape = " × ".join(map(str, inputs.shape[1:]))
    with sentences(f"{failure} ({shape})"), untouched(network), torch.no_grad():
        network(inputs[:1].clone())  # a model may write into its input


@contextmanager
def sentences(failure: str) -> Iterator[None]:
    """Say of whatever a user's own model raises, or ends the program with, that it does."""
    try:
        yield
    except LeeError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{failure}: {reason(error)}.") from error


@contextmanager
def warnings_in_a_sentence() -> Iterator[None]:
    """Print each warning once and at once, without the line of source that it came from.

    Not those about torch's own deprecated parts: whoever runs a command can't act on them.
    """
    from tqdm import tqdm

    told: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if (text := str(message)) not in told:
            told.add(text)
            with tqdm.external_write_mode(file=sys.stderr):  # not in the middle of a bar
                typer.echo(f"Warning: {in_options(text)}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("always", LeeWarning)
        warnings.showwarning = show
        yield


def verification_row(found: Any) -> dict[str, Any]:
    """What was checked of a Gram matrix or a decomposition, as columns; none where nothing was."""
    return {} if found.verification is None else dict(found.verification.row())


def notes(text: str, found: Any) -> str:
    """A table's note, with what was checked on a line of its own."""
    return text if found.verification is None else f"{text}\n{found.verification}"


def row_of(name: str, estimate: "Estimate") -> dict[str, Any]:
    """An estimate as a row; of one image there is no standard error."""
    stderr = None if math.isnan(estimate.stderr) else estimate.stderr
    return {"generator": name, "lee": estimate.value, "stderr": stderr, "n": estimate.n, "unit": estimate.unit}
