"""Files changed at random: each is read as what it says, or refused in a sentence; no traceback, no wrong value, no hang.

`LEE_FUZZ=2000` makes so many cases in all, and `LEE_FUZZ_SEED=7` others; the counts are printed with `-s`.
"""

import io
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from lee import sweep
from lee.book.parameters import check
from lee.book.profiles import load_profile
from lee.datasets.image_files import read as read_picture
from lee.errors import LeeError
from lee.models.cards import read_card
from lee.models.recipes import load_spec, load_specs
from lee.sweep.table import Part, encode, packed, read

GROUPS = 6
CASES = math.ceil(int(os.environ.get("LEE_FUZZ", "120")) / GROUPS)
SEED = int(os.environ.get("LEE_FUZZ_SEED", "0"))
SECONDS = 10.0  # of computing; a case takes milliseconds
COUNTS: dict[str, Counter[str]] = defaultdict(Counter)

often = settings(
    max_examples=CASES, deadline=None, database=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _told() -> Iterator[None]:
    sweep.parse(SPEC)  # imports what is slow to import
    yield
    print(f"\nseed {SEED}; group: tried, read, sentence")  # noqa: T201
    for group, counts in COUNTS.items():
        print(f"{group}: {sum(counts.values())}, {counts['read']}, {counts['sentence']}")  # noqa: T201


def attempt(group: str, reader: Callable[[], Any], is_right: Callable[[Any], bool]) -> None:
    """Read a changed file: a LeeError with a message of some sentences, or a right value; whatever else is raised fails."""
    began, said = time.process_time(), None
    try:
        found = reader()
    except LeeError as error:
        said = str(error)
    if said is not None:
        assert 10 < len(said) < 1500, "a sentence or two"
        COUNTS[group]["sentence"] += 1
    else:
        assert is_right(found), found
        COUNTS[group]["read"] += 1
    assert time.process_time() - began < SECONDS


numbers = st.one_of(
    st.integers(-3, 300), st.integers(), st.floats(), st.sampled_from([True, False, None, 2**63, -1, 0, 0.0, 1e308])
)
words = st.one_of(
    st.text(max_size=12), st.sampled_from(["train", "none", "rotation", "fourier", "patches", "[/x]", "*", ""])
)
values = st.recursive(
    st.one_of(numbers, words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, st.integers(0, 3)), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in nested mappings and lists."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [*([path] if path else []), *(place for key, part in inner for place in places(part, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, content: Any) -> str:
    """The YAML of some content with values replaced, added or taken away, and maybe bytes changed."""
    content = deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        found = places(content)
        if not found:
            break
        *above, last = draw(st.sampled_from(found))
        target = content
        for key in above:
            target = target[key]
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"])):
            case "replace":
                target[last] = draw(values)
            case "remove":
                del target[last]
            case _ if isinstance(target, dict):
                target[draw(words)] = draw(values)
    text = yaml.safe_dump(content, allow_unicode=True)
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(text)))
        junk = draw(
            st.sampled_from(
                ["\n", "&a ", "*a", "<<: ", "- ", "{", "}", "[", "\t", "\x00", ": ", "!!set ", "? ", "'", "%"]
            )
        )
        text = text[:place] + junk + text[place + draw(st.integers(0, 3)) :]
    return text


