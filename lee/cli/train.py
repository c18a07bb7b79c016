"""`lee train`: train a network by its recipe, or all that are missing."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from lee.cli.output import bars
from lee.cli.subject import warnings_in_a_sentence


def train(
    name: Annotated[
        str, typer.Argument(help="A network such as zoo/vit-s; with --missing a pattern such as 'zoo/vit-*'.")
    ],
    missing: Annotated[bool, typer.Option("--missing", help="Train what is missing, in the file's order.")] = False,
    recipes: Annotated[
        Path | None, typer.Option(help="A file like data/zoo/zoo.yaml (default: lee's own)", dir_okay=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where weights and card go (default: beside the recipes)", file_okay=False)
    ] = None,
    budget: Annotated[str | None, typer.Option(help="A budget of the recipe file, such as full.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="With --missing: trainings at once (default: one per GPU or core).")
    ] = None,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Keep the weights of epochs 1, 2, 3, 5, 8, ... beside the checkpoint.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train NAME by its recipe; write its weights (safetensors) and its model card.

    Started again after an interruption, it goes on from the last epoch. On a CPU one thread computes, so that
    the weights do not depend on the number of cores.
    """
    from lee.errors import InputError
    from lee.process.alone import check_device

    check_device(device)
    where: dict[str, Any] = {"recipes": recipes, "out": out, "budget": budget}
    if missing:
        if snapshots:
            raise InputError("--snapshots is for one training. Name a model, without --missing.")
        _train_missing(name, where, device, workers, quiet)
        return
    if workers is not None:
        raise InputError("--workers is for --missing; one training is one process.")
    with warnings_in_a_sentence():
        _train_one(name, where | {"snapshots": snapshots}, device, quiet)


def _train_one(name: str, where: dict[str, Any], device: str, quiet: bool) -> None:
    """Train one model: a bar per epoch in a terminal, a line per epoch elsewhere."""
    import torch

    from lee.models.recipes import load_spec
    from lee.training import EpochRecord
    from lee.training.zoo import train_zoo

    recipe = load_spec(name, where["recipes"], budget=where["budget"]).recipe
    epochs, drawn = recipe.pretrain_epochs + recipe.epochs, bars(quiet)

    def report(record: EpochRecord) -> None:
        scored = "" if record.accuracy is None else f", test accuracy {100 * record.accuracy:.1f} %"
        typer.echo(
            f"{name}: {record.phase} epoch {record.epoch + 1}/{epochs}, loss {record.loss:.3f}{scored}, "
            f"{record.seconds:.0f} s"
        )
        sys.stdout.flush()

    if device == "cpu":
        torch.set_num_threads(1)
    shown: dict[str, Any] = {"progress": drawn, "on_epoch": None if quiet or drawn else report}
    card = train_zoo(name, device=device, **where, **shown)
    size = f"{card['bytes'] / 1e6:.2f} MB in {card['weights_dtype']}"
    typer.echo(
        f"{card['name']}: test accuracy {100 * card['test_accuracy']:.2f} %, "
        f"{card['parameters']:,} parameters, {size}, {card['minutes']} minutes."
    )


def _train_missing(pattern: str, where: dict[str, Any], device: str, workers: int | None, quiet: bool) -> None:
    """Train every missing model of a pattern; fail at the end if one did."""
    from lee.process.alone import devices
    from lee.training.fleet import missing, train_missing

    names = missing(pattern, **where)
    if not names:
        typer.echo(f"Nothing is missing of {pattern!r}.")
        return
    places = devices(device, workers)
    typer.echo(f"{len(names)} to train, {min(len(places), len(names))} at a time: {', '.join(names)}")
    failed = []
    tell: Callable[[str], None] = (lambda line: None) if quiet else typer.echo
    outcomes = train_missing(names, devices=places, on_line=tell, **where)
    with closing(outcomes):  # at once when interrupted: nothing that is queued may start
        for ended, outcome in enumerate(outcomes, 1):
            if outcome.error:
                failed.append(outcome.name)
                typer.echo(f"[{ended}/{len(names)}] {outcome.name} failed: {outcome.error}", err=True)
            else:
                typer.echo(f"[{ended}/{len(names)}] {outcome.name} done in {outcome.seconds / 60:.1f} minutes")
    if failed:
        typer.echo(f"Not trained: {', '.join(failed)}. The same command tries again.", err=True)
        raise typer.Exit(1)
