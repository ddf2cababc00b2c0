"""A session: an interpreter in a sandbox that keeps its variables between executions."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from codemode.core.executor_client import ExecutorClient, context_to_proto, limits_to_proto
from codemode.core.registry import RuntimeContext
from codemode.errors import SessionLostError
from codemode.events import ExecutionEvent
from codemode.results import ExecutionResult
from codemode.wire import files, requests
from codemode.wire.loop import run, run_async

if TYPE_CHECKING:
    from codemode.core.running import OnInput, RunningExecution


class Session:
    """One session. Opened at its first use, or by `open`; closed by `close` or at the end of a ``with``.

    Args:
        client: The client of the executor it is at.
        context: The context it runs under. Its isolation keys cannot change while the session lives.
        limits: Limits of the sandbox and of every execution, by name.
        execution_timeout: Seconds one execution may run, where it does not say otherwise.
    """

    def __init__(
        self,
        client: ExecutorClient,
        context: RuntimeContext | None = None,
        limits: Mapping[str, float] | None = None,
        execution_timeout: float = 30,
    ) -> None:
        self._client = client
        self._connection = client._connection
        self.context = context
        self._limits = dict(limits or {})
        self._execution_timeout = execution_timeout
        self._opened = False
        self._lost = ""
        self.session_id = secrets.token_hex(16)

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and neither closed nor lost since."""
        return self._opened and not self._lost

    def open(self) -> Self:
        """Open it now; otherwise its first execution does."""
        self._check()
        if not self._opened:
            run(self._open())
        return self

    async def open_async(self) -> Self:
        """The same without blocking."""
        self._check()
        if not self._opened:
            await run_async(self._open())
        return self

    async def _open(self) -> None:
        await requests.open_session(
            self._connection,
            self.session_id,
            context_to_proto(self.context),
            limits_to_proto(self._limits, self._execution_timeout),
        )
        self._opened = True

    def _check(self) -> None:
        if self._lost:
            raise SessionLostError(self._lost, session_id=self.session_id)

    # --- code -------------------------------------------------------------------------------------

    def run(
        self,
        code: str,
        *,
        tools: Iterable[str] | None = None,
        config: Mapping[str, Any] | None = None,
        execution_timeout: float | None = None,
        context: RuntimeContext | None = None,
        correlation_id: str | None = None,
        on_event: Callable[[ExecutionEvent], None] | None = None,
        on_input: OnInput | None = None,
        silent: bool = False,
    ) -> ExecutionResult:
        """Run code in the session and return its whole outcome; code that fails does not raise.

        Args:
            code: Python code, with IPython's syntax.
            tools: Names of the tools it may call; None for all that are registered.
            config: What it reads as ``config``.
            execution_timeout: Seconds it may run; by default the session's.
            context: Replaces the session's context; its isolation keys must have the same values.
            correlation_id: For people and logs.
            on_event: Called with every event as it happens.
            on_input: Asks a person when the code calls ``input()``.
            silent: Whether to leave it out of the session's history and count.

        Raises:
            SessionLostError: The session is gone.
            OwnerChangedError: An isolation key has another value than when the session was opened.
        """
        self.open()
        running = self._begin(
            code, tools, config, execution_timeout, context, correlation_id, on_input, silent
        )
        return self._remember(running.result(on_event))

    async def run_async(
        self,
        code: str,
        *,
        tools: Iterable[str] | None = None,
        config: Mapping[str, Any] | None = None,
        execution_timeout: float | None = None,
        context: RuntimeContext | None = None,
        correlation_id: str | None = None,
        on_event: Callable[[ExecutionEvent], None] | None = None,
        on_input: OnInput | None = None,
        silent: bool = False,
    ) -> ExecutionResult:
        """The same without blocking; see `run`."""
        await self.open_async()
        running = self._begin(
            code, tools, config, execution_timeout, context, correlation_id, on_input, silent
        )
        return self._remember(await running.result_async(on_event))

    def execute(self, code: str, execution_timeout: float | None = None) -> str:
        """Run code and return ``str(result)``; raises as `Codemode.execute` does."""
        return self.run(code, execution_timeout=execution_timeout).raise_for_error().result

    async def execute_async(self, code: str, execution_timeout: float | None = None) -> str:
        """The same without blocking."""
        return (await self.run_async(code, execution_timeout=execution_timeout)).raise_for_error().result

    def _begin(
        self,
        code: str,
        tools: Iterable[str] | None,
        config: Mapping[str, Any] | None,
        execution_timeout: float | None,
        context: RuntimeContext | None,
        correlation_id: str | None,
        on_input: OnInput | None,
        silent: bool,
    ) -> RunningExecution:
        return self._client.begin(
            code,
            tools,
            config or {},
            self._execution_timeout if execution_timeout is None else execution_timeout,
            self.context if context is None else context,
            correlation_id,
            session_id=self.session_id,
            limits=self._limits,
            on_input=on_input,
            silent=silent,
        )

    def _remember(self, result: ExecutionResult) -> ExecutionResult:
        if result.session_state == "lost":
            reason = result.error_details.message if result.error_details is not None else "it ended"
            self._lost = f"the session is gone: {reason}; open a new one and run its code again"
        return result

    # --- help while typing --------------------------------------------------------------------------

    def complete(self, code: str, cursor: int | None = None) -> list[str]:
        """What could stand at the cursor (by default the end of `code`), given the session's variables."""
        self.open()
        answer = run(
            requests.complete(self._connection, self.session_id, context_to_proto(self.context), code, cursor)
        )
        return [match.text for match in answer.matches]

    # --- files --------------------------------------------------------------------------------------

    def put_file(self, source: str | Path, target: str | None = None) -> str:
        """Bring a file into the working directory.

        Args:
            source: Path of the file here.
            target: Path there, relative to the working directory; by default the file's name.

        Returns:
            The path there.

        Raises:
            LimitExceededError: It does not fit, or the path leads out of the working directory.
        """
        path = Path(source)
        name = target or path.name
        self.open()
        run(files.put(self._connection, self.session_id, context_to_proto(self.context), path, name))
        return name

    def get_file(self, source: str, target: str | Path | None = None) -> Path:
        """Bring a file of the working directory out.

        Args:
            source: Path there, relative to the working directory.
            target: Path here; by default the file's name in the current directory.

        Returns:
            The path here.
        """
        path = Path(target) if target is not None else Path(Path(source).name)
        self.open()
        run(files.get(self._connection, self.session_id, context_to_proto(self.context), source, path))
        return path

    # --- life ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close it: what runs in it is killed and its files are gone. Calling it again does nothing."""
        if self._opened and not self._lost:
            run(self._close())
        self._lost = self._lost or "the session was closed; open a new one"

    async def close_async(self) -> None:
        """The same without blocking."""
        if self._opened and not self._lost:
            await run_async(self._close())
        self._lost = self._lost or "the session was closed; open a new one"

    async def _close(self) -> None:
        await requests.close_session(self._connection, self.session_id, context_to_proto(self.context))

    def __enter__(self) -> Self:
        """Open it; it is closed when the block ends."""
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Open it; it is closed when the block ends."""
        return await self.open_async()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close_async()


__all__ = ["Session"]
