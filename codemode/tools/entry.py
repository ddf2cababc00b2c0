"""Which callable of a tool is called, and how.

A tool may be a function, an object with a method of a known name, or a tool of
an agent framework. `find_entry` looks at the object once and settles on one
callable; everything else works with that `ToolEntry`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from codemode.errors import ToolSchemaError

__all__ = ["ToolEntry", "find_entry"]


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """The callable of a tool.

    Attributes:
        function: What is called.
        is_async: Whether calling it gives a coroutine.
        takes_context: Whether its first argument is the RuntimeContext.
        takes_mapping: Whether it takes all arguments as one dictionary
            (``invoke`` of LangChain) instead of as keywords.
        described_by: The callable whose parameters and docstring describe the
            arguments; mostly ``function`` itself.
    """

    function: Callable[..., Any]
    is_async: bool
    takes_context: bool = False
    takes_mapping: bool = False
    described_by: Callable[..., Any] | None = None


def find_entry(name: str, tool: Any) -> ToolEntry:
    """Find the callable of a tool.

    In order: the tool itself if it is a function or a method;
    ``run_with_context(context, ...)``; ``invoke`` of an object that also has an
    ``args_schema`` (LangChain, whose ``run`` takes other arguments); ``_run`` of one that
    has an ``args_schema`` (CrewAI, whose ``run`` only forwards); ``run_async``; ``run``;
    ``invoke``; ``_run``; the object itself if it can be called.

    Raises:
        ToolSchemaError: There is none of these, or the tool is a class.
    """
    if inspect.isclass(tool):
        raise ToolSchemaError(
            f"cannot use {tool.__name__} as tool {name!r}: it is a class; register an instance of it",
            tool=name,
        )
    if inspect.isroutine(tool) or isinstance(tool, functools.partial):
        return ToolEntry(tool, _is_async(tool))
    if method := _method(tool, "run_with_context"):
        return ToolEntry(method, _is_async(method), takes_context=True)
    if getattr(tool, "args_schema", None) is not None:
        if _method(tool, "invoke"):
            return _invoke_entry(tool)
        if method := _method(tool, "_run"):
            return ToolEntry(method, _is_async(method))
    for method_name in ("run_async", "run"):
        if method := _method(tool, method_name):
            return ToolEntry(method, method_name == "run_async" or _is_async(method))
    if _method(tool, "invoke"):
        return _invoke_entry(tool)
    if method := _method(tool, "_run"):
        return ToolEntry(method, _is_async(method))
    if callable(tool):
        return ToolEntry(tool, _is_async(tool))
    raise ToolSchemaError(
        f"cannot use an object of type {type(tool).__name__} as tool {name!r}: it is not a function and has "
        "no run, run_async, run_with_context, invoke or _run method; add one, or register a function",
        tool=name,
    )


def _invoke_entry(tool: Any) -> ToolEntry:
    # LangChain gives every tool an ainvoke, which runs a synchronous one in a
    # thread: only a tool with a coroutine of its own is asynchronous.
    coroutine = getattr(tool, "coroutine", None)
    described_by = coroutine or getattr(tool, "func", None)
    ainvoke = _method(tool, "ainvoke")
    if coroutine is not None and ainvoke is not None:
        return ToolEntry(ainvoke, True, takes_mapping=True, described_by=described_by)
    return ToolEntry(tool.invoke, _is_async(tool.invoke), takes_mapping=True, described_by=described_by)


def _method(tool: Any, name: str) -> Callable[..., Any] | None:
    method = getattr(tool, name, None)
    return method if callable(method) else None


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    # An object whose __call__ is a coroutine function, or a mark left by a decorator.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # the method is wanted, not whether there is one
    )
