"""Recipe files: networks and their trainings, read from YAML; and the names of the networks trained by them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lee.configuration import read_yaml, validated
from lee.errors import InputError, nearest
from lee.models import imagenet
from lee.models.specification import File, Recipe, ZooSpec
from lee.paths import package_data

__all__ = ["load_specs", "load_spec", "recipe_file", "has_recipe", "without_seed", "FILES", "ZooSpec", "Recipe"]

#: What the names of trained networks begin with, and their recipe files below `data`; weights and cards lie beside these.
FILES = {prefix: f"{prefix}/{prefix}.yaml" for prefix in ("zoo", "rotmnist", "penalty", "fitted")}


def has_recipe(name: str) -> bool:
    """Whether a name is `PREFIX/NAME` with a prefix of :data:`FILES`: that of a trained network, if there is such a one.

    Args:
        name: any name that `lee.models.load` takes.

    >>> has_recipe("rotmnist/p4"), has_recipe("resnet18")
    (True, False)
    """
    prefix, slash, _ = name.partition("/")
    return bool(slash) and prefix in FILES


def has_weights(name: str) -> bool:
    """Whether a name's weights come with lee or with a package: `PREFIX/NAME`, such as `zoo/vit-s`.

    >>> has_weights("zoo/vit-s"), has_weights("imagenet/efficientnet-lite0"), has_weights("resnet18")
    (True, True, False)
    """
    return has_recipe(name) or imagenet.is_packaged(name)


def without_seed(name: str) -> str:
    """A network's name without its seed, which is what all trainings of one recipe are called by.

    Args:
        name: such as `rotmnist/p4-seed2`.

    >>> without_seed("rotmnist/p4-seed2")
    'rotmnist/p4'
    """
    return re.sub(r"-seed\d+$", "", name)


def described(spec: ZooSpec, *columns: str) -> dict[str, Any]:
    """What the recipe of a network says of it, under the names of columns of a table of a study; `row` is without the seed."""
    recipe = spec.recipe
    known = {
        "model": spec.name, "name": spec.name, "row": without_seed(spec.stem), "title": spec.title, "family": spec.family,
        "seed": recipe.seed, "epochs": recipe.pretrain_epochs + recipe.epochs, "augmentation": recipe.augmentation,
        "penalty": recipe.penalty,
    }  # fmt: skip
    return {column: known[column] for column in columns}


def recipe_file(prefix: str) -> Path:
    """Return the recipe file of a prefix.

    Args:
        prefix: a key of :data:`FILES`.

    Raises:
        InputError: there is no such file, because lee was installed without it.
    """
    file = package_data() / FILES[prefix]
    if not file.is_file():
        raise InputError(f"There is no {file}. Clone the repository: the installed package leaves these networks out.")
    return file


def load_specs(path: Path | None = None, *, budget: str | None = None) -> dict[str, ZooSpec]:
    """Read a file of specifications, or by default those of all prefixes that are here.

    An entry starts from the file's `defaults`, then takes what it does not name itself from the entry that
    its `like:` names.

    Args:
        path: a file like `data/zoo/zoo.yaml`, whose networks then have no prefix.
        budget: a name under `budgets:`; what it says of the recipe replaces what the entry says.

    Raises:
        InputError: the file is missing, is not YAML of the expected shape, or has an unknown field, family,
            budget or `like:`.
    """
    if path is not None:
        return _read(Path(path), budget)
    here = [(prefix, package_data() / file) for prefix, file in FILES.items()]
    read = [_read(file, budget, f"{prefix}/") for prefix, file in here if file.is_file()]
    return {name: spec for specs in read for name, spec in specs.items()}


def load_spec(name: str, path: Path | None = None, *, budget: str | None = None) -> ZooSpec:
    """Return one specification by its name.

    Args:
        name: of an entry.
        path: a recipe file of one's own; by default the one that the name's prefix stands for.
        budget: a name under `budgets:`, as for :func:`load_specs`.

    Raises:
        InputError: there is no such name (the nearest is suggested), or the file is wrong or missing.
    """
    if path is None and has_recipe(name):
        prefix = name.partition("/")[0]
        specs = _read(recipe_file(prefix), budget, f"{prefix}/")
    else:
        specs = load_specs(path, budget=budget)
    if name not in specs:
        raise InputError(f"There is no network {name!r}.{nearest(name, specs)}")
    return specs[name]


def _read(path: Path, budget: str | None, prefix: str = "") -> dict[str, ZooSpec]:
    """Read one file of specifications, whose names get a prefix."""
    content = read_yaml(path, "recipe file")
    if not isinstance(content, Mapping) or not isinstance(content.get("models"), Mapping):
        raise InputError(f"The recipe file {path} needs a mapping `models:` from names to specifications.")
    validated(File, content, path.name)
    models = {name: _like(name, content["models"], path) for name in content["models"]}
    specs = [_spec(f"{prefix}{name}", entry, content, path, budget) for name, entry in models.items()]
    stems = [spec.stem for spec in specs]
    for spec in specs:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+@=-]*", spec.stem) or stems.count(spec.stem) > 1:
            raise InputError(
                f"{path.name}, model {spec.name!r}: files are called by what follows the last '/', so that must be letters, digits "
                "and any of . _ + @ = - after the first one, and no other model's."
            )
    return {spec.name: spec for spec in specs}


def _like(name: str, models: Mapping[str, Any], path: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an entry merged over the one that its `like:` names."""
    where, entry = f"{path.name}, model {name!r}", models[name]
    base = entry.get("like")
    if base is None:
        return dict(entry)
    if base not in models:
        raise InputError(f"{where}: there is no model {base!r} to be like.{nearest(str(base), models)}")
    if base in seen:
        raise InputError(f"{where}: `like:` leads in a circle: {', '.join((*seen, base))}.")
    return _merged(_like(base, models, path, (*seen, name)), {k: v for k, v in entry.items() if k != "like"})


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; what `over` names wins."""
    both = {key: _merged(base[key], over[key]) for key in over.keys() & base.keys() if isinstance(over[key], Mapping)}
    return {**base, **over, **both}


def _spec(name: str, entry: dict[str, Any], content: Mapping[str, Any], path: Path, budget: str | None) -> ZooSpec:
    """Merge one entry of the file with the file's defaults, and with a budget."""
    where = f"{path.name}, model {name!r}"
    merged = _merged(content.get("defaults") or {}, entry)
    budgets = merged.pop("budgets", {})
    recipe = merged.get("recipe") or {}
    if budget is not None:
        if budget not in budgets:
            raise InputError(f"{where}: there is no budget {budget!r}.{nearest(budget, budgets)}")
        recipe = _merged(recipe, budgets[budget])
    families = content.get("families") or {}
    if merged.get("family") is not None and merged["family"] not in families:
        raise InputError(f"{where}: unknown family {merged['family']!r}.{nearest(str(merged['family']), families)}")
    merged["recipe"] = _checked(Recipe, recipe, f"{where}, recipe")
    merged |= {key: tuple(merged[key]) for key in ("input_size", "mean", "std") if key in merged}
    spec: ZooSpec = _checked(ZooSpec, {**merged, "name": name, "folder": path.parent}, where)
    return spec


def _checked(kind: type, values: dict[str, Any], where: str) -> Any:
    """Build a dataclass from a mapping; what it refuses is said with the place."""
    try:
        return kind(**values)
    except (TypeError, InputError) as error:
        raise InputError(f"{where}: {str(error).rstrip('.')}.") from error
