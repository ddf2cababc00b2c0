"""One execution: from the lease of a sandbox to its last event.

It is the channel user of the interpreter that runs its code, so everything
here is called on the event loop, by the link (what the interpreter says), by
the service (what the caller says) and by timers (limits). Whatever comes from
the interpreter is hostile.
"""

import asyncio
import codecs
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from codemode_proto.v1 import executor_pb2 as pb
from codemode_sandbox.frames import INTERPRETER_CHANNEL, Message, MessageKind

from codemode_executor.backends.base import Sandbox
from codemode_executor.errors import ServiceError
from codemode_executor.limits import Limits
from codemode_executor.rate import RateLimit
from codemode_executor.reports import (
    cancelled,
    died,
    out_of_memory,
    report_of,
    timed_out,
    too_many_calls,
    violation,
)

# Tells this process from another that was started in its place.
INSTANCE = secrets.token_hex(8)
MAX_OPEN_CALLS = 1000
# Arguments of calls that wait for an answer; one call may have more.
MAX_OPEN_BYTES = 64 << 20
MAX_NAME = 256
# What an event costs in memory here, however little is in it.
_EVENT_BYTES = 512
# One event of output or display for so many bytes of `output_bytes`, and a thousand for the smallest.
_BYTES_PER_PIECE, _LEAST_PIECES = 128, 1000
_PIECE = 65_536
# Code that says nothing for so long is reported as started.
_STARTED_SECONDS = 0.05
_DISPLAYS = {
    "display_data": pb.Display.DISPLAY_DATA,
    "update_display_data": pb.Display.UPDATE_DISPLAY_DATA,
    "execute_result": pb.Display.EXECUTE_RESULT,
    "clear_output": pb.Display.CLEAR_OUTPUT,
}
_STREAMS = {"stdout": pb.Output.STDOUT, "stderr": pb.Output.STDERR}


