"""`lee layers`: which layers of a model break equivariance, as a tree, a table or a page with a chart."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from lee.cli import subject as given
from lee.cli.output import Screen, bars, check_apart, check_destination, only, print_json, written
from lee.errors import MOST, check_installed

if TYPE_CHECKING:
    import pandas as pd

    from lee.layers import Decomposition

#: Calls below this fraction of the sum of all parts are counted, not listed.
NEGLIGIBLE = 1e-4
OWN = "own operations"
HALF = 6  # characters of a bar on either side of zero
NAMES = 18  # characters for the names of modules, if there is room for anything else


def layers(
    model: given.Model,
    images: given.Images = "photos",
    n: given.Count = 8,
    size: given.Size = None,
    generator: Annotated[str, typer.Option("--generator", "-g", help="Along which generator.")] = "rotation",
    depth: Annotated[int | None, typer.Option(min=0, help="Levels of the tree to print (default: all)")] = None,
    every: Annotated[bool, typer.Option("--all", help="List calls that contribute nothing, too.")] = False,
    output: given.OutputName = "probabilities",
    kernel: given.Kernel = "fourier",
    boundary: given.Boundary = "reflect",
    align_corners: given.AlignCorners = False,
    grids: Annotated[
        str, typer.Option(help="registered: samples of maps lie where their layers put them; centred: evenly.")
    ] = "registered",
    mode: Annotated[
        str, typer.Option(help="auto, forward, reverse (exact), deflated (nearly exact, for many classes) or probes.")
    ] = "auto",
    tolerance: Annotated[
        float, typer.Option(help="Relative standard error of ‖v‖² in mode deflated; 0 keeps mode auto exact.")
    ] = 0.01,
    probes: Annotated[int, typer.Option(min=2, max=MOST, help="Random directions per image in mode probes.")] = 100,
    weights: given.Weights = None,
    pretrained: given.Pretrained = False,
    device: given.Device = "cpu",
    chunk: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Images × directions at once (default: automatic)")
    ] = None,
    seed: given.Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, all columns, instead of the tree.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write all columns to a CSV file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with a chart, one offline file.")] = None,
    quiet: given.Quiet = False,
) -> None:
    """Decompose the equivariance error of MODEL over its modules, and print the tree.

    Shares are exact. With many classes ‖v‖² is estimated, see --tolerance.

    ‖v‖² is what a module contributes to the derivative of the output. The
    share says how much of the error it accounts for: negative where it
    cancels what others do.
    """
    for option, path in (("--csv", csv), ("--html", html)):  # before any work is done
        check_destination(option, path)
    check_apart({"--csv": csv, "--html": html})
    if html is not None:
        check_installed("--html", "book", "altair", "vl_convert")
    from lee.layers import layerwise

    method = {"output": output, "kernel": kernel, "boundary": boundary, "align_corners": align_corners, "grids": grids}
    running = {"tolerance": tolerance, "probes": probes, "seed": seed, "chunk": chunk}
    running["progress"] = bars(quiet)
    with given.warnings_in_a_sentence(), only(as_json):
        subject = given.load_subject(
            model, images, n=n, size=size, weights=weights, pretrained=pretrained, device=device, seed=seed
        )
        with given.sentences(f"{model} can't be measured on {images}"):
            found = layerwise(subject.network, subject.inputs, generator, mode=mode, **method, **running)  # type: ignore[arg-type]
    settings = {**subject.described, "generator": found.generator, **method, "mode": found.mode, "seed": seed}
    settings["device"] = device
    verification = given.verification_row(found)
    try:
        if csv is not None:
            rows = found.frame.assign(**{**settings, "n": found.n, **verification, **subject.origin})
            with written(csv) as path:
                rows.to_csv(path, index=False)
        if html is not None:
            text = _page(found, subject, settings)
            with written(html) as path:
                path.write_text(text, encoding="utf-8")
    finally:  # numbers that can't be printed are written, and those that can't be written are printed
        if as_json:
            total = given.row_of(found.generator, found.total)
            summed = {"total": total, "residual": found.residual, "verification": verification or None}
            print_json({**settings, **summed, "layers": _rows(found.frame), **subject.origin})
        else:
            _print(subject.title, found, depth, every)


def _rows(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows for JSON, which has no NaN."""
    rows = frame.to_dict("records")
    return [{str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]


def _page(found: "Decomposition", subject: given.Subject, settings: dict[str, Any]) -> str:
    from lee.charts import icicle, listed, page, tabled
    from lee.layers.families import families

    frame = found.frame.assign(family=families(found.frame, subject.network))
    chart = icicle(
        frame,
        caption="Each rectangle is a module call, below the call around it; its width is its share of the sum of all parts' "
        "‖v‖². Click on one to enlarge it, double-click to go back.",
        alt=f"The module tree of {settings['model']}; the table below has the numbers.",
    )
    about = {
        "Error": f"{found.total.digits} {found.total.unit}", **settings, "images measured": found.n,
        "residual of the identity": f"{found.residual:.1g}",
        **({} if found.verification is None else {"check": str(found.verification)}), **subject.origin,
    }  # fmt: skip
    title = f"Equivariance error along {found.generator.replace('_', ' ')}: {subject.title}"
    return page(listed(about), chart, tabled(found.frame, folded="All numbers"), title=title)


def _print(title: str, found: "Decomposition", depth: int | None, every: bool) -> None:
    lines = tree(found.frame, depth=depth, every=every)
    largest = max([abs(share) for _, _, _, share in lines[1:] if share is not None], default=0.0)
    note = f"{found.generator}: LEE {found.total.digits} {found.total.unit}; {found.output}, {found.kernel} kernel, "
    note += f"{found.mode} mode, residual {found.residual:.0e}"
    if found.notes:
        note += f"\n{len(found.notes)} calls without a known place are counted in the module around them (·)"
    printed = Table(
        title=title, caption=given.notes(note, found), title_justify="left", caption_justify="left", box=None,
        pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    console = Screen()
    numbers = max(9, *(len(measured) for _, _, measured, _ in lines))
    kinds = min(18, max(len(kind) for _, kind, _, _ in lines))
    columns = {"type": kinds, "‖v‖² ± se": numbers, "share": 8, "": 2 * HALF + 1}
    # Where there is no room for all of them, bars go first, then types. Names are cut, numbers never; a blank follows each column.
    for least in ("", "type"):
        if console.width - sum(columns.values()) - len(columns) - 1 < NAMES:
            del columns[least]
    room = max(16, console.width - sum(columns.values()) - len(columns) - 1)
    console.width = max(console.width, room + sum(columns.values()) + len(columns) + 1)
    printed.add_column("module", no_wrap=True, overflow="ellipsis", max_width=room)
    for heading, width in columns.items():
        right = heading in ("‖v‖² ± se", "share")
        printed.add_column(
            heading, no_wrap=True, overflow="ellipsis", width=width, justify="right" if right else "left"
        )
    for name, kind, measured, share in lines:
        percent = "" if share is None else f"{100 * share:.1f} %"
        told: dict[str, str | Text] = {"type": Text(kind), "‖v‖² ± se": measured, "share": percent}
        told[""] = _bar(share, largest)
        printed.add_row(Text(name), *(told[heading] for heading in columns))
    console.show(printed)


Line = tuple[str, str, str, float | None]


def tree(frame: "pd.DataFrame", *, depth: int | None = None, every: bool = False) -> list[Line]:
    """The lines of the tree, down to a depth: name with guides, type, `‖v‖² ± se`, signed share.

    Calls whose part is negligible are counted, or, with `every`, listed too.
    """
    rows = _rows(frame)
    least = NEGLIGIBLE * sum(row["self_norm2"] or 0.0 for row in rows)
    children: list[list[int]] = [[] for _ in rows]
    for index, row in enumerate(rows[1:], start=1):
        children[int(row["parent"])].append(index)
    lines: list[Line] = []

    def shown(index: int) -> bool:
        norm2 = rows[index]["norm2"]
        # A call without a place of its own may hold calls that have one.
        return every or (any(map(shown, children[index])) if norm2 is None else norm2 > least)

    def add(index: int, name: str, first: str, rest: str) -> None:
        row = rows[index]
        lines.append((first + name, row["type"], *_numbers(row, "")))
        if depth is not None and row["depth"] >= depth:
            return
        below = [i for i in children[index] if shown(i)]
        own = below and (row["self_norm2"] or 0.0) > least
        hidden = len(children[index]) - len(below)
        for child in below:
            last = child == below[-1] and not own and not hidden
            add(child, _name(rows[child], row), rest + ("└ " if last else "├ "), rest + ("  " if last else "│ "))
        if own:
            lines.append((rest + ("├ " if hidden else "└ ") + f"({OWN})", "", *_numbers(row, "self_")))
        if hidden:
            lines.append((rest + f"└ … {hidden} more, each below {NEGLIGIBLE:.2%}", "", "", None))

    add(0, "model", "", "")
    return lines


def _name(row: dict[str, Any], around: dict[str, Any]) -> str:
    name = row["path"].removeprefix(f"{around['path']}.") if around["path"] else row["path"]
    return name + (f" (call {row['call'] + 1})" if row["call"] else "")


def _numbers(row: dict[str, Any], prefix: str) -> tuple[str, float | None]:
    from lee.statistics import Estimate

    value, error = row[f"{prefix}norm2"], row[f"{prefix}norm2_se"]
    if value is None:
        return "·", None
    if value == 0.0:
        return "0", row[f"{prefix}share"]
    if error is None:  # of a single image
        return f"{value:.3g}", row[f"{prefix}share"]
    return Estimate(value, error, 0).digits, row[f"{prefix}share"]


def _bar(share: float | None, largest: float) -> Text:
    """A bar to the right of the middle for a positive share, to the left for a negative one; the root's is cut off."""
    if share is None or largest <= 0:
        return Text("")
    halves = min(2 * HALF, round(2 * HALF * abs(share) / largest))
    full, half = divmod(halves, 2)
    if share >= 0:
        return Text(" " * HALF + "│" + "█" * full + "▌" * half, style="cyan")
    return Text(("▐" * half + "█" * full).rjust(HALF) + "│", style="magenta")
