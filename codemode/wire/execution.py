"""One execution over the wire: its stream, opened again when it breaks, without running anything twice.

The stream's first message names the execution by an id that only this client
knows and that every retry repeats. The executor attaches a stream with a known
id to the execution that runs already, sends the events that were missed, and
asks again what has no answer. What must never happen is that an executor which
does *not* know the id, because it was restarted, runs the code again; so a
stream opened after the code may have arrived asks to be attached only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from codemode_proto.v1 import executor_pb2 as pb

from codemode.errors import ProtocolError
from codemode.wire.failures import error_for

if TYPE_CHECKING:
    from codemode.wire.connection import Connection

Sink = Callable[["pb.ExecuteEvent | BaseException"], None]
"""Takes every event once and in order, at last `finished` or an error; called on the SDK's loop."""

_QUESTIONS = {
    "tool_call": ("call_id", "tool_answer"),
    "schema_request": ("request_id", "schema_answer"),
    "input_request": ("request_id", "input_answer"),
}


class RemoteExecution:
    """Drives one execution. All methods but `post` are called on the SDK's loop.

    Args:
        connection: Way to the executor.
        start: The request.
        sink: Where its events go.
        idempotent: Whether the code may be run again when it is unknown if it ran.
    """

    def __init__(self, connection: Connection, start: pb.Start, sink: Sink, idempotent: bool) -> None:
        self._connection = connection
        self._start = start
        self._sink = sink
        self._idempotent = idempotent
        self._outbox: asyncio.Queue[pb.ExecuteRequest] = asyncio.Queue()
        # By request id: None while the caller works on it.
        self._answers: dict[int, pb.ExecuteRequest | None] = {}
        self._last = 0
        self._finished = False
        # Whether the request may have reached an executor, and which one would have run it.
        self._sent = False
        self._instance = ""

    # --- for the caller's thread ------------------------------------------------------------------

    def post(self, request: pb.ExecuteRequest) -> None:
        """Send an answer, an interrupt or a cancel; from any thread."""
        self._connection.loop.call_soon_threadsafe(self._post, request)

    def _post(self, request: pb.ExecuteRequest) -> None:
        kind = request.WhichOneof("message")
        for key, answer in _QUESTIONS.values():
            if kind == answer:
                # Remembered, because the executor may ask again on another stream.
                self._answers[getattr(getattr(request, answer), key)] = request
        self._outbox.put_nowait(request)

    # --- on the SDK's loop ------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the execution to its end, over as many streams as it takes."""
        tries = 0
        while not self._finished:
            tries += 1
            before = self._last
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                if self._last > before:
                    # It got on since: the next failure is a first one again.
                    tries = 1
                if not await self._may_retry(error, tries):
                    return
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the caller waits for a word
                self._sink(error)
                return

    async def _may_retry(self, error: grpc.aio.AioRpcError, tries: int) -> bool:
        unknown = self._sent and error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.UNKNOWN,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.CANCELLED,
        )
        if self._start.attach_only and error.code() is grpc.StatusCode.NOT_FOUND:
            # This executor does not know it. If it is the one the request went to, nothing ever ran.
            if self._idempotent or (self._instance and _instance_of(error) == self._instance):
                self._start.attach_only = False
                self._sent = False
                return True
            unknown = True
        wait = self._connection.retry.wait_after(error, tries)
        if wait is None:
            self._sink(
                error_for(
                    error,
                    self._connection.url,
                    correlation_id=self._start.correlation_id,
                    session_id=self._start.session_id,
                    tries=tries,
                    outcome_unknown=unknown,
                )
            )
            return False
        # Refused for want of room: it was not begun, and the executor has forgotten it.
        refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and self._last == 0
        if self._sent and not refused:
            self._start.attach_only = True
        await asyncio.sleep(wait)
        return True

    async def _follow(self) -> None:
        if not self._sent:
            # Until the channel is connected nothing can have been sent, so nothing can have run.
            await self._connection.until_connected()
            self._instance = self._connection.instance
        call = self._connection.stub.Execute(
            timeout=self._connection.deadline_for(self._start), metadata=self._connection.metadata
        )
        self._start.last_event = self._last
        writer: asyncio.Task[None] | None = None
        try:
            self._sent = True
            await call.write(pb.ExecuteRequest(start=self._start))
            writer = asyncio.ensure_future(self._write(call))
            while True:
                event = await call.read()
                if event is grpc.aio.EOF:
                    break
                for each in event.batch or (event,):
                    self._receive(each)
                if self._finished:
                    return
            # The stream ended: raises with the status if it was not a good one.
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                raise await _as_error(call)
            raise ProtocolError("the executor ended the stream before the execution was finished")
        except asyncio.InvalidStateError:
            # Reading and writing report a call that has failed in this way.
            raise await _as_error(call) from None
        finally:
            if writer is not None:
                writer.cancel()
            call.cancel()

    async def _write(self, call: Any) -> None:
        with suppress(asyncio.CancelledError, grpc.aio.BaseError, asyncio.InvalidStateError):
            while True:
                request = await self._outbox.get()
                await call.write(request)

    def _receive(self, event: pb.ExecuteEvent) -> None:
        kind = event.WhichOneof("message") or ""
        if kind in _QUESTIONS:
            key, _ = _QUESTIONS[kind]
            number = getattr(getattr(event, kind), key)
            if number in self._answers:
                answered = self._answers[number]
                if answered is not None:
                    self._outbox.put_nowait(answered)
                self._last = max(self._last, event.number)
                return
            self._answers[number] = None
        elif event.number <= self._last:
            return
        if event.number > self._last + 1:
            raise ProtocolError(f"event {event.number} came after event {self._last}")
        self._last = max(self._last, event.number)
        if kind == "started":
            self._connection.instance = event.started.executor_instance
        self._finished = kind == "finished"
        self._sink(event)


def _instance_of(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "codemode-instance":
            return str(value)
    return ""


async def _as_error(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )


