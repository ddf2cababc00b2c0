"""Requests of every wrong kind, each refused by the name of its field; then the same caller is served."""

from __future__ import annotations

import json
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from codemode_executor.limits import Limits, flatten
from codemode_proto.v1 import executor_pb2 as pb

if TYPE_CHECKING:
    from tests.conftest import MakeExecutor
    from tests.executor.conftest import MakeRawClient, RawClient

Code = grpc.StatusCode
DEEP = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"execution_id": ""}, Code.INVALID_ARGUMENT, "execution_id: 32 lower-case hexadecimal"),
        ({"execution_id": "A" * 32}, Code.INVALID_ARGUMENT, "execution_id: 32 lower-case hexadecimal"),
        ({"execution_id": "a" * 33}, Code.INVALID_ARGUMENT, "execution_id: 32 lower-case hexadecimal"),
        ({"execution_id": "../../../../../../../../etc/pass"}, Code.INVALID_ARGUMENT, "execution_id: 32"),
        ({"code": "x" * ((1 << 20) + 1)}, Code.INVALID_ARGUMENT, "code: 1,048,577 bytes are above the limit"),
        ({"code": "é" * (1 << 19) + "é"}, Code.INVALID_ARGUMENT, "code: 1,048,578 bytes"),
        ({"context": "no json"}, Code.INVALID_ARGUMENT, "context.variables_json: not JSON"),
        (
            {"context": "[1]"},
            Code.INVALID_ARGUMENT,
            "context.variables_json: a JSON object is wanted, not list",
        ),
        ({"context": DEEP}, Code.INVALID_ARGUMENT, "context.variables_json"),
        (
            {"context": json.dumps({"a": "x" * 70_000})},
            Code.INVALID_ARGUMENT,
            "context.variables_json: 70,009 bytes are above the limit of 65,536",
        ),
        ({"config_json": "{"}, Code.INVALID_ARGUMENT, "config_json: not JSON"),
        ({"config_json": "3"}, Code.INVALID_ARGUMENT, "config_json: a JSON object is wanted, not int"),
        ({"config_json": " " * 70_000}, Code.INVALID_ARGUMENT, "config_json: 70,000 bytes"),
        (
            {"tools": pb.ToolPolicy(allowed=["t"] * 10_001)},
            Code.INVALID_ARGUMENT,
            "tools.allowed: more than 10,000",
        ),
        ({"session_id": "0" * 32}, Code.NOT_FOUND, "session_id: there is no such session"),
        ({"session_id": "nonsense"}, Code.NOT_FOUND, "session_id: there is no such session"),
        ({"attach_only": True}, Code.NOT_FOUND, "execution_id: this executor does not know the execution"),
    ],
)
def test_a_bad_field_is_named(raw: RawClient, fields: dict[str, Any], code: Any, words: str) -> None:
    if isinstance(fields.get("context"), str):
        fields = {**fields, "context": pb.Context(variables_json=fields["context"])}
    refused, details = raw.refusal(lambda: raw.run(**fields))
    assert refused is code
    assert details.startswith(words)
    assert len(details) < 400
    assert raw.run("1 + 1").result == "2"


CEILINGS = {
    "timeout_seconds": 3600,
    "memory_bytes": 8 << 30,
    "cpus": 8,
    "processes": 4096,
    "open_files": 65_536,
    "tmp_bytes": 4 << 30,
    "tmp_inodes": 1_000_000,
    "output_bytes": 256 << 20,
    "result_bytes": 16 << 20,
    "tool_calls": 1_000_000,
    "tool_calls_per_second": 100_000,
}


