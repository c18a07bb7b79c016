"""Model cards of trained networks: YAML front matter for machines, text for people, and the check that they hold.

A card `NAME.md` lies beside `NAME.safetensors` and records its digest, so that a truncated, replaced
or missing weight file is noticed before a number is computed with it.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field

from lee.configuration import Strict, parse_yaml, validated
from lee.errors import InputError, reason
from lee.models import imagenet
from lee.models.recipes import ZooSpec, load_spec, load_specs
from lee.paths import atomic_path, check_digest

_FENCE = "---\n"


class _Card(Strict):
    """What a card says at least."""

    model_config = ConfigDict(extra="allow")

    name: str
    family: str
    parameters: int = Field(ge=1)
    test_accuracy: float = Field(ge=0, le=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def names() -> tuple[str, ...]:
    """Return the names of the trained networks that are here. timm's names are in `timm.list_models()`."""
    return (*(name for name, spec in load_specs().items() if has_card(spec)), *imagenet.names())


def card(name: str) -> dict[str, Any]:
    """Return what a trained network's card says: family, parameters, accuracy, digest; of those trained here more.

    Args:
        name: of a trained network, such as `zoo/vit-s`.

    Raises:
        InputError: an unknown name, or no card yet.
    """
    return imagenet.card(name) if imagenet.is_packaged(name) else read_card(load_spec(name))


def has_card(spec: ZooSpec) -> bool:
    """Whether a network has been trained: its card lies beside its recipe file."""
    return (spec.folder / f"{spec.stem}.md").is_file()


def read_card(spec: ZooSpec, folder: Path | None = None) -> dict[str, Any]:
    """Return the front matter of a network's card, which lies in a folder, or beside the recipe file."""
    path = (folder or spec.folder) / f"{spec.stem}.md"
    if not path.is_file():
        raise InputError(f"{spec.name} has no model card {path.name} yet. Train it: lee train {spec.name}")
    try:
        parts = path.read_text(encoding="utf-8").split(_FENCE, 2)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The model card {path} can't be read: {reason(error)}. Restore it.") from error
    if len(parts) != 3 or parts[0]:
        raise InputError(f"The model card {path} has no YAML front matter. Restore it.")
    front = parse_yaml(parts[1], f"front matter of the model card {path}")
    validated(_Card, front, f"The model card {path}")
    return dict(front)


def write_card(card: dict[str, Any], text: str, path: Path) -> None:
    """Write a card in one step."""
    front = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=100)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{_FENCE}{front}{_FENCE}\n{text}", encoding="utf-8")


def check_weights(spec: ZooSpec, folder: Path | None = None) -> Path:
    """Return the path of a network's weights once their digest agrees with the card."""
    card = read_card(spec, folder)
    path = (folder or spec.folder) / f"{spec.stem}.safetensors"
    again = f"Restore it from the repository, or train it again: {card.get('command', f'lee train {spec.name}')}"
    return check_digest(path, card["sha256"], again)


def verify() -> list[tuple[str, bool, str]]:
    """Check the weights of every trained network against its card or recorded digest: (name, whether it holds, message)."""
    rows = []
    for name in names():
        try:
            imagenet.check_weights(name) if imagenet.is_packaged(name) else check_weights(load_spec(name))
            rows.append((name, True, "weights agree with the model card"))
        except InputError as error:
            rows.append((name, False, str(error)))
    return rows