class Execution:
    """The state of one execution, and its events for whoever is attached.

    Args:
        execution_id: Its identity.
        correlation_id: For people and logs.
        limits: The limits in force.
        tools: Names of the tools it may call; None for all that the caller has.
        has_session: Whether it runs in a session, which is kept if it can be.
        grace: Seconds from an interrupt to the kill.
    """

    def __init__(
        self,
        execution_id: str,
        correlation_id: str,
        limits: Limits,
        tools: frozenset[str] | None,
        has_session: bool,
        grace: float,
    ) -> None:
        self.execution_id = execution_id
        self.correlation_id = correlation_id
        self.limits = limits
        self.digest = b""
        self.size = 0
        self.ended_at = 0.0
        self.events: list[pb.ExecuteEvent] = []
        # Pieces of the last event's text, while nobody was handed it: many small ones become one event.
        self._growing: list[str] = []
        self._growing_length = 0
        self.ended: asyncio.Future[pb.Finished] = asyncio.get_running_loop().create_future()
        # Streams that follow it now.
        self.attached = 0
        self._refusal: ServiceError | None = None
        # Set when what the interpreter left behind must be killed before the sandbox is used again.
        self.spoiled = False
        self._tools = tools
        self.has_session = has_session
        self._grace = grace
        self._sandbox: Sandbox | None = None
        self._started_at = 0.0
        self._changed: asyncio.Future[None] | None = None
        self._awake = False
        self._timers: list[asyncio.TimerHandle] = []
        self._stopping: Callable[[], pb.ErrorDetails] | None = None
        self._output_bytes = 0
        self._output_cut = 0
        self._pieces_left = _LEAST_PIECES + limits.output_bytes // _BYTES_PER_PIECE
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr", "1", "2")
        }
        self._calls: dict[int, pb.ToolCallRecord] = {}
        self._open: dict[int, pb.ExecuteEvent] = {}
        self._open_bytes = 0
        self._input_allowed = False
        # Questions that are not calls, and calls refused for being too many.
        self._questions = self._refusals = 0
        self._rate = RateLimit(limits.tool_calls_per_second)
        self._notices: list[pb.LimitNotice] = []

    @property
    def finished(self) -> bool:
        """Whether the last event is there."""
        return self.ended.done()

    @property
    def begun(self) -> bool:
        """Whether its code was sent to a sandbox."""
        return self._sandbox is not None

    # --- running ----------------------------------------------------------------------------

    def run(
        self, sandbox: Sandbox, start: pb.Start, context: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        """Send the code to the interpreter of a sandbox that is leased for it."""
        self._sandbox = sandbox
        self._input_allowed = start.allow_input
        # Sent with the first event after it: on its own it would cost as much as the result.
        self._record(
            started=pb.Started(
                backend=sandbox.backend,
                sandbox_id=sandbox.sandbox_id,
                limits=self.limits.to_proto(),
                executor_instance=INSTANCE,
            )
        )
        self._after(_STARTED_SECONDS, self._wake)
        self._started_at = time.monotonic()
        sandbox.link.attach(INTERPRETER_CHANNEL, self)
        head = {
            "tools": None if self._tools is None else sorted(self._tools),
            "context": context,
            "config": config,
            "input": start.allow_input,
            "silent": start.silent,
            "alone": not self.has_session,
            "result_bytes": self.limits.result_bytes,
        }
        sandbox.link.send(
            INTERPRETER_CHANNEL, MessageKind.EXECUTE, head, start.code.encode("utf-8", "replace")
        )
        self._after(self.limits.timeout_seconds, self._run_out_of_time)

    def _after(self, seconds: float, function: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, function))

    def _run_out_of_time(self) -> None:
        self._stop(
            lambda: timed_out(self.limits.timeout_seconds, self.has_session, self.spoiled), self._grace
        )

    def interrupt(self) -> None:
        """KeyboardInterrupt in the code; it may catch it."""
        if self._sandbox is not None and not self.finished:
            self._sandbox.link.interrupt(INTERPRETER_CHANNEL)

    def cancel(self, reason: str) -> None:
        """The caller wants it no more: a stateless execution is killed, a session is interrupted first."""
        if self.finished:
            return
        if self._sandbox is None:
            self._finish(error=cancelled(reason))
        else:
            self._stop(lambda: cancelled(reason), self._grace if self.has_session else 0)

    def _stop(self, why: Callable[[], pb.ErrorDetails], grace: float) -> None:
        """Interrupt the code, and kill it if it does not end within `grace` seconds."""
        if self._stopping is not None:
            return
        self._stopping = why
        if grace > 0:
            self.interrupt()
            self._after(grace, self._kill)
        else:
            self._kill()

    def _kill(self) -> None:
        self.spoiled = True
        assert self._stopping is not None
        self._finish(error=self._stopping())

    def refuse(self, error: ServiceError) -> None:
        """Nothing ran, and nothing will: whoever is attached is told why."""
        self._refusal = error
        self._wake()

    # --- what the interpreter says (hostile) ---------------------------------------------------

    def on_message(self, message: Message) -> None:  # noqa: D102 - as in ChannelUser
        if self.finished:
            return
        try:
            self._handle(message)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.on_violation(f"{type(error).__name__} in a message of kind {message.kind}")

    def _handle(self, message: Message) -> None:
        head, body = message.head, message.body
        if message.kind == MessageKind.OUTPUT:
            self._output(_STREAMS[head["stream"]], head["stream"], body)
        elif message.kind == MessageKind.DISPLAY:
            self._display(_DISPLAYS[head["kind"]], body)
        elif message.kind == MessageKind.TOOL_CALL:
            self._call(_positive(head["id"]), _text(head["name"], MAX_NAME), body.decode())
        elif message.kind == MessageKind.SCHEMA_REQUEST:
            request = pb.SchemaRequest(request_id=_positive(head["id"]), name=_text(head["name"], MAX_NAME))
            self._count_question()
            self._ask(request.request_id, schema_request=request)
        elif message.kind == MessageKind.INPUT_REQUEST:
            asked = pb.InputRequest(
                request_id=_positive(head["id"]),
                prompt=_text(head["prompt"], 10_000),
                password=bool(head["password"]),
            )
            self._count_question()
            if self._input_allowed:
                self._ask(asked.request_id, input_request=asked)
            else:
                self._tell(MessageKind.INPUT_ANSWER, {"id": asked.request_id, "eof": True})
        elif message.kind == MessageKind.DONE:
            self._done(head, body)
        else:
            raise ValueError("unknown kind")

    def on_output(self, stream: str, data: bytes) -> None:  # noqa: D102
        if not self.finished:
            self._output(_STREAMS[stream], "1" if stream == "stdout" else "2", data)

    def on_exit(self, exit_code: int, killed_for: str | None) -> None:  # noqa: D102
        self.spoiled = True
        if self.finished:
            return
        if self._stopping is not None:
            self._finish(error=self._stopping())
        elif killed_for == "memory_bytes":
            self._finish(error=out_of_memory(self.limits, self.has_session))
        else:
            self._finish(error=died(exit_code, killed_for, self.has_session))

    def on_violation(self, reason: str) -> None:  # noqa: D102
        self.spoiled = True
        if not self.finished:
            # An interrupt may cut a message in two; then that is not why it ended.
            self._finish(error=self._stopping() if self._stopping is not None else violation(reason))

    def on_lost(self) -> None:  # noqa: D102
        self.spoiled = True
        if self.finished or self._sandbox is None:
            return
        if self._stopping is not None:
            self._finish(error=self._stopping())
            return
        task = asyncio.ensure_future(self._explain_loss(self._sandbox))
        # The loop keeps no strong reference to a task.
        self.ended.add_done_callback(lambda _: task)

    async def _explain_loss(self, sandbox: Sandbox) -> None:
        out = await sandbox.ended_for_memory()
        if not self.finished:
            self._finish(
                error=out_of_memory(self.limits, self.has_session)
                if out
                else died(None, None, self.has_session)
            )

    def _output(self, stream: pb.Output.Stream.ValueType, decoder: str, data: bytes) -> None:
        left = self.limits.output_bytes - self._output_bytes
        if self._output_cut or len(data) > left:
            # Nothing after the first cut, so that it is at one place.
            kept = 0 if self._output_cut else left
            self._output_cut += len(data) - kept
            data = data[:kept]
        self._output_bytes += len(data)
        text = self._decoders[decoder].decode(data)
        if not text:
            return
        if not (self._growing and self.events[-1].output.stream == stream and self._growing_length < _PIECE):
            if self._pieces_left <= 0:
                self._output_cut += len(data)
                return
            self._pieces_left -= 1
            self._emit(output=pb.Output(stream=stream))
            self._growing_length = 0
        self._growing.append(text)
        self._growing_length += len(text)
        self.size += len(text)

    def _settle(self) -> None:
        """Give the last event the text that it has so far; it grows no more."""
        if self._growing:
            # At once: a message never frees what its fields held before.
            self.events[-1].output.text = "".join(self._growing)
            self._growing = []

    def _display(self, kind: pb.Display.Kind.ValueType, body: bytes) -> None:
        room = self.limits.output_bytes - self._output_bytes
        if self._output_cut or len(body) > room or self._pieces_left <= 0:
            self._output_cut += max(1, len(body))
            return
        self._output_bytes += len(body)
        self._pieces_left -= 1
        self._emit(display=pb.Display(kind=kind, content_json=body.decode()))

    def _done(self, head: Mapping[str, Any], body: bytes) -> None:
        report = report_of(head, body, self.limits)
        self._notices += report.notices
        if self._stopping is not None:
            error = self._stopping()
            if report.error is not None:
                error.traceback = report.error.traceback
                error.traceback_lines.extend(report.error.traceback_lines)
                error.line = report.error.line
            self._finish(error=error, count=report.count)
        elif report.error is not None:
            self._finish(error=report.error, count=report.count)
        else:
            self._finish(result=report.result, value=report.value, count=report.count)

    # --- tools ------------------------------------------------------------------------------------

    def _call(self, call_id: int, name: str, arguments: str) -> None:
        if call_id in self._calls:
            raise ValueError("a call id twice")
        if self._refusals >= MAX_OPEN_CALLS:
            # Answering for ever would fill the memory of this process with answers that nobody reads.
            self._stop(lambda: too_many_calls(self.limits, self.has_session), self._grace)
            return
        record = pb.ToolCallRecord(call_id=call_id, name=name, started_us=self._elapsed_us())
        self._calls[call_id] = record
        if len(self._calls) > self.limits.tool_calls:
            # Not kept: the list is bounded as the calls are.
            del self._calls[call_id]
            self._refusals += 1
            limit = self.limits.tool_calls
            self._refuse(call_id, record, "LimitExceeded", f"tool_calls: the limit of {limit:,} is reached")
        elif self._tools is not None and name not in self._tools:
            self._refuse(call_id, record, "ToolNotFoundError", f"this execution may not call a tool {name!r}")
        elif len(self._open) >= MAX_OPEN_CALLS:
            self._refuse(
                call_id, record, "LimitExceeded", f"{MAX_OPEN_CALLS} calls are open already; wait for some"
            )
        elif self._open_bytes and self._open_bytes + len(arguments) > MAX_OPEN_BYTES:
            open_bytes = f"{self._open_bytes:,} bytes of arguments are open already"
            self._refuse(call_id, record, "LimitExceeded", f"{open_bytes}; wait for some calls")
        elif (delay := self._rate.delay()) is None:
            limit = self.limits.tool_calls_per_second
            self._refuse(
                call_id, record, "LimitExceeded", f"tool_calls_per_second: the limit of {limit:,} is reached"
            )
        else:
            call = pb.ToolCall(call_id=call_id, name=name, arguments_json=arguments)
            self._open_bytes += len(arguments)
            if delay > 0:
                self._after(delay, lambda: self._ask(call_id, tool_call=call))
            else:
                self._ask(call_id, tool_call=call)

    def _refuse(self, call_id: int, record: pb.ToolCallRecord, kind: str, message: str) -> None:
        record.duration_us = self._elapsed_us() - record.started_us
        record.error = f"{kind}: {message}"
        self._tell(MessageKind.TOOL_ANSWER, {"id": call_id, "type": kind, "message": message})

    def _count_question(self) -> None:
        self._questions += 1
        if self._questions > self.limits.tool_calls + MAX_OPEN_CALLS or len(self._open) >= 2 * MAX_OPEN_CALLS:
            raise ValueError("too many questions")

    def _ask(self, request_id: int, **message: Any) -> None:
        """Put a question to the caller; it stays open, and is asked again, until it is answered."""
        if request_id in self._open:
            raise ValueError("a request id twice")
        if not self.finished:
            self._open[request_id] = self._emit(**message)

    def answer_tool(self, answer: pb.ToolAnswer) -> None:
        """The caller's answer to a tool call; one that is not open is ignored."""
        if not self._close(answer.call_id, "tool_call"):
            return
        record = self._calls[answer.call_id]
        record.duration_us = self._elapsed_us() - record.started_us
        record.success = answer.WhichOneof("outcome") == "value"
        head: dict[str, Any] = {"id": answer.call_id}
        if not record.success:
            record.error = f"{answer.failure.type}: {answer.failure.message}"[:2000]
            head |= {"type": answer.failure.type, "message": answer.failure.message}
        self._tell(MessageKind.TOOL_ANSWER, head, answer.value.data)

    def answer_schema(self, answer: pb.SchemaAnswer) -> None:
        """The caller's answer to a question about tools."""
        if not self._close(answer.request_id, "schema_request"):
            return
        tools = [
            {
                "name": tool.name,
                "description": tool.description,
                "signature": tool.signature,
                "input_schema": _json_or_none(tool.input_schema_json),
                "output_schema": _json_or_none(tool.output_schema_json),
            }
            for tool in answer.tools
            if self._tools is None or tool.name in self._tools
        ]
        self._tell(MessageKind.SCHEMA_ANSWER, {"id": answer.request_id}, json.dumps(tools).encode())

    def answer_input(self, answer: pb.InputAnswer) -> None:
        """The line that a person typed."""
        if self._close(answer.request_id, "input_request"):
            head = {"id": answer.request_id, "eof": answer.end_of_file}
            self._tell(MessageKind.INPUT_ANSWER, head, answer.text.encode("utf-8", "replace"))

    def _close(self, request_id: int, kind: str) -> bool:
        event = self._open.get(request_id)
        if event is None or event.WhichOneof("message") != kind or self.finished:
            return False
        del self._open[request_id]
        if kind == "tool_call":
            # Whoever could answer has seen the arguments, so they need not be kept for a second look.
            # In another message, because one never frees what its fields held before.
            call = pb.ToolCall(call_id=request_id, name=event.tool_call.name)
            self.events[event.number - 1] = pb.ExecuteEvent(number=event.number, tool_call=call)
            length = len(event.tool_call.arguments_json)
            self._open_bytes -= length
            self.size -= length
        return True

    def _tell(self, kind: MessageKind, head: dict[str, Any], body: bytes = b"") -> None:
        if self._sandbox is not None:
            self._sandbox.link.send(INTERPRETER_CHANNEL, kind, head, body)

    # --- events -----------------------------------------------------------------------------------

    def _elapsed_us(self) -> int:
        return int((time.monotonic() - self._started_at) * 1e6) if self._started_at else 0

    def _emit(self, **message: Any) -> pb.ExecuteEvent:
        event = self._record(**message)
        self._wake()
        return event

    def _record(self, **message: Any) -> pb.ExecuteEvent:
        self._settle()
        event = pb.ExecuteEvent(number=len(self.events) + 1, **message)
        self.events.append(event)
        self.size += event.ByteSize() + _EVENT_BYTES
        return event

    def _wake(self) -> None:
        self._awake = True
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _finish(
        self,
        *,
        error: pb.ErrorDetails | None = None,
        result: str = "",
        value: pb.Value | None = None,
        count: int = 0,
    ) -> None:
        if self.finished:
            return
        for timer in self._timers:
            timer.cancel()
        if self._output_cut:
            message = (
                f"output was cut: {self._output_cut:,} bytes above output_bytes={self.limits.output_bytes:,}"
            )
            if self._pieces_left <= 0:
                message += ", which also bounds the number of displays and changes between streams"
            self._notices.append(pb.LimitNotice(limit="output_bytes", message=message))
        state = pb.SESSION_NONE
        if self.has_session:
            state = pb.SESSION_LOST if self.spoiled else pb.SESSION_KEPT
        finished = pb.Finished(
            success=error is None,
            result=result,
            value=value,
            error=error,
            tool_calls=self._calls.values(),
            duration_us=self._elapsed_us(),
            notices=self._notices,
            session=state,
            execution_count=count,
        )
        self.ended_at = time.monotonic()
        self._emit(finished=finished)
        self.ended.set_result(finished)
        if self._sandbox is not None:
            self._sandbox.link.detach(INTERPRETER_CHANNEL)

    def unanswered(self, up_to: int) -> list[pb.ExecuteEvent]:
        """Questions among the first `up_to` events that have no answer yet: they are asked again."""
        return [event for event in self._open.values() if event.number <= up_to]

    async def wait_for_event(self, after: int) -> None:
        """Wait until there is an event with a number above `after` that is worth a message.

        Raises:
            ServiceError: There will be none, because nothing was run.
        """
        while self._refusal is None and (len(self.events) <= after or not self._awake):
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)
        if self._refusal is not None:
            raise self._refusal

    def events_after(self, number: int, max_bytes: int) -> list[pb.ExecuteEvent]:
        """The events after a number, as many as fit, but at least one."""
        self._settle()
        size, end = 0, number
        while end < len(self.events):
            size += self.events[end].ByteSize()
            if size > max_bytes and end > number:
                break
            end += 1
        return self.events[number:end]


def _positive(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 53:
        raise ValueError("no number of a request")
    return value


def _text(value: Any, limit: int) -> str:
    if type(value) is not str or len(value) > limit:
        raise ValueError("no text, or too long")
    return value.encode("utf-8", "replace").decode()


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
