"""Whether an executor is there, and whether it can work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from codemode_proto.v1 import executor_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from codemode.wire.channel import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from codemode.wire.connection import Connection

# Asking how somebody is should not take long.
MAX_SECONDS = 10.0


async def is_healthy(connection: Connection) -> bool:
    """Ask by the standard health service."""
    stub = health_pb2_grpc.HealthStub(connection.channel)
    try:
        await connection.until_connected()
        answer = await stub.Check(
            health_pb2.HealthCheckRequest(), timeout=min(connection.timeout, MAX_SECONDS)
        )
    except grpc.aio.AioRpcError:
        return False
    serving: bool = answer.status == health_pb2.HealthCheckResponse.SERVING
    return serving


async def describe(connection: Connection) -> pb.ReadyResponse:
    """What the executor says of itself. Raises grpc.aio.AioRpcError."""
    await connection.until_connected()
    answer: pb.ReadyResponse = await connection.stub.Ready(
        pb.ReadyRequest(), timeout=min(connection.timeout, MAX_SECONDS), metadata=connection.metadata
    )
    connection.instance = answer.executor_instance
    if answer.max_message_bytes:
        connection.max_message_bytes = min(answer.max_message_bytes, MAX_MESSAGE_BYTES)
    return answer


async def is_ready(connection: Connection) -> bool:
    """Whether the executor says that it can run code."""
    try:
        return (await describe(connection)).ready
    except grpc.aio.AioRpcError:
        return False
