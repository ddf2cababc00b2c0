"""The main entry point: configuration, components and executor behind one object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from codemode.core.executor_client import ExecutorClient
from codemode.core.registry import ComponentRegistry, RuntimeContext
from codemode.events import ExecutionEvent
from codemode.results import ExecutionResult

if TYPE_CHECKING:
    from codemode.config import ClientConfig, CodemodeConfig
    from codemode.core.running import OnInput
    from codemode.core.session import Session
    from codemode.local import LocalExecutor


class Codemode:
    """Runs code in the sandboxes of an executor, with the tools of a registry.

    Args:
        config: Legacy configuration; not together with `client_config`.
        registry: Components and context; a new one if not given.
        client_config: Configuration of the client.
        executor_client: A client that exists already; otherwise one is made from the configuration.

    Raises:
        ValueError: Neither `config` nor `client_config` is given, or both are.
    """

    def __init__(
        self,
        config: CodemodeConfig | None = None,
        registry: ComponentRegistry | None = None,
        client_config: ClientConfig | None = None,
        executor_client: ExecutorClient | None = None,
    ) -> None:
        if config is None and client_config is None:
            raise ValueError("give config or client_config; Codemode.local() starts an executor of its own")
        if config is not None and client_config is not None:
            raise ValueError("give config or client_config, not both")
        self.config = config
        self.client_config = client_config or _from_legacy(config)
        self.registry = registry if registry is not None else ComponentRegistry()
        self.executor_client = executor_client or _make_client(self.client_config, self.registry)
        if self.executor_client.registry is None:
            self.executor_client.registry = self.registry
        self.local_executor: LocalExecutor | None = None

    @classmethod
    def from_client_config(
        cls,
        config: ClientConfig | None = None,
        registry: ComponentRegistry | None = None,
        config_path: str | Path | None = None,
    ) -> Self:
        """Make an instance from a configuration, a `codemode-client.yaml`, or the environment.

        Raises:
            ValueError: Nothing is given and environment variables are missing; the message names them.
        """
        from codemode.config import ClientConfig, load_client_config

        if config is None:
            config = load_client_config(config_path) if config_path is not None else ClientConfig.from_env()
        return cls(client_config=config, registry=registry)

    @classmethod
    def from_env(cls, registry: ComponentRegistry | None = None) -> Self:
        """Make an instance from `CODEMODE_EXECUTOR_URL` and `CODEMODE_EXECUTOR_API_KEY`."""
        return cls.from_client_config(registry=registry)

    @classmethod
    def from_config(cls, config_path: str | Path, registry: ComponentRegistry | None = None) -> Self:
        """Make an instance from a legacy `codemode.yaml`.

        Raises:
            FileNotFoundError: There is no such file.
            ConfigLoadError: It is not valid.
        """
        from codemode.config import load_config

        return cls(config=load_config(config_path), registry=registry)

    @classmethod
    def local(
        cls,
        registry: ComponentRegistry | None = None,
        *,
        backend: str = "auto",
        execution_timeout: float = 30,
        **options: object,
    ) -> Self:
        """Start an executor as a child process on a private socket; it ends with this instance or process.

        Args:
            registry: Components and context.
            backend: ``auto`` (Docker if it answers, else bubblewrap), ``docker`` or ``bubblewrap``.
            execution_timeout: Seconds a piece of code may run.
            **options: Further options of `codemode-executor serve`, such as ``warm=4``.

        Raises:
            ExecutorConnectionError: It did not start; the message says why and what to do.
        """
        from codemode.config import ClientConfig
        from codemode.local import LocalExecutor

        executor = LocalExecutor(backend, **options)
        instance = cls(
            client_config=ClientConfig(
                executor_url=executor.url,
                executor_api_key=executor.api_key,
                execution_timeout=execution_timeout,
            ),
            registry=registry,
        )
        instance.local_executor = executor
        return instance

    # --- execution --------------------------------------------------------------------------------

    def execute(self, code: str, execution_timeout: float | None = None) -> str:
        """Run code in a fresh interpreter and return ``str(result)``.

        Args:
            code: Python code, with IPython's syntax; it may call every registered tool.
            execution_timeout: Seconds it may run; the configuration's if None.

        Returns:
            ``str()`` of its variable ``result``, else of its last expression's value, else "".

        Raises:
            ExecutorTimeoutError: It ran too long, or the executor did not answer in time.
            ExecutorClientError: It failed (`ExecutionFailedError`, with the sandbox's traceback), or
                the executor could not be reached or refused.
        """
        return self.run(code, execution_timeout=execution_timeout).raise_for_error().result

    async def execute_async(self, code: str, execution_timeout: float | None = None) -> str:
        """The same without blocking the event loop; see `execute`."""
        return (await self.run_async(code, execution_timeout=execution_timeout)).raise_for_error().result

    def run(
        self,
        code: str,
        *,
        tools: Iterable[str] | None = None,
        config: Mapping[str, Any] | None = None,
        execution_timeout: float | None = None,
        correlation_id: str | None = None,
        limits: Mapping[str, float] | None = None,
        on_event: Callable[[ExecutionEvent], None] | None = None,
        on_input: OnInput | None = None,
        idempotent: bool = False,
    ) -> ExecutionResult:
        """Run code in a fresh interpreter and return its whole outcome; code that fails does not raise.

        Args:
            code: Python code, with IPython's syntax.
            tools: Names of the tools it may call; None for all that are registered.
            config: What it reads as ``config``.
            execution_timeout: Seconds it may run; the configuration's if None.
            correlation_id: For people and logs; generated if not given.
            limits: Other limits, by name, such as ``{"memory_bytes": 1 << 30}``.
            on_event: Called on this thread with every event as it happens.
            on_input: Asks a person when the code calls ``input()``.
            idempotent: Whether the code may run again when the executor died and it is unknown if it ran.
        """
        self._check_length(code)
        return self.executor_client.execute(
            code, tools, config or {}, self._timeout(execution_timeout), self.registry.get_context(),
            correlation_id, limits=limits, on_event=on_event, on_input=on_input, idempotent=idempotent,
        )  # fmt: skip

    async def run_async(
        self,
        code: str,
        *,
        tools: Iterable[str] | None = None,
        config: Mapping[str, Any] | None = None,
        execution_timeout: float | None = None,
        correlation_id: str | None = None,
        limits: Mapping[str, float] | None = None,
        on_event: Callable[[ExecutionEvent], None] | None = None,
        on_input: OnInput | None = None,
        idempotent: bool = False,
    ) -> ExecutionResult:
        """The same without blocking the event loop; see `run`."""
        self._check_length(code)
        return await self.executor_client.execute_async(
            code, tools, config or {}, self._timeout(execution_timeout), self.registry.get_context(),
            correlation_id, limits=limits, on_event=on_event, on_input=on_input, idempotent=idempotent,
        )  # fmt: skip

    async def events(
        self,
        code: str,
        *,
        tools: Iterable[str] | None = None,
        execution_timeout: float | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> AsyncIterator[ExecutionEvent]:
        """Run code in a fresh interpreter and yield its events as they happen, `Finished` last."""
        self._check_length(code)
        running = self.executor_client.begin(
            code, tools, {}, self._timeout(execution_timeout), self.registry.get_context(), limits=limits
        )
        async for event in running.events_async():
            yield event

    def session(
        self, *, limits: Mapping[str, float] | None = None, execution_timeout: float | None = None
    ) -> Session:
        """A session under the current context; ``with codemode.session() as session: session.run(...)``."""
        from codemode.core.session import Session

        return Session(
            self.executor_client, self.registry.get_context(), limits, self._timeout(execution_timeout)
        )

    def _timeout(self, given: float | None) -> float:
        return self.client_config.execution_timeout if given is None else given

    def _check_length(self, code: str) -> None:
        from codemode.errors import LimitExceededError

        limit = self.client_config.max_code_length
        if len(code) > limit:
            raise LimitExceededError(
                f"code: {len(code):,} characters are above max_code_length={limit:,}; "
                "put data in files or tools",
                limit="max_code_length",
            )

    # --- components and context -------------------------------------------------------------------

    def with_context(self, **variables: Any) -> Self:
        """Set the runtime context of the current task or thread; returns this instance for chaining."""
        self.registry.set_context(RuntimeContext(variables=variables))
        return self

    def as_crewai_tool(self) -> Any:
        """This instance as a tool of CrewAI.

        Raises:
            ImportError: CrewAI is not installed, or this version has no integration for it yet.
        """
        raise ImportError(
            "the CrewAI integration is not part of this version; "
            "call Codemode.execute_async from a tool of your own"
        )

    # --- life -------------------------------------------------------------------------------------

    def health_check(self) -> bool:
        """Whether the executor answers."""
        return self.executor_client.health_check()

    def ready_check(self) -> bool:
        """Whether the executor can run code that calls back a tool of this process; it really does so."""
        return self.executor_client.ready_check()

    def close(self) -> None:
        """Close the connection, and stop the executor if this instance started it."""
        self.executor_client.close()
        if self.local_executor is not None:
            self.local_executor.close()

    async def close_async(self) -> None:
        """The same without blocking the event loop."""
        import asyncio

        await self.executor_client.close_async()
        if self.local_executor is not None:
            await asyncio.to_thread(self.local_executor.close)

    def __enter__(self) -> Self:
        """Return the instance; it is closed when the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the instance; it is closed when the block ends."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close_async()


def _from_legacy(config: CodemodeConfig | None) -> ClientConfig:
    assert config is not None
    return config.to_client_config()


def _make_client(config: ClientConfig, registry: ComponentRegistry) -> ExecutorClient:
    return ExecutorClient(
        executor_url=config.executor_url,
        api_key=str(config.executor_api_key),
        timeout=config.executor_timeout,
        tls_config=config.tls,
        retry_enabled=config.retry_enabled,
        retry_max_attempts=config.retry_max_attempts,
        retry_backoff_base_ms=config.retry_backoff_base_ms,
        retry_backoff_max_ms=config.retry_backoff_max_ms,
        include_correlation_id=config.include_correlation_id,
        correlation_id_prefix=config.correlation_id_prefix,
        registry=registry,
        retry_jitter=config.retry_jitter,
    )
