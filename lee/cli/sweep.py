"""`lee sweep`: measure many models, and keep the numbers of every image in one table."""

from pathlib import Path
from typing import Annotated

import typer

from lee.cli.output import bars, check_apart, check_destination, table
from lee.cli.subject import Device, Quiet, warnings_in_a_sentence
from lee.errors import InputError


def sweep(
    specs: Annotated[
        list[Path] | None, typer.Argument(help="What to measure, in YAML (default: the zoo's, data/results/zoo.yaml)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The table (default: beside SPEC, as .parquet)")] = None,
    limit: Annotated[str | None, typer.Option(help="Only models that match, such as 'vit-*'.")] = None,
    device: Device = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 for none.")] = 0,
    scheduler: Annotated[str | None, typer.Option(help="A Dask cluster, such as tcp://10.0.0.1:8786.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="torch's threads per process.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Measure again what failed before.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove rows that SPEC doesn't ask for.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure all models of each of SPECS and write their tables (Parquet); exit code 1 if a model failed.

    Started again, it measures only what a table lacks: after an interruption, what was in flight; after a model was
    trained again, that model. Of several SPECS, one whose data isn't here is named and passed over; the exit code is 2 then.
    """
    from lee import sweep
    from lee.sweep import results

    paths = list(dict.fromkeys(specs or [results.folder() / "zoo.yaml"]))
    if out is not None and len(paths) > 1:
        raise InputError(f"--out {out} is one table, and there are {len(paths)} specifications. Give them one by one.")
    destinations = [sweep.destination(path) if out is None else out for path in paths]
    check_destination("--out", out, (".parquet",))
    check_apart(dict(zip(map(str, paths), destinations, strict=True)))
    executor = sweep.executor(workers, scheduler=scheduler, device=device, threads=threads)
    failures: list[tuple[str, str, str]] = []
    refused = False
    for path, destination in zip(paths, destinations, strict=True):
        shown = bars(quiet)
        try:
            with warnings_in_a_sentence():
                report = sweep.run(
                    sweep.load(path), destination, executor, limit=limit, retry=retry, prune=prune, progress=shown
                )
        except InputError as error:
            if len(paths) == 1:
                raise
            refused = True
            typer.echo(f"{path} can't be measured here: {error}")
            continue
        failures += report.failures
        size = f"{destination.stat().st_size / 1e6:.1f} MB"
        typer.echo(
            f"{destination}: {report.measured} tasks measured in {report.seconds:.0f} s, {report.kept} there already, "
            f"{len(report.failures)} failed; {size}."
        )
        if report.unloaded:
            typer.echo(f"Kept as they were, as the weights can't be loaded here: {'; '.join(report.unloaded)}.")
    if failures:
        table("Failed", ("model", "measurement", "error"), failures, "The option --retry measures these again.")
    if failures or refused:
        raise typer.Exit(1 if failures else 2)
