"""Whatever an interpreter says, the executor handles it or ends the execution; it never fails itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from codemode_executor.asking import MAX_OPEN_CALLS
from codemode_executor.execution import Execution
from codemode_executor.limits import Limits
from codemode_proto.v1 import executor_pb2 as pb
from codemode_sandbox.frames import Message, MessageKind
from hypothesis import given, settings
from hypothesis import strategies as st

LIMITS = Limits(
    timeout_seconds=60, output_bytes=5000, result_bytes=1000, tool_calls=20, tool_calls_per_second=1000
)


class NoLink:
    """Takes what is said to an interpreter that is not there."""

    alive = True

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def attach(self, channel: int, user: Any) -> None:
        pass

    def detach(self, channel: int) -> None:
        pass

    def send(self, *message: Any) -> None:
        self.said.append(message)

    def interrupt(self, channel: int) -> None:
        pass


class NoSandbox:
    sandbox_id, backend = "none", "none"

    def __init__(self) -> None:
        self.link = NoLink()

    async def ended_for_memory(self) -> bool:
        return False


def running(tools: frozenset[str] | None = frozenset({"t"}), limits: Limits = LIMITS) -> Execution:
    """An execution whose interpreter a test plays. Call it where a loop runs."""
    execution = Execution("0" * 32, "req", limits, tools, True, 1.0)
    execution.run(NoSandbox(), pb.Start(code="1"), {}, {})  # type: ignore[arg-type]
    return execution


def hear(
    *said: Message, tools: frozenset[str] | None = frozenset({"t"}), limits: Limits = LIMITS
) -> Execution:
    """What becomes of an execution whose interpreter says this."""

    async def main() -> Execution:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, failure: failures.append(failure))
        execution = running(tools, limits)
        for message in said:
            execution.on_message(message)
        # Every event can be sent, whatever text is in it.
        for event in execution.log.events:
            assert pb.ExecuteEvent.FromString(event.SerializeToString()) == event
        await asyncio.sleep(0)
        for timer in execution._timers:
            timer.cancel()
        assert not failures
        return execution

    return asyncio.run(main())


texts = st.text(max_size=20) | st.sampled_from(
    ["stdout", "stderr", "display_data", "clear_output", "t", "x" * 300]
)
numbers = st.integers() | st.sampled_from([0, 1, 2, 2**31, 2**32, 2**53, 2**64, -1]) | st.floats()
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "stream",
        "kind",
        "id",
        "name",
        "prompt",
        "password",
        "result",
        "has_value",
        "ok",
        "count",
        "error",
        "type",
        "message",
        "traceback",
        "lines",
        "line",
        "tool",
        "cut_result",
        "limit",
        "value",
    ]
)
heads = st.dictionaries(names | texts, anything, max_size=8)
bodies = st.binary(max_size=60) | anything.map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)
hostile = st.builds(Message, st.sampled_from(list(MessageKind)) | st.integers(0, 255), heads, bodies)

errors = st.fixed_dictionaries(
    {"type": anything, "message": anything, "traceback": anything, "lines": anything},
    optional={"tool": anything, "line": anything},
)
reports = st.builds(
    Message,
    st.just(int(MessageKind.DONE)),
    st.fixed_dictionaries(
        {"result": st.integers(-2, 70) | anything, "ok": st.booleans() | anything},
        optional={
            "count": anything,
            "has_value": anything,
            "cut_result": anything,
            "error": errors | anything,
        },
    ),
    bodies,
)
requests = st.builds(
    Message,
    st.sampled_from([MessageKind.TOOL_CALL, MessageKind.SCHEMA_REQUEST, MessageKind.INPUT_REQUEST]).map(int),
    st.fixed_dictionaries(
        {"id": st.integers(-1, 4) | anything, "name": texts | anything},
        optional={"prompt": anything, "password": anything},
    ),
    bodies,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(hostile | reports | requests, max_size=8))
def test_any_messages_are_handled_or_end_the_execution(said: list[Message]) -> None:
    hear(*said)


@settings(max_examples=300, deadline=None)
@given(reports)
def test_a_report_ends_the_execution_whatever_is_in_it(report: Message) -> None:
    execution = hear(report)
    assert execution.finished
    finished = execution.log.events[-1].finished
    assert len(finished.result) <= 2 * LIMITS.result_bytes + 4096
    if not finished.success:
        assert finished.HasField("error")


@settings(max_examples=200, deadline=None)
@given(st.lists(hostile, min_size=1, max_size=4), st.binary(max_size=40))
def test_nothing_comes_after_the_end(said: list[Message], data: bytes) -> None:
    async def main() -> None:
        execution = running()
        execution.on_exit(1, None)
        events = list(execution.log.events)
        for message in said:
            execution.on_message(message)
        execution.on_output("stdout", data)
        execution.on_violation("again")
        execution.on_lost()
        execution.cancel("late")
        assert execution.log.events == events

    asyncio.run(main())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=2000)), max_size=10))
def test_output_is_text_within_its_limit_whatever_bytes_come(pieces: list[tuple[str, bytes]]) -> None:
    async def main() -> None:
        execution = running()
        for stream, data in pieces:
            execution.on_output(stream, data)
            execution.on_message(Message(MessageKind.OUTPUT, {"stream": stream}, data))
        total = sum(len(event.output.text.encode()) for event in execution.log.events)
        # A byte that is no UTF-8 becomes one replacement character, of three bytes.
        assert total <= 3 * LIMITS.output_bytes
        for timer in execution._timers:
            timer.cancel()

    asyncio.run(main())


@pytest.mark.parametrize(
    "message",
    [
        Message(255, {}, b""),
        Message(MessageKind.EXECUTE, {}, b"1"),
        Message(MessageKind.DONE, {}, b""),
        Message(MessageKind.DONE, {"result": 10, "ok": True}, b"short"),
        Message(MessageKind.DONE, {"result": 0, "ok": True}, bytes(100_000)),
        Message(MessageKind.DONE, {"result": 0, "ok": True, "has_value": True}, b"{"),
        Message(MessageKind.DONE, {"result": 0, "ok": True, "has_value": True}, b"[" * 2000),
        Message(MessageKind.DONE, {"result": 0, "ok": False}, b""),
        Message(MessageKind.DONE, {"result": 0, "ok": False, "error": []}, b""),
        Message(MessageKind.DONE, {"result": 0, "ok": False, "error": {"type": 1}}, b""),
        Message(MessageKind.TOOL_CALL, {"id": True, "name": "t"}, b"{}"),
        Message(MessageKind.TOOL_CALL, {"id": 0, "name": "t"}, b"{}"),
        Message(MessageKind.TOOL_CALL, {"id": 1, "name": ["t"]}, b"{}"),
        Message(MessageKind.TOOL_CALL, {"id": 1, "name": "t"}, b"\xff"),
        Message(MessageKind.TOOL_CALL, {"id": 1, "name": "x" * 300}, b"{}"),
        Message(MessageKind.OUTPUT, {"stream": "stdin"}, b"x"),
        Message(MessageKind.OUTPUT, {"stream": {}}, b"x"),
        Message(MessageKind.DISPLAY, {"kind": "x"}, b"{}"),
        Message(MessageKind.DISPLAY, {"kind": "display_data"}, b"\xff"),
        Message(MessageKind.INPUT_REQUEST, {"id": 1, "prompt": "x" * 20_000, "password": False}, b""),
    ],
    ids=lambda message: f"{message.kind} {json.dumps(message.head)[:40]}",
)
def test_what_makes_no_sense_is_a_violation_that_costs_the_sandbox(message: Message) -> None:
    execution = hear(message)
    assert execution.finished
    assert execution.spoiled
    error = execution.log.events[-1].finished.error
    assert error.type == "ProtocolViolationError"
    assert execution.log.events[-1].finished.session == pb.SESSION_LOST


def test_a_call_id_that_comes_twice_is_a_violation() -> None:
    call = Message(MessageKind.TOOL_CALL, {"id": 1, "name": "t"}, b"{}")
    assert hear(call, call).log.events[-1].finished.error.type == "ProtocolViolationError"
    schema = Message(MessageKind.SCHEMA_REQUEST, {"id": 1, "name": ""}, b"")
    assert hear(call, schema).log.events[-1].finished.error.type == "ProtocolViolationError"


def test_a_tool_that_is_not_allowed_is_never_asked_for() -> None:
    execution = hear(Message(MessageKind.TOOL_CALL, {"id": 1, "name": "other"}, b"{}"))
    assert not any(event.HasField("tool_call") for event in execution.log.events)
    assert not execution.finished


def test_calls_above_the_limit_are_refused_and_not_recorded() -> None:
    calls = [Message(MessageKind.TOOL_CALL, {"id": n, "name": "t"}, b"{}") for n in range(1, 200)]
    execution = hear(*calls)
    assert sum(event.HasField("tool_call") for event in execution.log.events) == LIMITS.tool_calls
    assert execution._asking is not None
    assert len(execution._asking.calls) == LIMITS.tool_calls


@pytest.mark.parametrize("kind", [MessageKind.SCHEMA_REQUEST, MessageKind.INPUT_REQUEST])
def test_questions_of_every_kind_are_bounded(kind: MessageKind) -> None:
    said = [
        Message(kind, {"id": n, "name": "", "prompt": "", "password": False}, b"") for n in range(1, 3000)
    ]
    execution = hear(*said)
    assert len(execution.log.events) <= MAX_OPEN_CALLS + LIMITS.tool_calls + 5
