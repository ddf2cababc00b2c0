"""Assembling an executor and serving it until it is told to stop."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from codemode_proto.v1 import executor_pb2, executor_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from codemode_executor import logs
from codemode_executor.auth import Authenticator, server_credentials
from codemode_executor.backends import Backend, choose_backend
from codemode_executor.config import ExecutorConfig
from codemode_executor.journal import Journal
from codemode_executor.metrics import Metrics
from codemode_executor.pool import Pool
from codemode_executor.queueing import FairQueue
from codemode_executor.service import ExecutorService
from codemode_executor.sessions import Sessions

log = logging.getLogger(__name__)
SERVICE = executor_pb2.DESCRIPTOR.services_by_name["Executor"].full_name


class ListenError(ValueError):
    """The address cannot be served as asked; the message says what to do."""


def check_address(config: ExecutorConfig) -> None:
    """Refuse to serve plain text where others could listen, unless it is asked for by name.

    Raises:
        ListenError: The address is none, or not loopback while there is no TLS and `allow_insecure` is off.
    """
    if (config.tls_certificate is None) != (config.tls_key is None):
        raise ListenError("--tls-certificate and --tls-key go together")
    if config.listen.startswith("unix:"):
        return
    host, _, port = config.listen.rpartition(":")
    # gRPC takes any number, and listens on what is left of it in 16 bits.
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ListenError(f"--listen: {config.listen!r} is neither HOST:PORT nor unix:/path/to/socket")
    if _is_loopback(host) or config.tls_certificate or config.allow_insecure:
        return
    raise ListenError(
        f"{config.listen} is not a loopback address, and without TLS the API key would cross the network "
        "in the clear; give --tls-certificate and --tls-key, or --allow-insecure if the network is trusted"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        # A name, which anybody could make mean anything.
        return False


@contextlib.asynccontextmanager
async def running(config: ExecutorConfig, authenticator: Authenticator) -> AsyncIterator[str]:
    """Serve an executor; the value is the address it listens on. On leaving, nothing is left behind.

    Raises:
        ListenError: The address cannot be served as asked.
        BackendError: This machine can start no sandbox.
        MetricsError: The metrics cannot be served as asked.
    """
    check_address(config)
    metrics = Metrics(config.metrics) if config.metrics else None
    backend = await choose_backend(config)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(backend.close)
        orphans = await backend.remove_orphans()
        if orphans:
            log.warning("sandboxes of a dead executor were removed", extra={"count": orphans})
        yield await _serve(config, authenticator, backend, metrics, stack)


async def _serve(
    config: ExecutorConfig,
    authenticator: Authenticator,
    backend: Backend,
    metrics: Metrics | None,
    stack: contextlib.AsyncExitStack,
) -> str:
    """Start to serve, and leave on the stack what ends it; returns the address."""
    pool = Pool(
        backend,
        config.default_limits.sandbox,
        warm=config.warm,
        ceiling=config.max_sandboxes,
        idle_seconds=config.sandbox_idle_seconds,
        max_uses=config.sandbox_uses,
        queue=FairQueue(config.max_queue, config.max_queue_per_owner),
        on_start=_ignore if metrics is None else metrics.sandbox_started,
    )
    sessions = Sessions(pool, config.session_idle_seconds)
    journal = Journal(config.journal_entries, config.journal_bytes, config.journal_seconds)
    on_end = _ignore if metrics is None else metrics.execution_ended
    service = ExecutorService(config, authenticator, pool, sessions, journal, on_end)
    stack.push_async_callback(pool.close)
    stack.push_async_callback(sessions.close_all)
    if metrics is not None:
        at = await stack.enter_async_context(metrics.served(pool, sessions, journal))
        log.info("metrics are served", extra={"address": at})
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            # What is sent has limits of its own.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", 16 << 10),
            # Two executors must not share an address without knowing.
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
        ],
    )
    executor_pb2_grpc.add_ExecutorServicer_to_server(service, server)
    healthy = health.aio.HealthServicer()  # type: ignore[attr-defined] # missing in the stubs
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

    async def stop() -> None:
        await healthy.enter_graceful_shutdown()
        idle.cancel()
        await service.close()
        await server.stop(grace=1.0)

    stack.push_async_callback(stop)
    return address


def _ignore(_: object) -> None:
    """Nobody asked for metrics."""


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
    # gRPC would take the place of an executor that lives as it does of one that died.
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise ListenError(f"cannot listen on {path}: another process listens there")
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
    loop.set_exception_handler(logs.note_background_failure)
    if parent is not None:
        _stop_at_end_of(parent, loop, stop)
    async with running(config, authenticator) as address:
        log.info("the executor is ready", extra={"address": address})
        print(f"ready {address}", flush=True)  # noqa: T201 - whoever started this process reads it
        await stop.wait()
    if parent is not None and config.listen.startswith("unix:"):
        # The parent made a folder for the socket, and is perhaps there no more to remove it.
        with contextlib.suppress(OSError):
            Path(config.listen.removeprefix("unix:")).parent.rmdir()


def _stop_at_end_of(descriptor: int, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` when the other end of a pipe is closed.

    In a thread, because a pipe is no socket everywhere; and in a daemon, because
    the loop would wait for one of its own before it closes.
    """

    def read() -> None:
        with contextlib.suppress(OSError):
            while os.read(descriptor, 1024):
                pass
        # The loop may have closed already.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="parent", daemon=True).start()