def test_every_limit_of_the_contract_has_a_ceiling() -> None:
    assert set(CEILINGS) == set(pb.Limits.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("limit", CEILINGS)
def test_a_limit_above_its_ceiling_is_refused_by_name(raw: RawClient, limit: str) -> None:
    limits = pb.Limits(**{limit: CEILINGS[limit] + 1})
    for function in (
        lambda: raw.run(limits=limits),
        lambda: raw.call("OpenSession", pb.OpenSessionRequest(limits=limits)),
    ):
        code, details = raw.refusal(function)
        assert code is Code.INVALID_ARGUMENT
        assert details.startswith(f"limits.{limit}: ")
        assert f"ceiling of {CEILINGS[limit]:,}" in details


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("timeout_seconds", float("nan")),
        ("timeout_seconds", float("inf")),
        ("timeout_seconds", -1.0),
        ("timeout_seconds", 0.0),
        ("cpus", float("-inf")),
        ("cpus", 0.0),
        ("memory_bytes", 1),
        ("processes", 0),
        ("open_files", 1),
        ("tmp_bytes", 0),
        ("tmp_inodes", 1),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(raw: RawClient, limit: str, value: Any) -> None:
    code, details = raw.refusal(lambda: raw.run(limits=pb.Limits(**{limit: value})))
    assert code is Code.INVALID_ARGUMENT
    assert details.startswith(f"limits.{limit}: ")


def test_limits_of_zero_where_nothing_is_a_sensible_amount(raw: RawClient) -> None:
    limits = pb.Limits(output_bytes=0, tool_calls=0, tool_calls_per_second=0)
    finished = raw.run("print('x')\nresult = 'y'", limits=limits)
    assert finished.success
    assert finished.result == "y"
    assert [notice.limit for notice in finished.notices] == ["output_bytes"]


def test_a_result_limit_of_zero_cuts_all_of_it(raw: RawClient) -> None:
    finished = raw.run("result = 'y'", limits=pb.Limits(result_bytes=0))
    assert finished.result == ""
    assert [notice.limit for notice in finished.notices] == ["result_bytes"]


def test_the_limits_in_force_are_told(raw: RawClient) -> None:
    events = raw.execute(raw.start(limits=pb.Limits(timeout_seconds=7, tool_calls=3)))
    limits = events[0].started.limits
    assert (limits.timeout_seconds, limits.tool_calls) == (7, 3)
    assert {field.name for field, _ in limits.ListFields()} == set(CEILINGS)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"correlation_id": "x" * 257}, "correlation_id"),
        ({"tools": pb.ToolPolicy(allowed=["x" * 257])}, "tools.allowed"),
    ],
    ids=["correlation id", "tool"],
)
def test_a_name_that_is_too_long_is_refused(raw: RawClient, request_: dict[str, Any], field: str) -> None:
    code, details = raw.refusal(lambda: raw.run("1", **request_))
    assert code is Code.INVALID_ARGUMENT
    assert details.startswith(f"{field}: ")


def test_operators_set_the_ceilings(start_executor: MakeExecutor, dial: MakeRawClient) -> None:
    defaults = flatten(Limits())
    raw = dial(start_executor(warm=0, **{f"max_{name}": value for name, value in defaults.items()}))
    assert raw.run("1").success
    for name, value in defaults.items():
        limits = pb.Limits(**{name: value + 1})  # type: ignore[arg-type] # the field's type
        code, details = raw.refusal(lambda limits=limits: raw.run(limits=limits))  # type: ignore[misc]
        assert code is Code.INVALID_ARGUMENT
        assert details.startswith(f"limits.{name}: ")
        assert "ceiling" in details


