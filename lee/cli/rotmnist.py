"""`lee rotmnist`: measure the trained networks of rotated MNIST and keep the numbers in one table."""

from pathlib import Path
from typing import Annotated

import typer

from lee.cli.output import table


def rotmnist(
    out: Annotated[Path | None, typer.Option(help="The table (default: data/results/rotmnist.parquet)")] = None,
) -> None:
    """Measure each trained network of rotated MNIST that the table lacks: test error, rotation LEE, curves over the angle.

    Train them first: lee train --missing 'rotmnist/*'
    """
    from lee.studies import rotmnist as networks
    from lee.sweep import results

    out = results.folder() / "rotmnist.parquet" if out is None else out
    rows = networks.summary(networks.update(out))
    columns = ("row", ">seeds", ">test error", ">rotation LEE", ">quarter turn", ">parameters", ">minutes")
    printed = [
        (
            row["row"],
            f"{row['seeds']}",
            f"{100 * row['error']:.2f} %",
            f"{row['lee']:.3g} ± {row['lee_se']:.1g}",
            f"{row['quarter']:.0e}",
            f"{row['parameters']:,}",
            f"{row['minutes']:.1f}",
        )
        for row in rows.to_dict("records")
    ]
    table("Rotated MNIST", columns, printed, f"Written to {out}.")
