"""What the result of an execution is: its variable `result`, else its last expression's value."""

import ast
import builtins
import json
from typing import Any

_MISSING = object()
# What an execution without a result has.
NOTHING = object()
_LOOKS = {"globals", "locals", "vars", "dir", "get_ipython"}


class EarlierResult:
    """The variable `result` that an earlier execution left, which must not count for this one.

    It is taken out of the namespace and put behind it, among the builtins: there
    the code can still read it, and whether the code sets `result` can be seen
    even when it sets the very same object. Code that looks at its namespace as
    a mapping would miss it, so for such code it stays where it is, and counts
    when it is another object than before, or when the code assigns the name.

    Args:
        namespace: The session's.
        code: What is about to run.
    """

    def __init__(self, namespace: dict[str, Any], code: str) -> None:
        self._namespace = namespace
        self._value = namespace.get("result", _MISSING)
        self._hidden = self._assigned = False
        if self._value is _MISSING:
            return
        looks, self._assigned = _uses_of_result(code)
        if not looks:
            self._hidden = True
            del namespace["result"]
            builtins.result = self._value  # type: ignore[attr-defined]

    def answer(self, last_value: Any) -> Any:
        """The result of the execution that has run; `NOTHING` when there is none.

        Args:
            last_value: The value of its last expression; None when there was none, or it had none.
        """
        found = self._namespace.get("result", _MISSING)
        stale = not self._hidden and found is self._value and not self._assigned
        if found is not _MISSING and not stale:
            return found
        return NOTHING if last_value is None else last_value

    def restore(self) -> None:
        """Put it back, unless the code has set another."""
        if self._hidden:
            if hasattr(builtins, "result"):
                del builtins.result
            self._namespace.setdefault("result", self._value)


def _uses_of_result(code: str) -> tuple[bool, bool]:
    """Whether the code may look at its namespace or deletes `result`, and whether it assigns it."""
    try:
        names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False, False
    mine = [type(node.ctx) for node in names if node.id == "result"]
    looks = ast.Del in mine or any(node.id in _LOOKS for node in names)
    return looks, ast.Store in mine


def typed_value(answer: Any, limit: int) -> bytes:
    """The answer as JSON where JSON carries it unchanged within `limit` bytes, else nothing."""
    budget = [limit // 2 + 1]
    try:
        if not _carries(answer, budget, 0):
            return b""
        # JSON has no infinity.
        encoded = json.dumps(answer, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return b""
    return encoded if len(encoded) <= limit else b""


def _carries(value: Any, budget: list[int], depth: int) -> bool:
    """Whether JSON has a form for all of it; looks at no more than the budget, which bounds the time."""
    budget[0] -= 1
    if budget[0] < 0 or depth > 100:
        return False
    kind = type(value)
    if value is None or kind in (bool, int, float):
        return True
    if kind is str:
        budget[0] -= len(value) // 2
        return budget[0] >= 0
    if kind in (list, tuple):
        return all(_carries(item, budget, depth + 1) for item in value)
    if kind is dict:
        return all(type(key) is str and _carries(item, budget, depth + 1) for key, item in value.items())
    return False