def test_operators_set_the_defaults(start_executor: MakeExecutor, dial: MakeRawClient) -> None:
    lower = {name: value / 2 if name == "cpus" else value // 2 for name, value in flatten(Limits()).items()}
    raw = dial(start_executor(warm=0, **lower))
    started = raw.execute(raw.start("1"))[0].started
    assert {name: getattr(started.limits, name) for name in lower} == lower


# --- identity -----------------------------------------------------------------------------------------


def test_the_same_id_with_the_same_request_is_the_same_execution(raw: RawClient) -> None:
    start = raw.start("import os; print(os.urandom(8).hex())")
    first = raw.execute(start)
    assert raw.execute(start) == first
    start.start.last_event = 1
    assert raw.execute(start) == first[1:]
    start.start.attach_only = True
    assert raw.execute(start) == first[1:]


@pytest.mark.parametrize(
    "change",
    [
        {"code": "2"},
        {"correlation_id": "other"},
        {"config_json": '{"a": 1}'},
        {"limits": pb.Limits(tool_calls=1)},
        {"allow_input": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_same_id_with_another_request_is_refused(raw: RawClient, change: dict[str, Any]) -> None:
    name = secrets.token_hex(16)
    assert raw.run("1", execution_id=name).success
    code, details = raw.refusal(lambda: raw.run(**{"execution_id": name, "code": "1", **change}))
    assert code is Code.ALREADY_EXISTS
    assert details.startswith("execution_id: it was used for a different request")


def test_the_same_id_of_another_owner_is_another_execution(raw: RawClient) -> None:
    name = secrets.token_hex(16)
    one = pb.Context(variables_json='{"client_id": "one"}')
    two = pb.Context(variables_json='{"client_id": "two"}')
    code = "import os; os.urandom(8).hex()"
    first = raw.run(code, execution_id=name, context=one)
    second = raw.run(code, execution_id=name, context=two)
    assert first.result != second.result
    assert raw.run(code, execution_id=name, context=one).result == first.result


def test_two_streams_follow_one_execution(raw: RawClient) -> None:
    start = raw.start("import time\nfor i in range(5):\n    print(i)\n    time.sleep(0.05)")
    seen: list[list[pb.ExecuteEvent]] = []
    threads = [threading.Thread(target=lambda: seen.append(raw.execute(start))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = ["".join(event.output.text for event in events) for events in seen]
    assert texts == ["0\n1\n2\n3\n4\n"] * 3


# --- streams ------------------------------------------------------------------------------------------


def test_a_stream_that_begins_with_something_else_is_refused(raw: RawClient) -> None:
    for first in (pb.ExecuteRequest(), pb.ExecuteRequest(cancel=pb.Cancel())):
        code, details = raw.refusal(lambda first=first: raw.execute(first))  # type: ignore[misc]
        assert code is Code.INVALID_ARGUMENT
        assert details.startswith("start: ")
    code, details = raw.refusal(raw.execute)
    assert code is Code.INVALID_ARGUMENT


def test_what_nobody_asked_for_is_ignored(raw: RawClient) -> None:
    events = raw.execute(
        raw.start("import time; time.sleep(0.3); 'fine'"),
        pb.ExecuteRequest(),
        pb.ExecuteRequest(tool_answer=pb.ToolAnswer(call_id=1, value=pb.Value(data=b"1"))),
        pb.ExecuteRequest(schema_answer=pb.SchemaAnswer(request_id=1)),
        pb.ExecuteRequest(input_answer=pb.InputAnswer(request_id=2**64 - 1)),
    )
    assert events[-1].finished.result == "fine"


def test_answers_of_the_wrong_kind_do_not_answer(raw: RawClient) -> None:
    code = "try:\n    x = tools.t()\nexcept BaseException as e:\n    x = type(e).__name__\nresult = x"
    answers = [
        pb.ExecuteRequest(input_answer=pb.InputAnswer(request_id=1, text="no")),
        pb.ExecuteRequest(schema_answer=pb.SchemaAnswer(request_id=1)),
        pb.ExecuteRequest(tool_answer=pb.ToolAnswer(call_id=1, value=pb.Value(data=b'"yes"'))),
        pb.ExecuteRequest(tool_answer=pb.ToolAnswer(call_id=1, value=pb.Value(data=b'"twice"'))),
    ]
    asked = threading.Event()

    def requests() -> Any:
        yield raw.start(code, tools=pb.ToolPolicy(all_registered=True))
        asked.wait(10)
        yield from answers

    result = ""
    for event in raw.stub.Execute(requests(), timeout=20, metadata=raw.metadata):
        for each in event.batch or [event]:
            if each.HasField("tool_call"):
                asked.set()
            result = each.finished.result or result
    assert result == "yes"


@pytest.mark.parametrize(
    "data", [b"", b"no json", b"\xff\xfe", b"[" * 100_000], ids=["nothing", "words", "bytes", "deep"]
)
def test_an_answer_that_is_no_json_is_an_error_in_the_code_alone(raw: RawClient, data: bytes) -> None:
    asked = threading.Event()

    def requests() -> Any:
        yield raw.start("tools.t()", tools=pb.ToolPolicy(all_registered=True))
        asked.wait(10)
        yield pb.ExecuteRequest(tool_answer=pb.ToolAnswer(call_id=1, value=pb.Value(data=data)))

    last = pb.ExecuteEvent()
    for event in raw.stub.Execute(requests(), timeout=20, metadata=raw.metadata):
        for each in event.batch or [event]:
            if each.HasField("tool_call"):
                asked.set()
            last = each
    assert not last.finished.success
    assert last.finished.error.type not in ("", "ProtocolViolationError")
    assert raw.run("1 + 1").result == "2"


def test_a_message_above_the_limit_is_refused_and_the_executor_goes_on(
    start_executor: MakeExecutor, dial: MakeRawClient
) -> None:
    raw = dial(start_executor(max_message_bytes=3 << 20, warm=0))
    code, details = raw.refusal(lambda: raw.run("x" * (4 << 20)))
    assert code is Code.RESOURCE_EXHAUSTED
    assert "larger than max" in details
    assert raw.run("1 + 1").result == "2"


def test_a_slow_reader_holds_up_nobody_and_loses_nothing(raw: RawClient) -> None:
    start = raw.start("for i in range(200_000):\n    print(i)")
    stream = raw.stub.Execute(iter([start]), timeout=60, metadata=raw.metadata)
    received: list[pb.ExecuteEvent] = []
    for number, event in enumerate(stream):
        received.extend(event.batch or [event])
        if number < 3:
            time.sleep(0.1)
            assert raw.run("1 + 1").result == "2"
    text = "".join(event.output.text for event in received)
    assert text == "".join(f"{i}\n" for i in range(200_000))


def test_a_last_event_that_never_was_does_not_hang_the_executor(raw: RawClient) -> None:
    start = raw.start("1", last_event=10**12)
    code, _ = raw.refusal(lambda: raw.execute(start, seconds=1))
    assert code in (Code.DEADLINE_EXCEEDED, Code.INVALID_ARGUMENT)
    assert raw.run("1 + 1").result == "2"
