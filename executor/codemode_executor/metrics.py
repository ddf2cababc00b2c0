"""Prometheus metrics of one executor, on request.

Two things are counted as they happen: an execution that ended and a sandbox that started. All else is read
when somebody asks. No label holds a word that a caller or a sandbox chose, so their number is bounded.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.journal import Journal
from codemode_executor.logs import error_type
from codemode_executor.pool import Pool
from codemode_executor.sessions import Sessions

if TYPE_CHECKING:
    from prometheus_client import Metric

# An event loop that is busy for longer is a failed scrape, which says just that.
READ_SECONDS = 5.0
_DURATIONS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_STARTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)


class MetricsError(ValueError):
    """Metrics cannot be served as asked; the message says what to do."""


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; without a host it is loopback.

    Raises:
        MetricsError: It is neither HOST:PORT nor a port.
    """
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise MetricsError(f"--metrics: {address!r} is not HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


class Metrics:
    """Counts, and serves what it counted.

    Args:
        address: Where to serve, `HOST:PORT`.

    Raises:
        MetricsError: The address is none, or the package that does the work is not installed.
    """

    def __init__(self, address: str) -> None:
        """Make the instruments; nothing is served yet."""
        self._address = parse_address(address)
        try:
            from prometheus_client import CollectorRegistry, Counter, Histogram
        except ImportError:
            raise MetricsError(
                "--metrics needs a package that is not installed: pip install 'codemode-kernel[metrics]'"
            ) from None
        self._registry = registry = CollectorRegistry()
        self._executions = Counter(
            "codemode_executions",
            "Executions that ended.",
            ("outcome", "error_type", "limit"),
            registry=registry,
        )
        self._durations = Histogram(
            "codemode_execution_seconds",
            "Wall time of the code of executions that ended.",
            buckets=_DURATIONS,
            registry=registry,
        )
        self._starts = Histogram(
            "codemode_sandbox_start_seconds",
            "Time from asking the backend for a sandbox until it could take work.",
            buckets=_STARTS,
            registry=registry,
        )
        self._tool_calls = Counter(
            "codemode_tool_calls",
            "Calls of tools by executions that ended.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("success", "error"):
            self._tool_calls.labels(outcome)

    def execution_ended(self, finished: pb.Finished) -> None:
        """Count an execution and its tool calls."""
        self._executions.labels(
            "success" if finished.success else "error", error_type(finished.error.type), finished.error.limit
        ).inc()
        self._durations.observe(finished.duration_us / 1e6)
        good = sum(call.success for call in finished.tool_calls)
        self._tool_calls.labels("success").inc(good)
        self._tool_calls.labels("error").inc(len(finished.tool_calls) - good)

    def sandbox_started(self, seconds: float) -> None:
        """Count a sandbox that started, and how long it took."""
        self._starts.observe(seconds)

    @asynccontextmanager
    async def served(self, pool: Pool, sessions: Sessions, journal: Journal) -> AsyncIterator[str]:
        """Serve them over HTTP while the block runs; the value is the address, with the port really taken.

        Raises:
            MetricsError: The address cannot be listened on.
        """
        from prometheus_client import start_http_server

        host, port = self._address
        self._registry.register(_Present(asyncio.get_running_loop(), pool, sessions, journal))
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise MetricsError(
                f"--metrics: cannot listen on {host}:{port}: {error.strerror or error}"
            ) from None
        try:
            yield f"{host}:{server.server_port}"
        finally:
            # In a thread, because a scrape that is being answered waits for this loop.
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            thread.join()


class _Present:
    """What is true now; asked by a thread of the HTTP server, answered on the event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: Pool, sessions: Sessions, journal: Journal
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._sessions = sessions
        self._journal = journal

    async def _read(self) -> tuple[Mapping[str, int], dict[str, tuple[str, int]]]:
        running = sum(execution.begun for execution in self._journal.running())
        return self._pool.states, {
            "codemode_executions_running": ("Executions whose code runs.", running),
            "codemode_queue_length": ("Executions that wait for a sandbox.", self._pool.waiting),
            "codemode_sessions_open": ("Open sessions.", len(self._sessions)),
            "codemode_journal_entries": ("Executions remembered.", len(self._journal)),
        }

    def collect(self) -> "Iterator[Metric]":
        """Called by the registry for every scrape."""
        from prometheus_client.core import GaugeMetricFamily

        states, numbers = asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(READ_SECONDS)
        sandboxes = GaugeMetricFamily("codemode_sandboxes", "Sandboxes, by what they do.", labels=["state"])
        for state, count in states.items():
            sandboxes.add_metric([state], count)
        yield sandboxes
        for name, (what, number) in numbers.items():
            yield GaugeMetricFamily(name, what, number)
