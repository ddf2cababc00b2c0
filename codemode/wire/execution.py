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
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from codemode_proto.v1 import executor_pb2 as pb

from codemode.errors import LimitExceededError, ProtocolError
from codemode.wire.checks import describe
from codemode.wire.failures import as_transport_error, error_for, failed, instance_of

if TYPE_CHECKING:
    from codemode.wire.connection import Connection

Sink = Callable[["pb.ExecuteEvent | BaseException"], None]
"""Takes every event once and in order, at last `finished` or an error; called on the SDK's loop."""

_REFUSALS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_QUESTIONS = {"tool_call": "call_id", "schema_request": "request_id", "input_request": "request_id"}
"""Kinds of event that want an answer, and where each has its number."""


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
        # What is to be said on the stream, and what says it, as long as there is something.
        self._outbox: deque[pb.ExecuteRequest] = deque()
        self._call: Any = None
        self._writer: asyncio.Task[None] | None = None
        # Questions by their request id, and the caller's answers to them: None while it works on one.
        self._asked: dict[int, tuple[pb.ExecuteEvent, pb.ExecuteRequest | None]] = {}
        self._last = 0
        self._finished = False
        self._cancelled = False
        # Whether the request may have reached an executor, and which one would have run it.
        self._sent = False
        self._instance = ""

    # --- for the caller's thread ------------------------------------------------------------------

    def post(self, request: pb.ExecuteRequest) -> None:
        """Send an interrupt or a cancel; from any thread."""
        self._connection.loop.call_soon_threadsafe(self._post, request)

    def _post(self, request: pb.ExecuteRequest) -> None:
        self._cancelled = self._cancelled or request.WhichOneof("message") == "cancel"
        self._say(request)

    def answer(self, question: pb.ExecuteEvent, request: pb.ExecuteRequest) -> None:
        """Send the answer to a question; from any thread."""
        self._connection.loop.call_soon_threadsafe(self._answer, question, request)

    def _answer(self, question: pb.ExecuteEvent, request: pb.ExecuteRequest) -> None:
        number = _request_id(question)
        asked, _ = self._asked.get(number, (None, None))
        # Another one has its number when the code runs again and this one was asked by its first run.
        if asked is question:
            # Remembered, because the executor may ask again on another stream.
            self._asked[number] = question, request
            self._say(request)

    def _say(self, request: pb.ExecuteRequest) -> None:
        self._outbox.append(request)
        self._begin_to_write()

    def _begin_to_write(self) -> None:
        if self._outbox and self._writer is None and self._call is not None:
            self._writer = asyncio.ensure_future(self._write(self._call))

    async def _write(self, call: Any) -> None:
        with suppress(asyncio.CancelledError, grpc.aio.BaseError, asyncio.InvalidStateError):
            while self._outbox and not self._finished:
                await call.write(self._outbox.popleft())
            self._writer = None

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
                if not await self._may_retry(as_transport_error(error), tries):
                    return
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the caller waits for a word
                self._sink(error)
                return

    async def _may_retry(self, error: grpc.aio.AioRpcError, tries: int) -> bool:
        # Refused by the executor itself, for want of room or of a sandbox: it was not begun.
        refused = self._last == 0 and bool(instance_of(error)) and error.code() in _REFUSALS
        unknown = (
            self._sent
            and not refused
            and error.code()
            in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.UNKNOWN,
                grpc.StatusCode.INTERNAL,
                grpc.StatusCode.CANCELLED,
            )
        )
        if self._start.attach_only and error.code() is grpc.StatusCode.NOT_FOUND:
            # This executor does not know it. If it is the one the request went to, nothing ever ran.
            same_executor = bool(self._instance) and instance_of(error) == self._instance
            if self._idempotent or (same_executor and self._last == 0):
                self._begin_anew()
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
        if refused:
            self._start.attach_only = self._sent = False
        elif self._sent:
            self._start.attach_only = True
        await asyncio.sleep(wait)
        return True

    def _begin_anew(self) -> None:
        self._start.attach_only = self._sent = False
        self._last = 0
        self._asked.clear()
        self._outbox.clear()

    async def _follow(self) -> None:
        # Until the channel is connected nothing can have been sent, so nothing can have run.
        await self._connection.until_connected()
        if not self._sent:
            if not self._connection.instance:
                # Else nobody could tell, should the very first request be lost, whether it was.
                with suppress(grpc.aio.AioRpcError):
                    await describe(self._connection)
            self._instance = self._connection.instance
            self._check_size()
        idle = self._connection.idle_streams
        call = idle.take()
        used_before = call is not None
        if call is None:
            call = self._connection.stub.Execute(metadata=self._connection.metadata)
        self._start.last_event = self._last
        self._sent = True
        try:
            async with asyncio.timeout(self._connection.deadline_for(self._start)):
                await call.write(pb.ExecuteRequest(start=self._start))
                self._call = call
                if self._cancelled:
                    # It may have been on its way when the last stream broke, and nothing asks for it again.
                    self._outbox.appendleft(pb.ExecuteRequest(cancel=pb.Cancel()))
                self._begin_to_write()
                while not self._finished:
                    event = await call.read()
                    if event is grpc.aio.EOF:  # type: ignore[attr-defined] # missing in the stubs
                        raise await self._ended(call, used_before)
                    for each in event.batch or (event,):
                        self._receive(each)
        except asyncio.InvalidStateError:
            # Reading and writing report a call that has failed in this way.
            raise await _as_error(call) from None
        except TimeoutError:
            raise failed(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer came in time") from None
        finally:
            self._call = None
            if self._finished and self._writer is None:
                idle.keep(call)
            else:
                if self._writer is not None:
                    self._writer.cancel()
                    self._writer = None
                call.cancel()

    def _check_size(self) -> None:
        """Raise what gRPC would not say: that the request is too large, and what of it is."""
        size, limit = self._start.ByteSize(), self._connection.max_message_bytes
        if size <= limit:
            return
        parts = {
            "code": len(self._start.code.encode()),
            "config": len(self._start.config_json),
            "context": self._start.context.ByteSize(),
            "tools": self._start.tools.ByteSize(),
        }
        largest = max(parts, key=parts.__getitem__)
        raise LimitExceededError(
            f"{largest}: the request is {size:,} bytes, above the limit message_bytes of {limit:,}, and "
            f"{parts[largest]:,} of them are this. Nothing was run. Bring data in as a file "
            "(session.put_file), or by a tool",
            limit="message_bytes",
            correlation_id=self._start.correlation_id,
        )

    async def _ended(self, call: Any, used_before: bool) -> Exception:
        """Why a stream ended before its execution was finished."""
        if await call.code() is not grpc.StatusCode.OK:
            return await _as_error(call)
        if used_before:
            # The executor may have given it up at the moment it was used again.
            return failed(grpc.StatusCode.UNAVAILABLE, "the executor ended the stream")
        return ProtocolError("the executor ended the stream before the execution was finished")

    def _receive(self, event: pb.ExecuteEvent) -> None:
        kind = event.WhichOneof("message") or ""
        if kind in _QUESTIONS:
            number = _request_id(event)
            if number in self._asked:
                _, answer = self._asked[number]
                if answer is not None:
                    self._say(answer)
                self._last = max(self._last, event.number)
                return
            self._asked[number] = event, None
        elif event.number <= self._last:
            return
        if event.number > self._last + 1:
            raise ProtocolError(f"event {event.number} came after event {self._last}")
        self._last = max(self._last, event.number)
        if kind == "started":
            self._connection.instance = event.started.executor_instance
        self._finished = kind == "finished"
        self._sink(event)


def _request_id(question: pb.ExecuteEvent) -> int:
    kind = question.WhichOneof("message") or ""
    number: int = getattr(getattr(question, kind), _QUESTIONS[kind])
    return number


async def _as_error(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
        None,
    )
