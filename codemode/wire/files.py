"""Files to and from a session's working directory, in pieces."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from codemode_proto.v1 import executor_pb2 as pb

from codemode.errors import ProtocolError
from codemode.wire.failures import error_for

if TYPE_CHECKING:
    from codemode.wire.connection import Connection

PIECE = 1 << 20
# A file of any size the limits allow, on a slow line.
MAX_SECONDS = 3600.0


async def put(
    connection: Connection, session_id: str, context: pb.Context, source: Path, target: str
) -> None:
    """Send a file. Raises ProtocolError when what arrived is not what was sent."""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        size = os.fstat(file.fileno()).st_size

        async def pieces() -> AsyncIterator[pb.PutFileRequest]:
            start = pb.PutFileStart(session_id=session_id, context=context, path=target, size=size)
            yield pb.PutFileRequest(start=start)
            while piece := await asyncio.to_thread(file.read, PIECE):
                digest.update(piece)
                yield pb.PutFileRequest(chunk=piece)

        try:
            answer = await connection.stub.PutFile(
                pieces(), timeout=MAX_SECONDS, metadata=connection.metadata
            )
        except grpc.aio.AioRpcError as error:
            raise error_for(error, connection.url, session_id=session_id) from None
    if answer.sha256 != digest.hexdigest():
        raise ProtocolError(
            f"the file {target!r} did not arrive as it was sent; it may have changed meanwhile"
        )


async def get(
    connection: Connection, session_id: str, context: pb.Context, source: str, target: Path
) -> None:
    """Fetch a file. The target appears when all of it is there, or not at all."""
    request = pb.GetFileRequest(session_id=session_id, context=context, path=source)
    descriptor, partial = await asyncio.to_thread(
        tempfile.mkstemp, prefix=f".{target.name}.", dir=target.parent
    )
    size = received = 0
    try:
        with os.fdopen(descriptor, "wb") as file:
            async for response in connection.stub.GetFile(
                request, timeout=MAX_SECONDS, metadata=connection.metadata
            ):
                if response.HasField("start"):
                    size = response.start.size
                else:
                    received += len(response.chunk)
                    await asyncio.to_thread(file.write, response.chunk)
        if received != size:
            raise ProtocolError(f"the file {source!r} has {size:,} bytes, but {received:,} arrived")
        await asyncio.to_thread(os.replace, partial, target)
    except grpc.aio.AioRpcError as error:
        raise error_for(error, connection.url, session_id=session_id) from None
    finally:
        with suppress(FileNotFoundError):
            await asyncio.to_thread(os.unlink, partial)
