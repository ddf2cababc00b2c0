"""Correlation ids: short names for requests, for people and logs.

An id such as ``cm-t5x2f9-a7b3`` sorts by time and is unique among those of its
process; it is no secret and grants nothing. (What identifies an execution to
the executor is its ``execution_id``.)
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["generate_correlation_id", "get_correlation_id", "validate_correlation_prefix"]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_RANDOM_DIGITS = 4
_RANDOM_RANGE: int = len(_DIGITS) ** _RANDOM_DIGITS
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


# Of the execution that a tool is running for.
_current: ContextVar[str] = ContextVar("codemode_correlation_id", default="")


def get_correlation_id() -> str:
    """Return the correlation id of the execution that called this tool; empty outside of tools."""
    return _current.get()


def set_correlation_id(correlation_id: str) -> None:
    """Make this what tools get from here on, in the present context of `contextvars`."""
    _current.set(correlation_id)


class _RandomPart:
    """Four digits that look random and do not repeat before all have been used.

    Four digits drawn independently would collide within a second at a few
    hundred requests. Steps of a size coprime to the range visit every value once.
    """

    def __init__(self) -> None:
        self._offset = secrets.randbelow(_RANDOM_RANGE)
        # The range is 2**8 * 3**8: one more than a multiple of 6 is coprime to it.
        self._step = 6 * secrets.randbelow(_RANDOM_RANGE // 6) + 1
        # next() of a counter is atomic, so threads need no lock.
        self._counter: Iterator[int] = itertools.count()

    def draw(self) -> int:
        return (self._offset + next(self._counter) * self._step) % _RANDOM_RANGE


_random_part = _RandomPart()


def _start_anew() -> None:
    global _random_part
    _random_part = _RandomPart()


# The workers that a web server forks would otherwise give out the same ids.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def generate_correlation_id(prefix: str = "cm") -> str:
    """Return a new correlation id, ``{prefix}-{base36_timestamp}-{random}``.

    Args:
        prefix: What the id begins with, see `validate_correlation_prefix`.

    Returns:
        Such as ``cm-t5x2f9-a7b3``; the timestamp counts seconds since 1970.

    Raises:
        TypeError: The prefix is not a string.
        ValueError: The prefix has other characters, or is empty or too long.
    """
    validate_correlation_prefix(prefix)
    timestamp = _base36(int(time.time()))
    return f"{prefix}-{timestamp}-{_base36(_random_part.draw()).rjust(_RANDOM_DIGITS, '0')}"


def validate_correlation_prefix(prefix: str) -> str:
    """Return the prefix if correlation ids may begin with it.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not 1 to 32 ASCII letters, digits, ``_``, ``.`` or ``-``
            that start with a letter or a digit.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"a correlation id prefix is a str, not {type(prefix).__name__}")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"correlation id prefix {prefix[:64]!r} is not valid: use 1 to 32 ASCII letters, digits, "
            "'_', '.' or '-', and start with a letter or a digit"
        )
    return prefix


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
