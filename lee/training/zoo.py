"""Making a trained network: train it by its recipe, store its weights in half precision, and write its card."""

import platform
import shlex
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import lee
from lee import datasets, provenance
from lee.datasets import ImageSet
from lee.errors import InputError, LeeWarning
from lee.models import Normalized, build, load_weights
from lee.models.cards import write_card
from lee.models.reading import write_state
from lee.models.recipes import ZooSpec, load_spec
from lee.paths import check_writable, file_sha256
from lee.training import EpochRecord, TrainResult, evaluate, train

#: The accuracy, as a fraction, that half precision may cost; beyond it the weights stay in float32.
HALF_PRECISION_COST = 0.002


def train_zoo(
    name: str,
    *,
    recipes: Path | None = None,
    out: Path | None = None,
    budget: str | None = None,
    snapshots: bool = False,
    device: str = "cpu",
    progress: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> dict[str, Any]:
    """Train a model by its recipe and write `NAME.safetensors` and the card `NAME.md`.

    A training that was interrupted goes on from its last epoch when it is started again: until it ends
    it keeps `NAME.checkpoint.pt` in the same folder. A processor without instructions for bfloat16 trains in float32, which
    is said and is on the card.

    Args:
        name: such as `zoo/vit-s`, or a network of the recipe file.
        recipes: a file like `data/zoo/zoo.yaml`; by default that of the name's prefix.
        out: folder to write to; by default that of :func:`destination`.
        budget: a name under the recipe file's `budgets:`.
        snapshots: keep the weights of epochs 1, 2, 3, 5, 8, ... and the last in `NAME.snapshots/EPOCH.safetensors`.
        device: where to compute.
        progress: show a bar per epoch.
        on_epoch: called after each epoch, once its checkpoint is safe.

    Returns:
        The front matter of the card.

    Raises:
        InputError: an unknown name or field, missing data, a folder that can't be written to, or a checkpoint of another
            recipe, other data or another network.
    """
    spec = _at_full_speed(load_spec(name, recipes, budget=budget), device)
    folder = destination(spec) if out is None else Path(out)
    train_set = datasets.load(spec.recipe.dataset, split="train")
    test_set = datasets.load(spec.recipe.dataset, split="test")
    checkpoint = folder / f"{spec.stem}.checkpoint.pt"
    check_writable("The checkpoint", checkpoint)
    kept = replace(spec, folder=folder).snapshot(1).parent if snapshots else None
    how: dict[str, Any] = {"device": device, "progress": progress, "on_epoch": on_epoch}
    result = train(spec, train_set, test_set, checkpoint=checkpoint, snapshots=kept, **how)
    command = train_command(spec.name, recipes=recipes, out=out, budget=budget)
    card = publish(spec, result, test_set, folder, device=device, command=command)
    checkpoint.unlink(missing_ok=True)
    return card


def _at_full_speed(spec: ZooSpec, device: str) -> ZooSpec:
    """In float32, where a processor can only imitate bfloat16: that takes 6 to 9 times as long (AVX2, resnet-t and mixer-t)."""
    recipe = spec.recipe
    if recipe.precision != "bfloat16" or device != "cpu" or _has_bfloat16():
        return spec
    warnings.warn(
        f"This processor has no instructions for bfloat16, the precision of {spec.name}'s recipe; it is trained in float32.",
        LeeWarning,
        stacklevel=3,
    )
    return replace(spec, recipe=replace(recipe, precision="float32"))


def _has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def train_command(name: str, *, recipes: Path | None = None, out: Path | None = None, budget: str | None = None) -> str:
    """Return the command that trains a model; file and folder are named from the working folder, or else by their names."""

    def shown(path: Path) -> str:
        path, here = Path(path).resolve(), Path.cwd()
        return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name

    parts = ["lee", "train", *([] if recipes is None else ["--recipes", shown(recipes)]), name]
    parts += [] if out is None else ["--out", shown(out)]
    return shlex.join(parts if budget is None else [*parts, "--budget", budget])


def publish(
    spec: ZooSpec,
    result: TrainResult,
    test_set: ImageSet,
    folder: Path,
    *,
    device: str = "cpu",
    command: str | None = None,
) -> dict[str, Any]:
    """Write the weights and the card of a finished training; return the card's front matter.

    The accuracy on the card is that of the file: read back, in float32, on the whole test set. Weights that are NaN or infinite
    are refused.
    """
    if not all(bool(value.isfinite().all()) for value in result.model.net.state_dict().values()):
        raise InputError(f"The weights of {spec.name} are not finite: the training diverged. Lower its lr.")
    exact = evaluate(result.model, test_set)
    path = folder / f"{spec.stem}.safetensors"
    for dtype in (torch.float16, torch.float32):
        accuracy = _store(result.model, spec, path, dtype, test_set)
        if exact - accuracy <= HALF_PRECISION_COST:
            break
    card = {
        "name": spec.name,
        "title": spec.title,
        "family": spec.family,
        "test_accuracy": accuracy,
        "test_accuracy_before_rounding": exact,
        "train_accuracy_before_rounding": result.train_accuracy,
        "weights_dtype": str(dtype).removeprefix("torch."),
        **_front_matter(spec, result, path, test_set, device),
        "command": command or train_command(spec.name),
    }
    write_card(card, _text(spec, card, result.history, test_set), folder / f"{spec.stem}.md")
    return card


def destination(spec: ZooSpec) -> Path:
    """Return the recipe file's folder, but never inside an installed package: then a folder of that name here."""
    inside = spec.folder.is_relative_to(Path(lee.__file__).resolve().parent)
    return Path(spec.folder.name) if inside else spec.folder


def _store(model: Normalized, spec: ZooSpec, path: Path, dtype: torch.dtype, test_set: ImageSet) -> float:
    """Write the weights in a floating dtype; return the accuracy of what was written."""
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.net.state_dict().items()}
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):  # too large for half precision
        return 0.0
    write_state(state, path, {"name": spec.name})
    stored = build(spec)
    load_weights(stored.net, path)
    return evaluate(stored.eval(), test_set)


