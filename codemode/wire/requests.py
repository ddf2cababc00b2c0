"""The calls about sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codemode_proto.v1 import executor_pb2 as pb

if TYPE_CHECKING:
    from codemode.wire.connection import Connection


async def open_session(
    connection: Connection, session_id: str, context: pb.Context, limits: pb.Limits
) -> pb.Session:
    """Open a session; trying again with the same id opens no second one."""
    request = pb.OpenSessionRequest(session_id=session_id, context=context, limits=limits)
    return await connection.call(
        lambda: connection.stub.OpenSession(
            request, timeout=connection.timeout, metadata=connection.metadata
        ),
        session_id=session_id,
    )


async def close_session(connection: Connection, session_id: str, context: pb.Context) -> bool:
    """Close a session; False when there was none any more."""
    request = pb.CloseSessionRequest(session_id=session_id, context=context)
    answer: pb.CloseSessionResponse = await connection.call(
        lambda: connection.stub.CloseSession(
            request, timeout=connection.timeout, metadata=connection.metadata
        ),
        session_id=session_id,
    )
    return answer.closed


async def list_sessions(connection: Connection, context: pb.Context) -> list[pb.Session]:
    """The open sessions of the context's owner."""
    answer: pb.ListSessionsResponse = await connection.call(
        lambda: connection.stub.ListSessions(
            pb.ListSessionsRequest(context=context), timeout=connection.timeout, metadata=connection.metadata
        )
    )
    return list(answer.sessions)


async def complete(
    connection: Connection, session_id: str, context: pb.Context, code: str, cursor: int | None
) -> pb.CompleteResponse:
    """Ask a session's interpreter what could stand at the cursor."""
    request = pb.CompleteRequest(
        session_id=session_id, context=context, code=code, cursor=len(code) if cursor is None else cursor
    )
    return await connection.call(
        lambda: connection.stub.Complete(request, timeout=connection.timeout, metadata=connection.metadata),
        session_id=session_id,
    )
