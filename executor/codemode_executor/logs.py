"""Logs as JSON lines: ids and numbers, never code, keys or context values.

Whatever an exception says may quote what was being worked on, and so may the debug lines of other packages.
So an exception is logged by its type and its stack, never by its message, and other packages are heard from
warnings upwards, whatever the level.
"""

import asyncio
import builtins
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

log = logging.getLogger(__name__)

_FIELDS = {"asctime": "time", "levelname": "level", "name": "logger", "message": "message"}
_ids: ContextVar[Mapping[str, str]] = ContextVar("ids")

# The executor's own words for how an execution ended, and what `tools` and the interpreter raise.
_ERROR_TYPES = frozenset(
    name
    for name, thing in vars(builtins).items()
    if isinstance(thing, type) and issubclass(thing, BaseException)
) | {
    "CancelledError",
    "LimitExceeded",
    "LimitExceededError",
    "OutOfMemoryError",
    "ProtocolViolationError",
    "SandboxDiedError",
    "ToolArgumentError",
    "ToolError",
    "ToolNotFoundError",
    "ToolResultError",
}


def error_type(name: str) -> str:
    """The name of an error's type if it is one that everybody knows, else `other`.

    A sandbox's code names its exceptions as it likes: with what it was given to
    work on, or with another name each time.
    """
    return name if not name or name in _ERROR_TYPES else "other"


def bind(**ids: str) -> None:
    """Add ids to every line logged from here on by the current task and the tasks that it starts."""
    _ids.set({**_ids.get({}), **ids})


def configure(level: str) -> None:
    """Write logs of `level` and above to standard error; call it before anything is served."""
    # gRPC's core writes there too, in a form of its own; what matters of it becomes an error of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(list(_FIELDS), rename_fields=_FIELDS))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("codemode_executor").setLevel(level.upper())
    logging.captureWarnings(True)


def note_background_failure(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log what nobody waited for; the event loop's own handler would write the exception's message."""
    log.error(
        "something failed in the background",
        exc_info=context.get("exception"),
        extra={"what": str(context.get("message", ""))},
    )


class _Formatter(JsonFormatter):
    """Adds the ids that are bound, and takes the messages off exceptions."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        for name, value in _ids.get({}).items():
            log_data.setdefault(name, value)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(_lines(ei[1])) if ei[1] is not None else ""


def _lines(error: BaseException) -> Iterator[str]:
    """A traceback with the types of its exceptions and the places they came through, and nothing else."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _lines(earlier)
        yield "which led to"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"{frame.filename}:{frame.lineno} in {frame.name}"
    yield type(error).__qualname__
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield "of which one is"
            yield from _lines(inner)
