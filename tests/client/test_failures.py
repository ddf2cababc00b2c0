"""What failures of the transport become, and when a request is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from codemode.errors import (
    AuthenticationError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    LimitExceededError,
    OwnerChangedError,
    SessionLostError,
)
from codemode.wire.connection import Connection
from codemode.wire.failures import as_transport_error, error_for, is_too_large, retry_after_seconds
from codemode.wire.retry import RetryPolicy

URL = "http://executor:8001"
Code = grpc.StatusCode


def failure(code: grpc.StatusCode, details: str = "it broke", **trailing: str) -> grpc.aio.AioRpcError:
    metadata = grpc.aio.Metadata(*((name.replace("_", "-"), value) for name, value in trailing.items()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details, None)


ERRORS: dict[grpc.StatusCode, type[ExecutorClientError]] = {
    Code.CANCELLED: ExecutorClientError,
    Code.UNKNOWN: ExecutorClientError,
    Code.INVALID_ARGUMENT: LimitExceededError,
    Code.DEADLINE_EXCEEDED: ExecutorTimeoutError,
    Code.NOT_FOUND: ExecutorClientError,
    Code.ALREADY_EXISTS: ExecutorClientError,
    Code.PERMISSION_DENIED: ExecutorClientError,
    Code.UNAUTHENTICATED: AuthenticationError,
    Code.RESOURCE_EXHAUSTED: LimitExceededError,
    Code.FAILED_PRECONDITION: SessionLostError,
    Code.ABORTED: ExecutorClientError,
    Code.UNIMPLEMENTED: ExecutorClientError,
    Code.INTERNAL: ExecutorClientError,
    Code.UNAVAILABLE: ExecutorConnectionError,
    Code.DATA_LOSS: ExecutorConnectionError,
    Code.OUT_OF_RANGE: ExecutorClientError,
}


def test_every_status_is_in_the_table() -> None:
    assert {*ERRORS, Code.OK} == set(Code)


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_every_status_becomes_an_error_of_ours(code: grpc.StatusCode) -> None:
    error = error_for(failure(code), URL, correlation_id="req-1", tries=3)
    assert type(error) is ERRORS[code]
    assert error.status == code.name
    assert error.correlation_id == "req-1"
    assert "req-1" in str(error)
    # Either the executor's own words, or what to do.
    assert "it broke" in str(error) or URL in str(error)


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_a_failure_after_which_the_outcome_is_unknown_says_so(code: grpc.StatusCode) -> None:
    error = error_for(failure(code), URL, outcome_unknown=True)
    assert isinstance(error, ExecutorConnectionError)
    assert error.outcome_unknown
    assert "nothing was run again" in str(error)


def test_a_changed_owner_names_the_keys() -> None:
    details = "context: client_id, user_id changed within a session, and a sandbox serves one owner for life"
    error = error_for(failure(Code.PERMISSION_DENIED, details), URL)
    assert isinstance(error, OwnerChangedError)
    assert error.keys == ("client_id", "user_id")


def test_a_session_that_is_gone_is_named() -> None:
    error = error_for(
        failure(Code.NOT_FOUND, "session_id: there is no such session; open one first"), URL, session_id="abc"
    )
    assert isinstance(error, SessionLostError)
    assert error.session_id == "abc"


def test_a_field_at_fault_is_named() -> None:
    details = "limits.memory_bytes: 99 is above this executor's ceiling of 9"
    error = error_for(failure(Code.INVALID_ARGUMENT, details), URL)
    assert isinstance(error, LimitExceededError)
    assert error.limit == "limits.memory_bytes"


def test_an_executor_without_a_sandbox_is_not_called_unreachable() -> None:
    error = error_for(failure(Code.UNAVAILABLE, "no bubblewrap", codemode_instance="1"), URL)
    assert isinstance(error, ExecutorConnectionError)
    assert "cannot be reached" not in str(error)
    assert "no bubblewrap" in str(error)


def test_a_connection_that_breaks_while_a_message_is_written_is_unavailable() -> None:
    for code in (Code.INTERNAL, Code.UNKNOWN):
        for words in ("Internal error from Core", "Stream removed (Socket closed)"):
            assert as_transport_error(failure(code, words)).code() is Code.UNAVAILABLE
        assert as_transport_error(failure(code, "Unexpected <class 'KeyError'>")).code() is code


# --- retries ------------------------------------------------------------------------------------------


def test_waits_double_from_100_ms_and_end_with_the_attempts() -> None:
    policy = RetryPolicy(max_attempts=10)
    waits = [policy.wait_after(failure(Code.UNAVAILABLE), tries) for tries in range(1, 11)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, None]


def test_by_default_there_are_three_attempts() -> None:
    policy = RetryPolicy()
    assert [policy.wait_after(failure(Code.UNAVAILABLE), tries) for tries in (1, 2, 3)] == [0.1, 0.2, None]


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_only_what_may_pass_is_tried_again(code: grpc.StatusCode) -> None:
    may_pass = code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
    assert (RetryPolicy().wait_after(failure(code), 1) is not None) is may_pass


def test_the_executor_may_ask_for_a_longer_wait() -> None:
    policy = RetryPolicy()
    assert policy.wait_after(failure(Code.RESOURCE_EXHAUSTED, retry_after_ms="1500"), 1) == 1.5
    assert policy.wait_after(failure(Code.RESOURCE_EXHAUSTED, retry_after_ms="1"), 1) == 0.1


@pytest.mark.parametrize(
    ("asked", "seconds"), [("500", 0.5), ("999999999", 60.0), ("-5", None), ("soon", None)]
)
def test_a_hint_that_makes_no_sense_is_bounded_or_ignored(asked: str, seconds: float | None) -> None:
    assert retry_after_seconds(failure(Code.RESOURCE_EXHAUSTED, retry_after_ms=asked)) == seconds


@pytest.mark.parametrize(
    "details",
    [
        "CLIENT: Sent message larger than max (70000000 vs. 67108864)",
        "SERVER: Received message larger than max (70000000 vs. 67108864)",
    ],
)
def test_a_message_that_is_too_large_is_not_sent_again(details: str) -> None:
    error = failure(Code.RESOURCE_EXHAUSTED, details)
    assert is_too_large(error)
    assert RetryPolicy().wait_after(error, 1) is None


def test_jitter_takes_at_least_half_of_a_wait() -> None:
    policy = RetryPolicy(jitter=True)
    waits = {policy.wait_after(failure(Code.UNAVAILABLE), 1) for _ in range(200)}
    assert len(waits) > 100
    assert all(wait is not None and 0.05 <= wait <= 0.1 for wait in waits)


def test_a_call_is_made_again_after_each_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def no_sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("codemode.wire.connection.asyncio.sleep", no_sleep)
    connection = Connection(URL, "key", 35, None, RetryPolicy(max_attempts=4))
    outcomes: list[Any] = [failure(Code.UNAVAILABLE), failure(Code.DEADLINE_EXCEEDED), "answer"]

    async def make() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert asyncio.run(connection.call(make)) == "answer"
    assert waits == [0.1, 0.2]


def test_a_call_that_keeps_failing_says_how_often_it_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr("codemode.wire.connection.asyncio.sleep", no_sleep)
    connection = Connection(URL, "key", 35, None, RetryPolicy())
    tries = 0

    async def make() -> None:
        nonlocal tries
        tries += 1
        raise failure(Code.UNAVAILABLE)

    with pytest.raises(ExecutorConnectionError, match="tried 3 times"):
        asyncio.run(connection.call(make))
    assert tries == 3


def test_a_call_that_may_not_be_repeated_is_not() -> None:
    connection = Connection(URL, "key", 35, None, RetryPolicy())

    async def make() -> None:
        raise failure(Code.UNAVAILABLE)

    with pytest.raises(ExecutorConnectionError):
        asyncio.run(connection.call(make, retry=False))
