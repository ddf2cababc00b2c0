"""What a tool's docstring says: its description, and a line for each parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Documentation", "read_documentation"]


@dataclass(frozen=True, slots=True)
class Documentation:
    """A docstring without its markup.

    Attributes:
        description: Summary and body.
        parameters: Parameter name to description.
    """

    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def read_documentation(tool: Any, function: Callable[..., Any]) -> Documentation:
    """Read the docstrings of a tool and of the function it is called by.

    An object's own ``description`` comes first, then its class's docstring, then
    the function's. Google, NumPy, Sphinx and Epydoc styles are understood.

    Args:
        tool: The tool as it was registered.
        function: What is called, or what stands for it.
    """
    while isinstance(function, functools.partial):
        function = function.func
    of_function = _parse(inspect.getdoc(function))
    if inspect.isroutine(tool) or isinstance(tool, functools.partial):
        return of_function
    own = getattr(tool, "description", None)
    if isinstance(own, str) and own.strip():
        description = own.strip()
    else:
        description = _class_description(type(tool)) or of_function.description
    return Documentation(description, of_function.parameters)


def _class_description(of: type) -> str:
    # __doc__ and not getdoc(), which would find the docstring of a base class.
    text = of.__doc__ or ""
    # A dataclass without a docstring is given its signature for one.
    if text.startswith(f"{of.__name__}("):
        return ""
    return _parse(inspect.cleandoc(text)).description


def _parse(text: str | None) -> Documentation:
    if not text:
        return Documentation()
    import docstring_parser

    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return Documentation(text.strip())
    return Documentation(
        (parsed.description or "").strip(),
        {item.arg_name: " ".join(item.description.split()) for item in parsed.params if item.description},
    )
