"""Profiles: files of parameters for the whole book, checked against the chapters before anything runs."""

import ast
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lee.book.layout import read
from lee.book.parameters import check
from lee.configuration import Strict, read_yaml, validated
from lee.errors import InputError, nearest


class _File(Strict):
    """What may stand in a profile."""

    description: str = ""
    common: dict[str, Any] | None = None
    chapters: dict[str, dict[str, Any] | None] | None = None


@dataclass(frozen=True)
class Profile:
    """Parameters for the book's chapters.

    Args:
        name: The file's stem, such as `"quick"`.
        common: Parameters for each chapter that has them.
        chapters: Parameters for one chapter, by its file's stem; they win over the common ones.
        description: What the profile is for, in a sentence.
    """

    name: str
    common: Mapping[str, Any] = field(default_factory=dict)
    chapters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    description: str = ""


def profiles(root: Path) -> dict[str, Path]:
    """Names and files of the book's profiles.

    Args:
        root: The folder with `_toc.yml` and `book/`.
    """
    return {p.stem: p for p in sorted((root / "book" / "profiles").glob("*.yaml"))}


def load_profile(name: str, root: Path) -> Profile:
    """Read a profile by its name, or from the path of a YAML file.

    Args:
        name: The profile's name, or a path.
        root: The folder with `_toc.yml` and `book/`.

    Raises:
        InputError: If it is unknown (the nearest one is suggested) or the file is not what is expected.
    """
    known = profiles(root)
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None or not path.is_file():
        raise InputError(f"Unknown profile {name!r}.{nearest(name, known)}")
    content = validated(_File, read_yaml(path, "profile") or {}, f"The profile {path}")
    chapters = {stem: values or {} for stem, values in (content.chapters or {}).items()}
    return Profile(path.stem, content.common or {}, chapters, content.description)


def declared(notebook: Path) -> dict[str, dict[str, Any]]:
    """The parameters of a chapter: name → type, default and help.

    They stand in its cell tagged `parameters`, after which papermill puts what it is given, and in a folded one before it,
    tagged `more-parameters`. (papermill's own `inspect_notebook` knows the first only.)
    """
    from papermill.translators import papermill_translators

    logging.getLogger("papermill").setLevel(logging.WARNING)
    inspect = papermill_translators.find_translator("python3", "python").inspect
    cells = read(notebook).cells
    chosen = [c for c in cells if not {"parameters", "more-parameters"}.isdisjoint(c.metadata.get("tags", ()))]
    return {found.name: found._asdict() for cell in chosen for found in inspect(cell)}


def plan(profile: Profile, notebooks: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """The parameters of each chapter that differ from the defaults in its own cell.

    Args:
        profile: The parameters.
        notebooks: All chapters, so that a section for one that won't run is checked as well.

    Raises:
        InputError: If the profile names an unknown chapter or parameter (the nearest is suggested), or if a value isn't of the
            type that the chapter's cell says.
    """
    known = {path: declared(path) for path in notebooks}
    stems = [path.stem for path in notebooks]
    for stem in profile.chapters:
        if stem not in stems:
            raise InputError(f"The profile {profile.name!r} has parameters for {stem!r}.{nearest(stem, stems)}")
    everything = sorted({name for parameters in known.values() for name in parameters})
    for name in profile.common:
        if name not in everything:
            hint = nearest(name, everything)
            raise InputError(f"No chapter has the parameter {name!r} of the profile {profile.name!r}.{hint}")
    return {path: _for_chapter(profile, path, parameters) for path, parameters in known.items()}


def _for_chapter(profile: Profile, path: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    own = profile.chapters.get(path.stem, {})
    for name in own:
        if name not in parameters:
            where = f"Chapter {path.stem!r} has no parameter {name!r} (profile {profile.name!r})."
            raise InputError(where + nearest(name, parameters))
    values = {name: value for name, value in profile.common.items() if name in parameters} | dict(own)
    for name, value in values.items():
        source = f"the profile {profile.name!r} to chapter {path.stem!r}"
        check(name, value, parameters[name]["inferred_type_name"], source)
    return {name: value for name, value in values.items() if not _is_default(value, parameters[name]["default"])}


def _is_default(value: Any, source: str) -> bool:
    try:
        default = ast.literal_eval(source)
    except (ValueError, SyntaxError):  # an expression
        return False
    return type(default) is type(value) and default == value
