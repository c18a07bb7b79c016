"""YAML that people write: what is refused, and what the refusal says. One value of a wrong kind for every field."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lee import sweep
from lee.book.parameters import check
from lee.book.profiles import load_profile
from lee.configuration import parse_yaml, read_yaml, validated
from lee.errors import InputError
from lee.models.recipes import load_specs
from lee.models.specification import RecipeFields

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = [
    ("models: [a]\nmodels: [b]", r"the key 'models' stands twice"),
    ("a: {b: 1, c: 2, b: 3}", "the key 'b' stands twice"),
    (BOMB, "more than 100000 values"),
    ("a: &a [*a]", "more than 100000 values"),
    ("[" * 200 + "]" * 200, "nested more than 30 deep"),
    ("{a: " * 200 + "}" * 200, "nested more than 30 deep"),
    ("1: x", "the key '1' is no text"),
    ("true: x", "the key 'true' is no text"),
    ("? [a, b]\n: x", "is no text"),
    ("when: 2024-13-45", "is not valid YAML"),
    ("!!python/object/apply:os.system [true]", "is not valid YAML"),
    ("a: b\x00c", "is not valid YAML"),
    ("a: *nobody", "is not valid YAML"),
    ("a: 1\n b: 2", "is not valid YAML"),
]


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=range(len(TEXTS)))
def test_surprises_of_yaml_are_refused_at_once(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "it.yaml").write_text(text)
    began = time.perf_counter()
    readers: list[Callable[[Path], Any]] = [
        lambda path: read_yaml(path, "file"), sweep.load, load_specs, lambda path: load_profile(str(path), tmp_path),
    ]  # fmt: skip
    for reader in readers:
        with pytest.raises(InputError, match=said) as found:
            reader(tmp_path / "it.yaml")
        assert "it.yaml" in str(found.value)
        assert len(str(found.value)) < 1000
    assert time.perf_counter() - began < 5


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes("models: [é]".encode("latin-1"))
    (tmp_path / "large.yaml").write_text("a: " + "x" * 2**20)
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    for name, said in (
        ("folder", "it is no file"), ("latin", "not text in UTF-8"), ("large", "is too large"),
        ("loop", "can't be read|unknown|Unknown"), ("none", "can't be read"),
    ):  # fmt: skip
        for reader in (sweep.load, load_specs):
            with pytest.raises(InputError, match=said):
                reader(tmp_path / f"{name}.yaml")


def test_merge_keys_and_aliases_are_read() -> None:
    text = "base: &base {n: 1, seed: 2}\nmine: {<<: *base, n: 3}\nsame: [*base, *base]"
    assert parse_yaml(text, "text") == yaml.safe_load(text)


ENTRY = {"dataset": "patches"}
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"n": True}, "x: `n` must be a whole number, not True"),
    ({"n": 2.5}, "`n` must be a whole number, not 2.5"),
    ({"n": "8"}, "`n` must be a whole number, not '8'"),
    ({"n": [1]}, "`n` must be a whole number"),
    ({"size": 10**6}, "`size` must be less than or equal to 8192, not 1000000"),
    ({"seed": False}, "`seed` must be a whole number, not False"),
    ({"align_corners": "no"}, "`align_corners` must be true or false, not 'no'"),
    ({"align_corners": 1}, "`align_corners` must be true or false, not 1"),
    ({"split": 3}, "`split` must be a text, not 3"),
    ({"weights": "trianed"}, "unknown weights 'trianed'. Did you mean 'trained'"),
    ({"kernel": {"a": 1}}, "`kernel` must be a text"),
    ({"output": []}, "`output` must be no empty list"),
    ({"generators": [1]}, "`generators` must be a text, not 1"),
    ({"measures": 3}, "`measures` must be a mapping, not 3"),
    ({"measures": {"eq_t": {"draws": True}}}, "x, measures, eq_t: `draws` must be a whole number, not True"),
    ({"measures": {"eq_t": {"max_shift": 2}}}, "`max_shift` must be less than 1, not 2"),
    ({"measures": {"eq_r": {"max_angle": float("nan")}}}, "`max_angle` must be a finite number"),
    ({"measures": {"turntable": {"step": 0}}}, "`step` must be a number from 1, not 0"),
    ({"measures": {"consistency": {"boundary": "reflct"}}}, "unknown boundary 'reflct'. Did you mean 'reflect'"),
    ({"measures": {"moved": {"generators": ["rotatoin"]}}}, "unknown generator 'rotatoin'. Did you mean 'rotation'"),
    (
        {"generators": ["rotation", "scale", "rotation"]},
        "x, generators: 'rotation' stands twice. Name each generator once",
    ),
    ({"measures": {"moved": {"other": ["scale", "scale"]}}}, "x, measures, moved, other: 'scale' stands twice"),
    ({"measures": {"aliasing": {"generators": ["scale", "scale"]}}}, "'scale' stands twice"),
    ({"dataset": ["patches"] * 101, "kernel": ["central"] * 101}, "make 10201 measurements; 10000 at most"),
]


@pytest.mark.parametrize(("change", "said"), FIELDS, ids=range(len(FIELDS)))
def test_a_field_of_a_sweep_is_named_with_its_place_and_range(change: dict[str, Any], said: str) -> None:
    for entry in ({"x": {**ENTRY, **change}}, {"w": ENTRY, "x": [ENTRY, {**ENTRY, **change}]}):
        with pytest.raises(InputError) as found:
            sweep.parse({"models": ["zoo/vit-s"], "measurements": entry}, "mine.yaml")
        assert str(found.value).startswith("mine.yaml, measurements, x")
        assert said in str(found.value)


@pytest.mark.parametrize(
    "text", ["1e-3", "1e5", "1.5e5", "-2E-7", "1.e3", "0.00001e3", "'1.25e-9'", "'0.00001'", "'7'", "'.5'", "'1_000.5'"]
)
def test_a_number_that_yaml_takes_for_a_text_is_written_so_that_it_does_not(text: str) -> None:
    """What the message says to write is read as the number that was meant."""
    given = parse_yaml(f"lr: {text}", "recipe")["lr"]
    assert isinstance(given, str)
    with pytest.raises(InputError, match="write ") as found:
        validated(RecipeFields, {"lr": given}, "recipe")
    advised = str(found.value).rpartition("write ")[2].removesuffix(".")
    read = parse_yaml(f"lr: {advised}", "recipe")["lr"]
    assert read == float(given)
    assert not isinstance(read, str)


RECIPE = {"dataset": "digits", "epochs": 3}
RECIPES: list[tuple[dict[str, Any], str]] = [
    ({"recipe": {**RECIPE, "epochs": True}}, "models, a, recipe: `epochs` must be a whole number, not True"),
    ({"recipe": {**RECIPE, "lr": "fast"}}, "recipe: `lr` must be a number, not 'fast'"),
    (
        {"recipe": {**RECIPE, "lr": "1e-3"}},
        "`lr` must be a number, not '1e-3'. YAML reads that as a text: write 1.0e-3.",
    ),
    ({"recipe": {**RECIPE, "lr": "2.5E4"}}, "write 2.5e+4."),
    (
        {"recipe": {**RECIPE, "epochs": "1e2"}},
        "`epochs` must be a whole number, not '1e2'. YAML reads that as a text: write 100.",
    ),
    ({"mean": ["0.5", 0.5, 0.5]}, "`mean` must be a number, not '0.5'. YAML reads that as a text: write 0.5."),
    ({"recipe": {**RECIPE, "lr": 0}}, "model 'a', recipe: Recipe field lr is 0, which is out of range: above 0"),
    ({"recipe": {**RECIPE, "channels_last": "no"}}, "`channels_last` must be true or false, not 'no'"),
    ({"recipe": {**RECIPE, "batchsize": 3}}, "unknown field 'batchsize'. Did you mean 'batch_size'"),
    ({"recipe": {**RECIPE, "seed": -1}}, "seed is -1, which is out of range: from 0"),
    ({"recipe": 3}, "models, a: `recipe` must be a mapping"),
    ({"arguments": [1]}, "models, a: `arguments` must be a mapping"),
    ({"mean": 0.5}, "models, a: `mean` must be a list, not 0.5"),
    ({"mean": ["x"]}, "models, a: `mean` must be a number, not 'x'"),
    ({"mean": [0.5]}, "`mean` is [0.5]; expected 3 numbers"),
    ({"std": [0, 1, 1]}, "`std` is [0, 1, 1]; expected numbers above 0"),
    ({"input_size": [3, 32]}, "models, a: `input_size`"),
    ({"input_size": [3, 32, 0]}, "`input_size` is [3, 32, 0]"),
    ({"factory": 3}, "models, a: `factory` must be a text, not 3"),
    ({"budgets": {"full": {"epochs": "many"}}}, "models, a, budgets, full: `epochs` must be a whole number"),
]


@pytest.mark.parametrize(("change", "said"), RECIPES, ids=range(len(RECIPES)))
def test_a_field_of_a_recipe_is_named_with_its_place_and_range(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    entry = {"factory": "mine:build", "recipe": RECIPE, **change}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"models": {"a": entry}}))
    with pytest.raises(InputError) as found:
        load_specs(tmp_path / "mine.yaml")
    assert "mine.yaml" in str(found.value)
    assert said in str(found.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("description: 3", "`description` must be a text, not 3"),
        ("chapters: {01_x: [1]}", "chapters: `01_x` must be a mapping"),
        ("common: 3", "`common` must be a mapping, not 3"),
    ],
)
def test_a_profile_is_held_to_its_form(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_profile(str(tmp_path / "mine.yaml"), tmp_path)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, "int"), (1.0, "int"), ("1", "int"), (None, "int"), (float("nan"), "float"), (float("inf"), "float"),
        (1, "bool"), ("no", "bool"), (1, "str"), (["a", 1], "list[str]"), ([True], "list[int]"), ("ab", "list[str]"),
        ([["a"], [1]], "list[list[str]]"), ({"a": 1}, "dict[str, str]"), ([1], "dict[str, int]"),
    ],
)  # fmt: skip
def test_parameters_of_another_type_are_refused_also_inside(value: Any, annotation: str) -> None:
    with pytest.raises(InputError, match="The parameter n"):
        check("n", value, annotation)
    check("n", {"str": "a", "int": 1, "float": 1, "bool": True, "list": ["a"], "dict": {}}[annotation[:5].split("[")[0]],
          annotation.split("[")[0])  # fmt: skip