def _front_matter(spec: ZooSpec, result: TrainResult, path: Path, test_set: ImageSet, device: str) -> dict[str, Any]:
    """Everything else that a program wants to know about the model."""
    return {
        "factory": spec.factory,
        "arguments": spec.arguments,
        "input_size": list(spec.input_size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "parameters": sum(parameter.numel() for parameter in result.model.parameters()),
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "recipe": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(spec.recipe).items()},
        "data": {
            "name": test_set.name,
            "source": test_set.source,
            "licence": test_set.licence,
            "train_images": result.train_size,
            "test_images": len(test_set),
            "sha256": result.data_sha256,
        },
        "minutes": round(result.minutes, 1),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def _device_name(device: str) -> str:
    """The accelerator's or the processor's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()} ({device})"


def _text(spec: ZooSpec, card: dict[str, Any], history: tuple[EpochRecord, ...], test_set: ImageSet) -> str:
    """The part of the card for people."""
    recipe, rows = spec.recipe, "\n".join(_row(record) for record in history if _shown(record, history))
    before = f"{recipe.pretrain_epochs} epochs as a masked autoencoder ({recipe.mask_ratio:.0%} of the patches hidden), then "
    guessed = (
        f""" and, under pseudo-labels of weight {recipe.pseudo_labels:g} above a probability of
        {recipe.pseudo_threshold:g}, the others of its training set"""
        if recipe.pseudo_labels
        else ""
    )
    training = f"""{before if recipe.pretrain_epochs else ""}{recipe.epochs} epochs of {recipe.optimizer} in
        {recipe.precision}, seed {recipe.seed}, augmentation {recipe.augmentation},
        {card["data"]["train_images"]:,} images{guessed}: {card["minutes"]} minutes of wall time with {card["threads"]} thread(s)
        of {card["device"]}, waiting for other work on the same machine included. The front matter has the whole
        recipe. `{card["command"]}` trains the model again, to the same weights bit for bit on the same machine with
        the same versions and number of threads."""
    rounded = f"""**Test accuracy {100 * card["test_accuracy"]:.2f} %** on the {len(test_set):,} test images of
        {test_set.name}; {100 * card["test_accuracy_before_rounding"]:.2f} % before the weights were rounded to
        {card["weights_dtype"]}. {100 * card["train_accuracy_before_rounding"]:.2f} % on the
        {card["data"]["train_images"]:,} training images, unchanged, before rounding."""
    return f"""# {spec.name}

{spec.title}: {card["parameters"]:,} parameters, for {spec.input_size[1]}x{spec.input_size[2]} images.

{_wrapped(rounded)}

```python
model = lee.models.load("{spec.name}")  # takes images in [0, 1]; the normalisation is inside
```

## Data

{_wrapped(f"{test_set.source}. Licence: {test_set.licence}.")}

## Training

{_wrapped(training)}

| epoch | training loss | test accuracy, in {recipe.precision} | seconds |
|---:|---:|---:|---:|
{rows}

## Use

Made to study equivariance at a small scale; it is no classifier to rely on. The test images were scored
on the way, but nothing was chosen by the scores.
"""


def _shown(record: EpochRecord, history: tuple[EpochRecord, ...]) -> bool:
    """Whether an epoch has a row: all of them in a short training, the scored ones in a long one."""
    return len(history) <= 20 or record.accuracy is not None


def _row(record: EpochRecord) -> str:
    """One epoch of the card's table."""
    scored = "–" if record.accuracy is None else f"{100 * record.accuracy:.2f} %"
    phase = "" if record.phase == "supervised" else f" ({record.phase})"
    return f"| {record.epoch + 1}{phase} | {record.loss:.3f} | {scored} | {record.seconds:.0f} |"


def _wrapped(text: str) -> str:
    """A paragraph in lines of at most 100 characters."""
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)
