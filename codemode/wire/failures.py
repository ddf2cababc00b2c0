"""What a gRPC status means to a caller of the SDK."""

from __future__ import annotations

import re
from typing import Any

import grpc

from codemode.errors import (
    AuthenticationError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    LimitExceededError,
    OwnerChangedError,
    SessionLostError,
)

RETRYABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)

# gRPC's own words for a message above the limit, which no retry will shrink.
_TOO_LARGE = re.compile(r"larger than max|message too large", re.IGNORECASE)
_BROKEN = ("Internal error from Core", "Stream removed")
_FIELD = re.compile(r"^([a-z_][a-z0-9_.]*): ")


def failed(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """An error as gRPC would raise it."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None)


def is_too_large(error: grpc.aio.AioRpcError) -> bool:
    """Whether the error says that a message was above the limit."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and bool(
        _TOO_LARGE.search(error.details() or "")
    )


def as_transport_error(error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    """The error, with status UNAVAILABLE when it was the connection that broke.

    gRPC says INTERNAL or UNKNOWN, and these words, when a connection breaks
    while a message is being written; no executor answers with them.
    """
    if error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return error
    if not (error.details() or "").startswith(_BROKEN):
        return error
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE,
        error.initial_metadata(),
        error.trailing_metadata(),  # type: ignore[arg-type] # the stubs' own two names for one thing
        "the connection broke",
        None,
    )


def retry_after_seconds(error: grpc.aio.AioRpcError) -> float | None:
    """How long the executor asks the caller to wait, in seconds."""
    asked = _trailing(error, "retry-after-ms")
    return min(int(asked) / 1000, 60.0) if asked.isdecimal() else None


def instance_of(error: grpc.aio.AioRpcError) -> str:
    """Which executor process answered with this error; empty when it was no executor that did."""
    return _trailing(error, "codemode-instance")


def _trailing(error: grpc.aio.AioRpcError, wanted: str) -> str:
    metadata: Any = error.trailing_metadata() or ()
    return next((str(value) for key, value in metadata if key == wanted), "")


def error_for(
    error: grpc.aio.AioRpcError,
    url: str,
    *,
    correlation_id: str = "",
    session_id: str = "",
    tries: int = 1,
    outcome_unknown: bool = False,
) -> ExecutorClientError:
    """The SDK's error for a failed call.

    Args:
        error: What gRPC raised.
        url: The executor's URL, for the message.
        correlation_id: Of the request.
        session_id: Session that the request named, or empty.
        tries: How often it was tried.
        outcome_unknown: Whether the code may have run.
    """
    code, details = error.code(), error.details() or ""
    status = code.name
    times = f" (tried {tries} times)" if tries > 1 else ""
    match = _FIELD.match(details)
    field = match[1] if match else ""
    if outcome_unknown or code is grpc.StatusCode.DATA_LOSS:
        return ExecutorConnectionError(
            f"the connection to the executor at {url} was lost while the code ran{times}, and whether it "
            "ran to its end is unknown; nothing was run again. Look at what it should have done before you "
            f"repeat it, or mark code that may run twice as idempotent. ({details})",
            correlation_id=correlation_id,
            status=status,
            outcome_unknown=True,
        )
    if code is grpc.StatusCode.UNAVAILABLE and instance_of(error):
        return ExecutorConnectionError(
            f"the executor at {url} can run nothing now{times}: {details}",
            correlation_id=correlation_id,
            status=status,
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        return ExecutorConnectionError(
            f"the executor at {url} cannot be reached{times}: {details}. "
            "Is it running, and is the URL right?",
            correlation_id=correlation_id,
            status=status,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ExecutorTimeoutError(
            f"the executor at {url} did not answer in time{times}; raise `timeout`, or look at its load",
            correlation_id=correlation_id,
            status=status,
        )
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return AuthenticationError(details, correlation_id=correlation_id, status=status)
    if code is grpc.StatusCode.PERMISSION_DENIED and field == "context":
        keys = details.removeprefix("context: ").split(" changed")[0]
        return OwnerChangedError(
            details, keys=tuple(keys.split(", ")), correlation_id=correlation_id, status=status
        )
    if code is grpc.StatusCode.FAILED_PRECONDITION or (
        code is grpc.StatusCode.NOT_FOUND and field == "session_id"
    ):
        return SessionLostError(details, session_id=session_id, correlation_id=correlation_id, status=status)
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return LimitExceededError(
            f"{details}{times}", limit=field, correlation_id=correlation_id, status=status
        )
    return ExecutorClientError(
        f"the executor at {url} answered {status}: {details}{times}",
        correlation_id=correlation_id,
        status=status,
    )
