"""The networks themselves: found by name, and what their cards say."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lee import datasets
from lee.models import Normalized
from lee.models.cards import read_front_matter
from lee.models.recipes import ZooSpec, load_specs
from lee.training import trained

#: What the end of a row's name says of its network, in the order of tables.
VARIANTS = {
    "": "as it is", "0.1": "penalty 0.1", "1": "penalty 1", "10": "penalty 10", "blur": "blurred strides",
    "filtered": "filtered ReLUs",
}  # fmt: skip


def recipes() -> Path:
    """Return the file with the networks; their weights and cards lie beside it.

    Raises:
        InputError: there is no such file, because lee was installed without it.
    """
    return trained.recipe_file("equivariance")


def load(name: str, file: Path | None = None) -> Normalized:
    """Load a trained network of a recipe file, in eval mode; its `class_names` say what its outputs stand for.

    Args:
        name: of an entry.
        file: a recipe file; the book's own by default.

    Raises:
        InputError: an unknown name, or weights that are missing or not those of the card.
    """
    file = file or recipes()
    model = trained.load(name, file)
    model.class_names = datasets.load(load_specs(file)[name].recipe.dataset, n=1).class_names  # type: ignore[assignment]
    return model


def names(file: Path | None = None) -> list[str]:
    """Return the networks whose weights lie beside the recipe file and are those of their cards.

    Args:
        file: a recipe file; the book's own by default.
    """
    return trained.names(file or recipes())


def cards(names: Sequence[str], file: Path | None = None) -> pd.DataFrame:
    """What the cards of networks say: a row each.

    Args:
        names: of networks.
        file: a recipe file; the book's own by default.

    Returns:
        `name`, `row`, `family`, `seed`, `penalty`, `title`, `accuracy` (all test images), `epochs`, `seconds_per_epoch` (of wall
        time), `parameters`, `images` (to train on) and `test_images`.
    """
    file, rows = file or recipes(), []
    specs = load_specs(file)
    for name in names:
        card, spec = read_front_matter(name, file.parent), specs[name]
        rows.append(
            {
                "name": name,
                **described(spec),
                "title": spec.title,
                "accuracy": card["test_accuracy"],
                "epochs": card["recipe"]["epochs"],
                "seconds_per_epoch": 60 * card["minutes"] / card["recipe"]["epochs"],
                "parameters": card["parameters"],
                "images": card["data"]["train_images"],
                "test_images": card["data"]["test_images"],
            }
        )
    return pd.DataFrame(rows)


def described(spec: ZooSpec) -> dict[str, Any]:
    """What a row of a table says of its network: `row`, `family`, `seed` and `penalty`."""
    row = trained.row_of(spec.name)
    return {"row": row, "family": spec.family, "seed": spec.recipe.seed, "penalty": spec.recipe.penalty}


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
