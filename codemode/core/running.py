"""An execution as its caller follows it, from plain code or from a coroutine."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from codemode_proto.v1 import executor_pb2 as pb

from codemode.errors import CodemodeError, ExecutorConnectionError
from codemode.events import ExecutionEvent, Finished
from codemode.results import ExecutionResult
from codemode.wire.execution import RemoteExecution
from codemode.wire.host_tools import HostTools, failure_of
from codemode.wire.loop import check_may_wait, submit
from codemode.wire.transcript import Transcript

if TYPE_CHECKING:
    from codemode.wire.connection import Connection

OnInput = Callable[[str, bool], str]
"""Asks a person for a line: called with the prompt and whether it is a password; EOFError ends the input."""

# After Ctrl-C, how long to wait for the interrupted code's last words before the execution is cancelled.
INTERRUPT_SECONDS = 10.0


class RunningExecution:
    """One execution that was begun, and is to be followed once, by one of its methods.

    Args:
        connection: Way to the executor.
        start: The request.
        tools: The tools it may call.
        on_input: Asks a person for input; None when nobody can be asked.
        idempotent: Whether the code may run again when it is unknown if it ran.
    """

    def __init__(
        self,
        connection: Connection,
        start: pb.Start,
        tools: HostTools,
        on_input: OnInput | None,
        idempotent: bool,
    ) -> None:
        self._connection = connection
        self._start = start
        self._tools = tools
        self._on_input = on_input
        self._idempotent = idempotent
        self._transcript = Transcript(start.correlation_id)
        self._remote: RemoteExecution | None = None

    @property
    def correlation_id(self) -> str:
        """Identifier of the request, for people and logs."""
        return self._start.correlation_id

    def interrupt(self) -> None:
        """KeyboardInterrupt in the code; from any thread. A session keeps its variables."""
        if self._remote is not None:
            self._remote.post(pb.ExecuteRequest(interrupt=pb.Interrupt()))

    def cancel(self) -> None:
        """Stop it; from any thread."""
        if self._remote is not None:
            self._remote.post(pb.ExecuteRequest(cancel=pb.Cancel()))

    # --- plain code -------------------------------------------------------------------------------

    def result(self, on_event: Callable[[ExecutionEvent], None] | None = None) -> ExecutionResult:
        """Follow it to its end on this thread, which is also where its synchronous tools run.

        Args:
            on_event: Called on this thread with every event.

        Raises:
            ExecutorClientError: The executor could not be reached, or refused.
            KeyboardInterrupt: The person interrupted; the code was interrupted first.
        """
        result: ExecutionResult | None = None
        # To the very end, and not to `Finished`: after it comes the KeyboardInterrupt of who interrupted.
        for event in self.events():
            if on_event is not None:
                on_event(event)
            if isinstance(event, Finished):
                result = event.result
        assert result is not None, "an execution ends with Finished or raises"
        return result

    def events(self) -> Iterator[ExecutionEvent]:
        """Its events as they happen, on this thread; see `result`. Leaving the loop early cancels it."""
        check_may_wait()
        received: queue.SimpleQueue[pb.ExecuteEvent | BaseException] = queue.SimpleQueue()
        remote = self._begin(received.put)
        interrupted = False
        finished = False
        try:
            while not finished:
                try:
                    item = received.get(timeout=INTERRUPT_SECONDS if interrupted else None)
                    if isinstance(item, BaseException):
                        finished = True
                        raise _plain(item)
                    event = self._transcript.add(item)
                    finished = isinstance(event, Finished)
                    if event is not None:
                        yield event
                    if not finished:
                        self._answer(remote, item)
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    self.interrupt()
                except queue.Empty:
                    raise KeyboardInterrupt from None
            if interrupted:
                raise KeyboardInterrupt
        finally:
            if not finished:
                self.cancel()

    def _begin(self, sink: Callable[[pb.ExecuteEvent | BaseException], None]) -> RemoteExecution:
        if self._remote is not None:
            raise RuntimeError("an execution is followed once; begin another one")
        self._remote = RemoteExecution(self._connection, self._start, sink, self._idempotent)
        submit(self._remote.run())
        return self._remote

    def _answer(self, remote: RemoteExecution, event: pb.ExecuteEvent) -> None:
        """Answer an event that is a question, on this thread unless the tool is a coroutine."""
        kind = event.WhichOneof("message")
        if kind == "tool_call":
            binding = self._tools.binding_of(event.tool_call)
            if isinstance(binding, pb.ExecuteRequest):
                remote.answer(event, binding)
            elif binding.is_async:
                call = self._tools.call_async(binding, event.tool_call)
                self._connection.loop.call_soon_threadsafe(self._start_on_sdk_loop, remote, event, call)
            else:
                try:
                    remote.answer(event, self._tools.call(binding, event.tool_call))
                except BaseException as error:
                    remote.answer(event, failure_of(event.tool_call, error))
                    raise
        elif kind == "schema_request":
            remote.answer(event, self._tools.describe(event.schema_request))
        elif kind == "input_request":
            remote.answer(event, self._ask(event.input_request))

    def _start_on_sdk_loop(self, remote: RemoteExecution, event: pb.ExecuteEvent, call: Any) -> None:
        task = self._tools.start(asyncio.get_running_loop().create_task, call)
        task.add_done_callback(lambda done: None if done.cancelled() else remote.answer(event, done.result()))

    def _ask(self, request: pb.InputRequest) -> pb.ExecuteRequest:
        answer = pb.InputAnswer(request_id=request.request_id)
        try:
            answer.text = self._on_input(request.prompt, request.password) if self._on_input else ""
        except EOFError:
            answer.end_of_file = True
        return pb.ExecuteRequest(input_answer=answer)

    # --- coroutines -------------------------------------------------------------------------------

    async def result_async(self, on_event: Callable[[ExecutionEvent], None] | None = None) -> ExecutionResult:
        """Follow it to its end without blocking the event loop; cancelling this cancels the execution.

        Coroutine tools run as tasks of this loop. Synchronous tools run on its
        thread, where they block it: a tool that takes long should be a coroutine.
        """
        async for event in self.events_async():
            if on_event is not None:
                on_event(event)
            if isinstance(event, Finished):
                return event.result
        raise AssertionError("an execution ends with Finished or raises")

    async def events_async(self) -> AsyncIterator[ExecutionEvent]:
        """Its events as they happen; see `result_async`."""
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[pb.ExecuteEvent | BaseException] = asyncio.Queue()

        def sink(item: pb.ExecuteEvent | BaseException) -> None:
            # The caller may have closed its loop without a word.
            if not loop.is_closed():
                loop.call_soon_threadsafe(received.put_nowait, item)

        remote = self._begin(sink)
        tasks: set[asyncio.Task[None]] = set()
        finished = False
        try:
            while not finished:
                item = await received.get()
                if isinstance(item, BaseException):
                    finished = True
                    raise _plain(item)
                event = self._transcript.add(item)
                finished = isinstance(event, Finished)
                if event is not None:
                    yield event
                if not finished:
                    self._answer_async(remote, item, tasks)
        finally:
            for task in tasks:
                task.cancel()
            if not finished:
                self.cancel()

    def _answer_async(
        self, remote: RemoteExecution, event: pb.ExecuteEvent, tasks: set[asyncio.Task[None]]
    ) -> None:
        if event.WhichOneof("message") == "tool_call":
            binding = self._tools.binding_of(event.tool_call)
            if not isinstance(binding, pb.ExecuteRequest) and binding.is_async:

                async def call() -> None:
                    remote.answer(event, await self._tools.call_async(binding, event.tool_call))

                task = self._tools.start(asyncio.get_running_loop().create_task, call())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                return
        self._answer(remote, event)


def _plain(error: BaseException) -> BaseException:
    if isinstance(error, (CodemodeError, KeyboardInterrupt)):
        return error
    if isinstance(error, asyncio.CancelledError):
        return ExecutorConnectionError("the client was closed while the code ran", outcome_unknown=True)
    return error
