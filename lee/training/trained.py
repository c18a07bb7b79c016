"""Trained networks outside the zoo: a recipe file with their weights and cards beside it.

Networks that differ in the seed alone (`p4`, `p4-seed1`, ...) are one row of a table.
"""

import re
from pathlib import Path

from lee.errors import InputError, nearest
from lee.models import Normalized, build, load_weights
from lee.models.cards import check_digest, read_front_matter
from lee.models.recipes import load_specs
from lee.paths import zoo_dir


def recipe_file(name: str) -> Path:
    """Return the recipe file `data/NAME/NAME.yaml` of the repository.

    Raises:
        InputError: there is no such file, because lee was installed without it.
    """
    file = zoo_dir().parent / name / f"{name}.yaml"
    if not file.is_file():
        raise InputError(f"There is no {file}. Clone the repository: the installed package leaves these networks out.")
    return file


def row_of(name: str) -> str:
    """The name of a network without its seed: `p4-seed2` is one of the row `p4`."""
    return re.sub(r"-seed\d+$", "", name)


def names(file: Path) -> list[str]:
    """Return the networks of a recipe file whose weights lie beside it and are those of their cards."""
    found = []
    for name in load_specs(file):
        try:
            check_digest(read_front_matter(name, file.parent), file.parent)
        except InputError:
            continue
        found.append(name)
    return found


def load(name: str, file: Path) -> Normalized:
    """Load a trained network of a recipe file, in eval mode.

    Raises:
        InputError: an unknown name, or weights that are missing or not those of the card.
    """
    specs = load_specs(file)
    if name not in specs:
        raise InputError(f"There is no network {name!r} in {file.name}.{nearest(name, specs)}")
    weights = check_digest(read_front_matter(name, file.parent), file.parent)
    model = build(specs[name])
    load_weights(model.net, weights)
    return model.eval()
