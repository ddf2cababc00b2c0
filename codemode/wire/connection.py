"""A connection to one executor: its channel, stub, key, retries and identity."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from codemode_proto.v1 import executor_pb2 as pb
from codemode_proto.v1.executor_pb2_grpc import ExecutorStub

from codemode.errors import ExecutorClientError
from codemode.wire.channel import MAX_MESSAGE_BYTES, authorization, open_channel
from codemode.wire.failures import as_transport_error, error_for, failed
from codemode.wire.loop import sdk_loop
from codemode.wire.retry import RetryPolicy
from codemode.wire.streams import IdleStreams

if TYPE_CHECKING:
    from codemode.config import GrpcTlsConfig

T = TypeVar("T")
# How long a connection may take before the executor counts as not there.
CONNECT_SECONDS = 5.0
# The same when it could not be reached a moment ago: time for the next attempt or two.
RECONNECT_SECONDS = 0.3


class Connection:
    """Opened at its first use, on the SDK's loop.

    Args:
        url: Where the executor is.
        api_key: What it knows the caller by.
        timeout: Seconds to wait for the executor, beyond the time that code may run.
        tls: TLS configuration.
        retry: When to try again.
    """

    def __init__(
        self, url: str, api_key: str, timeout: float, tls: GrpcTlsConfig | None, retry: RetryPolicy
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.retry = retry
        self.metadata: Sequence[tuple[str, str]] = authorization(api_key)
        # Which executor process answered last, to tell it from one that was started in its place.
        self.instance = ""
        # The longest message it takes, as far as is known.
        self.max_message_bytes = MAX_MESSAGE_BYTES
        self.idle_streams = IdleStreams()
        self._tls = tls
        self._closed = False
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The SDK's loop."""
        return sdk_loop()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, opened now if it was not.

        Raises:
            ExecutorClientError: The connection was closed.
        """
        if self._closed:
            raise ExecutorClientError("this client is closed; make a new one")
        if self._channel is None:
            self._channel = open_channel(self.url, self._tls)
        return self._channel

    @property
    def stub(self) -> Any:
        """The service."""
        if self._stub is None:
            self._stub = ExecutorStub(self.channel)
        return self._stub

    async def close(self) -> None:
        """Close the channel; streams that are open end, and no other is opened."""
        self._closed = True
        self.idle_streams.close()
        if self._channel is not None:
            channel, self._channel, self._stub = self._channel, None, None
            await channel.close(None)

    def deadline_for(self, start: pb.Start) -> float:
        """Seconds that a stream may stay open: what the code may take, and the wait beyond it."""
        code = start.limits.timeout_seconds if start.limits.HasField("timeout_seconds") else 3600.0
        return code + self.timeout

    async def until_connected(self) -> None:
        """Wait until the channel is connected.

        Raises:
            grpc.aio.AioRpcError: With status UNAVAILABLE, when it cannot be.
        """
        channel = self.channel
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return
        # A failure from before is no answer. gRPC tries again by itself, and tells of success alone.
        stale = state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        patience = RECONNECT_SECONDS if stale else CONNECT_SECONDS
        deadline = asyncio.get_running_loop().time() + min(patience, self.timeout)
        while state is not grpc.ChannelConnectivity.READY:
            left = deadline - asyncio.get_running_loop().time()
            if (state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not stale) or left <= 0:
                details = "the connection was refused, or nothing answered"
                raise failed(grpc.StatusCode.UNAVAILABLE, details)
            try:
                await asyncio.wait_for(channel.wait_for_state_change(state), left)
            except TimeoutError:
                continue
            state = channel.get_state(try_to_connect=True)
            stale = False

    async def call(self, make: Callable[[], Awaitable[T]], *, session_id: str = "", retry: bool = True) -> T:
        """Make a call that may be repeated, with retries.

        Raises:
            ExecutorClientError: The error that its last status stands for.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await make()
            except grpc.aio.AioRpcError as raised:
                error = as_transport_error(raised)
                wait = self.retry.wait_after(error, tries) if retry else None
                if wait is None:
                    raise error_for(error, self.url, session_id=session_id, tries=tries) from None
                await asyncio.sleep(wait)
