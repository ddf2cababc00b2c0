"""The gRPC service: requests checked, owners found, executions attached to streams."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import grpc
from codemode_proto.v1 import executor_pb2 as pb
from codemode_proto.v1 import executor_pb2_grpc as pb_grpc

from codemode_executor import logs
from codemode_executor.asking import MAX_NAME
from codemode_executor.auth import Authenticator
from codemode_executor.config import ExecutorConfig
from codemode_executor.conversation import Context, Conversation
from codemode_executor.errors import InvalidRequestError, ServiceError
from codemode_executor.execution import INSTANCE, Execution
from codemode_executor.journal import Journal
from codemode_executor.limits import resolve
from codemode_executor.owner import Owner, owner_of, parse_object
from codemode_executor.pool import Pool
from codemode_executor.questions import complete, inspect
from codemode_executor.runs import Runs
from codemode_executor.sessions import Session, Sessions
from codemode_executor.transfers import get_file, put_file

log = logging.getLogger(__name__)

MAX_TOOLS = 10_000

T = TypeVar("T")


class ExecutorService(pb_grpc.ExecutorServicer):
    """One executor.

    Args:
        config: Its settings.
        authenticator: Knows the API keys.
        pool: Its sandboxes.
        sessions: Its sessions.
        journal: Its memory of executions.
        on_end: Called with the outcome of every execution that ended.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        authenticator: Authenticator,
        pool: Pool,
        sessions: Sessions,
        journal: Journal,
        on_end: Callable[[pb.Finished], None],
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self._pool = pool
        self._sessions = sessions
        self._journal = journal
        self._runs = Runs(pool, sessions, journal, config.vanished_seconds, on_end)
        self._conversations: set[Conversation] = set()
        self._defaults = config.default_limits
        self._ceilings = config.ceilings

    async def close(self) -> None:
        """End every execution, and the streams that wait for another one."""
        await self._runs.close()
        for conversation in self._conversations:
            conversation.end()

    def _owner(self, context: Context, request: pb.Context) -> tuple[Owner, dict[str, Any]]:
        identity = self._authenticator.identify(context.invocation_metadata() or ())
        variables = parse_object(
            request.variables_json, "context.variables_json", self._config.max_context_bytes
        )
        owner = owner_of(identity, variables, self._config.isolation_keys)
        logs.bind(owner=str(owner))
        return owner, variables

    def _session(self, context: Context, request: Any) -> Session:
        owner, _ = self._owner(context, request.context)
        return self._sessions.find(owner, request.session_id)

    # --- Execute --------------------------------------------------------------------------------

    # gRPC takes a coroutine that reads and writes the stream itself; the stubs know only generators.
    async def Execute(  # type: ignore[override] # noqa: N802 - as in the contract
        self, request_iterator: Any, context: Context
    ) -> None:
        """One execution; see the contract."""
        async with _answering(context):
            await self._execute(context)

    async def _execute(self, context: Context) -> None:
        self._authenticator.identify(context.invocation_metadata() or ())
        conversation = Conversation(context)
        self._conversations.add(conversation)
        try:
            while (start := await conversation.next_start()) is not None:
                execution = self._find_or_begin(start, context)
                execution.attached += 1
                try:
                    await conversation.follow(execution, start.last_event)
                finally:
                    execution.attached -= 1
                    self._runs.watch_for_return(execution)
        finally:
            self._conversations.discard(conversation)
            conversation.close()

    def _find_or_begin(self, start: pb.Start, context: Context) -> Execution:
        owner, variables = self._owner(context, start.context)
        logs.bind(correlation_id=start.correlation_id[:256], session_id=start.session_id[:8])
        length = len(start.code.encode("utf-8", "replace"))
        if length > self._config.max_code_bytes:
            raise InvalidRequestError(
                f"code: {length:,} bytes are above the limit of {self._config.max_code_bytes:,}; "
                "put data in files or tools"
            )
        if len(start.correlation_id) > MAX_NAME:
            raise InvalidRequestError(f"correlation_id: longer than {MAX_NAME} characters")
        if any(len(name) > MAX_NAME for name in start.tools.allowed):
            raise InvalidRequestError(f"tools.allowed: a name is longer than {MAX_NAME} characters")
        if len(start.tools.allowed) > MAX_TOOLS:
            raise InvalidRequestError(f"tools.allowed: more than {MAX_TOOLS:,} names; use all_registered")
        config = parse_object(start.config_json, "config_json", self._config.max_context_bytes)
        tools = None if start.tools.all_registered else frozenset(start.tools.allowed)

        def make() -> Execution:
            # Only for a new one: the session of one that ran may be gone, and its outcome still wanted.
            defaults = self._defaults
            if start.session_id:
                defaults = self._sessions.find(owner, start.session_id).limits
            limits = resolve(start.limits, defaults, self._ceilings)
            return Execution(
                start.execution_id,
                start.correlation_id,
                limits,
                tools,
                bool(start.session_id),
                self._config.interrupt_grace_seconds,
            )

        execution, new = self._journal.find_or_add(owner, start, make)
        if new:
            self._runs.begin(execution, owner, start, variables, config)
        log.info("execution begins" if new else "execution is attached to again")
        return execution

    # --- sessions -------------------------------------------------------------------------------

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.Session:  # noqa: N802
        """Open a session, or return it."""

        async def work() -> pb.Session:
            owner, _ = self._owner(context, request.context)
            limits = resolve(request.limits, self._defaults, self._ceilings)
            return (await self._sessions.open(owner, request.session_id, limits)).to_proto()

        return await _serve(context, work)

    async def CloseSession(  # noqa: N802
        self, request: pb.CloseSessionRequest, context: Context
    ) -> pb.CloseSessionResponse:
        """Close a session and everything in it."""

        async def work() -> pb.CloseSessionResponse:
            owner, _ = self._owner(context, request.context)
            return pb.CloseSessionResponse(closed=await self._sessions.close(owner, request.session_id))

        return await _serve(context, work)

    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """The caller's open sessions."""

        async def work() -> pb.ListSessionsResponse:
            owner, _ = self._owner(context, request.context)
            return pb.ListSessionsResponse(sessions=[s.to_proto() for s in self._sessions.of(owner)])

        return await _serve(context, work)

    async def Complete(self, request: pb.CompleteRequest, context: Context) -> pb.CompleteResponse:  # noqa: N802
        """Completions, none while the session is busy."""

        async def work() -> pb.CompleteResponse:
            session = self._session(context, request)
            if session.turn.locked():
                return pb.CompleteResponse(cursor_start=request.cursor, cursor_end=request.cursor)
            async with session.turn:
                return await complete(session.lease.sandbox.link, request, self._config.max_code_bytes)

        return await _serve(context, work)

    async def Inspect(self, request: pb.InspectRequest, context: Context) -> pb.InspectResponse:  # noqa: N802
        """What is known of a name, nothing while the session is busy."""

        async def work() -> pb.InspectResponse:
            session = self._session(context, request)
            if session.turn.locked():
                return pb.InspectResponse()
            async with session.turn:
                return await inspect(session.lease.sandbox.link, request, self._config.max_code_bytes)

        return await _serve(context, work)

    # --- files ----------------------------------------------------------------------------------

    async def PutFile(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.PutFileRequest], context: Context
    ) -> pb.PutFileResponse:
        """Write a file in a session's working directory."""

        async def work() -> pb.PutFileResponse:
            self._authenticator.identify(context.invocation_metadata() or ())
            requests = aiter(request_iterator)
            first = await anext(requests, None)
            if first is None or first.WhichOneof("message") != "start":
                raise InvalidRequestError("start: the first message of the stream must be it")
            session = self._session(context, first.start)
            room = session.limits.sandbox.tmp_bytes
            if first.start.size > room:
                raise InvalidRequestError(f"size: {first.start.size:,} bytes are above tmp_bytes={room:,}")

            async def pieces() -> AsyncIterator[bytes]:
                async for request in requests:
                    yield request.chunk

            return await put_file(session.lease.sandbox.link, first.start, pieces())

        return await _serve(context, work)

    async def GetFile(  # noqa: N802
        self, request: pb.GetFileRequest, context: Context
    ) -> AsyncIterator[pb.GetFileResponse]:
        """Read a file of a session's working directory."""
        async with _answering(context):
            session = self._session(context, request)
            room = session.limits.sandbox.tmp_bytes
            async for response in get_file(session.lease.sandbox.link, request.path, room):
                yield response

    # --- readiness ------------------------------------------------------------------------------

    async def Ready(self, request: pb.ReadyRequest, context: Context) -> pb.ReadyResponse:  # noqa: N802
        """Whether code can be run now, and with what."""

        async def work() -> pb.ReadyResponse:
            self._authenticator.identify(context.invocation_metadata() or ())
            return pb.ReadyResponse(
                ready=not self._pool.failure,
                reason=self._pool.failure,
                backend=self._pool.backend.name,
                version=version("codemode-kernel"),
                default_limits=self._defaults.to_proto(),
                ceilings=self._ceilings.to_proto(),
                isolation_keys=self._config.isolation_keys,
                enforcement=self._pool.backend.enforcement(),
                warm_sandboxes=self._pool.warm_count,
                image=self._pool.backend.image,
                executor_instance=INSTANCE,
                max_message_bytes=self._config.max_message_bytes,
            )

        return await _serve(context, work)


async def _abort(context: Context, error: ServiceError) -> None:
    trailing = [("codemode-instance", INSTANCE)]
    if error.retry_after_ms is not None:
        trailing.append(("retry-after-ms", str(error.retry_after_ms)))
    await context.abort(error.code, str(error), tuple(trailing))


@asynccontextmanager
async def _answering(context: Context) -> AsyncIterator[None]:
    """Turn errors into statuses; what nobody foresaw is told to the log, and not to the caller."""
    try:
        yield
    except ServiceError as error:
        await _abort(context, error)
    except (grpc.aio.BaseError, asyncio.CancelledError):
        raise
    except Exception:
        if context.done():
            # Writing to a caller that has gone.
            return
        log.exception("a request failed unexpectedly")
        await context.abort(grpc.StatusCode.INTERNAL, "the executor failed; its log says why")


async def _serve(context: Context, work: Callable[[], Awaitable[T]]) -> T:
    async with _answering(context):
        return await work()
    raise AssertionError("abort raises")
