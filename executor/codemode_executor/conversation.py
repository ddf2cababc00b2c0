"""One `Execute` stream: the executions that a caller follows on it, one after the other."""

import asyncio
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.errors import InvalidRequestError
from codemode_executor.execution import Execution

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# A caller that opens a stream and says nothing holds it no longer than this.
FIRST_MESSAGE_SECONDS = 20.0
# One that has been served keeps it for the next execution so long. Opening a stream costs three times what a
# message on an open one does.
IDLE_SECONDS = 120.0
MAX_BATCH_BYTES = 1 << 20
_NO_START = "start: the first message of the stream must be it"
# What reading gives when the caller has nothing more to say.
END = grpc.aio.EOF  # type: ignore[attr-defined] # missing in the stubs


class Conversation:
    """Reads a stream and writes to it, both all the time that it is open.

    Args:
        context: The stream.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._execution: Execution | None = None
        self._served = False
        # Resolved with the next `start`, with None when there will be none, or with the caller's mistake.
        self._next: asyncio.Future[pb.Start | None] = asyncio.get_running_loop().create_future()
        # Set while what the caller says has somebody to hear it.
        self._heard = asyncio.Event()
        self._heard.set()
        self._reader = asyncio.ensure_future(self._read())

    def close(self) -> None:
        """Stop reading."""
        self._reader.cancel()

    def end(self) -> None:
        """Wait for no other execution after the one that runs, if any did."""
        if self._served:
            self._expect_no_more()

    def _expect_no_more(self) -> None:
        if not self._next.done():
            self._next.set_result(None)

    async def next_start(self) -> pb.Start | None:
        """The next execution that the caller asks for; None when it wants no more, or took too long.

        Raises:
            InvalidRequestError: The caller said something else, or nothing at all.
        """
        try:
            async with asyncio.timeout(IDLE_SECONDS if self._served else FIRST_MESSAGE_SECONDS):
                start = await self._next
        except TimeoutError:
            if self._served:
                return None
            raise InvalidRequestError(
                f"start: nothing came within {FIRST_MESSAGE_SECONDS:g} seconds"
            ) from None
        if start is not None:
            self._served = True
            self._next = asyncio.get_running_loop().create_future()
        elif not self._served:
            raise InvalidRequestError(_NO_START)
        return start

    async def follow(self, execution: Execution, last_event: int) -> None:
        """Send an execution's events, from after the last one the caller has, to its end."""
        log = execution.log
        if last_event > len(log.events):
            raise InvalidRequestError(f"last_event: there are {len(log.events)} events, not {last_event:,}")
        self._execution = execution
        self._heard.set()
        for event in execution.unanswered(last_event):
            await self._context.write(event)
        number = last_event
        while not (execution.finished and number == len(log.events)):
            await log.wait_after(number)
            # One message for all that is there: each costs the same, however much it carries.
            events = log.events_after(number, MAX_BATCH_BYTES)
            number = events[-1].number
            if execution.finished and number == len(log.events):
                # The caller may ask for the next one as soon as it has the last event.
                self._execution = None
            await self._context.write(events[0] if len(events) == 1 else pb.ExecuteEvent(batch=events))
        self._execution = None

    async def _read(self) -> None:
        with suppress(asyncio.CancelledError, grpc.aio.BaseError, grpc.aio.UsageError):
            while (request := await self._context.read()) is not END:
                self._hear(request)
                # What follows a `start` is said to the execution that it will begin.
                await self._heard.wait()
        self._expect_no_more()

    def _hear(self, request: pb.ExecuteRequest) -> None:
        """Hand on what the caller says; what it says to an execution that has ended comes too late."""
        if request.WhichOneof("message") == "start" or not self._served:
            self._take_start(request)
        elif self._execution is not None:
            self._execution.hear(request)

    def _take_start(self, request: pb.ExecuteRequest) -> None:
        if self._next.done():
            return
        if request.WhichOneof("message") != "start":
            self._refuse(_NO_START)
        elif self._execution is not None:
            self._refuse("start: the execution before it is not finished")
        else:
            self._heard.clear()
            self._next.set_result(request.start)

    def _refuse(self, mistake: str) -> None:
        self._next.set_exception(InvalidRequestError(mistake))
        # Nobody may wait for it any more.
        self._next.exception()
