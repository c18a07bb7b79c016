"""The API reference: the public names of every room, once each, with every parameter described."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pydoc import locate
from typing import Any, is_typeddict

import pytest
from torch import Tensor

from lee.book.site.api import doc_of, public_names

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "book" / "api").glob("*.md"))
#: Modules on the pages, and whether the methods of their classes are shown.
SHOWN = {m[1]: not m[2] for page in PAGES for m in re.finditer(r"lee-api:: (\S+)(\n +:no-members:)?", page.read_text())}
MODULES = list(SHOWN)


def documented() -> dict[str, Any]:
    """What the pages have an entry for, by its full name."""
    return {f"{m}.{name}": getattr(import_module(m), name) for m in MODULES for name in public_names(import_module(m))}


def sections(doc: str | None) -> dict[str, dict[str, str]]:
    """The sections of a docstring: what each describes, by name; a parameter `*args` is called `args`."""
    parts = re.split(r"(?m)^(Args|Attributes|Raises|Returns|Examples):\n", inspect.cleandoc(doc or ""))
    found: dict[str, dict[str, str]] = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        entries = re.split(r"(?m)^    \*{0,2}(\w+): ", text)
        found.setdefault(title, {}).update(zip(entries[1::2], entries[2::2], strict=True))
    return found


def callables(name: str, thing: Any, members: bool) -> Iterator[tuple[str, Callable[..., Any], str]]:
    """A function, or a class with its public methods, and what is said of their parameters."""
    if inspect.isroutine(thing):
        yield name, thing, thing.__doc__ or ""
    elif inspect.isclass(thing) and not issubclass(thing, Exception) and not getattr(thing, "_is_protocol", False):
        # What a class or a method inherits is described where it is first defined.
        line = [base for base in thing.__mro__ if base.__module__.startswith("lee.")]
        yield name, thing, "\n\n".join(inspect.cleandoc(base.__doc__ or "") for base in line)
        for method, value in vars(thing).items() if members else []:
            function = getattr(value, "__func__", value)
            if inspect.isfunction(function) and (method == "__call__" or not method.startswith("_")):
                homes = [
                    getattr(vars(base)[method], "__func__", vars(base)[method]) for base in line if method in vars(base)
                ]
                yield f"{name}.{method}", function, "\n\n".join(inspect.cleandoc(home.__doc__ or "") for home in homes)


def missing(name: str, thing: Callable[..., Any], doc: str) -> Iterator[str]:
    """What the docstring of a callable leaves out."""
    said = sections(doc)
    described = said.get("Args", {})
    if is_typeddict(thing):
        parameters = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in thing.__annotations__]
    else:
        parameters = [p for p in inspect.signature(thing).parameters.values() if p.name not in ("self", "cls")]
    for parameter in parameters:
        if not described.get(parameter.name, "").strip():
            yield f"{name}: {parameter.name} is not described"
        elif parameter.annotation in ("Tensor", Tensor) and not re.search(r"\(.*\)|shape", described[parameter.name]):
            yield f"{name}: {parameter.name} is a tensor without a shape"
    for other in described.keys() - {p.name for p in parameters}:
        if not inspect.isclass(thing):
            yield f"{name}: {other} is described but no parameter"
    if inspect.isfunction(inspect.unwrap(thing)) and "Raises" not in said and refuses(inspect.unwrap(thing)):
        yield f"{name}: refuses, and does not say when"


def refuses(function: Callable[..., Any]) -> bool:
    """Whether a function itself raises an error of this package."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return any(ast.unparse(error.func).endswith("Error") for error in raised)


def test_every_room_has_a_page_of_the_reference() -> None:
    rooms = {path.name for path in (ROOT / "lee").iterdir() if (path / "__init__.py").is_file()}
    inner = {"cli", "process"}  # a command, and what is of no use outside
    assert {name.split(".")[1] for name in MODULES} == rooms - inner | {"errors"}
    index = (ROOT / "book" / "api.md").read_text()
    assert [page.name for page in PAGES if f"(api/{page.name})" not in index] == []
    example = re.search(r"```python\n(.*?)```", index, re.DOTALL)
    assert example
    assert example[1] in (ROOT / "README.md").read_text()  # which is run by tests/test_readme.py


def test_every_name_is_documented_once_and_none_is_private() -> None:
    homes: dict[int, list[str]] = {}
    for name, thing in documented().items():
        homes.setdefault(id(thing), []).append(name)
    assert [names for names in homes.values() if len(names) > 1 and callable(locate(names[0]))] == []
    assert [name for name in documented() if name.rpartition(".")[2].startswith("_")] == []


def test_what_chapters_import_is_in_the_reference() -> None:
    known = {id(thing) for thing in documented().values()}
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        cells = [c["source"] for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        code = "\n".join(line for cell in cells for line in "".join(cell).splitlines() if not line.startswith("%"))
        for node in ast.walk(ast.parse(code)):
            for alias in node.names if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lee") else []:
                name = f"{node.module}.{alias.name}"
                assert inspect.ismodule(locate(name)) or id(locate(name)) in known, f"{path.name} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_public_names_say_everything_that_a_caller_needs(module: str) -> None:
    home, gaps = import_module(module), []
    for name in public_names(home):
        if not doc_of(home, name):
            gaps.append(f"{name} has no docstring or comment `#:`")
        for one in callables(name, getattr(home, name), SHOWN[module]):
            gaps += missing(*one)
    assert not gaps, "\n".join(gaps)


def test_the_reader_of_docstrings_finds_gaps() -> None:
    def probe(x: "Tensor", y: int) -> None:  # type: ignore[name-defined]
        raise ValueError(f"{x} {y}")

    gaps = {"p: y is not described", "p: refuses, and does not say when", "p: x is a tensor without a shape"}
    assert set(missing("p", probe, "Do.\n\nArgs:\n    x: A tensor.\n")) == gaps
    whole = "Do.\n\nArgs:\n    x: Values (N,),\n        of any unit.\n    y: How many.\n\nRaises:\n    ValueError: Always.\n"
    assert list(missing("p", probe, whole)) == []
    assert list(missing("p", probe, whole.replace("y: How", "y: How\n    z: How"))) == [
        "p: z is described but no parameter"
    ]
