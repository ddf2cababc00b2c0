"""What an execution gives back.

`ExecutionResult` holds one execution's outcome; the rich outputs among it
(figures, tables, HTML) are in `codemode.rich_output`, and both are importable
from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from codemode.errors import CodeTimeoutError, ExecutionFailedError
from codemode.rich_output import RichOutput, parse_rich_output

__all__ = [
    "ErrorDetails",
    "ExecutionResult",
    "LimitNotice",
    "RichOutput",
    "SessionState",
    "ToolCallRecord",
    "parse_rich_output",
]

SessionState = Literal["none", "kept", "lost"]
"""What became of the session: the execution had none, it goes on, or its variables are gone."""

_REPR_TEXT = 60
_MAX_VALUE_DEPTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetails:
    """Why an execution failed.

    Attributes:
        type: Name of the exception's type, or ``TimeoutError``, ``OutOfMemoryError``,
            ``SandboxDiedError``, ``ProtocolViolationError`` or ``CancelledError``
            for what the executor saw.
        message: The exception's message.
        traceback: Plain text with the code's own lines.
        traceback_lines: The same, coloured for a terminal or a notebook (ANSI).
        limit: Limit that ended the execution, such as ``timeout_seconds``; or empty. For an
            exception of the code's own, such as MemoryError, it is the sandbox's guess.
        tool: Tool that failed; or empty.
        line: Line of the code, from 1, where the error arose; 0 when unknown.
    """

    type: str
    message: str = ""
    traceback: str = ""
    traceback_lines: tuple[str, ...] = ()
    limit: str = ""
    tool: str = ""
    line: int = 0

    def __str__(self) -> str:
        """Return ``Type: message``, as the last line of a traceback reads."""
        return f"{self.type}: {self.message}" if self.message else self.type

    @property
    def shown_lines(self) -> list[str]:
        """What a front end shows: the traceback, and the executor's word on a limit, which is not in it."""
        lines = list(self.traceback_lines) or self.traceback.splitlines()
        if not lines or (self.limit and not any(self.message in line for line in lines)):
            lines.append(str(self))
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallRecord:
    """One call the code made to one tool, as the executor saw it.

    Attributes:
        call_id: Number of the call within the execution.
        name: Name of the tool.
        started_ms: Milliseconds from the start of the execution to the call.
        duration_ms: Milliseconds until the answer.
        success: Whether the tool answered with a value.
        error: ``Type: message`` of its failure; empty on success.
    """

    call_id: int
    name: str
    started_ms: float = 0.0
    duration_ms: float = 0.0
    success: bool = True
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitNotice:
    """A limit that was reached without ending the execution, such as output that was cut.

    Attributes:
        limit: Name of the limit.
        message: What was done about it.
    """

    limit: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """The outcome of one execution.

    Attributes:
        success: Whether the code ran to its end.
        result: ``str()`` of the variable ``result`` of the code; empty if it set none.
        value: The same as a value, where it could cross from the sandbox; else None.
        outputs: Figures, tables and other rich output, in order.
        stdout: What the code printed.
        stderr: What the code wrote to standard error.
        error: ``Type: message`` of the failure; None on success.
        error_details: The failure in full; None on success.
        tool_calls: Every call the code made to a tool, in order.
        correlation_id: Identifier of the request, for people and logs.
        duration_ms: Milliseconds the code ran.
        notices: Limits that were reached without ending the execution.
        session_state: What became of the session.
        backend: What isolated the code, such as ``docker``.
        sandbox_id: Identifier of the sandbox.
        execution_count: Number of this execution in its session; 0 without one.
        limits: The limits that were in force, by name.
    """

    success: bool
    result: str = ""
    value: Any = None
    outputs: list[RichOutput] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    error_details: ErrorDetails | None = None
    tool_calls: list[ToolCallRecord] = field(default_factory=list)
    correlation_id: str = ""
    duration_ms: float = 0.0
    notices: list[LimitNotice] = field(default_factory=list)
    session_state: SessionState = "none"
    backend: str = ""
    sandbox_id: str = ""
    execution_count: int = 0
    limits: dict[str, Any] = field(default_factory=dict)

    def raise_for_error(self) -> ExecutionResult:
        """Return this result if the code succeeded.

        Raises:
            ExecutionFailedError: The code failed; the error carries this result.
            ExecutorTimeoutError: It was stopped at its time limit. The error
                (`CodeTimeoutError`) is an `ExecutionFailedError` as well.
        """
        if self.success:
            return self
        details = self.error_details
        message = self.error or (
            str(details) if details is not None else "the code failed without saying why"
        )
        # Code that raises a TimeoutError of its own did not reach a limit.
        if details is not None and details.type == "TimeoutError" and details.limit == "timeout_seconds":
            raise CodeTimeoutError(message, result=self)
        raise ExecutionFailedError(message, result=self)

    def to_dict(self) -> dict[str, Any]:
        """Return this result as a dictionary that strict JSON can carry.

        What JSON has no form for becomes its ``repr()``, and a number that is
        not finite becomes None.
        """
        plain: dict[str, Any] = {}
        for item in fields(self):
            content = getattr(self, item.name)
            if item.name in {"outputs", "tool_calls", "notices"}:
                content = [asdict(entry) for entry in content]
            elif item.name == "error_details" and content is not None:
                content = asdict(content)
            plain[item.name] = _plain_json(content)
        return plain

    def __repr__(self) -> str:
        """Return one line: outcome, result or error, what else there is, time, correlation id."""
        if self.success:
            parts = ["success", f"result={_shortened(self.result)!r}"]
        else:
            parts = ["failed", f"error={_shortened(self.error or str(self.error_details or ''))!r}"]
        for count, noun in (
            (len(self.outputs), "output"),
            (len(self.tool_calls), "tool call"),
            (len(self.notices), "notice"),
        ):
            if count:
                parts.append(f"{count} {noun}{'s' if count > 1 else ''}")
        if self.session_state == "lost":
            parts.append("session lost")
        parts.append(f"{self.duration_ms:.1f} ms")
        if self.correlation_id:
            parts.append(self.correlation_id)
        return f"<ExecutionResult {', '.join(parts)}>"


def _shortened(text: str) -> str:
    return text if len(text) <= _REPR_TEXT else text[: _REPR_TEXT - 3] + "..."


def _plain_json(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    # int() and float() because json writes a subclass by its own repr.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)
    if depth < _MAX_VALUE_DEPTH:
        if isinstance(value, Mapping):
            return {str(key): _plain_json(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [_plain_json(item, depth + 1) for item in value]
    return repr(value)
