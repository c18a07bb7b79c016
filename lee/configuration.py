"""Files of YAML that people write: read without surprises, and held against a model (pydantic) of what may stand in them.

YAML lets a later key replace an earlier one in silence, and a few hundred bytes of aliases stand for billions of values.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lee.errors import InputError, nearest

#: Limits of a file: bytes, values with each alias written out, and how deep they are nested.
MOST_BYTES, MOST_VALUES, DEEPEST = 2**20, 100_000, 30
_SHOWN = 60  # characters of a value in a message

T = TypeVar("T")
Model = TypeVar("Model", bound="Strict")
#: One value or a list of them, as a list.
Listed = Annotated[
    list[T], BeforeValidator(lambda given: given if isinstance(given, list) else [given]), Field(min_length=1)
]


class Strict(BaseModel):
    """What may stand in a mapping: no other fields, and no value that is read as another kind of value."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses keys that stand twice in a mapping, and keys that are no text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; a key of these kinds is named with its line."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            text = key.tag == "tag:yaml.org,2002:str"
            if not text or key.value in seen:
                what = "stands twice" if text else "is no text; write it in quotes"
                shown = f"{key.value!r:.{_SHOWN}}" if isinstance(key.value, str) else "that is a list or a mapping"
                raise yaml.constructor.ConstructorError(None, None, f"the key {shown} {what}", key.start_mark)
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: Path, what: str) -> Any:
    """The content of a file, which errors call `what`.

    It is refused if it can't be read, is not YAML in UTF-8, has a key twice, or is too large, also by aliases.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"The {what} {path} can't be read: it is no file.")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"The {what} {path} is too large: at most {MOST_BYTES >> 20} MB are read.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"The {what} {path} is not valid YAML: it is not text in UTF-8.") from error
    except OSError as error:
        raise InputError(f"The {what} {path} can't be read: {error.strerror}.") from error
    return parse_yaml(text, f"{what} {path}")


def parse_yaml(text: str, what: str) -> Any:
    """The content of a text; see :func:`read_yaml`."""
    try:
        _check_depth(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise InputError(f"The {what} holds more than {MOST_VALUES} values, with each alias written out.")
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # also a date or a number that there isn't
        if isinstance(error, InputError):
            raise
        raise InputError(f"The {what} is not valid YAML: {' '.join(str(error).split())[:300]}.") from error


def _check_depth(text: str) -> None:
    """Refuse what is nested too deep: whoever follows it, calls itself as often."""
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} deep")


def _size(node: Any, known: dict[int, float]) -> float:
    """How many values a node stands for; infinitely many, if it holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def validated(model: type[Model], content: Any, where: str) -> Model:
    """The content of a file, which errors call `where`, as a model.

    Otherwise the error has the path of the value, the value, what was expected, and for a name the nearest.
    """
    if not isinstance(content, Mapping):
        fields = ", ".join(model.model_fields)
        raise InputError(f"{where}: expected a mapping with {fields}, not {type(content).__name__}.")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}{_sentence(error.errors()[0], model)}") from None


def _sentence(error: Any, model: type[BaseModel]) -> str:
    """Where and what is wrong, after the name of the file."""
    *above, last = error["loc"] or ("",)
    place = "".join(f", {part}" for part in above if not isinstance(part, int) and part != "[key]")
    kind, given, told = error["type"], error["input"], error.get("ctx", {})
    shown = repr(given)
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    if kind == "extra_forbidden":
        return f"{place}: unknown field {last!r}.{nearest(str(last), _fields(model, above))}"
    if isinstance(last, int) and above:  # of a list
        last = next((part for part in reversed(above) if isinstance(part, str)), last)
        place = place.removesuffix(f", {last}")
    if kind == "missing":
        return f"{place}: `{last}:` is missing."
    if kind in ("value_error", "assertion_error"):
        return f"{place}, {last}: {told['error']}"
    expected = _EXPECTED.get(kind) or error["msg"].removeprefix("Input should be ")
    expected = f"{expected} from {told['ge']}" if kind == "greater_than_equal" else expected
    return f"{place}: `{last}` must be {expected}, not {shown}.{_as_number(given, kind)}"


def _as_number(given: Any, kind: str) -> str:
    """How to write a number that YAML 1.1 reads as a text: one in quotes, or with an exponent that lacks a point or a sign."""
    try:
        number = float(given) if isinstance(given, str) and kind in ("float_type", "int_type") else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number) or (kind == "int_type" and not number.is_integer()):
        return ""
    written = f"{number:.0f}" if kind == "int_type" else repr(number)
    if kind == "float_type" and "e" in f"{given}{written}".lower():
        mantissa, _, power = f"{Decimal(given.strip().replace('_', '')):E}".partition("E")
        written = f"{mantissa}{'' if '.' in mantissa else '.0'}e{power}"
    return f" YAML reads that as a text: write {written}."


_EXPECTED = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "string_type": "a text", "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
    "greater_than_equal": "a number", "finite_number": "a finite number", "too_short": "no empty list",
}  # fmt: skip


def _fields(model: Any, path: Iterable[Any]) -> list[str]:
    """The fields of the model at a path below another one."""
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        inner = _models_in(field.annotation) if field is not None else []
        model = inner[0] if inner else model
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[Any]:
    """The models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part)]