def typed(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether a value is of a type, and a finite number if it is one; booleans are no numbers."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))


SPEC = {
    "models": ["zoo/vit-s", "resnet18"],
    "defaults": {"seed": 0, "n": 3, "size": 12, "generators": ["rotation", "scale"]},
    "measurements": {
        "main": {"dataset": ["patches", "digits"], "output": "logits", "align_corners": False},
        "other": [
            {
                "dataset": "patches",
                "kernel": "central",
                "measures": {"eq_t": {"draws": 2, "max_shift": 0.2}, "accuracy": {}},
            },
            {
                "dataset": "patches",
                "generators": "affine",
                "measures": ["consistency", "yardsticks"],
                "boundary": "circular",
            },
        ],
    },
}


def is_sweep(spec: sweep.SweepSpec) -> bool:
    whole = all(
        (way.n is None or (typed(way.n, int) and way.n >= 1)) and (way.size is None or (typed(way.size, int) and way.size >= 1))
        and (way.seed is None or (typed(way.seed, int) and way.seed >= 0)) and typed(way.align_corners, bool)
        and all(isinstance(v, str) for v in (way.name, way.dataset, way.split, way.weights, way.output, way.kernel, way.boundary))
        and all(isinstance(name, str) for name in way.generators or ())
        and all(option is None or typed(option, (int, float, str, list))
                for options in way.measures.values() for option in options.values())
        for way in spec.measurements
    )  # fmt: skip
    return whole and all(isinstance(name, str) for name in spec.models)


@seed(SEED)
@often
@given(text=changed(SPEC))
def test_sweeps(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    attempt("sweeps", lambda: sweep.load(tmp_path / "mine.yaml"), is_sweep)


RECIPES = {
    "families": {"cnn": "CNN"},
    "defaults": {
        "input_size": [1, 8, 8], "mean": [0.5], "std": [0.5],
        "recipe": {"dataset": "digits", "epochs": 2, "batch_size": 64, "lr": 0.02, "channels_last": False},
        "budgets": {"full": {"epochs": 3}},
    },
    "models": {
        "one": {"family": "cnn", "factory": "mine:build", "arguments": {"width": 3}},
        "two": {"like": "one", "recipe": {"seed": 1, "augmentation": "none", "penalty_generators": ["rotation"]}},
    },
}  # fmt: skip


def are_recipes(found: dict[str, Any]) -> bool:
    def fits(recipe: Any) -> bool:
        return all(
            typed(getattr(recipe, item.name), (int, float) if item.type is float else item.type)  # type: ignore[arg-type]
            for item in fields(recipe)
        )

    return all(
        fits(spec.recipe) and isinstance(spec.factory, str) and all(typed(one, int) and one > 0 for one in spec.input_size)
        and all(typed(one, (int, float)) for one in (*spec.mean, *spec.std)) and isinstance(spec.arguments, dict)
        for spec in found.values()
    )  # fmt: skip


@seed(SEED)
@often
@given(text=changed(RECIPES))
def test_recipes(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    attempt("recipes", lambda: load_specs(tmp_path / "mine.yaml"), are_recipes)


PROFILE = {
    "description": "for a test",
    "common": {"n": 3, "rate": 0.5, "name": "photos"},
    "chapters": {"01_a": {"n": 4, "names": ["a", "b"], "fast": True}},
}
TYPES = {"n": "int", "rate": "float", "name": "str", "names": "list[str]", "fast": "bool"}
KINDS: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}


@seed(SEED)
@often
@given(text=changed(PROFILE))
def test_profiles(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")

    def reader() -> dict[str, Any]:
        found = load_profile(str(tmp_path / "mine.yaml"), tmp_path)
        given = {**found.common, **found.chapters.get("01_a", {})}
        for name, value in given.items():
            check(name, value, TYPES.get(name, ""), "the profile")
        return given

    def is_right(given: dict[str, Any]) -> bool:
        lists = given.get("names", [])
        return isinstance(lists, list) and all(isinstance(v, str) for v in lists) and all(
            typed(given[name], KINDS[kind]) for name, kind in TYPES.items() if name in given and kind in KINDS
        )  # fmt: skip

    attempt("profiles", reader, is_right)


@seed(SEED)
@often
@given(
    text=changed(
        {
            "name": "zoo/x",
            "family": "cnn",
            "parameters": 9,
            "test_accuracy": 0.5,
            "sha256": "0" * 64,
            "recipe": {"lr": 1.0},
        }
    )
)
def test_cards(text: str, tmp_path: Path) -> None:
    (tmp_path / "vit-s.md").write_text(f"---\n{text}---\n\n# It\n", encoding="utf-8")
    spec = replace(load_spec("zoo/vit-s"), folder=tmp_path)
    attempt(
        "cards", lambda: read_card(spec),
        lambda card: all(typed(card[k], kind) for k, kind in {
            "name": str, "family": str, "parameters": int, "test_accuracy": (int, float), "sha256": str}.items()),
    )  # fmt: skip


def pictures() -> list[bytes]:
    found, pixels = [], np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        found.append(stream.getvalue())
    deep = io.BytesIO()
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(deep, "PNG")
    return [*found, deep.getvalue()]


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> tuple[bytes, bytes]:
    """A file, and the same with bits flipped, bytes cut out, doubled or put in, or its end cut off."""
    original = draw(st.sampled_from(originals))
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["flip", "flip", "set", "cut", "double", "insert", "end"])):
            case "flip" if content:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if content:
                content[place] = draw(st.sampled_from([0, 1, 127, 128, 255]))
            case "cut":
                del content[place : place + draw(st.integers(1, 40))]
            case "double":
                content[place:place] = content[place : place + 20]
            case "insert":
                content[place:place] = draw(st.binary(max_size=9))
            case _:
                del content[place:]
    return original, bytes(content)


@pytest.mark.filterwarnings("ignore::lee.ImageWarning")
@seed(SEED)
@often
@given(files=damaged(pictures()))
def test_pictures(files: tuple[bytes, bytes]) -> None:
    attempt(
        "pictures", lambda: read_picture(files[1], "it.png", most_pixels=10**7).pixels,
        lambda p: p.ndim == 3 and p.shape[2] == 3 and p.size > 0 and (
            p.dtype == np.uint8 or bool(np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1)),
    )  # fmt: skip


def part(key: str) -> Part:
    random = np.random.default_rng(len(key))
    told = {"model": key, "weights": "trained", "measurement": "x", "dataset": "patches", "split": "test", "output": "logits",
            "kernel": "fourier", "boundary": "reflect", "family": "cnn", "basis": ["rotation", "scale"], "figures": {"a": 0.5},
            "error": None, "warnings": [], "seconds": 1.5}  # fmt: skip
    columns = {"image": np.arange(4), "loss": random.random(4), **packed(random.random((4, 2, 2)))}
    return Part.of(key, told, {"device": "cpu", "threads": 1}, columns)


TABLE = encode([part("a"), part("bb")])


@seed(SEED)
@often
@given(files=damaged([TABLE]))
def test_tables(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(files[1])
    wanted = {key: one.digest for key, one in _read(tmp_path / "whole.parquet").items()}
    attempt(
        "tables", lambda: read(tmp_path / "t.parquet"), lambda found: {k: p.digest for k, p in found.items()} == wanted
    )


def _read(path: Path) -> dict[str, Part]:
    path.write_bytes(TABLE)
    return read(path)
