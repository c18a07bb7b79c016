"""The directive `lee-api`: the public names of a module, made from its `__all__` and its docstrings."""

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective


def public_names(module: ModuleType) -> list[str]:
    """The names of a module's `__all__`, in its order; without one, the public functions and classes that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = {name: thing for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__}
    return [name for name in own if not name.startswith("_")]


def doc_of(module: ModuleType, name: str) -> str:
    """What is said of a public name: its docstring or, of a constant, the comment `#:` above it, wherever in the room it stands."""
    thing = getattr(module, name)
    if inspect.isroutine(thing) or inspect.isclass(thing) or inspect.ismodule(thing):
        return inspect.getdoc(thing) or ""
    room = ".".join(module.__name__.split(".")[:2])
    for home in [other for key, other in sorted(sys.modules.items()) if key.startswith(room)]:
        for (scope, attribute), lines in ModuleAnalyzer.for_module(home.__name__).find_attr_docs().items():
            if not scope and vars(home).get(attribute) is thing:
                return "\n".join(lines).strip()
    return ""


class ApiDirective(SphinxDirective):
    """What a module says of itself, a table of its public names, and an entry for each.

    With the option `table` there is only the table; its names lead to their entries on other pages. With `no-members` classes
    are described without their methods.
    """

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"table": directives.flag, "no-members": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Write the page as reStructuredText and let autodoc fill in the entries."""
        module = import_module(self.arguments[0])
        self.env.note_dependency(str(module.__file__))
        lines = [] if "table" in self.options else [f".. automodule:: {module.__name__}", "   :no-members:", ""]
        lines += [f".. py:currentmodule:: {module.__name__}", "", ".. list-table::", "   :class: lee-names", ""]
        for name in public_names(module):
            summary = " ".join(doc_of(module, name).split("\n\n")[0].split())
            lines += [f"   * - :py:obj:`{name} <{module.__name__}.{name}>`", f"     - {summary}"]
        for name in [] if "table" in self.options else public_names(module):
            lines += ["", *_entry(module, name, "no-members" in self.options)]
        container = nodes.container(classes=["lee-api"])
        self.state.nested_parse(StringList(lines, module.__name__), self.content_offset, container)
        return [container]


def _entry(module: ModuleType, name: str, bare: bool) -> list[str]:
    thing, path = getattr(module, name), f"{module.__name__}.{name}"
    if inspect.isclass(thing):
        if bare or issubclass(thing, Exception):
            return [f".. auto{'exception' if issubclass(thing, Exception) else 'class'}:: {path}", "   :no-members:"]
        options = ["   :special-members: __call__"]
        if {*thing.__bases__} - {object, tuple}:
            options += ["   :show-inheritance:"]
        if fields := getattr(thing, "_fields", ()):  # of a named tuple: its docstring has described them
            options += [f"   :exclude-members: {', '.join(fields)}"]
        return [f".. autoclass:: {path}", *options]
    if inspect.isroutine(thing):
        return [f".. autofunction:: {path}"]
    return [f".. py:data:: {name}", "", *(f"   {line}" for line in doc_of(module, name).splitlines())]
