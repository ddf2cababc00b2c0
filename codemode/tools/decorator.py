"""The ``@tool`` decorator, and the registry it fills."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from pydantic import BaseModel

    from codemode.core.registry import ComponentRegistry

__all__ = ["default_registry", "tool"]

_MARK = "__codemode_tool__"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """What a ``@tool`` decorator says of the function under it."""

    name: str | None = None
    description: str | None = None
    input_schema: type[BaseModel] | Mapping[str, Any] | None = None
    output_schema: type[BaseModel] | Mapping[str, Any] | None = None


_default_registry: ComponentRegistry | None = None
_default_registry_lock = threading.Lock()


def default_registry() -> ComponentRegistry:
    """Return the registry of this process that ``@tool`` registers in."""
    # Imported here because importing codemode.core imports, in the end, this module.
    from codemode.core.registry import ComponentRegistry

    global _default_registry
    with _default_registry_lock:
        if _default_registry is None:
            _default_registry = ComponentRegistry()
        return _default_registry


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    input_schema: type[BaseModel] | Mapping[str, Any] | None = None,
    output_schema: type[BaseModel] | Mapping[str, Any] | None = None,
    registry: ComponentRegistry | None = None,
    overwrite: bool = False,
) -> Callable[[F], F]: ...


def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    input_schema: type[BaseModel] | Mapping[str, Any] | None = None,
    output_schema: type[BaseModel] | Mapping[str, Any] | None = None,
    registry: ComponentRegistry | None = None,
    overwrite: bool = False,
) -> F | Callable[[F], F]:
    """Offer a function to sandboxed code, as ``@tool`` or ``@tool(name=..., ...)``.

    The function itself is returned and can be called as before. Running the
    definition again, as one does in a notebook, replaces the tool. A method is
    only marked: register ``instance.method``, which has an instance to act on, and what
    is said here holds for it.

    Args:
        function: The function, or coroutine function.
        name: Name of the tool; by default the function's.
        description: What it does; by default its docstring.
        input_schema: As for `ComponentRegistry.register_tool`.
        output_schema: As for `ComponentRegistry.register_tool`.
        registry: Where to register it; by default `default_registry`.
        overwrite: Whether it may replace another tool of this name.

    Raises:
        TypeError: What is decorated is not a function.
        ComponentAlreadyExistsError: Another tool has this name.
        ValueError: The name is not valid.
    """

    def decorate(decorated: F) -> F:
        if not inspect.isfunction(decorated):
            raise TypeError(
                f"@tool decorates functions, not {type(decorated).__name__} objects; "
                "use register_tool(name, object)"
            )
        setattr(decorated, _MARK, ToolDescription(name, description, input_schema, output_schema))
        if not _is_in_class(decorated):
            _register(decorated, name or decorated.__name__, registry or default_registry(), overwrite)
        return decorated

    if function is None:
        return decorate
    return decorate(function)


def described_tool(function: Any) -> ToolDescription:
    """Return what a ``@tool`` decorator said of this function or method; nothing if it has none."""
    said = getattr(function, _MARK, None)
    return said if isinstance(said, ToolDescription) else ToolDescription()


def _register(function: Callable[..., Any], name: str, registry: ComponentRegistry, overwrite: bool) -> None:
    present = registry.tools.get(name)
    same = inspect.isfunction(present) and (present.__module__, present.__qualname__) == (
        function.__module__,
        function.__qualname__,
    )
    registry.register_tool(name, function, overwrite=overwrite or same)


def _is_in_class(function: Callable[..., Any]) -> bool:
    # "f" and "g.<locals>.f" are functions, "C.f" and "g.<locals>.C.f" are in a class.
    outer, _, _ = function.__qualname__.rpartition(".")
    return bool(outer) and not outer.endswith("<locals>")
