"""One kind of component: live objects under unique names."""

from __future__ import annotations

import difflib
import threading
from typing import Any

from codemode.errors import (
    ComponentAlreadyExistsError,
    ComponentNotFoundError,
    InvalidComponentError,
    ToolNotFoundError,
)

__all__ = ["Components"]

_MAX_NAME_CHARACTERS = 128
_NAMES_IN_MESSAGE = 20


class Components:
    """The components of one kind; every method may be called from any thread."""

    def __init__(self, kind: str) -> None:
        """Make an empty collection.

        Args:
            kind: What error messages call a component: ``"tool"``, ``"agent"`` ...
        """
        self._kind = kind
        self._objects: dict[str, Any] = {}
        self._lock = threading.Lock()

    def add(self, name: str, component: Any, *, overwrite: bool) -> None:
        """Put a component under a name.

        Raises:
            InvalidComponentError: The name or the component is not valid.
            ComponentAlreadyExistsError: The name is taken and ``overwrite`` is False.
        """
        self.check(name, component)
        with self._lock:
            if name in self._objects and not overwrite:
                raise ComponentAlreadyExistsError(
                    f"{self._kind} {name!r} is already registered; choose another name, unregister it "
                    "first, or pass overwrite=True to replace it",
                    kind=self._kind,
                    name=name,
                )
            self._objects[name] = component

    def get(self, name: str) -> Any:
        """Return the component of this name.

        Raises:
            ComponentNotFoundError: There is none; for a tool a `ToolNotFoundError`.
        """
        with self._lock:
            if isinstance(name, str) and name in self._objects:
                return self._objects[name]
            known = list(self._objects)
        raise self._not_found(name, known)

    def remove(self, name: str) -> Any:
        """Take the component of this name out, and return it.

        Raises:
            ComponentNotFoundError: There is none; for a tool a `ToolNotFoundError`.
        """
        with self._lock:
            if isinstance(name, str) and name in self._objects:
                return self._objects.pop(name)
            known = list(self._objects)
        raise self._not_found(name, known)

    def clear(self) -> None:
        """Take all components out."""
        with self._lock:
            self._objects.clear()

    def as_dict(self) -> dict[str, Any]:
        """Return a copy, name to component, in the order of registration."""
        with self._lock:
            return dict(self._objects)

    def check(self, name: str, component: Any) -> None:
        """Check that a component may be put under a name.

        Raises:
            InvalidComponentError: The name or the component is not valid.
        """
        problem = ""
        if not isinstance(name, str):
            problem = f"is {type(name).__name__}, not str"
        elif not name.strip():
            problem = "is empty"
        elif len(name) > _MAX_NAME_CHARACTERS:
            problem = f"has {len(name)} characters; at most {_MAX_NAME_CHARACTERS} are allowed"
        elif not name.isprintable() or name != name.strip():
            problem = "has characters that do not show, or spaces around it"
        elif name.startswith("__"):
            problem = "starts with '__', which is reserved"
        shown = name[:_MAX_NAME_CHARACTERS] if isinstance(name, str) else name
        if problem:
            raise InvalidComponentError(
                f"cannot register {self._kind} {shown!r}: its name {problem}",
                kind=self._kind,
                name=str(shown),
            )
        if component is None:
            raise InvalidComponentError(
                f"cannot register {self._kind} {name!r}: it is None; pass the object itself",
                kind=self._kind,
                name=name,
            )

    def _not_found(self, name: object, known: list[str]) -> ComponentNotFoundError:
        wanted = name[:_MAX_NAME_CHARACTERS] if isinstance(name, str) else str(name)
        # Compared without regard to case, which is what people get wrong most.
        folded = {other.casefold(): other for other in reversed(known)}
        near = tuple(folded[match] for match in difflib.get_close_matches(wanted.casefold(), folded, n=3))
        message = f"no {self._kind} named {wanted!r} is registered"
        if near:
            message += f"; did you mean {' or '.join(map(repr, near))}?"
        if not known:
            message += f"; there are no {self._kind}s at all: register_{self._kind}() adds one"
        elif not near or len(known) > len(near):
            listed = ", ".join(map(repr, known[:_NAMES_IN_MESSAGE]))
            rest = len(known) - _NAMES_IN_MESSAGE
            message += f" (registered: {listed}{f' and {rest} more' if rest > 0 else ''})"
        if self._kind == "tool":
            return ToolNotFoundError(message, name=wanted, suggestions=near)
        return ComponentNotFoundError(message, kind=self._kind, name=wanted, suggestions=near)
