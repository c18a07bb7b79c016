"""The networks themselves: what their cards and their names say."""

from collections.abc import Iterable, Sequence

import pandas as pd

from lee.models.cards import read_card
from lee.models.recipes import described, load_specs

#: What the end of a row's name says of its network, in the order of tables.
VARIANTS = {
    "": "as it is", "0.1": "penalty 0.1", "1": "penalty 1", "10": "penalty 10", "blur": "blurred strides",
    "filtered": "filtered ReLUs", "blur-1": "blurred strides and penalty 1", "filtered-1": "filtered ReLUs and penalty 1",
}  # fmt: skip
#: What the rows of tables say of their networks.
ABOUT = ("row", "family", "seed", "penalty")


def cards(names: Sequence[str]) -> pd.DataFrame:
    """What the cards of networks say: a row each.

    Args:
        names: of networks.

    Returns:
        `name`, `row`, `family`, `seed`, `penalty`, `epochs`, `parameters` and `images` (to train on).
    """
    specs, rows = load_specs(), []
    for name in names:
        card, spec = read_card(specs[name]), specs[name]
        rows.append(
            {
                "name": name,
                **described(spec, *ABOUT),
                "epochs": card["recipe"]["epochs"],
                "parameters": card["parameters"],
                "images": card["data"]["train_images"],
            }
        )
    return pd.DataFrame(rows)


def base_of(row: str) -> str:
    """The row of the same architecture without penalty and anti-aliasing: `resnet-1` is to be compared with `resnet`.

    Args:
        row: its name.
    """
    return row.partition("-")[0]


def label(row: str) -> str:
    """A row's name for people, such as `ResNet, penalty 1`.

    Args:
        row: its name.
    """
    base, _, variant = row.partition("-")
    return f"{'ResNet' if base == 'resnet' else 'ViT'}, {VARIANTS.get(variant, variant)}"


def ordered(rows: Iterable[str]) -> list[str]:
    """Rows, each once, in the order of tables: by architecture, then as in :data:`VARIANTS`.

    Args:
        rows: names of rows.
    """
    place = {variant: i for i, variant in enumerate(VARIANTS)}
    return sorted(set(rows), key=lambda row: (base_of(row), place.get(row.partition("-")[2], len(place)), row))
