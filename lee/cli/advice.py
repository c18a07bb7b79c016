"""Messages of the library in the words of the command that runs: options in place of Python's arguments."""

import re
from contextvars import ContextVar
from typing import Any

from lee.errors import LeeError, reason

#: What typer knows of the command that runs, None outside of one.
running: ContextVar[Any] = ContextVar("running", default=None)
#: An argument's name; an argument with its value; what only Python can pass on.
_ARGUMENT = re.compile(r"`(?P<alone>[a-z_]+)`|\b(?P<name>[a-z_]+)=(?P<value>'\w+'|\w+)|\ba callable\b")


def said(error: LeeError) -> str:
    """What an error of the library says to whoever runs a command; what it quotes of others' errors stays as it is."""
    cause = error.__cause__
    quoted = reason(cause) if cause is not None and not isinstance(cause, LeeError) else ""
    before, found, after = str(error).partition(quoted) if quoted else (str(error), "", "")
    return before + found + in_options(after) if found else in_options(before)


def in_options(text: str) -> str:
    """A message with the options of the command that runs, and what to do about arguments that it has no option for."""
    ctx = running.get()
    name = ctx and ctx.invoked_subcommand
    command = name and ctx.command.get_command(ctx, name)
    options = {one.name: one for one in command.params if one.opts[0].startswith("--")} if command else {}
    lacking: dict[str, None] = {}

    def option(found: re.Match[str]) -> str:
        known = options.get(found["alone"] or found["name"])
        value = (found["value"] or "").strip("'")
        if found["alone"]:
            return known.opts[0] if known else found[0]
        # Of words, an option takes those that its help names.
        if (
            known is None
            or value == "lambda"
            or ("'" in found[0] and value not in re.findall(r"\w+", known.help or ""))
        ):
            lacking[found[0] + " …" * (value == "lambda")] = None
            return found[0]
        return known.opts[0] + (f" {value}" if value != "True" else "")

    translated = _ARGUMENT.sub(option, text)
    if not lacking or not any(one.name == "model" for one in command.params):  # others read arguments from files
        return translated
    return (
        f"{translated} `lee {name}` has no option for {' or '.join(lacking)}: call lee from Python, or name a function of your "
        "own that returns the model as it is to be measured: my_net:make for `make` of my_net.py in the working folder."
    )
