"""One execution: from the lease of a sandbox to its last event.

It is the channel user of the interpreter that runs its code, so everything
here is called on the event loop, by the link (what the interpreter says), by
the service (what the caller says) and by timers (limits). Whatever comes from
the interpreter is hostile.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from codemode_proto.v1 import executor_pb2 as pb
from codemode_sandbox.frames import INTERPRETER_CHANNEL, Message, MessageKind

from codemode_executor.asking import Asking
from codemode_executor.backends.base import Sandbox
from codemode_executor.event_log import EventLog
from codemode_executor.limits import Limits
from codemode_executor.reports import (
    cancelled,
    died,
    out_of_memory,
    report_of,
    timed_out,
    too_many_calls,
    violation,
)
from codemode_executor.shown import Shown

# Tells this process from another that was started in its place.
INSTANCE = secrets.token_hex(8)
# Code that says nothing for so long is reported as started.
_STARTED_SECONDS = 0.05


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
        self.ended_at = 0.0
        self.log = EventLog()
        self.ended: asyncio.Future[pb.Finished] = asyncio.get_running_loop().create_future()
        # Streams that follow it now.
        self.attached = 0
        # Set when what the interpreter left behind must be killed before the sandbox is used again.
        self.spoiled = False
        self.has_session = has_session
        self._tools = tools
        self._grace = grace
        self._sandbox: Sandbox | None = None
        self._started_at = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._stopping: Callable[[], pb.ErrorDetails] | None = None
        self._notices: list[pb.LimitNotice] = []
        self._shown = Shown(limits.output_bytes, self.log)
        # None when it has ended, so that the two do not keep each other, and all events, in memory.
        self._asking: Asking | None = Asking(
            tools,
            limits,
            self.log,
            tell=self._tell,
            later=self._after,
            elapsed_us=self._elapsed_us,
            give_up=self._stop_calling,
        )

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
        assert self._asking is not None, "it was ended before it began"
        self._sandbox = sandbox
        self._asking.input_allowed = start.allow_input
        # Sent with the first event after it: on its own it would cost as much as the result.
        self.log.record(
            started=pb.Started(
                backend=sandbox.backend,
                sandbox_id=sandbox.sandbox_id,
                limits=self.limits.to_proto(),
                executor_instance=INSTANCE,
            )
        )
        self._after(_STARTED_SECONDS, self.log.wake)
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

    def _stop_calling(self) -> None:
        self._stop(lambda: too_many_calls(self.limits, self.has_session), self._grace)

    # --- what the caller says -------------------------------------------------------------------

    def hear(self, request: pb.ExecuteRequest) -> None:
        """The caller says something other than `start`; what comes too late is ignored."""
        if self._asking is None:
            return
        kind = request.WhichOneof("message")
        if kind == "tool_answer":
            self._asking.answer_tool(request.tool_answer)
        elif kind == "schema_answer":
            self._asking.answer_schema(request.schema_answer)
        elif kind == "input_answer":
            self._asking.answer_input(request.input_answer)
        elif kind == "interrupt":
            self.interrupt()
        elif kind == "cancel":
            self.cancel("the caller cancelled it")

    def unanswered(self, up_to: int) -> list[pb.ExecuteEvent]:
        """Questions among the first `up_to` events that have no answer yet: they are asked again."""
        return [] if self._asking is None else self._asking.unanswered(up_to)

    # --- what the interpreter says (hostile) ---------------------------------------------------

    def on_message(self, message: Message) -> None:  # noqa: D102 - as in ChannelUser
        if self._asking is None:
            return
        try:
            self._handle(message, self._asking)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.on_violation(f"{type(error).__name__} in a message of kind {message.kind}")

    def _handle(self, message: Message, asking: Asking) -> None:
        head, body = message.head, message.body
        if message.kind == MessageKind.OUTPUT:
            self._shown.output(head["stream"], body)
        elif message.kind == MessageKind.DISPLAY:
            self._shown.display(head["kind"], body)
        elif message.kind == MessageKind.TOOL_CALL:
            asking.call(head, body)
        elif message.kind == MessageKind.SCHEMA_REQUEST:
            asking.schema(head)
        elif message.kind == MessageKind.INPUT_REQUEST:
            asking.input(head)
        elif message.kind == MessageKind.DONE:
            self._done(head, body)
        else:
            raise ValueError("unknown kind")

    def on_output(self, stream: str, data: bytes) -> None:  # noqa: D102
        if not self.finished:
            self._shown.output(stream, data, "descriptor")

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

    def _tell(self, kind: MessageKind, head: dict[str, Any], body: bytes = b"") -> None:
        if self._sandbox is not None:
            self._sandbox.link.send(INTERPRETER_CHANNEL, kind, head, body)

    # --- its end ----------------------------------------------------------------------------------

    def _elapsed_us(self) -> int:
        return int((time.monotonic() - self._started_at) * 1e6) if self._started_at else 0

    def _finish(
        self,
        *,
        error: pb.ErrorDetails | None = None,
        result: str = "",
        value: pb.Value | None = None,
        count: int = 0,
    ) -> None:
        if self._asking is None:
            return
        calls, self._asking = self._asking.calls, None
        for timer in self._timers:
            timer.cancel()
        if (cut := self._shown.notice()) is not None:
            self._notices.append(cut)
        state = pb.SESSION_NONE
        if self.has_session:
            state = pb.SESSION_LOST if self.spoiled else pb.SESSION_KEPT
        finished = pb.Finished(
            success=error is None,
            result=result,
            value=value,
            error=error,
            tool_calls=calls,
            duration_us=self._elapsed_us(),
            notices=self._notices,
            session=state,
            execution_count=count,
        )
        self.ended_at = time.monotonic()
        self.log.emit(finished=finished)
        self.ended.set_result(finished)
        if self._sandbox is not None:
            self._sandbox.link.detach(INTERPRETER_CHANNEL)
