"""What code asks of its caller: tools, what they are, and lines of input; and the caller's answers."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from codemode_proto.v1 import executor_pb2 as pb
from codemode_sandbox.frames import MessageKind

from codemode_executor.event_log import EventLog
from codemode_executor.limits import Limits
from codemode_executor.rate import RateLimit

MAX_OPEN_CALLS = 1000
# Arguments of calls that wait for an answer; one call may have more.
MAX_OPEN_BYTES = 64 << 20
MAX_NAME = 256
MAX_PROMPT = 10_000


class Asking:
    """The questions of one execution, each open until it is answered.

    Args:
        tools: Names of the tools it may call; None for all that the caller has.
        limits: The limits in force.
        log: Where the questions go.
        tell: Sends the interpreter a message: its kind, head and body.
        later: Calls a function after so many seconds, unless the execution ended before.
        elapsed_us: Microseconds since the code began.
        give_up: Ends an execution that goes on asking although it is refused.
    """

    def __init__(
        self,
        tools: frozenset[str] | None,
        limits: Limits,
        log: EventLog,
        *,
        tell: Callable[[MessageKind, dict[str, Any], bytes], None],
        later: Callable[[float, Callable[[], None]], None],
        elapsed_us: Callable[[], int],
        give_up: Callable[[], None],
    ) -> None:
        self.input_allowed = False
        self._tools = tools
        self._limits = limits
        self._log = log
        self._tell = tell
        self._later = later
        self._elapsed_us = elapsed_us
        self._give_up = give_up
        self._rate = RateLimit(limits.tool_calls_per_second)
        self._calls: dict[int, pb.ToolCallRecord] = {}
        self._open: dict[int, pb.ExecuteEvent] = {}
        self._open_bytes = 0
        # Questions that are not calls, and calls refused for being too many.
        self._questions = self._refusals = 0

    @property
    def calls(self) -> list[pb.ToolCallRecord]:
        """Every call so far."""
        return list(self._calls.values())

    def unanswered(self, up_to: int) -> list[pb.ExecuteEvent]:
        """Questions among the first `up_to` events that have no answer yet: they are asked again."""
        return [event for event in self._open.values() if event.number <= up_to]

    # --- what the interpreter asks (hostile) ----------------------------------------------------

    def call(self, head: Mapping[str, Any], body: bytes) -> None:
        """A tool call. Raises ValueError, TypeError or KeyError when it makes no sense."""
        call_id, name, arguments = _positive(head["id"]), _text(head["name"], MAX_NAME), body.decode()
        if call_id in self._calls:
            raise ValueError("a call id twice")
        if self._refusals >= MAX_OPEN_CALLS:
            # Answering for ever would fill the memory of this process with answers that nobody reads.
            self._give_up()
            return
        record = pb.ToolCallRecord(call_id=call_id, name=name, started_us=self._elapsed_us())
        self._calls[call_id] = record
        if len(self._calls) > self._limits.tool_calls:
            # Not kept: the list is bounded as the calls are.
            del self._calls[call_id]
            self._refusals += 1
            limit = self._limits.tool_calls
            self._refuse(record, "LimitExceeded", f"tool_calls: the limit of {limit:,} is reached")
        elif self._tools is not None and name not in self._tools:
            self._refuse(record, "ToolNotFoundError", f"this execution may not call a tool {name!r}")
        elif len(self._open) >= MAX_OPEN_CALLS:
            self._refuse(record, "LimitExceeded", f"{MAX_OPEN_CALLS} calls are open already; wait for some")
        elif self._open_bytes and self._open_bytes + len(arguments) > MAX_OPEN_BYTES:
            open_bytes = f"{self._open_bytes:,} bytes of arguments are open already"
            self._refuse(record, "LimitExceeded", f"{open_bytes}; wait for some calls")
        elif (delay := self._rate.delay()) is None:
            limit = self._limits.tool_calls_per_second
            self._refuse(record, "LimitExceeded", f"tool_calls_per_second: the limit of {limit:,} is reached")
        else:
            call = pb.ToolCall(call_id=call_id, name=name, arguments_json=arguments)
            self._open_bytes += len(arguments)
            if delay > 0:
                self._later(delay, lambda: self._ask(call_id, tool_call=call))
            else:
                self._ask(call_id, tool_call=call)

    def _refuse(self, record: pb.ToolCallRecord, kind: str, message: str) -> None:
        record.duration_us = self._elapsed_us() - record.started_us
        record.error = f"{kind}: {message}"
        head = {"id": record.call_id, "type": kind, "message": message}
        self._tell(MessageKind.TOOL_ANSWER, head, b"")

    def schema(self, head: Mapping[str, Any]) -> None:
        """A question about tools; raises as `call` does."""
        request = pb.SchemaRequest(request_id=_positive(head["id"]), name=_text(head["name"], MAX_NAME))
        self._count_question()
        self._ask(request.request_id, schema_request=request)

    def input(self, head: Mapping[str, Any]) -> None:
        """A question to a person; raises as `call` does."""
        asked = pb.InputRequest(
            request_id=_positive(head["id"]),
            prompt=_text(head["prompt"], MAX_PROMPT),
            password=bool(head["password"]),
        )
        self._count_question()
        if self.input_allowed:
            self._ask(asked.request_id, input_request=asked)
        else:
            self._tell(MessageKind.INPUT_ANSWER, {"id": asked.request_id, "eof": True}, b"")

    def _count_question(self) -> None:
        self._questions += 1
        if (
            self._questions > self._limits.tool_calls + MAX_OPEN_CALLS
            or len(self._open) >= 2 * MAX_OPEN_CALLS
        ):
            raise ValueError("too many questions")

    def _ask(self, request_id: int, **message: Any) -> None:
        """Put a question to the caller; it stays open, and is asked again, until it is answered."""
        if request_id in self._open:
            raise ValueError("a request id twice")
        self._open[request_id] = self._log.emit(**message)

    # --- what the caller answers ----------------------------------------------------------------

    def answer_tool(self, answer: pb.ToolAnswer) -> None:
        """The answer to a tool call; one that is not open is ignored."""
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
        """The answer to a question about tools."""
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
        if event is None or event.WhichOneof("message") != kind:
            return False
        del self._open[request_id]
        if kind == "tool_call":
            # Whoever could answer has seen the arguments, so they need not be kept for a second look.
            # In another message, because one never frees what its fields held before.
            call = pb.ToolCall(call_id=request_id, name=event.tool_call.name)
            length = len(event.tool_call.arguments_json)
            self._open_bytes -= length
            self._log.replace(pb.ExecuteEvent(number=event.number, tool_call=call), by=length)
        return True


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
