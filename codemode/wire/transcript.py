"""Turning the events of an execution into its result."""

from __future__ import annotations

import json
from typing import Any, Literal

from codemode_proto.v1 import executor_pb2 as pb

from codemode.errors import ProtocolError
from codemode.events import (
    DisplayOutput,
    ExecutionEvent,
    Finished,
    InputRequested,
    OutputText,
    Started,
    ToolCalled,
)
from codemode.results import (
    ErrorDetails,
    ExecutionResult,
    LimitNotice,
    RichOutput,
    SessionState,
    ToolCallRecord,
    parse_rich_output,
)

_SESSION_STATES: dict[int, SessionState] = {pb.SESSION_KEPT: "kept", pb.SESSION_LOST: "lost"}
_STREAMS: dict[int, Literal["stdout", "stderr"]] = {pb.Output.STDOUT: "stdout", pb.Output.STDERR: "stderr"}


class Transcript:
    """Everything one execution has said so far.

    Args:
        correlation_id: Of the request.
    """

    def __init__(self, correlation_id: str) -> None:
        self._correlation_id = correlation_id
        self._text: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._outputs: list[RichOutput] = []
        self._clear_pending = False
        self._started = Started("", "", {})

    def add(self, event: pb.ExecuteEvent) -> ExecutionEvent | None:
        """Take one event in; returns it as callers see it, or None when it is not for them."""
        kind = event.WhichOneof("message")
        if kind == "output":
            stream = _STREAMS.get(event.output.stream, "stdout")
            self._text[stream].append(event.output.text)
            return OutputText(stream, event.output.text)
        if kind == "display":
            return self._display(event.display)
        if kind == "tool_call":
            return ToolCalled(event.tool_call.call_id, event.tool_call.name, event.tool_call.arguments_json)
        if kind == "input_request":
            return InputRequested(event.input_request.prompt, event.input_request.password)
        if kind == "started":
            # Code that may run twice runs again: what its first run said does not count.
            self._text = {"stdout": [], "stderr": []}
            self._outputs = []
            self._started = Started(
                event.started.backend, event.started.sandbox_id, limits_as_dict(event.started.limits)
            )
            return self._started
        if kind == "finished":
            return Finished(self._result(event.finished))
        return None

    def _display(self, display: pb.Display) -> DisplayOutput | OutputText:
        kind = pb.Display.Kind.Name(display.kind).lower()
        try:
            output = parse_rich_output(kind, display.content_json)
        except ProtocolError as error:
            # One display that makes no sense must not cost the caller everything else.
            text = f"a display was left out: {error.message}\n"
            self._text["stderr"].append(text)
            return OutputText("stderr", text)
        if output.kind == "clear_output":
            self._clear_pending = True
            if not output.wait:
                self._clear()
        elif output.kind == "update_display_data":
            self._update(output)
        else:
            if self._clear_pending:
                self._clear()
            self._outputs.append(output)
        return DisplayOutput(output)

    def _clear(self) -> None:
        self._outputs.clear()
        self._clear_pending = False

    def _update(self, update: RichOutput) -> None:
        display_id = update.transient.get("display_id")
        for index, output in enumerate(self._outputs):
            if display_id is not None and output.transient.get("display_id") == display_id:
                self._outputs[index] = RichOutput(output.kind, update.data, update.metadata, output.transient)

    def _result(self, finished: pb.Finished) -> ExecutionResult:
        details = _details(finished.error) if finished.HasField("error") else None
        return ExecutionResult(
            success=finished.success,
            result=finished.result,
            value=_value(finished.value) if finished.HasField("value") else None,
            outputs=self._outputs,
            stdout="".join(self._text["stdout"]),
            stderr="".join(self._text["stderr"]),
            error=str(details) if details is not None else None,
            error_details=details,
            tool_calls=[
                ToolCallRecord(
                    call_id=call.call_id,
                    name=call.name,
                    started_ms=call.started_us / 1000,
                    duration_ms=call.duration_us / 1000,
                    success=call.success,
                    error=call.error,
                )
                for call in finished.tool_calls
            ],
            correlation_id=self._correlation_id,
            duration_ms=finished.duration_us / 1000,
            notices=[LimitNotice(limit=notice.limit, message=notice.message) for notice in finished.notices],
            session_state=_SESSION_STATES.get(finished.session, "none"),
            backend=self._started.backend,
            sandbox_id=self._started.sandbox_id,
            execution_count=finished.execution_count,
            limits=dict(self._started.limits),
        )


def _details(error: pb.ErrorDetails) -> ErrorDetails:
    return ErrorDetails(
        type=error.type,
        message=error.message,
        traceback=error.traceback,
        traceback_lines=tuple(error.traceback_lines),
        limit=error.limit,
        tool=error.tool,
        line=error.line,
    )


def _value(value: pb.Value) -> Any:
    if value.media_type != "application/json":
        return None
    try:
        return json.loads(value.data)
    except (ValueError, RecursionError):
        return None


def limits_as_dict(limits: pb.Limits) -> dict[str, float]:
    """The limits that are set, by name."""
    return {field.name: getattr(limits, field.name) for field, _ in limits.ListFields()}
