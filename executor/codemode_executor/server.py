"""Assembling an executor and serving it until it is told to stop."""

import asyncio
import contextlib
import logging
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from codemode_proto.v1 import executor_pb2, executor_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from codemode_executor.auth import Authenticator, server_credentials
from codemode_executor.backends import choose_backend
from codemode_executor.config import ExecutorConfig
from codemode_executor.journal import Journal
from codemode_executor.pool import Pool
from codemode_executor.queueing import FairQueue
from codemode_executor.service import ExecutorService
from codemode_executor.sessions import Sessions

log = logging.getLogger(__name__)
SERVICE = executor_pb2.DESCRIPTOR.services_by_name["Executor"].full_name
_LOOPBACK = ("127.", "localhost:", "[::1]:")


class ListenError(ValueError):
    """The address cannot be served as asked; the message says what to do."""


def check_address(config: ExecutorConfig) -> None:
    """Refuse to serve plain text where others could listen, unless it is asked for by name.

    Raises:
        ListenError: The address is not loopback, there is no TLS, and `allow_insecure` is off.
    """
    if (config.tls_certificate is None) != (config.tls_key is None):
        raise ListenError("--tls-certificate and --tls-key go together")
    if config.listen.startswith(("unix:", *_LOOPBACK)) or config.tls_certificate or config.allow_insecure:
        return
    raise ListenError(
        f"{config.listen} is not a loopback address, and without TLS the API key would cross the network "
        "in the clear; give --tls-certificate and --tls-key, or --allow-insecure if the network is trusted"
    )


@contextlib.asynccontextmanager
async def running(config: ExecutorConfig, authenticator: Authenticator) -> AsyncIterator[str]:
    """Serve an executor; the value is the address it listens on. On leaving, nothing is left behind.

    Raises:
        ListenError: The address cannot be served as asked.
        BackendError: This machine can start no sandbox.
    """
    check_address(config)
    backend = await choose_backend(config)
    orphans = await backend.remove_orphans()
    if orphans:
        log.warning("sandboxes of a dead executor were removed", extra={"count": orphans})
    pool = Pool(
        backend,
        config.default_limits.sandbox,
        warm=config.warm,
        ceiling=config.max_sandboxes,
        idle_seconds=config.sandbox_idle_seconds,
        max_uses=config.sandbox_uses,
        queue=FairQueue(config.max_queue, config.max_queue_per_owner),
    )
    sessions = Sessions(pool, config.session_idle_seconds)
    journal = Journal(config.journal_entries, config.journal_bytes, config.journal_seconds)
    service = ExecutorService(config, authenticator, pool, sessions, journal)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            ("grpc.max_metadata_size", 16 << 10),
            # Two executors must not share an address without knowing.
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
        ],
    )
    executor_pb2_grpc.add_ExecutorServicer_to_server(service, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    for name in ("", SERVICE):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    if config.reflection:
        from grpc_reflection.v1alpha import reflection

        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = _bind(server, config)
    await server.start()
    pool.open()
    idle = asyncio.ensure_future(sessions.close_idle_forever())
    try:
        yield address
    finally:
        await healthy.enter_graceful_shutdown()
        idle.cancel()
        await service.close()
        await server.stop(grace=1.0)
        await sessions.close_all()
        await pool.close()
        await backend.close()


def _bind(server: grpc.aio.Server, config: ExecutorConfig) -> str:
    try:
        if config.tls_certificate is not None and config.tls_key is not None:
            credentials = server_credentials(config.tls_certificate, config.tls_key, config.tls_client_ca)
            port = server.add_secure_port(config.listen, credentials)
        elif config.listen.startswith("unix:"):
            return _bind_unix(server, config.listen)
        else:
            port = server.add_insecure_port(config.listen)
    except (RuntimeError, OSError) as error:
        raise ListenError(f"cannot listen on {config.listen}: {error}") from error
    host = config.listen.rpartition(":")[0]
    return f"{host}:{port}"


def _bind_unix(server: grpc.aio.Server, listen: str) -> str:
    path = Path(listen.removeprefix("unix:"))
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise ListenError(f"cannot listen on {path}: it exists and is not a socket")
    # The socket is made by gRPC; nobody may connect between its making and a later chmod.
    before = os.umask(0o177)
    try:
        server.add_insecure_port(listen)
    finally:
        os.umask(before)
    return listen


async def serve(config: ExecutorConfig, authenticator: Authenticator, parent: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the parent process is gone.

    Args:
        config: Settings.
        authenticator: Knows the API keys.
        parent: Descriptor that reaches its end when the parent process ends; None to stay.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    if parent is not None:
        asyncio.ensure_future(_wait_for_end(parent, stop))  # noqa: RUF006 - ends with the loop
    async with running(config, authenticator) as address:
        log.info("the executor is ready", extra={"address": address})
        print(f"ready {address}", flush=True)  # noqa: T201 - whoever started this process reads it
        await stop.wait()


async def _wait_for_end(descriptor: int, stop: asyncio.Event) -> None:
    """Set `stop` when the other end of a pipe is closed. A thread, because a pipe is no socket everywhere."""

    def read() -> None:
        while os.read(descriptor, 1024):
            pass

    await asyncio.to_thread(read)
    stop.set()
