"""Model cards of the zoo: YAML front matter for machines, text for people, and the check that they hold.

A card `NAME.md` lies beside `NAME.safetensors` and records its digest, so that a truncated, replaced
or missing weight file is noticed before a number is computed with it.
"""

from pathlib import Path
from typing import Any

import yaml

from lee.errors import InputError
from lee.models.recipes import load_spec, load_specs
from lee.paths import atomic_path, file_sha256, zoo_dir

_FENCE = "---\n"


def read_card(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Return the front matter of a zoo model's card.

    Args:
        name: with or without `zoo/`.
        folder: where the zoo lies, if not in the usual place.

    Raises:
        InputError: unknown name, no card yet, or a card without valid front matter.
    """
    return read_front_matter(load_spec(name, _recipes(folder)).name, folder or zoo_dir())


def read_front_matter(bare: str, folder: Path) -> dict[str, Any]:
    """Return the front matter of `bare`.md in a folder, whatever its recipes are.

    Raises:
        InputError: no card yet, or a card without valid front matter.
    """
    path = folder / f"{bare}.md"
    if not path.is_file():
        raise InputError(f"zoo/{bare} has no model card {path.name} yet. Train it: lee train zoo/{bare}")
    parts = path.read_text(encoding="utf-8").split(_FENCE, 2)
    try:
        card = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        card = None
    if not isinstance(card, dict) or "sha256" not in card:
        raise InputError(f"The model card {path} has no YAML front matter with a sha256. Restore it.")
    return card


def write_card(card: dict[str, Any], text: str, folder: Path) -> Path:
    """Write `NAME.md` for `card["name"]` in one step and return its path."""
    path = folder / f"{card['name']}.md"
    front = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=100)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{_FENCE}{front}{_FENCE}\n{text}", encoding="utf-8")
    return path


def check_weights(name: str, folder: Path | None = None) -> Path:
    """Return the path of a zoo model's weights once their digest agrees with the card.

    Raises:
        InputError: the weights or the card are missing, or the digest differs; says which file it is
            and the command that makes it.
    """
    return check_digest(read_card(name, folder), folder or zoo_dir())


def check_digest(card: dict[str, Any], folder: Path) -> Path:
    """Return the path of the weights beside a card once their digest agrees with it.

    Raises:
        InputError: the weights are missing, or the digest differs.
    """
    path = folder / f"{card['name']}.safetensors"
    command = card.get("command", f"lee train zoo/{card['name']}")
    again = f"Restore it from the repository, or train it again: {command}"
    if not path.is_file():
        raise InputError(f"The weight file {path} is missing. {again}")
    if file_sha256(path) != card["sha256"]:
        raise InputError(f"The weight file {path} is damaged: its digest isn't its model card's. {again}")
    return path


def verify_zoo(folder: Path | None = None) -> list[tuple[str, bool, str]]:
    """Check the weights of each zoo model against its card: (name, whether it holds, message)."""
    rows = []
    for name in load_specs(_recipes(folder)):
        try:
            check_weights(name, folder)
            rows.append((f"zoo/{name}", True, "weights agree with the model card"))
        except InputError as error:
            rows.append((f"zoo/{name}", False, str(error)))
    return rows


def _recipes(folder: Path | None) -> Path | None:
    """The specifications of a zoo that lies in another folder."""
    return None if folder is None or folder == zoo_dir() else folder / "zoo.yaml"
