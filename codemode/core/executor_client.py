"""Talking to an executor."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from codemode.core.context import RuntimeContext
from codemode.core.correlation import generate_correlation_id, validate_correlation_prefix
from codemode.errors import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    LimitExceededError,
)
from codemode.events import ExecutionEvent
from codemode.results import ExecutionResult

if TYPE_CHECKING:
    import grpc
    from codemode_proto.v1 import executor_pb2 as pb

    from codemode.config import GrpcTlsConfig
    from codemode.core.registry import ComponentRegistry
    from codemode.core.running import OnInput, RunningExecution

__all__ = ["ExecutorClient", "ExecutorClientError", "ExecutorConnectionError", "ExecutorTimeoutError"]


class ExecutorClient:
    """A client of one executor; safe to use from many threads and event loops at once.

    Args:
        executor_url: Where it is: ``http://host:port``, ``https://host:port`` or ``unix:/path``.
        api_key: What it knows this client by.
        timeout: Seconds to wait for the executor beyond the time that the code may run.
        tls_config: TLS of the connection.
        retry_enabled: Whether to try again after a failure of the transport.
        retry_max_attempts: Tries in all.
        retry_backoff_base_ms: Milliseconds before the second try; doubled for each further one.
        retry_backoff_max_ms: Longest wait, in milliseconds.
        retry_status_codes: gRPC statuses after which to try again; by default UNAVAILABLE,
            DEADLINE_EXCEEDED and RESOURCE_EXHAUSTED.
        include_correlation_id: Whether a request without a correlation id is given one.
        correlation_id_prefix: What generated correlation ids begin with.
        registry: Where the tools are that code may call; by default where `codemode.tool` puts them.
        retry_jitter: Take a random part of each wait, so that many clients do not come back at once.
    """

    def __init__(
        self,
        executor_url: str,
        api_key: str,
        timeout: float = 35,
        tls_config: GrpcTlsConfig | None = None,
        retry_enabled: bool = True,
        retry_max_attempts: int = 3,
        retry_backoff_base_ms: int = 100,
        retry_backoff_max_ms: int = 5000,
        retry_status_codes: list[grpc.StatusCode] | None = None,
        include_correlation_id: bool = True,
        correlation_id_prefix: str = "cm",
        *,
        registry: ComponentRegistry | None = None,
        retry_jitter: bool = False,
    ) -> None:
        from codemode.wire.connection import Connection
        from codemode.wire.failures import RETRYABLE
        from codemode.wire.retry import RetryPolicy

        policy = RetryPolicy(
            max_attempts=retry_max_attempts if retry_enabled else 1,
            base_ms=retry_backoff_base_ms,
            max_ms=retry_backoff_max_ms,
            codes=RETRYABLE if retry_status_codes is None else tuple(retry_status_codes),
            jitter=retry_jitter,
        )
        self.executor_url = executor_url
        self.registry = registry
        self._connection = Connection(executor_url, api_key, timeout, tls_config, policy)
        self._include_correlation_id = include_correlation_id
        self._prefix = validate_correlation_prefix(correlation_id_prefix)
        self._closed = False
        self._closing = threading.Lock()

    # --- execution --------------------------------------------------------------------------------

    def execute(
        self,
        code: str,
        available_tools: Iterable[str] | None,
        config: Mapping[str, Any],
        execution_timeout: float = 30,
        context: RuntimeContext | None = None,
        correlation_id: str | None = None,
        *,
        session_id: str = "",
        limits: Mapping[str, float] | None = None,
        on_event: Callable[[ExecutionEvent], None] | None = None,
        on_input: OnInput | None = None,
        idempotent: bool = False,
    ) -> ExecutionResult:
        """Run code and wait for its outcome. Code that fails or runs too long gives ``success=False``.

        Args:
            code: Python code, with IPython's syntax.
            available_tools: Names of the tools it may call; None for all in the registry.
            config: What it reads as ``config``; JSON values.
            execution_timeout: Seconds it may run.
            context: What it reads as ``context``, and what its tools run under.
            correlation_id: For people and logs; generated if not given.
            session_id: Session to run it in; without one it gets a fresh interpreter.
            limits: Other limits, by their names, such as ``memory_bytes``.
            on_event: Called on this thread with every event as it happens.
            on_input: Asks a person when the code calls ``input()``.
            idempotent: Whether the code may run again when the executor died and it is unknown if it ran.

        Raises:
            ExecutorTimeoutError: The executor did not answer in time, after all retries.
            ExecutorConnectionError: It could not be reached, after all retries, or went away.
            ExecutorClientError: It refused the request, or this client is closed.
        """
        return self.begin(
            code, available_tools, config, execution_timeout, context, correlation_id,
            session_id=session_id, limits=limits, on_input=on_input, idempotent=idempotent,
        ).result(on_event)  # fmt: skip

    async def execute_async(
        self,
        code: str,
        available_tools: Iterable[str] | None,
        config: Mapping[str, Any],
        execution_timeout: float = 30,
        context: RuntimeContext | None = None,
        correlation_id: str | None = None,
        *,
        session_id: str = "",
        limits: Mapping[str, float] | None = None,
        on_event: Callable[[ExecutionEvent], None] | None = None,
        on_input: OnInput | None = None,
        idempotent: bool = False,
    ) -> ExecutionResult:
        """Run code without blocking the event loop; see `execute`. Cancelling it cancels the execution."""
        return await self.begin(
            code, available_tools, config, execution_timeout, context, correlation_id,
            session_id=session_id, limits=limits, on_input=on_input, idempotent=idempotent,
        ).result_async(on_event)  # fmt: skip

    def begin(
        self,
        code: str,
        available_tools: Iterable[str] | None,
        config: Mapping[str, Any],
        execution_timeout: float = 30,
        context: RuntimeContext | None = None,
        correlation_id: str | None = None,
        *,
        session_id: str = "",
        limits: Mapping[str, float] | None = None,
        on_input: OnInput | None = None,
        idempotent: bool = False,
        silent: bool = False,
    ) -> RunningExecution:
        """Prepare an execution that is followed by one of the methods of what this returns."""
        from codemode_proto.v1 import executor_pb2 as pb

        from codemode.core.running import RunningExecution
        from codemode.tools import default_registry
        from codemode.wire.host_tools import HostTools

        self._check_open()
        allowed = None if available_tools is None else frozenset(available_tools)
        start = pb.Start(
            execution_id=secrets.token_hex(16),
            correlation_id=self._correlation_id(correlation_id),
            code=_text(code, "code"),
            session_id=session_id,
            context=context_to_proto(context),
            config_json=_json(config, "config"),
            limits=limits_to_proto(limits, execution_timeout),
            tools=pb.ToolPolicy(all_registered=allowed is None, allowed=sorted(allowed or ())),
            allow_input=on_input is not None,
            silent=silent,
        )
        registry = self.registry if self.registry is not None else default_registry()
        tools = HostTools(registry, allowed, context, self._connection, start.correlation_id)
        return RunningExecution(self._connection, start, tools, on_input, idempotent)

    def _correlation_id(self, given: str | None) -> str:
        if given is not None:
            return given
        return generate_correlation_id(self._prefix) if self._include_correlation_id else ""

    def _check_open(self) -> None:
        if self._closed:
            raise ExecutorClientError("this client is closed; make a new one")

    # --- health -----------------------------------------------------------------------------------

    def health_check(self) -> bool:
        """Whether the executor answers and says that it serves."""
        from codemode.wire.checks import is_healthy
        from codemode.wire.loop import run

        return not self._closed and run(is_healthy(self._connection))

    def ready_check(self) -> bool:
        """Whether the executor can run code that calls back a tool of this process; it really does so."""
        from codemode.wire.checks import is_ready
        from codemode.wire.loop import run

        return not self._closed and run(is_ready(self._connection)) and self._calls_back()

    def _calls_back(self) -> bool:
        from codemode.core.registry import ComponentRegistry

        proof = secrets.token_hex(8)
        registry = ComponentRegistry()
        registry.register_tool("ready", lambda: proof)
        probe = ExecutorClient.__new__(ExecutorClient)
        probe.__dict__.update(self.__dict__, registry=registry)
        try:
            answer = probe.execute("result = tools.ready()", ["ready"], {}, execution_timeout=10)
        except ExecutorClientError:
            return False
        return answer.success and answer.result == proof

    # --- life -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection; calling it again does nothing."""
        from codemode.wire.loop import run

        if self._mark_closed():
            run(self._connection.close())

    async def close_async(self) -> None:
        """Close the connection without blocking; calling it again does nothing."""
        from codemode.wire.loop import run_async

        if self._mark_closed():
            await run_async(self._connection.close())

    def _mark_closed(self) -> bool:
        with self._closing:
            was_open, self._closed = not self._closed, True
        return was_open

    def __enter__(self) -> Self:
        """Return the client; it is closed when the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the client; it is closed when the block ends."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close_async()


def context_to_proto(context: RuntimeContext | None) -> pb.Context:
    """The context as the wire carries it. Raises ContextVariableError for what JSON cannot carry."""
    from codemode_proto.v1 import executor_pb2 as pb

    return pb.Context(variables_json=context.to_json() if context is not None else "")


def limits_to_proto(limits: Mapping[str, float] | None, execution_timeout: float | None) -> pb.Limits:
    """Limits as the wire carries them. Raises LimitExceededError for a name that is no limit."""
    from codemode_proto.v1 import executor_pb2 as pb

    message = pb.Limits()
    if execution_timeout is not None:
        message.timeout_seconds = execution_timeout
    for name, value in (limits or {}).items():
        if name not in pb.Limits.DESCRIPTOR.fields_by_name:
            known = ", ".join(pb.Limits.DESCRIPTOR.fields_by_name)
            raise LimitExceededError(f"limits: there is no limit {name!r}; there are {known}", limit=name)
        try:
            setattr(message, name, value)
        except (TypeError, ValueError) as error:
            raise LimitExceededError(
                f"limits.{name}: {value!r} is not a value for it ({error})", limit=name
            ) from None
    return message


def _text(value: str, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    # A lone surrogate has no UTF-8; it would only be an error on the way.
    return value.encode("utf-8", "replace").decode()


def _json(value: Mapping[str, Any], name: str) -> str:
    import json

    try:
        return json.dumps(dict(value)) if value else ""
    except (TypeError, ValueError, RecursionError) as error:
        raise LimitExceededError(
            f"{name}: it holds a value that JSON cannot carry ({error})", limit=name
        ) from None
