"""Reading the arguments of the magics; a mistake is a short `UsageError`."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Iterable

from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicArgumentParser

__all__ = ["context_variables", "parse_line", "seconds", "tool_names"]


def parse_line(parser: MagicArgumentParser, line: str) -> argparse.Namespace:
    """Parse the line of a magic as a shell would split it.

    IPython's own `parse_argstring` leaves quotes in the arguments, and breaks
    ``-c "team=north east"`` in two.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{str(error).lower()}: {line}") from None
    return parser.parse_args(words)


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def context_variables(assignments: Iterable[str]) -> dict[str, str | None]:
    """The variables that ``KEY=VALUE`` words name; None for ``KEY=``, which takes one away.

    A value is always text: that ``7`` became a number and ``007`` did not would
    make two owners of one. `codemode_kernel.set_context` takes values of every type.
    """
    variables: dict[str, str | None] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (equals and name.isidentifier()):
            raise UsageError(f"{assignment!r} is not KEY=VALUE, such as client_id=acme")
        variables[name] = value or None
    return variables


def tool_names(text: str | None, registered: Iterable[str]) -> list[str] | None:
    """The tools that ``--tools`` names: None for all, no names for ``none``."""
    if text is None:
        return None
    known = list(registered)
    if text == "none" and "none" not in known:
        return []
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        said = f"no tool is named {', '.join(map(repr, unknown))}" if unknown else "--tools names no tool"
        there = (
            f"there are {', '.join(sorted(known))}" if known else "none is registered (@codemode.tool does)"
        )
        raise UsageError(f"{said}; {there}")
    return names
