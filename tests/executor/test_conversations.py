"""One stream carries executions one after the other, and none is taken for another."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from codemode_proto.v1 import executor_pb2 as pb

from codemode.local import LocalExecutor

if TYPE_CHECKING:
    from tests.conftest import MakeClient, MakeExecutor
    from tests.executor.conftest import MakeRawClient, RawClient, ServeHere


class Stream:
    """An open `Execute` stream, said to and heard by turns."""

    def __init__(self, raw: RawClient) -> None:
        self._raw = raw
        self._said: queue.SimpleQueue[pb.ExecuteRequest | None] = queue.SimpleQueue()
        self._call: Any = raw.stub.Execute(iter(self._said.get, None), timeout=30, metadata=raw.metadata)

    def say(self, *requests: pb.ExecuteRequest) -> None:
        for request in requests:
            self._said.put(request)

    def events(self) -> Iterator[pb.ExecuteEvent]:
        """The events up to the next `finished`, or to the end of the stream."""
        for event in self._call:
            for each in event.batch or [event]:
                yield each
                if each.HasField("finished"):
                    return

    def run(self, code: str, **fields: Any) -> pb.Finished:
        """Run code on it, and return how it ended."""
        self.say(self._raw.start(code, **fields))
        return list(self.events())[-1].finished

    def end(self) -> None:
        self._said.put(None)

    def status(self, seconds: float = 5) -> grpc.StatusCode:
        """Its status, which must come within a time."""
        began = time.monotonic()
        code: grpc.StatusCode = self._call.code()
        assert time.monotonic() - began < seconds
        return code


@pytest.fixture
def stream(raw: RawClient) -> Iterator[Stream]:
    one = Stream(raw)
    yield one
    one.end()


def test_executions_follow_one_another_with_events_numbered_anew(raw: RawClient, stream: Stream) -> None:
    for number in range(5):
        stream.say(raw.start(f"print({number}); {number}"))
        events = list(stream.events())
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert events[-1].finished.result == str(number)
    stream.end()
    assert stream.status() is grpc.StatusCode.OK


def test_executions_of_many_owners_and_sessions_may_share_a_stream(stream: Stream, session_id: str) -> None:
    assert stream.run("x = 41", session_id=session_id).success
    for owner in ("one", "other"):
        context = pb.Context(variables_json=f'{{"client_id": "{owner}"}}')
        assert stream.run("context['client_id']", context=context).result == owner
    assert stream.run("x + 1", session_id=session_id).result == "42"


def test_an_error_in_the_code_leaves_the_stream_open(stream: Stream) -> None:
    assert stream.run("1/0").error.type == "ZeroDivisionError"
    assert stream.run("2 + 2").result == "4"


def test_the_same_execution_is_attached_to_and_not_run_again(raw: RawClient, stream: Stream) -> None:
    name = secrets.token_hex(16)
    first = stream.run("import uuid; uuid.uuid4().hex", execution_id=name)
    assert stream.run("import uuid; uuid.uuid4().hex", execution_id=name).result == first.result


def test_who_has_every_event_already_is_sent_none_and_may_go_on(raw: RawClient, stream: Stream) -> None:
    start = raw.start("1 + 1")
    stream.say(start)
    start.start.last_event = list(stream.events())[-1].number
    stream.say(start)
    assert stream.run("2 + 2").result == "4"


@pytest.mark.parametrize(
    "late",
    [
        pb.ExecuteRequest(interrupt=pb.Interrupt()),
        pb.ExecuteRequest(cancel=pb.Cancel()),
        pb.ExecuteRequest(tool_answer=pb.ToolAnswer(call_id=1, value=pb.Value(data=b'"late"'))),
        pb.ExecuteRequest(),
    ],
    ids=["interrupt", "cancel", "answer", "nothing"],
)
def test_what_is_said_too_late_does_not_reach_the_next_execution(
    raw: RawClient, stream: Stream, late: pb.ExecuteRequest
) -> None:
    assert stream.run("1 + 1").result == "2"
    code = "import time; time.sleep(0.3); result = 'whole'"
    stream.say(late, raw.start(code))
    assert list(stream.events())[-1].finished.result == "whole"


def test_what_follows_a_start_at_once_reaches_its_execution(raw: RawClient, stream: Stream) -> None:
    for _ in range(20):
        stream.say(raw.start("import time; time.sleep(20)"), pb.ExecuteRequest(cancel=pb.Cancel()))
        assert list(stream.events())[-1].finished.error.type == "CancelledError"


def test_a_start_before_the_last_one_is_finished_is_refused_after_it(raw: RawClient, stream: Stream) -> None:
    stream.say(raw.start("import time; time.sleep(0.3); 'first'"), raw.start("'second'"))
    assert list(stream.events())[-1].finished.result == "first"
    with pytest.raises(grpc.RpcError) as caught:
        list(stream.events())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "start: the execution before it is not finished"


def test_an_executor_that_stops_does_not_wait_for_streams_that_wait(
    start_executor: MakeExecutor, dial: MakeRawClient
) -> None:
    executor: LocalExecutor = start_executor(warm=1)
    waiting = Stream(dial(executor))
    assert waiting.run("1").result == "1"
    began = time.monotonic()
    executor.close()
    assert waiting.status() is grpc.StatusCode.OK
    # Half of what it would wait for a stream that is in use.
    assert time.monotonic() - began < 0.9
    waiting.end()


def test_a_stream_that_the_executor_gives_up_as_it_is_used_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, serve_here: ServeHere, connect: MakeClient
) -> None:
    monkeypatch.setattr("codemode_executor.conversation.IDLE_SECONDS", 0.01)
    calls: list[int] = []

    def test(url: str, key: str) -> None:
        codemode = connect(url, key)
        codemode.registry.register_tool("count", calls.append)
        for number in range(100):
            assert codemode.execute(f"tools.count({number}); result = {number}") == str(number)
            # About as long as the executor waits.
            time.sleep(0.008 + number % 5 * 0.001)
        codemode.close()

    serve_here(test, warm=2)
    assert calls == list(range(100))
