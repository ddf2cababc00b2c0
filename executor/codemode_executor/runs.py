"""The running of executions, apart from the streams that may come and go."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.errors import ServiceError
from codemode_executor.execution import Execution
from codemode_executor.journal import Journal
from codemode_executor.logs import error_type
from codemode_executor.owner import Owner
from codemode_executor.pool import Pool
from codemode_executor.sessions import Sessions

log = logging.getLogger(__name__)


class Runs:
    """Gives each execution a sandbox and takes it back.

    Args:
        pool: For executions without a session.
        sessions: For those in one.
        journal: Forgets an execution that never ran.
        vanished_seconds: How long a stateless execution waits for a client that vanished.
        on_end: Called with the outcome of every execution that ended.
    """

    def __init__(
        self,
        pool: Pool,
        sessions: Sessions,
        journal: Journal,
        vanished_seconds: float,
        on_end: Callable[[pb.Finished], None],
    ) -> None:
        self._pool = pool
        self._sessions = sessions
        self._journal = journal
        self._vanished_seconds = vanished_seconds
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop everything that runs."""
        for execution in self._journal.running():
            execution.cancel("the executor is shutting down")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def begin(
        self,
        execution: Execution,
        owner: Owner,
        start: pb.Start,
        context: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> None:
        """Run an execution in the background."""
        execution.ended.add_done_callback(lambda ended: self._note_end(execution, ended.result()))
        run = self._in_session if start.session_id else self._alone
        self._spawn(self._guard(execution, owner, run(execution, owner, start, context, config)))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, execution: Execution, owner: Owner, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except ServiceError as error:
            # Nothing ran, so a retry with the same id may.
            self._journal.drop(owner, execution)
            execution.log.refuse(error)
        except Exception:
            # A mistake of ours; whoever waits for the execution shall not wait for ever.
            log.exception("an execution failed in the executor")
            execution.cancel("of an error in the executor; its log says more")

    async def _alone(
        self,
        execution: Execution,
        owner: Owner,
        start: pb.Start,
        context: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> None:
        # Whoever cancels, or vanishes, while it waits for a sandbox leaves the queue.
        lease = await self._pool.lease(owner, execution.limits.sandbox, execution.ended)
        try:
            if not execution.finished:
                execution.run(lease.sandbox, start, context, config)
                finished = await execution.ended
                # The kernel takes its time to take back what a process had, and counts it meanwhile.
                lease.spent = finished.error.type == "OutOfMemoryError"
        finally:
            await self._pool.give_back(lease)

    async def _in_session(
        self,
        execution: Execution,
        owner: Owner,
        start: pb.Start,
        context: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> None:
        session = self._sessions.find(owner, start.session_id)
        async with session.turn:
            # It may have been lost while this one waited for its turn.
            session = self._sessions.find(owner, start.session_id)
            if execution.finished:
                return
            execution.run(session.lease.sandbox, start, context, config)
            finished = await execution.ended
            if execution.spoiled:
                self._sessions.lose(session, finished.error.message)

    def _note_end(self, execution: Execution, finished: pb.Finished) -> None:
        self._on_end(finished)
        log.info(
            "execution ended",
            extra={
                "correlation_id": execution.correlation_id,
                "success": finished.success,
                "error_type": error_type(finished.error.type),
                "limit": finished.error.limit,
                "duration_ms": finished.duration_us / 1000,
                "tool_calls": len(finished.tool_calls),
            },
        )

    def watch_for_return(self, execution: Execution) -> None:
        """Kill a stateless execution whose client does not come back in time."""
        if execution.finished or execution.attached or execution.has_session:
            return

        def check() -> None:
            if not execution.attached:
                execution.cancel("its client vanished")

        asyncio.get_running_loop().call_later(self._vanished_seconds, check)
