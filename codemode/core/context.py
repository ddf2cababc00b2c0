"""The variables of a request, and which request the running code belongs to.

A `RuntimeContext` holds the variables (``client_id``, ``user_id`` ...). Which one
is in force is kept in one ``ContextVar``, so every async task and every thread has
its own. It holds an immutable `_Scope`: setting a context replaces the scope of
this task alone, never one that another task inherited.

Each registry sees the context that was set on it, so that two of them, serving
two tenants from one task, do not pass on each other's variables. During a tool
call every registry sees the context of the execution that makes the call.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, KeysView, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from codemode.errors import ContextVariableError

__all__ = ["RuntimeContext", "get_current_context", "reset_context", "use_context"]


@dataclass(frozen=True, slots=True)
class RuntimeContext:
    """The variables of a request; immutable, and safe to share between tasks.

    ``context["client_id"]``, ``"client_id" in context`` and ``dict(context)`` work as
    with a mapping. A context is always true, even one without variables.

    Attributes:
        variables: Name to value. The mapping cannot be changed: `with_variables`
            gives a context with more of them.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Copy the variables, so that the caller's later changes are not seen.

        Raises:
            TypeError: The variables are no mapping, or a name is not a string.
        """
        if not isinstance(self.variables, Mapping):
            raise TypeError(
                f"RuntimeContext variables are a mapping of names to values, "
                f"not {type(self.variables).__name__}"
            )
        for name in self.variables:
            if not isinstance(name, str):
                raise TypeError(
                    f"the name of a context variable is a str, not {type(name).__name__} ({name!r})"
                )
        object.__setattr__(self, "variables", MappingProxyType(dict(self.variables)))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> RuntimeContext:
        """Make a context of a notebook's or a batch's parameters.

        A parameter that is None counts as not given: it must not make the owner
        of a sandbox "the client None".

        Raises:
            ContextVariableError: A parameter has a value that JSON cannot carry.
        """
        context = cls({name: value for name, value in parameters.items() if value is not None})
        context.to_json()
        return context

    def get(self, key: str, default: Any = None) -> Any:
        """Return the variable, or the default if there is none."""
        return self.variables.get(key, default)

    def with_variables(self, **variables: Any) -> RuntimeContext:
        """Return a context with these variables besides, or in place of, the present ones."""
        return RuntimeContext({**self.variables, **variables})

    def to_json(self) -> str:
        """Return the variables as a JSON object.

        Raises:
            ContextVariableError: Names the variable that JSON cannot carry.
        """
        members = []
        for name, value in self.variables.items():
            try:
                members.append(f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}")
            except (TypeError, ValueError, RecursionError) as error:
                raise ContextVariableError(
                    f"the context variable {name!r}, of type {type(value).__name__}, cannot be sent as "
                    f"JSON ({error}); give it as a string, a finite number, a bool, None, or a list or "
                    "dict of these",
                    variable=name,
                ) from None
        return "{" + ", ".join(members) + "}"

    def keys(self) -> KeysView[str]:
        """Return the names of the variables."""
        return self.variables.keys()

    def __getitem__(self, key: str) -> Any:
        """Return a variable.

        Raises:
            KeyError: There is no such variable.
        """
        return self.variables[key]

    def __contains__(self, key: object) -> bool:
        """Whether there is a variable of this name."""
        return key in self.variables

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the variables."""
        return iter(self.variables)

    def __repr__(self) -> str:
        """Return the expression that makes this context."""
        return f"RuntimeContext(variables={dict(self.variables)!r})"

    def __reduce__(self) -> tuple[type[RuntimeContext], tuple[dict[str, Any]]]:
        """Pickle and copy through a plain dict: a mapping proxy can do neither."""
        return (RuntimeContext, (dict(self.variables),))


@dataclass(frozen=True, slots=True)
class _Scope:
    """The contexts in force in one task.

    Attributes:
        execution: Context of the execution whose tool call is running, if any.
        by_registry: What was set on each registry, by its key; the latest is last.
            None means "cleared" and hides the execution's.
    """

    execution: RuntimeContext | None = None
    by_registry: dict[object, RuntimeContext | None] = field(default_factory=dict)

    @property
    def current(self) -> RuntimeContext | None:
        return next(reversed(self.by_registry.values()), self.execution)


_NOTHING_SET = _Scope()
_scope: ContextVar[_Scope] = ContextVar("codemode_context", default=_NOTHING_SET)


def get_current_context() -> RuntimeContext | None:
    """Return the context in force in this task or thread, or None.

    It is the one that was set last, on whichever registry; in a tool, the one
    of the execution that calls it.
    """
    return _scope.get().current


def reset_context() -> None:
    """Forget, in this task or thread, the contexts of all registries."""
    _scope.set(_NOTHING_SET)


@contextlib.contextmanager
def use_context(context: RuntimeContext | None) -> Iterator[None]:
    """Make this the context of every registry, in this task, for the length of a ``with`` block."""
    token = _scope.set(_Scope(execution=context))
    try:
        yield
    finally:
        _scope.reset(token)


def context_of_registry(key: object) -> RuntimeContext | None:
    """Return what the registry of this key sees; for `ComponentRegistry`."""
    scope = _scope.get()
    return scope.by_registry.get(key, scope.execution)


def set_context_of_registry(key: object, context: RuntimeContext | None) -> None:
    """Set what the registry of this key sees, None for nothing; for `ComponentRegistry`."""
    scope = _scope.get()
    by_registry = {other: kept for other, kept in scope.by_registry.items() if other is not key}
    if context is not None or scope.execution is not None:
        by_registry[key] = context
    _scope.set(_Scope(scope.execution, by_registry))
